"""What the figures show, read back from their artists."""

import json
import subprocess
import sys

import numpy as np
import pytest
from project import ROOT
from test_summary import record

import canvas
import figures
import plots
import train
from errors import UserError
from search import summarise_search
from summary import compare, summarise

LABELS = ["lr=0.1", "lr=0.075", "lr=0.05", "lr=0.025", "lr=0.01"]


@pytest.fixture
def summary():
    groups = {
        label: [record(seed, 0.5 + 0.01 * seed + 0.05 * i) for seed in (1, 2, 3)]
        for i, label in enumerate(LABELS)
    }
    groups["lr=0.1"][1] = record(2, 0.9, diverged_at=1)
    return summarise("exp1_lr", "Question?\n\nMethod.", {"SMOOTHING_WINDOW": 3}, groups)


def draw(summary, name):
    return figures.figures(summary)[name]()


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_there_is_a_figure_for_every_setting_and_one_comparison(summary):
    assert list(figures.figures(summary)) == ["comparison", *LABELS, "best_model", "mistakes"]


def test_a_setting_shows_every_seed_and_the_mean(summary):
    figure = draw(summary, "lr=0.05")
    loss, accuracy = figure.axes
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss (nats)", "accuracy (%)")
    assert loss.get_xlabel() == accuracy.get_xlabel() == "epoch"
    assert legend(figure) == [
        "training, mean of 3 seeds",
        "validation, mean of 3 seeds",
        "one seed",
    ]
    validation = lines(accuracy)["validation, mean of 3 seeds"]
    assert list(validation.get_xdata()) == [1, 2]
    assert list(validation.get_ydata()) == pytest.approx([40, 62])
    seeds = [line for line in accuracy.get_lines() if line.get_alpha()]
    assert len(seeds) == 6
    assert sorted(line.get_ydata()[1] for line in seeds) == pytest.approx([61, 62, 63, 90, 90, 90])
    assert all(line.get_linewidth() < validation.get_linewidth() for line in seeds)
    assert validation.get_color() != canvas.TRAINING_COLOUR


def test_a_diverged_seed_stops_and_is_counted(summary):
    figure = draw(summary, "lr=0.1")
    accuracy = figure.axes[1]
    assert "validation, mean of 2 seeds (1 diverged)" in legend(figure)
    mean = lines(accuracy)["validation, mean of 2 seeds (1 diverged)"]
    assert list(mean.get_ydata()) == pytest.approx([40, 52])
    stopped = [line for line in accuracy.get_lines() if np.isnan(line.get_ydata()).any()]
    assert len(stopped) == 2  # its training and its validation


def test_the_comparison_smooths_validation_alone(summary):
    figure = draw(summary, "comparison")
    train_loss, val_loss, train_accuracy, val_accuracy = figure.axes
    assert val_loss.get_title() == "validation, moving mean of 3"
    assert train_accuracy.get_ylabel() == val_accuracy.get_ylabel() == "accuracy (%)"
    label = "lr=0.05, 3 seeds"
    assert list(lines(train_loss)[label].get_ydata()) == pytest.approx([2, 1])
    assert list(lines(val_loss)[label].get_ydata()) == pytest.approx([1.75, 1.75])
    assert list(lines(train_accuracy)[label].get_ydata()) == pytest.approx([50, 90])
    assert list(lines(val_accuracy)[label].get_ydata()) == pytest.approx([51, 51])
    assert legend(figure)[0] == "lr=0.1, 2 seeds (1 diverged)"
    assert train_loss.get_ylim() == val_loss.get_ylim()


def test_the_legend_lies_outside_the_curves(summary):
    figure = draw(summary, "comparison")
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert not any(axes.get_window_extent().overlaps(box) for axes in figure.axes)


def test_a_setting_has_one_colour_everywhere(summary):
    drawn = {name: draw(summary, name) for name in [*LABELS, "comparison"]}
    for label in LABELS:
        (mean,) = (
            line for name, line in lines(drawn[label].axes[1]).items() if "validation" in name
        )
        (compared,) = (
            line
            for name, line in lines(drawn["comparison"].axes[3]).items()
            if name.startswith(f"{label},")
        )
        assert mean.get_color() == compared.get_color()
    styles = canvas.styles(summary)
    assert len(set(styles.values())) == len(LABELS)
    fewer = {"groups": [group for group in summary["groups"] if group["label"] != "lr=0.1"]}
    fewer["groups"].append({"label": "lr=0.2"})
    assert canvas.styles(fewer)["lr=0.05"] == styles["lr=0.05"]
    assert canvas.styles(fewer)["lr=0.2"] not in [styles[label] for label in LABELS[1:]]


# by hand: windows shrink at the ends, and an even one reaches further back
@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (1, [1, 2, 6, 4, 10]),
        (3, [1.5, 3, 4, 20 / 3, 7]),
        (2, [1, 1.5, 4, 5, 7]),
        (5, [3, 13 / 4, 23 / 5, 22 / 4, 20 / 3]),
    ],
)
def test_smoothing_by_hand(window, expected):
    assert canvas.smooth([1, 2, 6, 4, 10], window) == pytest.approx(expected)


def test_smoothing_stops_where_a_curve_stops():
    assert canvas.smooth([1.0, 3.0, None], 3) == [2.0, 2.0, None]


def test_a_rehearsal_says_so_in_every_figure(summary):
    for name in [*LABELS, "comparison", "best_model"]:
        figure = draw(summary | {"rehearsal": True}, name)
        assert "REHEARSAL" in figure.get_supxlabel()
        assert "REHEARSAL" in figure.get_suptitle()
        figure = draw(summary, name)
        assert "REHEARSAL" not in figure.get_supxlabel() + figure.get_suptitle()
        assert "CIFAR-10" in figure.get_supxlabel()


def test_drawing_needs_the_summary_alone(summary, tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    paths = plots.draw(json.loads((tmp_path / "summary.json").read_text()), tmp_path)
    names = ["comparison", *LABELS, "best_model"]  # no mistakes are recorded here
    assert [path.name for path in paths] == [f"{name}.png" for name in names]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_drawing_needs_no_torch():
    command = "import canvas, figures, plots, page, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], cwd=ROOT).returncode == 0


def test_one_epoch_is_seen(summary):
    groups = {"lr=1": [record(1, 0.9)]}
    for key in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
        groups["lr=1"][0][key] = groups["lr=1"][0][key][:1]
    one = summarise("exp1_lr", "Question?\n\nMethod.", {"SMOOTHING_WINDOW": 3}, groups)
    for line in draw(one, "lr=1").axes[0].get_lines()[:-1]:
        assert line.get_marker() == "o"


def test_the_best_model_is_shown_by_class(summary):
    label, seed = "lr=0.01", 3  # the highest validation accuracy
    run = next(g for g in summary["groups"] if g["label"] == label)["runs"][2]
    run["confusion_matrix"] = [[30, 10], [5, 15]]
    run["report"] = {"cat": {}, "dog": {}, "accuracy": 0.75}
    figure = draw(summary, "best_model")
    matrix, classes = figure.axes[:2]
    assert f"{label}, seed {seed}" in figure.get_suptitle()
    assert [text.get_text() for text in matrix.texts] == ["75", "25", "25", "75"]
    assert (matrix.get_xlabel(), matrix.get_ylabel()) == ("predicted class", "true class")
    assert [tick.get_text() for tick in matrix.get_yticklabels()] == ["cat", "dog"]
    assert [patch.get_width() for patch in classes.patches] == pytest.approx([75, 75])


def test_all_diverged_still_draws(summary):
    groups = {"lr=1": [record(1, 0.9, diverged_at=0)]}
    nothing = summarise("exp1_lr", "Question?\n\nMethod.", {"SMOOTHING_WINDOW": 3}, groups)
    assert "0 seeds (1 diverged)" in legend(draw(nothing, "lr=1"))[0]


@pytest.fixture
def transfer():
    """Five groups as experiment 2.2 has them, with one comparison."""
    labels = ["untouched, lr=0.05", "dropout=0", "dropout=0.4"]
    labels += [f"retrained, {label}" for label in labels[1:]]
    groups = {
        label: [record(seed, 0.6, test=0.5 + 0.1 * i + 0.01 * seed) for seed in (1, 2)]
        for i, label in enumerate(labels)
    }
    for records in groups.values():
        for seed in records:
            seed["report"] = {"cat": {"f1-score": 0.3 * seed["seed"]}, "dog": {"f1-score": 0.5}}
            seed["report"]["accuracy"] = 0.5
            seed["confusion_matrix"] = [[1, 0], [0, 1]]
    summary = summarise("exp2_transfer", "Question?\n\nMethod.", {"SMOOTHING_WINDOW": 3}, groups)
    pair = (labels[4], groups[labels[4]], labels[3], groups[labels[3]])
    return summary | {"comparisons": [compare(*pair)]}


def test_results_show_every_setting_with_seeds_mean_and_interval(transfer):
    accuracy, gap = draw(transfer, "test_accuracy").axes
    names = [tick.get_text() for tick in accuracy.get_yticklabels()]
    assert names == [group["label"] for group in transfer["groups"]]
    seeds = [line for line in accuracy.get_lines() if line.get_alpha()]
    assert [list(line.get_xdata()) for line in seeds][1] == pytest.approx([61, 62])
    mean = accuracy.containers[1]  # Student's quantile 12.7062, standard error 0.5 points
    assert mean.lines[0].get_xdata() == pytest.approx([61.5])
    assert mean.lines[2][0].get_segments()[0][:, 0] == pytest.approx(
        [61.5 - 12.7062 / 2, 61.5 + 12.7062 / 2], rel=1e-4
    )
    assert gap.containers[0].lines[0].get_xdata() == pytest.approx([30])
    assert list(gap.get_lines()[0].get_xdata()) == pytest.approx([30, 30])
    faces = [container.lines[0].get_markerfacecolor() for container in accuracy.containers]
    assert [face == "white" for face in faces] == [False, False, False, True, True]
    assert "percentage points" in gap.get_xlabel()


def test_a_retrained_model_has_the_colour_of_its_source(transfer):
    styles = canvas.styles(transfer)
    for label in ("dropout=0", "dropout=0.4"):
        assert styles[f"retrained, {label}"][:2] == styles[label][:2]
        assert styles[f"retrained, {label}"] != styles[label]
    assert len({styles[label][0] for label in list(styles)[:3]}) == 3


def test_classes_and_differences(transfer):
    (classes,) = draw(transfer, "classes").axes
    first = classes.get_lines()[0]
    assert list(first.get_xdata()) == ["cat", "dog"]
    assert list(first.get_ydata()) == pytest.approx([45, 50])
    (axes,) = draw(transfer, "differences").axes
    assert axes.get_yticklabels()[0].get_text() == (
        "retrained, dropout=0.4\nminus retrained, dropout=0"
    )
    assert list(axes.get_lines()[0].get_xdata()) == pytest.approx([10, 10])


def test_classes_are_those_of_seeds_that_did_not_diverge(transfer):
    runs = next(group for group in transfer["groups"] if group["runs"][0]["report"])["runs"]
    runs.insert(0, runs[0] | {"diverged_at_epoch": 0, "report": None, "confusion_matrix": None})
    (classes,) = draw(transfer, "classes").axes
    assert list(classes.get_lines()[0].get_xdata()) == ["cat", "dog"]


def test_schedules_are_drawn_as_they_are(summary):
    rates = {"a": [0.1, 0.05, 0.01], "b": [0.2, 0.2, 0.2]}
    (axes,) = draw(summary | {"experiment": "exp1_scheduler", "schedules": rates}, "schedules").axes
    assert {name: list(line.get_ydata()) for name, line in lines(axes).items()} == rates
    assert list(lines(axes)["a"].get_xdata()) == [1, 2, 3]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == (
        "epoch",
        "learning rate",
        "log",
    )


@pytest.fixture
def watched():
    """A summary of two networks whose gradients were watched for two epochs."""
    parameters = ["conv1.weight", "fc2.bias", "bn1.weight"]

    def gradients(scale):
        """Statistics that grow with scale."""
        pooled = {"mean": [1 * scale, 2 * scale, 3 * scale], "std": [4 * scale] * 3}
        return {
            "parameters": parameters,
            "history": {"mean": [[scale] * 3, [2 * scale] * 3], "std": [[scale] * 3] * 2},
            "by_step": [pooled],
            "first_epochs": pooled,
            "last_epochs": pooled,
            "first_steps": pooled | {"std_by_element": [5 * scale] * 3},
            "last_steps": pooled | {"std_by_element": [5 * scale] * 3},
        }

    groups = {}
    for network, factor in (("BaselineNet", 100.0), ("BatchNormNet", 1.0)):
        groups[f"{network}, gradients"] = [
            record(seed, 0.6, gradients=gradients(factor * seed)) for seed in (1, 3)
        ]
        for seed in groups[f"{network}, gradients"]:
            seed["run"] = seed["run"] | {"network": network, "gradient_statistics": True}
    settings = {"SMOOTHING_WINDOW": 3}
    return summarise("exp3_gradients", "Question?\n\nMethod.", settings, groups)


def test_gradients_are_grouped_by_window_and_ordered_by_layer(watched):
    mean, std = draw(watched, "gradients_BatchNormNet").axes
    names = [tick.get_text() for tick in mean.get_xticklabels()]
    assert names == ["conv1.weight", "bn1.weight", "fc2.bias"]
    bars = [container for container in mean.containers if hasattr(container, "patches")]
    assert [bar.get_label() for bar in bars] == [words for words, _ in figures.WINDOWS.values()]
    assert [patch.get_height() for patch in bars[0]] == pytest.approx([2, 6, 4])  # of 1 and 3
    assert mean.get_yscale() == "log"
    crosses = [line for line in std.get_lines() if line.get_label() == figures.BY_ELEMENT]
    assert [list(line.get_ydata()) for line in crosses] == [[10, 10, 10]] * 2
    assert "about zero" in draw(watched, "gradients_BatchNormNet").get_supxlabel()
    assert "about zero" not in draw(watched, "gradients_BaselineNet").get_supxlabel()


def test_networks_stand_side_by_side_on_one_scale(watched):
    panels = draw(watched, "gradients_compared").axes
    assert [axes.get_title() for axes in panels] == ["BaselineNet", "BatchNormNet"] * 2
    for row in (panels[:2], panels[2:]):
        assert row[0].get_ylim() == row[1].get_ylim()
        heights = [patch.get_height() for axes in row for patch in axes.patches]
        assert row[0].get_ylim()[1] > max(heights)
    assert max(patch.get_height() for patch in panels[0].patches) == 600
    assert min(patch.get_height() for patch in panels[1].patches) == 2


def test_the_heat_map_shows_layer_by_epoch(watched):
    figure = draw(watched, "gradients_by_epoch")
    image = figure.axes[0].get_images()[0]
    assert np.asarray(image.get_array()).tolist() == [[200, 400]] * 3
    assert image.norm.vmax == 400
    assert image.norm is figure.axes[1].get_images()[0].norm
    assert figure.axes[0].get_xlabel() == "epoch"


@pytest.fixture
def initialised():
    """Three initialisations: one is sound, one has no gradients but one, one diverged."""

    def gradients(means):
        pooled = {"mean": means, "std": means}
        windows = dict.fromkeys(figures.WINDOWS, pooled)
        parameters = ["fc2.weight", "fc2.bias", "conv1.weight", "conv1.bias"]
        later = {"mean": [100 * mean for mean in means], "std": means}
        history = {"mean": [means], "std": [means]}
        return {"parameters": parameters, "history": history, "by_step": [pooled, later], **windows}

    groups = {
        "xavier": [record(s, 0.6, gradients=gradients([0.1, 0.2, 0.3, 0.4 * s])) for s in (1, 3)],
        "zeros": [record(1, 0.1, gradients=gradients([0.0, 0.02, 0.0, 0.0]))],
        "uniform": [record(1, 0.6, diverged_at=1, train_loss=[5e4, None], gradients=None)],
    }
    settings = {"SMOOTHING_WINDOW": 3, "EPOCHS": 2, "EARLY_EPOCHS": 9}
    return summarise("exp4_init", "Question?\n\nMethod.", settings, groups)


def test_gradients_of_zero_stand_at_the_foot_of_a_logarithmic_axis(initialised):
    figure = draw(initialised, "gradients_first_steps")
    weights, weights_of_step_2, biases, _ = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["step 1", "step 2", "", ""]
    assert weights.get_yscale() == biases.get_yscale() == "log"
    assert [tick.get_text() for tick in weights.get_xticklabels()] == ["conv1", "fc2"]

    def drawn(axes):
        return [list(container.lines[0].get_ydata()) for container in axes.containers]

    xavier, zeros = drawn(weights)
    assert xavier == pytest.approx([0.3, 0.1])
    marks = dict(
        zip([t.get_text() for t in weights.get_yticklabels()], weights.get_yticks(), strict=True)
    )
    assert zeros == [marks["0"]] * 2
    xavier, zeros = drawn(biases)
    assert xavier == pytest.approx([0.8, 0.2])  # the mean of 0.4 and 1.2
    assert zeros == [marks["0"], 0.02]
    assert drawn(weights_of_step_2)[0] == pytest.approx([30, 10])
    shown = [value for value in marks.values() if value != marks["0"]]
    assert marks["0"] < min(shown) <= 0.02
    assert max(shown) >= 80  # one scale for all
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    (line,) = [line for line in biases.get_lines() if len(set(line.get_ydata())) == 1]
    assert marks["0"] < line.get_ydata()[0] < min(shown)  # what parts the zeros from the others
    assert "uniform" in figure.get_supxlabel()  # without gradients, and told
    assert legend(figure) == ["xavier, 2 seeds", "zeros, 1 seed"]


def test_first_epochs_end_at_a_loss_that_shows_them_all(initialised):
    figure = draw(initialised, "early")
    loss, accuracy = figure.axes
    assert loss.get_ylim() == (0, figures.EARLY_LOSSES)
    assert [text.get_text() for text in loss.texts] == ["above 4 not shown: up to 50,000 nats"]
    assert list(lines(loss)["xavier, 2 seeds"].get_ydata()) == [2.0, 1.0]
    assert list(lines(accuracy)["zeros, 1 seed"].get_ydata()) == [50, 90]
    assert "uniform, 0 seeds (1 diverged)" in legend(figure)
    # ln 10 = 2.302585 nats, a tenth of the images
    assert lines(loss)["guessing"].get_ydata()[0] == pytest.approx(2.302585)
    assert lines(accuracy)["guessing"].get_ydata()[0] == 10
    seeds = [line for line in loss.get_lines() if line.get_alpha()]
    assert len(seeds) == 4


def test_a_loss_that_went_astray_does_not_flatten_the_others(summary):
    summary["groups"][0]["mean"]["train_loss"][0] = 1e6
    figure = draw(summary, "comparison")
    train, val = figure.axes[:2]
    assert train.get_yscale() == val.get_yscale() == "log"
    figure.draw_without_rendering()
    heights = [axes.transData.transform((1, 2.0))[1] for axes in (train, val)]
    assert heights[0] == pytest.approx(heights[1])  # of one loss in both
    assert train.get_ylim() == val.get_ylim()
    assert train.get_ylim()[1] == figures.LOSSES_COMPARED
    assert [text.get_text() for text in train.texts] == ["above 10 not shown: up to 1,000,000 nats"]
    assert draw(summary, "lr=0.1").axes[0].get_yscale() == "log"
    assert draw(summary, "lr=0.05").axes[0].get_yscale() == "linear"


def test_divergence_and_guessing_are_marked_beside_the_results(initialised):
    accuracy, _ = draw(initialised, "test_accuracy").axes
    names = [tick.get_text() for tick in accuracy.get_yticklabels()]
    assert names == ["xavier", "zeros", "uniform\n(1 of 1 diverged)"]
    assert list(lines(accuracy)["guessing"].get_xdata()) == [10, 10]


def test_nothing_but_divergence_still_draws(tmp_path):
    groups = {"uniform": [record(1, 0.6, diverged_at=0, gradients=None)]}
    settings = {"SMOOTHING_WINDOW": 3, "EPOCHS": 2, "EARLY_EPOCHS": 5}
    nothing = summarise("exp4_init", "Question?\n\nMethod.", settings, groups)
    names = [path.stem for path in plots.draw(nothing, tmp_path)]
    assert names == ["early", "test_accuracy", "comparison", "uniform"]


@pytest.fixture
def searched():
    """Two searches of two runs, repeated twice; one run diverged, and one has accuracy 0."""

    def search(rates, accuracies):
        return summarise_search(
            [
                [
                    record(
                        seed,
                        0.5 if accuracy is None else accuracy,
                        diverged_at=0 if accuracy is None else None,
                        run={"learning_rate": rate, "momentum": 0.9},
                    )
                    for seed, rate, accuracy in zip((7, 8), *row, strict=True)
                ]
                for row in zip(rates, accuracies, strict=True)
            ]
        )

    groups = {
        "random, lr=0.002, momentum=0.9": [record(s, 0.6) for s in (1, 2)],
        "untuned, lr=0.05, momentum=0": [record(s, 0.5) for s in (1, 2)],
    }
    settings = {"SMOOTHING_WINDOW": 3, "LEARNING_RATE_RANGE": [1e-4, 1e-2]}
    summary = summarise("exp4_search", "Question?\n\nMethod.", settings, groups)
    found = {
        "random": search([(0.001, 0.002), (0.003, 0.004)], [(0.0, 0.7), (0.6, None)]),
        "grid": search([(0.001, 0.01), (0.01, 0.001)], [(0.2, 0.4), (0.3, 0.5)]),
    }
    pair = compare(*(part for item in groups.items() for part in item))
    return summary | {"search": found, "comparisons": [pair]}


def test_a_search_is_shown_where_it_looked(searched):
    random, grid, bar = draw(searched, "search").axes
    assert random.get_xscale() == grid.get_xscale() == "log"
    assert (random.get_xlabel(), random.get_ylabel()) == ("learning rate", "momentum")
    assert "validation accuracy" in bar.get_ylabel()
    (points,) = random.collections
    assert points.get_offsets()[:, 0].tolist() == [0.001, 0.003, 0.002]
    assert points.get_array().tolist() == pytest.approx([0, 60, 70])
    lost, won = random.get_lines()
    assert (lost.get_marker(), list(lost.get_xdata())) == ("x", [0.004])
    assert (won.get_markerfacecolor(), list(won.get_xdata())) == ("none", [0.002])
    assert random.get_title() == (
        "random search: 2 repeats of 2 runs\n× diverged: 1, ○ highest: 70.0%"
    )
    (by_grid,) = grid.collections  # one scale of colours for both
    assert by_grid.norm is points.norm
    assert (points.norm.vmin, points.norm.vmax) == (0, 70)
    # the repeats of one point side by side, about where it is
    xs = by_grid.get_offsets()[:, 0]
    assert len(set(xs)) == 4
    assert sorted(xs)[0] * sorted(xs)[1] == pytest.approx(0.001**2)
    assert sorted(xs)[2] * sorted(xs)[3] == pytest.approx(0.01**2)
    assert "side by side" in draw(searched, "search").get_supxlabel()


def test_best_so_far_shows_every_repeat_and_the_mean(searched):
    figure = draw(searched, "best_so_far")
    runs, ends = figure.axes
    assert legend(figure) == [
        "random search, mean of 2 repeats",
        "grid search, mean of 2 repeats",
        "one repeat",
    ]
    mean = lines(runs)["grid search, mean of 2 repeats"]
    assert list(mean.get_xdata()) == [1, 2]
    assert list(mean.get_ydata()) == pytest.approx([30, 40])
    repeats = [list(line.get_ydata()) for line in runs.get_lines() if line.get_alpha()]
    assert [values for values in repeats if values] == [
        *([0, 60], [70, 70]),
        *([20, 30], [40, 50]),
    ]
    assert [list(line.get_xdata()) for line in ends.get_lines() if line.get_alpha()] == [
        pytest.approx([60, 70]),
        pytest.approx([30, 50]),
    ]
    assert ends.containers[1].lines[0].get_xdata() == pytest.approx([40])
    assert mean.get_color() == ends.containers[1].lines[0].get_color()
    winner = canvas.styles(searched)["random, lr=0.002, momentum=0.9"]  # as its search
    assert winner[0] == ends.containers[0].lines[0].get_color()


def test_a_search_that_only_diverged_still_draws(searched, tmp_path):
    for name, search in searched["search"].items():
        for repeat in search["repeats"]:
            for point in repeat["points"]:
                point["val_accuracy"] = None
            repeat |= {"best_so_far": [None, None], "winner": None}
        nothing = {"best_so_far": {"mean": [None, None], "std": [None, None]}, "winner": None}
        searched["search"][name] |= nothing
    names = [path.stem for path in plots.draw(searched, tmp_path)]
    assert {"search", "best_so_far"} <= set(names)
    assert draw(searched, "search").axes[0].get_title().endswith("× diverged: 4")


def test_mistakes_show_the_images_themselves(summary):
    run = summary["groups"][4]["runs"][2]
    run["most_confident_mistakes"] = [
        {"image": 5, "true": "3", "predicted": "8", "probability": 0.987},
        {"image": 0, "true": "1", "predicted": "7", "probability": 0.5},
    ]
    figure = draw(summary | {"rehearsal": True}, "mistakes")
    images = figures.test_images(rehearsal=True)
    assert figure.axes[0].get_title() == "3, taken for\n8 (98.7%)"
    assert np.array_equal(figure.axes[0].get_images()[0].get_array(), images[5])
    assert np.array_equal(figure.axes[1].get_images()[0].get_array(), images[0])


def test_mistakes_need_the_data(summary, monkeypatch, tmp_path):
    summary["groups"][4]["runs"][2]["most_confident_mistakes"] = [{"image": 5}]
    monkeypatch.setenv("CIFAR10_DIR", str(tmp_path))
    assert draw(summary, "mistakes") is None


def test_networks_whose_gradients_all_diverged_are_left_out(watched):
    for group in watched["groups"]:
        del group["gradients"]
    assert not [name for name in figures.figures(watched) if "gradients" in name]


@pytest.fixture
def frozen():
    """Experiment 2.2 with two frozen sets at two rates; seed 2 of the last group diverged."""
    groups = {}
    for label, layers, rate, test in (
        ("retrained, dropout=0", ["conv1"], 0.1, 0.50),
        ("retrained, dropout=0.4", ["conv1"], 0.1, 0.99),
        ("frozen=0, lr=0.1", [], 0.1, 0.60),
        ("frozen=0, lr=0.01", [], 0.01, 0.70),
        ("frozen=1, lr=0.01", ["conv1"], 0.01, 0.80),
    ):
        groups[label] = [
            record(seed, 0.4 + test / 2, test=test + 0.01 * (seed - 2)) for seed in (1, 2, 3)
        ]
        for seed in groups[label]:
            seed["run"] = seed["run"] | {"frozen": layers, "learning_rate": rate}
    diverged = groups["frozen=1, lr=0.01"][1]
    groups["frozen=1, lr=0.01"][1] = record(2, 0.9, diverged_at=1) | {"run": diverged["run"]}
    base = "retrained, dropout=0"
    finer = [label for label in groups if label.startswith("frozen")]
    pairs = [("retrained, dropout=0.4", base), *((label, base) for label in finer)]
    summary = summarise("exp2_transfer", "Question?\n\nMethod.", {"SMOOTHING_WINDOW": 3}, groups)
    return summary | {
        "comparisons": [compare(one, groups[one], other, groups[other]) for one, other in pairs],
        "trainable_parameters": {base: 600, **dict(zip(finer, (1600, 1600, 600), strict=True))},
    }


def test_results_stand_over_the_number_of_trainable_parameters(frozen):
    figure = draw(frozen, "trainable_parameters")
    accuracy, gap = figure.axes
    assert (accuracy.get_ylabel(), "percentage points" in gap.get_ylabel()) == (
        "test accuracy (%)",
        True,
    )
    labels = ["lr=0.1, mean over seeds", "lr=0.01, mean over seeds (1 runs diverged)", "one seed"]
    assert legend(figure) == labels
    full, tenth = (lines(accuracy)[label] for label in labels[:2])
    assert (list(full.get_xdata()), list(tenth.get_xdata())) == ([600, 1600], [600, 1600])
    assert list(full.get_ydata()) == pytest.approx([50, 60])
    assert list(tenth.get_ydata()) == pytest.approx([80, 70])
    assert full.get_color() != tenth.get_color()
    assert full.get_marker() != tenth.get_marker()
    seeds = {
        (line.get_xdata()[0], line.get_color()): sorted(line.get_ydata())
        for line in accuracy.get_lines()
        if line.get_alpha() and len(line.get_xdata())
    }
    assert seeds[600, full.get_color()] == pytest.approx([49, 50, 51])
    assert seeds[600, tenth.get_color()] == pytest.approx([79, 81])  # seed 2 diverged
    # training 0.9, validation 0.4 + test / 2
    assert list(lines(gap)[labels[0]].get_ydata()) == pytest.approx([25, 20])
    assert list(lines(gap)[labels[1]].get_ydata()) == pytest.approx([10, 15])
    ticks = [tick.get_text() for tick in gap.get_xticklabels()]
    assert ticks == ["600\nconv1", "1,600\nnone"]
    assert "frozen" in gap.get_xlabel()


def test_finer_transfer_has_figures_of_its_own(frozen, transfer):
    (axes,) = draw(frozen, "differences_by_frozen_layers").axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        f"{label}\nminus retrained, dropout=0"
        for label in ("frozen=0, lr=0.1", "frozen=0, lr=0.01", "frozen=1, lr=0.01")
    ]
    (axes,) = draw(frozen, "differences").axes
    assert len(axes.get_yticklabels()) == 1
    assert len(draw(frozen, "test_accuracy").axes[0].get_yticklabels()) == 2
    assert "frozen=0, lr=0.01" in figures.figures(frozen)
    assert "trainable_parameters" not in figures.figures(transfer)  # a summary that has none


@pytest.fixture
def finished_run(a_run, digits, store, monkeypatch):
    """A real run on digits, trained for one epoch: its record, and the file it stands in."""
    source = a_run(network="DropoutNet", split="halves", epochs=1)
    run = a_run(network="DropoutNet", epochs=1, learning_rate=0.1, start=source, frozen=("conv1",))
    train.train([source, run], digits, store)
    (path,) = (store.folder / "runs").glob(f"{run.name}*")
    monkeypatch.setattr(plots, "HERE", store.root.parent)
    return json.loads(path.read_text()), path


def test_the_errors_of_a_run_are_those_of_its_record(finished_run, digits):
    record, path = finished_run
    confusion, mistakes = (make() for make in plots.error_figures(record, path).values())
    counts = np.array(record["confusion_matrix"])
    shares = 100 * counts / counts.sum(1, keepdims=True)
    matrix, bars = confusion.axes[:2]
    assert [text.get_text() for text in matrix.texts] == [f"{s:.0f}" for s in shares.flatten()]
    assert np.allclose(matrix.get_images()[0].get_array(), shares)
    assert sorted(bar.get_width() for bar in bars.patches) == pytest.approx(
        sorted(shares.diagonal())
    )
    setting = "DropoutNet, lr=0.1, dropout=0, retrained, frozen=conv1, seed 1"
    title = f"REHEARSAL: Confusion matrix: {setting}, on the test set"
    assert confusion.get_suptitle() == title
    shown = record["most_confident_mistakes"]
    assert len(shown) == len(mistakes.axes) == 25
    for axes, mistake in zip(mistakes.axes, shown, strict=True):
        assert np.array_equal(
            axes.get_images()[0].get_array(), digits.test_images[mistake["image"]]
        )
        assert str(digits.test_labels[mistake["image"]].item()) == mistake["true"]
        assert axes.get_title().startswith(f"{mistake['true']}, taken for\n{mistake['predicted']} ")


def test_without_the_images_the_confusion_matrix_is_still_drawn(
    finished_run, monkeypatch, tmp_path, capsys
):
    record, path = finished_run
    del record["run"]["dataset"]  # as a run on CIFAR-10 has it
    path.write_text(json.dumps(record))
    monkeypatch.setenv("CIFAR10_DIR", str(tmp_path))
    plots.draw_errors(path.name)
    drawn, missing = capsys.readouterr().out.splitlines()
    assert drawn == str(path.parent.parent / "errors" / f"{path.stem}_confusion.png")
    assert (path.parent.parent / "errors").exists()
    assert f"{tmp_path}: there is no cifar-10-batches-py/" in missing
    assert "CIFAR10_DIR" in missing
    path.write_text(json.dumps(record | {"most_confident_mistakes": []}))
    plots.draw_errors(path.name)
    assert "no mistakes to show" in capsys.readouterr().out


def test_many_runs_are_not_all_listed(finished_run):
    _, path = finished_run
    for i in range(12):
        (path.parent / f"another_{i}.json").write_text("{}")
    with pytest.raises(UserError, match=r"12 finished runs have 'another' .* and 2 more$"):
        plots.find_run("another")
    assert plots.find_run("another_11") == path.parent / "another_11.json"
    # of runs that other versions of the code have trained, too, the present one's
    present = path.parent / f"another_1_code={plots.code_fingerprint()}.json"
    present.write_text("{}")
    assert plots.find_run("another") == present
    with pytest.raises(UserError, match=r"no finished run has 'nonsense' .* and 5 more$"):
        plots.find_run("nonsense")
