"""Experiment 4: what its runs train on and how, what counts as learned, and what it says."""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F
from project import Project, one_line
from test_summary import record

import canvas
import data
import exp1_lr
import exp4_overfit
import experiment
import figures
import models
import summary as summaries
import train
from page import learned, sentences
from runs import Run, check
from summary import compare, first_epoch, overfits_after, stage, summarise


def train_one(run: Run, dataset, store, report=lambda *_: None) -> dict:
    train.train([run], dataset, store, report)
    return store.load_result(run)


def test_a_few_images_are_the_first_of_the_split_and_validated_on():
    for split in ("standard", "halves", "swapped halves"):
        whole, _ = data.split_indices(split, 50_000)
        few, validated = data.split_indices(split, 50_000, 64)
        assert few.tolist() == validated.tolist() == whole[:64].tolist()
        assert data.split_sizes("cifar10", split, 64) == (64, 64)
    # never more than the split has
    whole, _ = data.split_indices("standard", 1_500)
    assert data.split_indices("standard", 1_500, 9_999)[0].tolist() == whole.tolist()
    assert data.split_sizes("digits", "standard", 9_999) == (1_350, 1_350)


def test_a_run_on_a_few_images_validates_on_those_in_evaluation_mode(a_run, digits, store):
    run = a_run(network="DropoutNet", dropout_rate=0.6, epochs=3, batch_size=4, overfit_images=7)
    training = train.Training(run, digits, store)
    few = data.split_indices("standard", 1_500)[0][:7]
    assert training.train_indices.tolist() == training.val_indices.tolist() == few.tolist()
    result = train_one(run, digits, store)
    network = models.DropoutNet(0.6).eval()
    network.load_state_dict(store.load_weights(run))
    with torch.no_grad():
        logits = network(data.normalise(digits.images[few])).double()
    expected = F.cross_entropy(logits, digits.labels[few]).item()
    assert result["val_loss"][-1] == pytest.approx(expected, rel=1e-6)
    hits = (logits.argmax(1) == digits.labels[few]).double().mean().item()
    assert result["val_accuracy"][-1] == pytest.approx(hits)
    assert result["val_loss"][-1] != pytest.approx(result["train_loss"][-1], rel=1e-3)


@pytest.mark.parametrize(("images", "steps"), [(1, 1), (64, 1), (65, 2)])
def test_an_epoch_of_one_image_or_one_batch_is_one_step(images, steps, a_run, digits, store):
    run = a_run(epochs=3, batch_size=min(images, 64), overfit_images=images)
    assert train.Training(run, digits, store).steps_per_epoch == steps
    reports, seen = [], []
    step = torch.optim.SGD.step

    def counted(optimizer, *args, **kwargs):
        seen.append(1)
        return step(optimizer, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", counted)
        train_one(run, digits, store, lambda _, done: reports.append(done))
    assert len(seen) == 3 * steps
    assert len(reports) == 1 + 3 * steps


def test_one_image_of_cifar10_is_learned_by_heart(a_run, cifar10, store):
    run = dataclasses.replace(exp4_overfit.first_runs()["one image"][0], epochs=60)
    result = train_one(run, cifar10, store)
    found = stage("one image", [result], 1.0, exp4_overfit.NEAR_ZERO_LOSS)
    assert not found["could_not"]
    assert 1 < found["steps"][0] < 60
    assert result["val_loss"][-1] < 0.01


def test_weight_decay_by_hand(a_run, digits, store):
    """After one step from the same weights: w - lr (g + decay w), biases included."""
    plain, decayed = (a_run(epochs=1, overfit_images=64, weight_decay=decay) for decay in (0, 0.2))
    initial = train.build(plain, store)
    few = data.split_indices("standard", 1_500)[0][:64]
    loss = F.cross_entropy(initial(data.normalise(digits.images[few])), digits.labels[few])
    loss.backward()
    for run, decay in ((plain, 0.0), (decayed, 0.2)):
        train_one(run, digits, store)
        after = store.load_weights(run)
        for name, before in initial.named_parameters():
            expected = before - 0.05 * (before.grad + decay * before)
            assert torch.allclose(after[name], expected, atol=1e-7), name
    # a weight of 1 would lose 0.05 · 0.2 = 0.01
    for name, before in initial.named_parameters():
        shrunk = store.load_weights(plain)[name] - store.load_weights(decayed)[name]
        assert torch.allclose(shrunk, 0.01 * before, atol=1e-7), name


# at width w: conv 28 w, 18 w² + 2 w, 72 w² + 4 w; dense 256 w² + 4 w, 40 w + 10; batch norm 22 w
@pytest.mark.parametrize(
    ("network", "width", "count"),
    [
        ("BaselineNet", 8, 224 + 1_168 + 4_640 + 16_416 + 330),
        ("BaselineNet", 16, 448 + 4_640 + 18_496 + 65_600 + 650),
        ("BaselineNet", 1, 28 + 20 + 76 + 260 + 50),
        ("DropoutNet", 8, 22_778),
        ("BatchNormNet", 8, 22_778 + 176),
    ],
)
def test_parameters_by_width(network, width, count, a_run, store):
    built = train.build(a_run(network=network, width=width), store)
    assert sum(weights.numel() for weights in built.parameters()) == count
    assert built(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_only_training_images_are_augmented(a_run, digits, store, monkeypatch):
    seen = []
    augment = data.augment
    monkeypatch.setattr(data, "augment", lambda *args: seen.append(len(args[0])) or augment(*args))
    train_one(a_run(epochs=1, augmentation=("flip", "crop")), digits, store)
    assert sum(seen) == 1_350  # each training image once, and no other
    seen.clear()
    train_one(a_run(epochs=1), digits, store)
    assert not seen


@pytest.mark.parametrize(("kinds", "flips", "shifts"), [(("flip",), 1, 0), (("crop",), 0, 1)])
def test_each_augmentation_acts_alone(kinds, flips, shifts, a_run):
    draws = train.draw(a_run(augmentation=kinds), 0, 500, 0)
    both = train.draw(a_run(augmentation=("flip", "crop")), 0, 500, 0)
    assert torch.equal(draws.flip, both.flip * bool(flips))
    assert torch.equal(draws.shift, both.shift * shifts)
    assert both.flip.any()
    assert both.shift.any()


# the first epoch with a loss below 0.01 and full accuracy, by hand
@pytest.mark.parametrize(
    ("losses", "accuracies", "epoch"),
    [
        ([2.0, 0.009, 0.001], [0.0, 1.0, 1.0], 2),
        ([0.001, 0.01, 0.02, 0.009], [0.98, 1.0, 1.0, 1.0], 4),  # both at once, and strictly below
        ([0.009, 5.0], [1.0, 0.0], 1),  # that it is lost again is another matter
        ([2.0, 1.0], [0.5, 1.0], None),
        ([2.0, None], [0.5, None], None),
        ([0.001, None], [1.0, None], 1),
        ([None, None], [None, None], None),
    ],
)
def test_the_first_epoch_that_reaches_a_goal(losses, accuracies, epoch):
    assert first_epoch(accuracies, losses, 1.0, 0.01) == epoch


def test_without_a_loss_accuracy_alone_counts():
    assert first_epoch([0.5, 0.89, 0.9, 0.95], [9.0, 9.0, 9.0, 9.0], 0.9, None) == 3


def by_heart(seed, val_loss, images=64, **changes):
    run = {"network": "BaselineNet", "seed": seed, "learning_rate": 0.05, "epochs": 3}
    run |= {"batch_size": images, "split": "standard", "overfit_images": images}
    curves = {"val_loss": val_loss, "val_accuracy": [0.5, 1.0, 1.0], "train_loss": [9.0] * 3}
    return record(seed, 1.0, run=run, **(curves | {"train_accuracy": [0.1, 0.2, 1.0]} | changes))


def test_steps_to_learn_by_hand():
    found = stage("one batch", [by_heart(4, [2, 0.1, 0.001]), by_heart(7, [2, 1, 0.5])], 1.0, 0.01)
    assert found["steps"] == [3, None]  # a step an epoch, whatever the training curves say
    assert found["seeds"] == [4, 7]
    assert found["could_not"] == [7]
    assert found["most_steps"] == 3
    assert found["by_heart"] is True
    # 45,000 images in batches of 64 are 704 steps; the training curves count
    run = {"network": "BaselineNet", "seed": 1, "learning_rate": 0.05, "epochs": 2}
    run |= {"batch_size": 64, "split": "standard"}
    whole = [record(1, 0.6, train=0.9, run=run), record(2, 0.99, train=0.89, run=run)]
    found = stage("baseline", [*whole, record(3, 0.6, diverged_at=1, run=run)], 0.9)
    assert found["steps"] == [1_408, None, None]
    assert found["most_steps"] == 1_408
    assert found["train_accuracy"]["mean"] == pytest.approx(0.895)
    assert found["by_heart"] is False


def test_where_validation_loss_is_lowest():
    assert overfits_after([2.0, 1.0, 1.5]) == 2
    assert overfits_after([1.0, 1.0]) == 1
    assert overfits_after([1.0, 0.5, None]) == 2
    assert overfits_after([2.0, 1.5, 1.0]) is None  # and may fall further
    assert overfits_after([None, None]) is None


def test_gaps_are_compared_by_seed_too():
    one = [record(1, 0.6, train=0.7), record(2, 0.5, train=0.8), record(3, 0.6, diverged_at=0)]
    other = [record(2, 0.5, train=0.9), record(1, 0.6, train=0.9), record(3, 0.6)]
    gap = compare("a", one, "b", other)["gap"]  # 0.1 - 0.3 and 0.3 - 0.4
    assert gap["mean"] == pytest.approx(-0.15)
    assert gap["ci95"] == pytest.approx(12.7062 * 0.05, rel=1e-4)


def test_experiment_4():
    first, groups = exp4_overfit.first_runs(), exp4_overfit.runs()
    assert [(run.overfit_images, run.batch_size) for run, *_ in first.values()] == [
        (1, 1),
        (64, 64),
    ]
    assert list(first) == ["one image", "one batch"]
    labels = [*("baseline", "dropout=0.4", "weight decay=0.0001", "weight decay=0.001")]
    labels += ["weight decay=0.01", "augmentation", "width=8", "combined"]
    assert list(groups) == labels
    differing = [
        *({}, {"network": "DropoutNet", "dropout_rate": 0.4}, {"weight_decay": 0.0001}),
        *({"weight_decay": 0.001}, {"weight_decay": 0.01}, {"augmentation": ("flip", "crop")}),
        *({"width": 8},),
        {
            "network": "DropoutNet",
            "dropout_rate": 0.4,
            "weight_decay": 0.001,
            "augmentation": ("flip", "crop"),
        },
    ]
    baseline = exp1_lr.runs()["lr=0.05"]  # the same runs, trained once
    for group, fields in zip(groups.values(), differing, strict=True):
        assert group == [dataclasses.replace(run, **fields) for run in baseline]
    for group in first.values():
        assert [run.seed for run in group] == [1, 2, 3, 4, 5]
        assert {(run.network, run.learning_rate, run.epochs) for run in group} == {
            ("BaselineNet", 0.05, 600)
        }


def test_a_rehearsal_leaves_a_few_images_enough_steps():
    rehearsed = experiment.rehearsal(exp4_overfit.first_runs() | exp4_overfit.runs())
    assert {run.epochs for label in ("one image", "one batch") for run in rehearsed[label]} == {250}
    assert {run.epochs for run in rehearsed["width=8"]} == {experiment.QUICK_EPOCHS}
    assert rehearsed["one batch"][0].overfit_images == 64


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        ("OVERFIT_STEPS", 0),
        ("NEAR_ZERO_LOSS", 0),
        ("MOST_OF_THE_SPLIT", 1),
        ("WEIGHT_DECAYS", [0.1, -0.1]),
        ("COMBINED_WEIGHT_DECAY", -1),
        ("WIDTH", 0),
        ("RANGE_MARGIN", -0.1),
    ],
)
def test_its_constants_are_checked(constant, value):
    with pytest.raises(experiment.UserError, match=f"^{constant}"):
        check(constant, value)


@pytest.fixture
def summary():
    """Two seeds: one image learned, one batch not from seed 2, a baseline and one strategy."""

    def whole(seed, val, train, val_loss, **fields):
        run = {"network": "BaselineNet", "seed": seed, "learning_rate": 0.05, "epochs": 3}
        run |= {"batch_size": 64, "split": "standard"} | fields
        curves = {"val_loss": val_loss, "train_loss": [2.0, 1.0, 0.5]}
        # by its final weights it knows more of what it has seen than while it was learning
        curves |= {"train_accuracy": [0.5, 0.6, train], "val_accuracy": [0.4, 0.5, val]}
        return record(seed, val, test=val, train=train + 0.01, run=run, **curves)

    first = {
        "one image": [by_heart(seed, [2, 0.1 * seed**9, 0.001], images=1) for seed in (1, 2)],
        "one batch": [by_heart(1, [2, 0.001, 0.001]), by_heart(2, [2, 1, 1])],
    }
    records = {
        "baseline": [whole(1, 0.6, 0.95, [1.5, 1, 2]), whole(2, 0.62, 0.97, [1.5, 1, 3])],
        "augmentation": [
            whole(
                seed, 0.6 + 0.05 * seed, 0.65 + 0.06 * seed, [1.5, 1.2, 1.1], augmentation=["flip"]
            )
            for seed in (1, 2)
        ],
    }
    stages = [stage(label, first[label], 1.0, 0.01) for label in first]
    pair = ("augmentation", records["augmentation"], "baseline", records["baseline"])
    return summarise(
        *("exp4_overfit", "Question?\n\nMethod.", {"SMOOTHING_WINDOW": 3}, first | records),
        candidates=list(records),
    ) | {
        "learning": [*stages, stage("baseline", records["baseline"], 0.96)],
        "comparisons": [compare(*pair)],
    }


def test_what_cannot_learn_is_said_unmistakably(summary):
    image, batch, split = (learned(found) for found in summary["learning"])
    assert image == (
        "Learned by heart, one image: a loss below 0.01 with 100% accuracy is reached by 2 of 2 "
        "seeds, after 3 to 3 steps (mean 3.0)."
    )
    assert batch.startswith(
        "**COULD NOT LEARN ONE BATCH**, from seed 2: a loss below 0.01 with 100% accuracy in 3 "
        "steps is reached by 1 of 2 seeds, after 2 to 2 steps (mean 2.0). "
    )
    assert "learning rate" in batch
    assert split == (
        "**COULD NOT LEARN THE WHOLE SPLIT (BASELINE)**, from seed 1: 96% training accuracy in "
        "2,112 steps is reached by 1 of 2 seeds, after 2,112 to 2,112 steps (mean 2,112.0); after "
        "2,112 steps it is 96.00% (standard deviation 1.41, 95% interval of the mean ± 12.71). "
        + batch.split(" (mean 2.0). ")[1]
    )
    sound = summary["learning"][2] | {"could_not": [], "steps": [1_408, 2_112]}
    assert learned(sound).startswith(
        "The whole split (baseline): 96% training accuracy is reached by 2 of 2 seeds, after 1,408 "
    )
    assert sentences(summary)[:3] == [image, batch, split]
    none = summary["learning"][1] | {"steps": [None, None], "could_not": [1, 2]}
    assert "from seeds 1 and 2: " in learned(none)
    assert "reached by 0 of 2 seeds. " in learned(none)


def test_what_is_learned_by_heart_is_not_ranked(summary):
    assert summary["best"] == "augmentation"
    assert summary["candidates"] == ["baseline", "augmentation"]
    told = sentences(summary)
    assert any(line.startswith("Among baseline and augmentation, **augm") for line in told)
    assert "the generalisation gap is widest for baseline" in " ".join(told)
    rows = {row["setting"]: row for row in summaries.table_rows(summary)}
    assert rows["one batch"]["gap_mean"] is None
    assert rows["baseline"]["gap_mean"] == pytest.approx(0.36)
    notes = summaries.notes(summary)
    assert "one image and one batch: validated on the images trained on" in notes
    many = summary | {"candidates": ["baseline", "augmentation", "c", "d"]}
    many["groups"] = [
        *summary["groups"],
        *({**summary["groups"][2], "label": label} for label in "cd"),
    ]
    assert any(
        line.startswith("Among all but one image and one batch, ") for line in sentences(many)
    )


def test_the_page_says_when_overfitting_begins_and_what_closes_the_gap(summary):
    parting, falling, closing = sentences(summary)[-3:]
    assert parting == (
        "Training and validation part where mean validation loss is lowest, after this epoch of "
        "3: baseline 2 (single seeds 2 to 2)."
    )
    assert falling == (
        "Mean validation loss is lowest after the last of 3 epochs, so that nothing has parted "
        "yet: augmentation."
    )
    # gaps 0.07 and 0.08 against 0.36 twice: -29 and -28 points
    assert closing == (
        "Change of the generalisation gap against baseline, in points, paired by seed: "
        "augmentation −28.50 (−34.85 to −22.15)."
    )


def test_a_table_names_parameters_where_they_are_known(summary):
    assert "parameters" not in summaries.table(summary)
    for group in summary["groups"]:
        group["parameters"] = 22_778
    assert "22,778" in summaries.table(summary)
    assert summaries.table_rows(summary)[0]["parameters"] == 22_778


def test_the_figure_of_learning_shows_goals_steps_and_failure(summary):
    figure = figures.figures(summary)["learning"]()
    assert figure.get_suptitle() == (
        "COULD NOT LEARN ONE BATCH; COULD NOT LEARN THE WHOLE SPLIT (BASELINE)"
    )
    image, batch, split, steps = figure.axes
    assert batch.get_title() == "one batch\nNOT LEARNED FROM SEED 2"
    assert batch.title.get_color() == canvas.FAILURE_COLOUR
    assert image.get_title() == "one image"
    assert split.get_title() == "baseline, on the whole training split\nNOT LEARNED FROM SEED 1"
    assert (image.get_xlabel(), image.get_yscale()) == ("step", "log")
    curves = [list(line.get_ydata()) for line in batch.get_lines()]
    assert curves[:2] == [[2, 0.001, 0.001], [2, 1, 1]]
    assert curves[2] == pytest.approx([2, 0.5005, 0.5005])
    assert curves[3] == [0.01, 0.01]
    assert split.get_ylabel() == "training accuracy (%)"
    assert list(split.get_lines()[2].get_ydata()) == pytest.approx([50, 60, 96])
    names = [tick.get_text() for tick in steps.get_yticklabels()]
    assert names == ["one image\n2 of 2 seeds", "one batch\n1 of 2 seeds", "baseline\n1 of 2 seeds"]
    dots = [list(line.get_xdata()) for line in steps.get_lines() if line.get_alpha()]
    assert dots == [[3, 3], [2], [2_112]]
    for learning in summary["learning"]:
        learning["could_not"] = []
    assert "Can the network learn" in figures.figures(summary)["learning"]().get_suptitle()


def test_the_figure_of_losses_marks_where_they_part(summary):
    figure = figures.figures(summary)["losses"]()
    baseline, augmentation = figure.axes
    assert [axes.get_title() for axes in figure.axes] == [
        "baseline\n2 seeds",
        "augmentation\n2 seeds",
    ]
    for axes, epochs in ((baseline, [2]), (augmentation, [])):  # which still falls at the end
        assert [text.get_text() for text in axes.texts] == [f"epoch {epoch}" for epoch in epochs]
        assert [
            line.get_xdata()[0] for line in axes.get_lines() if line.get_linestyle() == "-."
        ] == epochs
    mean = {line.get_label(): line for line in baseline.get_lines()}
    assert list(mean["validation, mean"].get_ydata()) == pytest.approx([1.5, 1, 2.5])
    assert list(mean["training, mean"].get_ydata()) == pytest.approx([2, 1, 0.5])
    assert baseline.get_ylim() == augmentation.get_ylim()
    assert "with a setting's own augmentation" in " ".join(figure.get_supxlabel().split())


def test_the_other_figures_leave_out_what_is_learned_by_heart(summary):
    makers = figures.figures(summary)
    assert list(makers)[:5] == ["learning", "losses", "gap", "differences", "comparison"]
    names = [tick.get_text() for tick in makers["gap"]().axes[0].get_yticklabels()]
    assert names == ["baseline", "augmentation"]
    assert len(makers["comparison"]().axes[0].get_lines()) == 2
    assert "one batch" not in makers


def test_more_settings_than_colours_are_told_apart(summary):
    label = [f"setting {i}" for i in range(9)]
    styles = canvas.styles({"groups": [{"label": name} for name in label]})
    assert len(set(styles.values())) == 9


def test_from_the_command_line(tmp_path):
    """Enough steps for one image, not for one batch: everything is written, and says so."""
    project = Project(tmp_path / "project")
    few = {"EPOCHS": 2, "SEEDS": [1, 2], "OVERFIT_STEPS": 40, "WEIGHT_DECAYS": [0.01]}
    project.edit("exp4_overfit.py", **few).edit(EPOCHS=2)
    done = project.run("--quick", script="exp4_overfit.py")
    assert done.returncode == 0, done.stderr
    said = "**COULD NOT LEARN ONE BATCH**, from seeds 1 and 2"
    assert done.stdout.count(said) == 2  # before the others are trained, and last
    assert done.stdout.index(said) < done.stdout.index("what exp1_lr.py trains")
    folder = project.results_of("exp4_overfit")
    summary = json.loads((folder / "summary.json").read_text())
    image, batch, split = summary["learning"]
    assert image["could_not"] == []
    assert all(1 < steps < 40 for steps in image["steps"])
    assert batch["could_not"] == [1, 2]
    assert (batch["most_steps"], split["most_steps"]) == (40, 2 * 22)  # 1,350 images: 22 steps
    groups = {group["label"]: group for group in summary["groups"]}
    assert list(groups) == [
        *("one image", "one batch", "baseline", "dropout=0.4", "weight decay=0.01"),
        *("augmentation", "width=8", "combined"),
    ]
    assert summary["candidates"] == list(groups)[2:]
    assert [pair["minus"] for pair in summary["comparisons"]] == ["baseline"] * 5
    assert len(groups["one image"]["mean"]["val_loss"]) == 40
    assert groups["width=8"]["parameters"] == 22_778
    assert {group["parameters"] for label, group in groups.items() if label != "width=8"} == {
        89_834
    }
    assert len(list(project.results_of("exp1_lr").glob("runs/*"))) == 2  # the baseline is 1.1's
    for name in ("learning", "losses", "gap", "differences", "comparison", "combined"):
        assert (folder / f"{name}.png").exists()
    assert said in (project.folder / "results/quick/README.md").read_text()
    assert "one batch" in (folder / "table.md").read_text()
    line = one_line(
        project.edit("exp4_overfit.py", NEAR_ZERO_LOSS=0).run("--quick", script="exp4_overfit.py")
    )
    assert line.startswith("NEAR_ZERO_LOSS")
