"""What the figures show, read back from their artists."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from project import ROOT
from test_summary import record

import lab.figures
from lab import overfitting
from lab.figures import canvas, exp1_explore, exp1_last_batch, exp3_gradients, mistakes, sweep
from lab.figures.results import at_a_glance, differences
from lab.search import summarise_search
from lab.summary import Record, spread, summarise

Summary = dict[str, Any]
LABELS = ["lr=0.1", "lr=0.075", "lr=0.05", "lr=0.025", "lr=0.01"]
SETTINGS = {"SMOOTHING_WINDOW": 3}
QUESTION = "Experiment {}: question?\n\nMethod."


def summary_of(experiment: str, title: str, groups: dict[str, list[Record]], **more) -> Summary:
    settings = SETTINGS | more.pop("settings", {})
    return summarise(experiment, QUESTION.format(title), settings, groups, **more)


def sweep_of(accuracies: dict[str, list[float]], **fields: Any) -> dict[str, list[Record]]:
    """Two or more runs for each label, at rates of their own, that end at these accuracies."""
    groups = {}
    for i, (label, values) in enumerate(accuracies.items()):
        groups[label] = [record(seed, value, **fields) for seed, value in enumerate(values, 1)]
        for run in groups[label]:
            run["run"] = run["run"] | {"learning_rate": 0.1 / (i + 1)}
    return groups


@pytest.fixture
def summary() -> Summary:
    groups = sweep_of(
        {label: [0.5 + 0.01 * s + 0.05 * i for s in (1, 2, 3)] for i, label in enumerate(LABELS)}
    )
    run = groups["lr=0.1"][1]["run"]
    groups["lr=0.1"][1] = record(2, 0.9, diverged_at=1, run=run)
    return summary_of("exp1_lr", "1.1, learning rates", groups)


def draw(summary: Summary, name: str) -> Figure:
    """A figure as it is saved, with its legend."""
    if figure := lab.figures.figures(summary)[name]():
        canvas.legend(figure)
    return figure


def lines(axes: Axes) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.get_lines()}


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.subfigs[0].legends[0].get_texts()]


def faint(axes: Axes) -> list[Any]:
    return [line for line in axes.get_lines() if line.get_alpha() and len(line.get_xdata())]


def row_names(axes: Axes) -> list[str]:
    return [tick.get_text() for tick in axes.get_yticklabels()]


def caption(figure: Figure) -> str:
    return " ".join(figure.get_supxlabel().split())


# --- what every figure has


def test_there_is_a_figure_that_answers_and_one_for_every_setting(summary):
    names = ["test_accuracy", "differences", "comparison", *LABELS, "best_model", "mistakes"]
    assert list(lab.figures.figures(summary)) == names


def test_unknown_experiment_has_the_figures_of_a_sweep(summary):
    for name in ("my_experiment", "results"):
        found = lab.figures.figures(summary | {"experiment": name})
        assert list(found) == list(lab.figures.figures(summary))


def test_a_title_says_experiment_and_setting(summary):
    assert draw(summary, "comparison").get_suptitle() == "1.1 learning rates: mean curves"
    title = draw(summary, "lr=0.1").get_suptitle()
    assert title == "1.1 learning rates: lr=0.1, 2 seeds (1 diverged)"
    long = summary | {"title": "4.2 search of a long name that nobody would read at once"}
    figure = draw(long, "best_model")
    first, second = figure.get_suptitle().split("\n")  # one line would be cut off at both sides
    assert len(first) <= canvas.TITLE_WIDTH
    assert second.endswith("on the test set")


def test_a_rehearsal_says_so_in_every_figure(summary):
    for name in ["test_accuracy", *LABELS, "comparison", "best_model"]:
        figure = draw(summary | {"rehearsal": True}, name)
        assert "rehearsal, not a finding" in figure.get_supxlabel()
        assert "REHEARSAL" in figure.get_suptitle()
        figure = draw(summary, name)
        assert "rehearsal" not in (figure.get_supxlabel() + figure.get_suptitle()).lower()
        assert "CIFAR-10" in figure.get_supxlabel()


def test_a_report_made_half_way_counts_its_runs_in_every_figure(summary):
    half = summary | {"finished": {"runs": 14, "of": 25}}
    for name in ["test_accuracy", *LABELS, "comparison", "best_model"]:
        assert "14 of 25 runs" in caption(draw(half, name))
        assert "runs" not in caption(draw(summary, name))
    glance = at_a_glance([half, summary, summary | {"finished": {"runs": 1, "of": 10}}])
    assert "15 of 35 runs" in caption(glance)


def test_a_caption_says_only_what_concerns_its_figure(summary):
    assert "Training curves are measured on each batch" in caption(draw(summary, "lr=0.05"))
    for name in ("test_accuracy", "best_model"):
        assert "measured on each batch" not in caption(draw(summary, name))
    for name in ("test_accuracy", "comparison"):
        assert caption(draw(summary, name)).endswith("CIFAR-10; standard split; 2 epochs; cpu")
    summary["groups"][0]["settings"]["dataset"] = "digits"
    assert "handwritten digits and CIFAR-10;" in caption(draw(summary, "comparison"))


@pytest.mark.parametrize("name", ["test_accuracy", "comparison", "lr=0.1", "best_model"])
def test_texts_do_not_overlap(name, summary):
    figure = draw(summary, name)
    figure.draw_without_rendering()
    own = figure.findobj(lambda artist: artist in (figure._suptitle, figure._supxlabel))
    boxes = [text.get_window_extent() for text in own] + [
        found.get_window_extent() for found in figure.subfigs[0].legends
    ]
    for axes in figure.axes:
        boxes.append(axes.get_tightbbox())
        labels = [axes.xaxis.label, axes.yaxis.label, axes.title]
        for text in (label for label in labels if label.get_text()):
            assert figure.bbox.padded(1).contains(*text.get_window_extent().min)
            assert figure.bbox.padded(1).contains(*text.get_window_extent().max)
    for i, box in enumerate(boxes):
        assert not any(box.padded(-1).overlaps(other.padded(-1)) for other in boxes[:i]), name


def test_type_can_be_read_on_a_page_at_half_size(summary, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: seen.append(figure))
    names = ["test_accuracy", "comparison", "lr=0.1", "best_model"]
    lab.figures.save({name: lab.figures.figures(summary)[name] for name in names}, tmp_path)
    for figure in seen:
        assert figure.get_figwidth() == 10
        for text in figure.findobj(Text):
            assert text.get_fontsize() >= 10
        assert figure.axes[0].xaxis.label.get_fontsize() >= 12


@pytest.mark.slow
def test_drawing_needs_the_summary_alone(summary, tmp_path):
    (tmp_path / "summary.json").write_text(
        json.dumps(summary | {"groups": summary["groups"][4:], "comparisons": []})
    )
    read = json.loads((tmp_path / "summary.json").read_text())
    names = ["test_accuracy", "comparison", "lr=0.01", "best_model"]
    paths = lab.figures.save(lab.figures.figures(read), tmp_path)
    assert [path.name for path in paths] == [f"{name}.png" for name in names]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_file_names_have_nothing_that_a_system_refuses():
    assert lab.figures.file_name("a/b: c*, größe=1e-05") == "a-b-_c-_größe=1e-05.png"


def test_file_names_have_no_blanks():
    assert lab.figures.file_name("retrained, dropout=0.6") == "retrained_dropout=0.6.png"


def test_shared_modules_name_no_experiment():
    for name in ("canvas", "sweep", "results", "mistakes", "__init__"):
        text = (ROOT / "lab" / "figures" / f"{name}.py").read_text()
        assert "exp1" not in text and "exp2" not in text and "exp4" not in text
        assert not any(word in text for word in ("lr=0", "dropout=0", "inverse time", "BatchNorm"))


# --- colours


def test_a_setting_has_one_colour_in_every_figure(summary):
    styles = canvas.styles(summary)
    assert [styles[label]["color"] for label in LABELS] == list(canvas.COLOURS[:5])
    compared, reached = draw(summary, "comparison"), draw(summary, "test_accuracy")
    for i, label in enumerate(LABELS):
        mean = lines(draw(summary, label).axes[1])["validation, mean"]
        (other,) = (
            line for n, line in lines(compared.axes[3]).items() if n.startswith(f"{label},")
        )
        dot = reached.axes[0].containers[i].lines[0]
        assert {mean.get_color(), other.get_color(), dot.get_color()} == {styles[label]["color"]}
    pair = {"label": "lr=0.05", "minus": "lr=0.1", "left_out": [], "verdict": None, "p_holm": None}
    pair |= {"differences": [0.1, 0.2, 0.3], "test_accuracy": spread([0.1, 0.2, 0.3])}
    (make,) = differences(summary | {"comparisons": [pair]}, summary["groups"]).values()
    differing = make()
    assert differing.axes[0].containers[0].lines[0].get_color() == styles["lr=0.05"]["color"]


def test_more_settings_than_colours_are_told_apart():
    settings = {"start": None, "drop_last": False}
    groups = [{"label": f"setting {i}", "settings": settings} for i in range(60)]
    styles = list(canvas.styles({"groups": groups}).values())
    assert len(set(map(str, styles))) == 60
    assert [style["linestyle"] for style in styles][6:8] == ["-", "--"]
    assert (styles[7]["color"], styles[7]["marker"]) == (styles[0]["color"], styles[0]["marker"])


# --- curves


def test_a_setting_shows_every_seed_and_the_mean(summary):
    figure = draw(summary, "lr=0.05")
    loss, accuracy = figure.axes
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss (nats)", "accuracy (%)")
    assert loss.get_xlabel() == accuracy.get_xlabel() == "epoch"
    assert legend(figure) == ["one seed", "training, mean", "validation, mean"]
    validation = lines(accuracy)["validation, mean"]
    assert list(validation.get_xdata()) == [1, 2]
    assert list(validation.get_ydata()) == pytest.approx([40, 62])
    seeds = faint(accuracy)
    assert len(seeds) == 6
    assert sorted(line.get_ydata()[1] for line in seeds) == pytest.approx([61, 62, 63, 90, 90, 90])
    assert all(line.get_linewidth() < validation.get_linewidth() for line in seeds)
    assert validation.get_color() != canvas.TRAINING_COLOUR
    assert lines(accuracy)["training, mean"].get_color() == canvas.TRAINING_COLOUR


def test_a_diverged_seed_stops_at_a_cross_and_is_counted(summary):
    figure = draw(summary, "lr=0.1")
    accuracy = figure.axes[1]
    assert "2 seeds (1 diverged)" in figure.get_suptitle()
    assert list(lines(accuracy)["validation, mean"].get_ydata()) == pytest.approx([40, 52])
    stopped = [line for line in accuracy.get_lines() if np.isnan(line.get_ydata()).any()]
    assert len(stopped) == 2  # its training and its validation
    cross = lines(accuracy)["a seed diverged"]
    assert (list(cross.get_xdata()), cross.get_marker()) == ([2], "x")
    assert "a seed diverged" in legend(figure)
    assert "a seed diverged" not in legend(draw(summary, "lr=0.05"))


def test_one_epoch_is_seen():
    groups = {"lr=1": [record(1, 0.9)]}
    for key in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
        groups["lr=1"][0][key] = groups["lr=1"][0][key][:1]
    one = summary_of("exp1_lr", "1.1, learning rates", groups)
    for line in draw(one, "lr=1").axes[0].get_lines():
        assert line.get_marker() == "o"


def test_all_diverged_still_draws():
    groups = {"lr=1": [record(1, 0.9, diverged_at=0)]}
    nothing = summary_of("exp1_lr", "1.1, learning rates", groups)
    assert "0 seeds (1 diverged)" in draw(nothing, "lr=1").get_suptitle()
    found = lab.figures.figures(nothing)
    assert list(found) == ["test_accuracy", "comparison", "lr=1"]
    for make in found.values():
        make().draw_without_rendering()
    assert at_a_glance([nothing]) is not None


def test_settings_share_their_scales(summary):
    for run in summary["groups"][2]["runs"]:
        run["val_loss"][1] = 3.0
    panels = [draw(summary, label).axes for label in LABELS]
    assert len({loss.get_ylim() for loss, _ in panels}) == 1
    assert len({accuracy.get_ylim() for _, accuracy in panels}) == 1
    assert panels[0][0].get_ylim() == (0, pytest.approx(1.05 * 3))
    assert panels[0][1].get_ylim() == (40, 90)  # all accuracies, from ten to ten


def test_accuracies_stay_between_0_and_100_percent():
    groups = sweep_of({"a": [0.02, 0.97, 0.99], "b": [1.0, 0.0, 0.5]}, train=1.0)
    for label, runs in groups.items():
        for run in runs:
            run["test_accuracy"] = run["val_accuracy"][-1]
            run["val_accuracy"][0] = 1.0 if label == "a" else 0.0
    wide = summary_of("exp1_lr", "1.1, learning rates", groups)
    for name in ("a", "b", "comparison", "test_accuracy"):
        figure = draw(wide, name)
        for axes in figure.axes:
            if axes.get_ylabel() == "accuracy (%)":
                assert axes.get_ylim() == (0, 100)
    low, high = draw(wide, "test_accuracy").axes[0].get_xlim()
    assert 0 <= low < high <= 100
    low, high = at_a_glance([wide]).axes[0].get_xlim()
    assert 0 <= low < high <= 100


@pytest.mark.parametrize("loss", [1e3, 1e30])
def test_a_loss_that_went_astray_is_cut_and_told(loss, summary):
    summary["groups"][0]["runs"][0]["train_loss"][0] = loss
    summary["groups"][0]["mean"]["train_loss"][0] = loss / 2
    panel = draw(summary, "lr=0.1").axes[0]
    assert panel.get_ylim() == (0, pytest.approx(1.05 * canvas.HIGHEST_LOSS))
    told = {1e3: "cut off; the highest is 1,000.0", 1e30: "cut off; the highest is 1e+30"}[loss]
    assert [text.get_text() for text in panel.texts] == [told]
    # the seed's curve leaves the panel towards its loss, and no part of it is left out
    astray = next(line for line in panel.lines if max(line.get_ydata()) > panel.get_ylim()[1])
    runs = summary["groups"][0]["runs"]
    assert np.isfinite(astray.get_ydata()).all()
    assert list(astray.get_ydata()[1:]) == runs[0]["train_loss"][1:]
    other = draw(summary, "lr=0.05").axes[0]
    assert other.get_ylim() == panel.get_ylim()
    assert not other.texts
    train, val = draw(summary, "comparison").axes[:2]
    assert train.get_ylim() == val.get_ylim()
    assert train.get_ylim()[1] == pytest.approx(1.05 * canvas.HIGHEST_LOSS)
    assert "cut" in train.texts[0].get_text()
    assert not val.texts


def test_equal_curves_do_not_hide_each_other(summary):
    """With a marker at every epoch they differ in size, and else in place."""
    markers = draw(summary, "comparison").axes[0].lines
    assert [line.get_markersize() for line in markers] == [9, 8, 7, 6, 5]
    for group in summary["groups"]:
        for curves in (group["mean"], group["std"]):
            for name, curve in curves.items():
                curves[name] = (30 * curve)[:30]
    markers = draw(summary, "comparison").axes[0].lines
    assert {line.get_markersize() for line in markers} == {5}
    assert [line.get_markevery() for line in markers] == [(n, 5) for n in range(5)]


def test_the_comparison_smooths_validation_alone(summary):
    figure = draw(summary, "comparison")
    train_loss, val_loss, train_accuracy, val_accuracy = figure.axes
    assert val_loss.get_title() == "validation, moving mean of 3 epochs"
    assert train_loss.get_title() == "training"
    assert train_accuracy.get_ylabel() == val_accuracy.get_ylabel() == "accuracy (%)"
    label = "lr=0.05, 3 seeds"
    assert list(lines(train_loss)[label].get_ydata()) == pytest.approx([2, 1])
    assert list(lines(val_loss)[label].get_ydata()) == pytest.approx([1.75, 1.75])
    assert list(lines(train_accuracy)[label].get_ydata()) == pytest.approx([50, 90])
    assert list(lines(val_accuracy)[label].get_ydata()) == pytest.approx([51, 51])
    assert legend(figure)[0] == "lr=0.1, 2 seeds (1 diverged)"
    assert "The moving mean is centred" in caption(figure)
    assert "Lines: means over the seeds" in caption(figure)
    assert train_loss.get_ylim() == val_loss.get_ylim()
    assert train_accuracy.get_ylim() == val_accuracy.get_ylim()


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
    assert sweep.smooth([1, 2, 6, 4, 10], window) == pytest.approx(expected)


def test_smoothing_stops_where_a_curve_stops():
    assert sweep.smooth([1.0, 3.0, None], 3) == [2.0, 2.0, None]


@pytest.mark.parametrize(
    ("epochs", "ticks"),
    [
        (2, [1, 2]),
        (3, [1, 2, 3]),
        (10, [1, 2, 4, 6, 8, 10]),
        (30, [1, 5, 10, 15, 20, 25, 30]),
        (50, [1, 10, 20, 30, 40, 50]),
    ],
)
def test_epochs_are_marked_from_the_first_at_round_numbers(epochs, ticks):
    assert canvas.epoch_ticks(epochs) == ticks


def test_a_step_decay_has_lines_where_it_drops():
    rates = [0.1] * 10 + [0.05] * 10 + [0.01]
    assert canvas.drops(rates) == [11, 21]
    assert canvas.drops([0.1 / (1 + epoch) for epoch in range(50)]) == []  # falls all the time
    assert canvas.drops(0.1) == []
    step, fixed = record(1, 0.5), record(1, 0.6)
    for run in (step, fixed):
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            run[name] = [run[name][-1]] * 21
    step["run"] = step["run"] | {"learning_rate": rates}
    groups = {"lr=0.1": [fixed], "step": [step]}
    scheduled = summary_of("exp9", "9, schedules", groups)
    for name, expected in (("step", [10.5, 20.5]), ("comparison", [10.5, 20.5]), ("lr=0.1", [])):
        figure = draw(scheduled, name)
        axes = figure.axes[0]
        marked = [line.get_xdata()[0] for line in axes.get_lines() if line.get_linestyle() == ":"]
        assert sorted(marked) == expected
        if expected:
            assert list(axes.get_xticks()) == [1, 11, 21]
        assert ("step: learning rate drops" in legend(figure)) == bool(expected)


# --- results


@pytest.fixture
def transfer() -> Summary:
    """Five groups as experiment 2.2 has them, with two comparisons; seed 2 diverged in one."""
    labels = ["untouched, lr=0.05", "dropout=0", "dropout=0.4"]
    labels += [f"retrained, {label}" for label in labels[1:]]
    groups = {}
    for i, label in enumerate(labels):
        runs = [record(seed, 0.6, test=0.5 + 0.1 * i + 0.01 * seed) for seed in (1, 2, 3)]
        for run in runs:
            run["run"] = run["run"] | {"dropout_rate": 0.4 if "0.4" in label else 0.0}
            run["run"] = run["run"] | {"split": "standard" if i == 0 else "halves"}
            if i > 2:
                run["run"] |= {"start": dict(run["run"]), "split": "swapped halves"}
            run["report"] = {"cat": {"f1-score": 0.2 * run["seed"]}, "dog": {"f1-score": 0.5}}
            run["report"]["accuracy"] = 0.5
            run["confusion_matrix"] = [[1, 0], [0, 1]]
        groups[label] = runs
    lost = groups["dropout=0.4"][1]
    groups["dropout=0.4"][1] = record(2, 0.6, diverged_at=1, run=lost["run"])
    return summary_of(
        *("exp2_transfer", "2.2, transfer", groups),
        candidates=labels[3:],
        comparisons=[(labels[4], labels[3]), (labels[4], labels[2])],
        twins={f"retrained, {label}": label for label in labels[1:3]},
    )


def test_results_show_every_setting_with_seeds_mean_and_interval(transfer):
    accuracy, gap = draw(transfer, "test_accuracy").axes
    labels = [group["label"] for group in transfer["groups"]]
    labels[2] += "\n(1 of 3 diverged)"
    labels[3] += "\n(best)"
    assert row_names(accuracy) == labels
    seeds = [list(line.get_xdata()) for line in faint(accuracy)]
    assert seeds[1] == pytest.approx([61, 62, 63])
    assert seeds[2] == pytest.approx([71, 73])
    mean = accuracy.containers[1]  # Student's quantile 4.302653, deviation 1 point
    assert mean.lines[0].get_xdata() == pytest.approx([62])
    half = 4.302653 / math.sqrt(3)
    interval = mean.lines[2][0].get_segments()[0][:, 0]
    assert interval == pytest.approx([62 - half, 62 + half], rel=1e-5)
    assert gap.containers[0].lines[0].get_xdata() == pytest.approx([30])
    assert list(faint(gap)[0].get_xdata()) == pytest.approx([30] * 3)
    faces = [container.lines[0].get_markerfacecolor() for container in accuracy.containers]
    assert [face == "white" for face in faces][:5] == [False, False, False, True, True]
    assert (accuracy.get_xlabel(), gap.get_xlabel()) == (
        "test accuracy (%)",
        "gap (percentage points)",
    )
    # of two classes, guessing gives 50%
    words = ["one seed", "guessing", "mean and 95% interval"]
    assert legend(draw(transfer, "test_accuracy")) == words


def test_no_interval_is_drawn_for_two_seeds(transfer):
    accuracy, _ = draw(transfer, "test_accuracy").axes
    intervals = [container.lines[2] for container in accuracy.containers]
    assert [len(interval) for interval in intervals][:5] == [1, 1, 0, 1, 1]


def test_a_retrained_model_has_the_colour_of_its_source(transfer):
    styles = canvas.styles(transfer)
    for label in ("dropout=0", "dropout=0.4"):
        open_one = {"linestyle": "--", "markerfacecolor": "white"}
        assert styles[f"retrained, {label}"] == styles[label] | open_one
        assert styles[label]["linestyle"] == "-"
    assert len({styles[label]["color"] for label in list(styles)[:3]}) == 3


def test_a_second_twin_has_the_colour_and_a_line_of_its_own(transfer):
    """As the twin of a twin."""
    pairs = {"retrained, dropout=0.4": "retrained, dropout=0"}
    styles = canvas.styles(transfer | {"twins": transfer["twins"] | pairs})
    assert styles["retrained, dropout=0.4"] == styles["retrained, dropout=0"] | {"linestyle": ":"}
    assert len({json.dumps(style) for style in styles.values()}) == len(styles)
    alone = canvas.styles(transfer | {"twins": {"dropout=0": "not here"}})
    assert len({style["color"] for style in alone.values()}) == 5


def test_classes_show_the_mean_over_seeds(transfer):
    (classes,) = draw(transfer, "classes").axes
    first = classes.get_lines()[0]
    assert [tick.get_text() for tick in classes.get_xticklabels()] == ["cat", "dog"]
    places = [line.get_xdata()[0] for line in classes.get_lines()]
    assert places == sorted(set(places))  # side by side, around the class
    assert sum(places) == pytest.approx(0)
    assert max(places) < 0.3
    assert list(first.get_ydata()) == pytest.approx([40, 50])
    assert list(classes.get_lines()[2].get_ydata()) == pytest.approx([40, 50])  # seeds 1 and 3


def test_differences_show_pairs_verdict_and_who_is_left_out(transfer):
    (axes,) = draw(transfer, "differences").axes
    assert row_names(axes) == [
        "retrained, dropout=0.4\nminus retrained, dropout=0",
        "retrained, dropout=0.4\nminus dropout=0.4 (without seed 2)",
    ]
    assert list(faint(axes)[0].get_xdata()) == pytest.approx([10] * 3)
    assert list(faint(axes)[1].get_xdata()) == pytest.approx([20] * 2)
    pairs = transfer["comparisons"]
    pairs[0]["p_holm"] = 0.012345
    pairs[1] |= {"verdict": "dropout=0.4 is better", "p_holm": 1e-9}
    pairs[1]["test_accuracy"]["mean"] = -0.2
    told = [text.get_text() for text in draw(transfer, "differences").axes[0].texts]
    assert told == ["better\np = 0.012", "worse\np < 0.0001"]
    pairs[0] |= {"p_holm": None, "verdict": None}
    assert draw(transfer, "differences").axes[0].texts[0].get_text() == "without a verdict"
    # so that no page shows the file of an earlier report
    assert "differences" not in lab.figures.figures(transfer | {"comparisons": []})


def test_the_study_at_a_glance_shows_every_setting_by_experiment(summary, transfer):
    figure = at_a_glance([summary, transfer])
    left, right = figure.axes
    first = ["lr=0.1 (1 of 3 diverged)", *LABELS[1:]]
    assert row_names(left) == ["1.1 learning rates (2 epochs)", *first]
    assert row_names(right)[0] == "2.2 transfer (2 epochs)"
    assert [g["label"] for g in transfer["groups"] if "0.4" not in g["label"]] == [
        name for name in row_names(right)[1:] if "0.4" not in name
    ]
    weights = [tick.get_fontweight() for tick in left.get_yticklabels()]
    assert weights == ["bold", *["normal"] * 5]
    assert left.get_xlim() == right.get_xlim()
    means = [container.lines[0] for container in left.containers[:5]]
    assert [mean.get_xdata()[0] for mean in means] == pytest.approx([50] * 5)
    best = [mean.get_color() for mean in means if mean.get_color() != canvas.COLOURS[0]]
    assert best == [canvas.COLOURS[1]]
    assert "Orange square: the best setting" in caption(figure)
    # as the made-up settings are equal
    assert "share the runs of lr=0.1 (or “untouched, lr=0.05”)" in caption(figure)
    assert "share the runs" not in caption(at_a_glance([summary]))
    again = summary | {"title": "1.2 schedules", "groups": summary["groups"][3:]}
    expected = "Experiments share the runs of lr=0.025 and lr=0.01"
    assert expected in caption(at_a_glance([summary, again]))
    assert means[4].get_color() == best[0]  # the best of the experiment, by validation
    one, two = (summary | {"environment": {"device": device}} for device in (["A", "B"], "B"))
    assert caption(at_a_glance([one, two])).endswith("; A and B")


def test_the_study_at_a_glance_leaves_out_what_is_learned_by_heart(learned):
    (axes,) = at_a_glance([learned]).axes
    names = ["4.1 overfitting (3 epochs)", "baseline", "augmentation"]
    assert row_names(axes) == names


def test_a_setting_far_below_the_others_is_told_at_the_edge(summary):
    for run in summary["groups"][1]["runs"]:
        run["test_accuracy"] = 0.1
    assert "◂" not in caption(at_a_glance([summary]))
    for group in summary["groups"][1:2]:
        group["test_accuracy"]["mean"] = 0.1
    figure = at_a_glance([summary])
    (axes,) = figure.axes
    assert [(text.get_text(), text.get_position()[1]) for text in axes.texts] == [("◂ 10.0", 2)]
    assert "◂: a mean that is too low to be drawn" in caption(figure)
    assert axes.get_xlim()[0] >= 25


# --- mistakes


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
    assert row_names(matrix) == ["cat", "dog"]
    assert [patch.get_width() for patch in classes.patches] == pytest.approx([75, 75])


def test_of_many_classes_only_the_lowest_and_the_highest_are_named(summary):
    """100 classes, of which the first has no image right, the second 1, and so on."""
    run = next(g for g in summary["groups"] if g["label"] == "lr=0.01")["runs"][2]
    run["confusion_matrix"] = np.diag(np.arange(100)) + np.diag(100 - np.arange(100))[:, ::-1]
    run["confusion_matrix"] = run["confusion_matrix"].tolist()
    run["report"] = {f"class {n}": {} for n in range(100)}
    matrix, classes = draw(summary, "best_model").axes[:2]
    assert not matrix.texts
    assert not any("class" in label.get_text() for label in matrix.get_yticklabels())
    lowest, highest = range(10), range(90, 100)
    assert row_names(classes) == [f"class {n}" for n in (*lowest, *highest)]
    assert classes.get_xlabel() == "accuracy by class (%), lowest and highest"


@pytest.fixture
def mistaken(summary) -> Summary:
    """The best run has three mistakes, on digits."""
    summary["groups"][4]["settings"]["dataset"] = "digits"
    summary["groups"][4]["runs"][2]["most_confident_mistakes"] = [
        {"image": 5, "true": "3", "predicted": "8", "probability": 0.9999987},
        {"image": 0, "true": "1", "predicted": "7", "probability": 0.5},
        {"image": 1, "true": "2", "predicted": "7", "probability": 1.0},
    ]
    return summary


def test_mistakes_show_the_images_and_what_tells_them_apart(mistaken):
    figure = draw(mistaken, "mistakes")
    images = mistakes.test_images("digits")
    assert [axes.get_title() for axes in figure.axes] == [
        "3, taken for\n8 (1e-06)",
        "1, taken for\n7 (0.5)",
        "2, taken for\n7 (below 1e-15)",
    ]
    assert "one minus the probability of the predicted class" in caption(figure)
    assert np.array_equal(figure.axes[0].get_images()[0].get_array(), images[5])
    assert np.array_equal(figure.axes[1].get_images()[0].get_array(), images[0])


def test_mistakes_need_the_data(mistaken, monkeypatch, tmp_path):
    mistaken["groups"][4]["settings"]["dataset"] = "cifar10"
    monkeypatch.setenv("CIFAR10_DIR", str(tmp_path))
    assert draw(mistaken, "mistakes") is None


def test_mistakes_on_images_that_are_no_pictures_are_not_drawn(mistaken, monkeypatch):
    monkeypatch.setattr(mistakes, "test_images", lambda name: np.zeros((9, 32, 32, 5)))
    assert draw(mistaken, "mistakes") is None


def test_the_errors_of_a_run_are_those_of_its_record(tmp_path, monkeypatch):
    shown = [{"image": 5, "true": "3", "predicted": "8", "probability": 0.9}]
    report = {"cat": {}, "dog": {}, "accuracy": 0.75}
    run = record(7, 0.6, report=report, confusion_matrix=[[3, 1], [0, 4]])
    run |= {"most_confident_mistakes": shown}
    run["run"] = run["run"] | {"dataset": "digits"}
    seen = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: seen.append(figure))
    name = "DropoutNet_lr=0.1_dropout=0_seed=7_abc"
    paths = lab.figures.draw_errors(run, name, tmp_path)
    assert [path.name for path in paths] == [f"{name}_confusion.png", f"{name}_mistakes.png"]
    matrix, bars = seen[0].axes[:2]
    assert [text.get_text() for text in matrix.texts] == ["75", "25", "0", "100"]
    assert sorted(bar.get_width() for bar in bars.patches) == pytest.approx([75, 100])
    assert "DropoutNet, lr=0.1, dropout=0, seed 7" in seen[0].get_suptitle()
    assert seen[0].get_suptitle().startswith("REHEARSAL")
    assert seen[1].axes[0].get_title().startswith("3, taken for\n8 ")
    run["run"].pop("dataset")  # CIFAR-10, which is not here
    monkeypatch.setenv("CIFAR10_DIR", str(tmp_path))
    paths = lab.figures.draw_errors(run, name, tmp_path)
    assert [path.name for path in paths] == [f"{name}_confusion.png"]


# --- 1.0


def at_rate(rate: float, *val: float, diverged: int = 0) -> list[Record]:
    """Records at a rate: one for each validation accuracy, and so many that diverged."""
    run = {"network": "BaselineNet", "split": "standard", "learning_rate": rate}
    sound = [record(seed, accuracy, run=run) for seed, accuracy in enumerate(val)]
    return sound + [record(10 + i, 0.99, diverged_at=1, run=run) for i in range(diverged)]


@pytest.fixture
def explored() -> Summary:
    """Three rates; of the first, one of two seeds diverged in the second epoch."""
    rates = [at_rate(0.2, 0.3, diverged=1), at_rate(0.01, 0.6, 0.7), at_rate(0.001, 0.1, 0.2)]
    groups = {f"lr={group[0]['run']['learning_rate']}": group for group in rates}
    title = "1.0, exploration"
    return summary_of("exp1_explore", title, groups, suggested_range=[0.001, 0.01])


def test_the_extremes_stand_side_by_side(explored):
    figure = draw(explored, "extremes")
    losses, accuracies = figure.axes[:3], figure.axes[3:]
    assert [axes.get_title() for axes in losses] == [
        "highest: lr=0.2\n1 seed (1 diverged)",
        "best: lr=0.01\n2 seeds",
        "lowest: lr=0.001\n2 seeds",
    ]
    for row, guess in ((losses, math.log(10)), (accuracies, 10)):
        assert row[0].get_ylim() == row[1].get_ylim() == row[2].get_ylim()
        for axes in row:
            assert list(lines(axes)["guessing"].get_ydata()) == pytest.approx([guess, guess])
    best = lines(accuracies[1])
    assert list(best["validation, mean"].get_ydata()) == pytest.approx([40, 65])
    seeds = faint(accuracies[1])
    assert sorted(line.get_ydata()[1] for line in seeds) == pytest.approx([60, 70, 90, 90])
    assert list(lines(losses[0])["a seed diverged"].get_xdata()) == [2]
    panels = draw(explored | {"best": None}, "extremes").axes[:2]
    assert [axes.get_title().split(":")[0] for axes in panels] == ["highest", "lowest"]


def test_losses_however_large_leave_the_others_to_be_seen(explored):
    explored["groups"][0]["runs"][1]["val_loss"][0] = 1e30  # just before it diverged
    figure = draw(explored, "extremes")
    figure.draw_without_rendering()
    limits = (0, pytest.approx(1.05 * canvas.HIGHEST_LOSS))
    assert all(axes.get_ylim() == limits for axes in figure.axes[:3])
    assert [[text.get_text() for text in axes.texts] for axes in figure.axes[:3]] == [
        ["cut off; the highest is 1e+30"],
        [],
        [],
    ]


def test_accuracy_by_rate_shows_seeds_means_range_and_divergence(explored):
    (axes,) = draw(explored, "accuracy_by_rate").axes
    found = lines(axes)
    assert list(found["validation, mean"].get_xdata()) == [0.001, 0.01, 0.2]
    assert list(found["validation, mean"].get_ydata()) == pytest.approx([15, 65, 30])
    assert list(found["training, mean"].get_ydata()) == pytest.approx([90, 90, 90])
    assert found["training, mean"].get_color() == canvas.TRAINING_COLOUR
    at = {xy for line in faint(axes) for xy in zip(*np.round(line.get_data(), 3), strict=True)}
    assert {(0.01, 60), (0.01, 70), (0.001, 10), (0.2, 30)} <= at
    assert not any(np.isclose(y, 99) for _, y in at)
    assert (axes.get_xscale(), axes.get_ylim()) == ("log", (0, 100))
    crosses = found["a seed diverged"]  # one for each
    assert (list(crosses.get_xdata()), crosses.get_marker()) == ([0.2], "x")
    colours = {line.get_xdata()[0]: line.get_color() for line in faint(axes)[1::2]}
    styles = canvas.styles(explored)  # validation in the colour of the setting
    expected = [style["color"] for style in styles.values()]
    assert [colours[rate] for rate in (0.2, 0.01, 0.001)] == expected
    (shade,) = [
        patch for patch in axes.patches if "suggested range, 0.001 to 0.01" in patch.get_label()
    ]
    assert shade.get_x() < 0.001 < 0.01 < shade.get_x() + shade.get_width() < 0.2
    single = draw(explored | {"suggested_range": [0.01, 0.01]}, "accuracy_by_rate")
    assert "suggested range, 0.01 to 0.01" in legend(single)


def test_rates_that_all_diverge_still_draw():
    groups = {"lr=0.2": at_rate(0.2, diverged=2)}
    nothing = summary_of("exp1_explore", "1.0, exploration", groups, suggested_range=None)
    for name, make in exp1_explore.figures(nothing).items():
        assert (make() is None) == (name == "differences")


# --- 1.2


def test_schedules_are_drawn_as_they_are_and_those_not_trained_are_grey():
    rates = {"step": [0.1, 0.1, 0.05], "b": [0.1, 0.05, 0.01], "c": [0.2, 0.2, 0.2]}
    groups = {"lr=0.1": [record(1, 0.5)], "step": [record(1, 0.5)]}
    groups["step"][0]["run"] = groups["step"][0]["run"] | {"learning_rate": rates["step"]}
    scheduled = summary_of("exp1_scheduler", "1.2, schedules", groups, schedules=rates)
    (axes,) = draw(scheduled, "schedules").axes
    found = lines(axes)
    drawn = [list(found[name].get_ydata()) for name in ("step (trained)", "b", "c")]
    assert drawn == list(rates.values())
    assert list(found["b"].get_xdata()) == [1, 2, 3]
    assert found["step (trained)"].get_color() == canvas.styles(scheduled)["step"]["color"]
    assert {found[name].get_color() for name in ("b", "c")} == {canvas.TRAINING_COLOUR}
    assert found["b"].get_linestyle() != found["c"].get_linestyle()
    assert axes.get_ylabel() == "learning rate"
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() == "epoch"
    scheduled["settings"]["DECAY_RATE"] = 0.25
    assert "The trained one has k = 0.25" in caption(draw(scheduled, "schedules"))


# --- 1.3


@pytest.fixture
def twins() -> Summary:
    """Two settings with the short last batch and without it."""
    groups = sweep_of({"lr=0.1": [0.5, 0.6, 0.7], "lr=0.05": [0.6, 0.6, 0.6]})
    for i, label in enumerate(list(groups)):
        for run in groups[label]:
            run["test_accuracy"] = 0.5 + 0.1 * i
        others = [
            record(run["seed"], 0.8 - 0.1 * i, test=0.7 - 0.1 * i, run=run["run"])
            for run in groups[label]
        ]
        for run in others:
            run["run"] = run["run"] | {"drop_last": True}
        groups[f"{label}, drop last"] = others
    pairs = [(f"{label}, drop last", label) for label in ("lr=0.1", "lr=0.05")]
    title = "1.3, the last batch"
    return summary_of("exp1_last_batch", title, groups, comparisons=pairs, twins=dict(pairs))


def test_twins_share_a_panel_and_a_colour(twins):
    figure = draw(twins, "with_and_without")
    assert [axes.get_title() for axes in figure.axes] == ["lr=0.1", "lr=0.05"]
    with_it, without = (lines(figure.axes[0])[label] for label in legend(figure)[1:])
    assert list(with_it.get_ydata()) == pytest.approx([40, 60])
    assert list(without.get_ydata()) == pytest.approx([40, 80])
    styles = canvas.styles(twins)
    assert with_it.get_color() == canvas.TRAINING_COLOUR
    assert without.get_color() == styles["lr=0.1"]["color"]
    assert styles["lr=0.1, drop last"]["color"] == styles["lr=0.1"]["color"]
    assert styles["lr=0.1, drop last"]["linestyle"] == "--"
    assert len(faint(figure.axes[0])) == 6
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()


def test_both_rankings_stand_side_by_side_on_one_scale(twins):
    with_it, without, rough = draw(twins, "rankings").axes
    assert row_names(with_it) == ["rank 2: lr=0.1", "rank 1: lr=0.05"]
    assert row_names(without) == ["rank 1", "rank 2"]
    assert row_names(rough) == ["with", "without"] * 2
    means = [
        [mean.lines[0].get_xdata()[0] for mean in axes.containers[:2]]
        for axes in (with_it, without)
    ]
    assert means == [pytest.approx([50, 60]), pytest.approx([70, 60])]
    assert with_it.get_xlim() == without.get_xlim()
    drawn = [mean.lines[0].get_xdata()[0] for mean in rough.containers[:4]]
    assert drawn == pytest.approx([20, 40, 20, 30])
    assert "from one epoch to the next" in caption(draw(twins, "rankings"))


def test_every_figure_of_the_last_batch_draws(twins):
    for make in list(exp1_last_batch.figures(twins).values())[:-1]:
        assert make() is not None


# --- 2.2


@pytest.fixture
def frozen() -> Summary:
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
            source = seed["run"] | {"dropout_rate": 0.4 if "0.4" in label else 0.0}
            seed["run"] |= {"frozen": layers, "learning_rate": rate, "start": source}
    diverged = groups["frozen=1, lr=0.01"][1]
    groups["frozen=1, lr=0.01"][1] = record(2, 0.9, diverged_at=1, run=diverged["run"])
    base = "retrained, dropout=0"
    finer = [label for label in groups if label.startswith("frozen")]
    return summary_of(
        *("exp2_transfer", "2.2, transfer", groups),
        candidates=list(groups)[:2],
        comparisons=[("retrained, dropout=0.4", base), *((label, base) for label in finer)],
    )


def test_results_are_shown_by_frozen_layers(frozen):
    figure = draw(frozen, "by_frozen_layers")
    accuracy, gap = figure.axes
    assert row_names(accuracy) == [  # the highest rate first, from none to all
        "frozen=0, lr=0.1",
        "retrained, dropout=0",
        "frozen=0, lr=0.01",
        "frozen=1, lr=0.01\n(1 of 3 diverged)",
    ]
    means = [mean.lines[0].get_xdata()[0] for mean in accuracy.containers[:4]]
    assert means == pytest.approx([60, 50, 70, 80])
    # training 0.9, validation 0.4 + test / 2
    means = [mean.lines[0].get_xdata()[0] for mean in gap.containers[:4]]
    assert means == pytest.approx([20, 25, 15, 10])
    assert "Frozen: how many convolutions" in caption(figure)


def test_finer_transfer_has_figures_of_its_own(frozen):
    (axes,) = draw(frozen, "differences_by_frozen_layers").axes
    assert [name.removesuffix(" (without seed 2)") for name in row_names(axes)] == [
        f"{label}\nminus retrained, dropout=0"
        for label in ("frozen=0, lr=0.1", "frozen=0, lr=0.01", "frozen=1, lr=0.01")
    ]
    assert len(row_names(draw(frozen, "differences").axes[0])) == 1
    assert len(row_names(draw(frozen, "test_accuracy").axes[0])) == 2
    assert draw(frozen, "frozen=0, lr=0.01") is not None
    assert "3 seeds" in legend(draw(frozen, "comparison"))[0]
    assert len(legend(draw(frozen, "comparison"))) == 2


# --- 3


@pytest.fixture
def watched() -> Summary:
    """A summary of two networks whose gradients were watched for two epochs."""

    def gradients(parameters: list[str], scale: float) -> dict[str, Any]:
        """Statistics that grow with scale."""
        n = len(parameters)
        pooled = {"mean": [scale * (i + 1) for i in range(n)], "std": [4 * scale] * n}
        return {
            "parameters": parameters,
            "history": {"mean": [[scale] * n, [2 * scale] * n], "std": [[scale] * n] * 2},
            "by_step": [pooled],
            "first_epochs": pooled,
            "last_epochs": pooled,
            "first_steps": pooled | {"std_by_element": [5 * scale] * n},
            "last_steps": pooled | {"std_by_element": [5 * scale] * n},
        }

    parameters = ["conv1.weight", "fc2.bias", "bn1.weight"]
    groups = {}
    for network, names, factor in (
        ("BaselineNet", parameters[:2], 100.0),
        ("BatchNormNet", parameters, 1.0),
    ):
        groups[f"{network}, gradients"] = [
            record(seed, 0.6, gradients=gradients(names, factor * seed)) for seed in (1, 3)
        ]
        for seed in groups[f"{network}, gradients"]:
            seed["run"] = seed["run"] | {"network": network, "gradient_statistics": True}
    return summary_of("exp3_gradients", "3, gradient flow", groups)


def test_gradients_are_grouped_by_window_and_ordered_by_layer(watched):
    mean, std = draw(watched, "gradients_BatchNormNet").axes
    names = [tick.get_text() for tick in mean.get_xticklabels()]
    assert names == ["conv1.weight", "bn1.weight", "fc2.bias"]
    bars = [container for container in mean.containers if hasattr(container, "patches")]
    assert [bar.get_label() for bar in bars] == [
        words for words, _ in exp3_gradients.WINDOWS.values()
    ]
    heights = {round(p.get_x() + 0.4): p.get_height() for p in bars[0]}
    assert heights == pytest.approx({0: 2, 2: 4, 1: 6})  # means of seeds with scales 1 and 3
    assert mean.get_yscale() == std.get_yscale() == "log"
    crosses = [line for line in std.get_lines() if line.get_marker() == "x"]
    assert [list(line.get_ydata()) for line in crosses] == [[10, 10, 10]] * 2
    assert "about zero" in caption(draw(watched, "gradients_BatchNormNet"))
    assert "about zero" not in caption(draw(watched, "gradients_BaselineNet"))


def test_layers_of_an_unknown_network_keep_the_order_in_which_they_are_registered():
    group = {"gradients": {"parameters": ["stem.weight", "block.weight", "conv1.bias", "a.bias"]}}
    assert exp3_gradients.in_forward_order([group]) == [
        *("conv1.bias", "stem.weight", "block.weight", "a.bias")
    ]


def test_networks_stand_together_on_one_scale(watched):
    panels = draw(watched, "gradients_compared").axes
    networks = ["BaselineNet", "BaselineNet", "BatchNormNet", "BatchNormNet"]
    assert [axes.get_title() for axes in panels] == networks
    for column in (panels[::2], panels[1::2]):
        assert column[0].get_ylim() == column[1].get_ylim()
        assert column[0].get_xlim() == column[1].get_xlim()
        heights = [patch.get_height() for axes in column for patch in axes.patches]
        assert column[0].get_ylim()[0] < min(heights)
        assert column[0].get_ylim()[1] > max(heights)
    # a parameter has the same place in both
    last = [max(patch.get_x() for patch in axes.patches) for axes in panels[::2]]
    assert last[0] == pytest.approx(last[1])
    assert max(patch.get_height() for patch in panels[0].patches) == 400
    assert min(patch.get_height() for patch in panels[2].patches) == 2


def test_the_heat_map_shows_layer_by_epoch(watched):
    figure = draw(watched, "gradients_by_epoch")
    images = [axes.get_images()[0] for axes in figure.axes[:2]]
    assert np.asarray(images[1].get_array()).tolist() == [[2, 4]] * 3
    plain = np.ma.filled(images[0].get_array(), np.nan)
    assert plain[[0, 2]].tolist() == [[200, 400]] * 2
    assert np.isnan(plain[1]).all()  # it has no bn1
    assert images[0].norm.vmax == 400
    assert images[0].norm is images[1].norm
    assert row_names(figure.axes[0]) == ["conv1.weight", "bn1.weight", "fc2.bias"]
    assert figure.axes[0].get_xlabel() == "epoch"


def test_networks_whose_gradients_all_diverged_are_left_out(watched):
    for group in watched["groups"]:
        del group["gradients"]
    assert not [name for name in lab.figures.figures(watched) if "gradients" in name]


# --- 4.1


@pytest.fixture
def learned() -> Summary:
    """Two seeds: one image learned, one batch not from seed 2, a baseline and one strategy."""

    def whole(seed: int, val: float, train: float, val_loss: list[float], **fields: Any) -> Record:
        run = {"network": "BaselineNet", "seed": seed, "learning_rate": 0.05, "epochs": 3}
        run |= {"batch_size": 64, "split": "standard"} | fields
        curves = {"val_loss": val_loss, "train_loss": [2.0, 1.0, 0.5]}
        curves |= {"train_accuracy": [0.5, 0.6, train], "val_accuracy": [0.4, 0.5, val]}
        return record(seed, val, test=val, train=train + 0.01, run=run, **curves)

    def by_heart(seed: int, losses: list[float]) -> Record:
        found = whole(seed, 1.0, 1.0, losses, overfit_images=64)
        found["val_accuracy"] = [0.0 if loss > 1 else 1.0 for loss in losses]
        return found

    records = {
        "one image": [by_heart(1, [2, 0.1, 0.001]), by_heart(2, [2, 0.1, 0.001])],
        "one batch": [by_heart(1, [2, 0.001, 0.001]), by_heart(2, [2, 1, 1])],
        "baseline": [whole(1, 0.6, 0.95, [1.5, 1, 2]), whole(2, 0.62, 0.97, [1.5, 1, 3])],
        "augmentation": [
            whole(s, 0.6 + 0.05 * s, 0.65 + 0.06 * s, [1.5, 1.2, 1.1], augmentation=["flip"])
            for s in (1, 2)
        ],
    }
    stages = [
        overfitting.stage(label, records[label], 1.0, loss=0.01, steps_per_epoch=1)
        for label in ("one image", "one batch")
    ]
    stages.append(overfitting.stage("baseline", records["baseline"], 0.96, steps_per_epoch=704))
    return summary_of(
        *("exp4_overfit", "4.1, overfitting", records),
        candidates=["baseline", "augmentation"],
        comparisons=[("augmentation", "baseline")],
        learning=stages,
    )


def test_the_figure_of_learning_shows_goals_steps_and_failure(learned):
    figure = draw(learned, "learning")
    assert figure.get_suptitle().replace("\n", " ") == (
        "4.1 overfitting: COULD NOT LEARN ONE BATCH; COULD NOT LEARN THE WHOLE SPLIT (BASELINE)"
    )
    image, batch, split = figure.axes
    assert image.get_title() == "one image\nloss below 0.01: 2 of 2 seeds\nafter 3 steps (mean)"
    assert batch.get_title() == "one batch\nloss below 0.01: 1 of 2 seeds\nafter 2 steps (mean)"
    assert batch.title.get_color() == canvas.WARNING_COLOUR
    assert image.title.get_color() == "black"
    assert split.get_title() == (
        "baseline, the whole split\n96%: 1 of 2 seeds\nafter 2,112 steps (mean)"
    )
    assert (image.get_xlabel(), image.get_xscale()) == ("step", "log")
    curves = [list(line.get_ydata()) for line in batch.get_lines()]
    assert curves[:2] == [[2, 0.001, 0.001], [2, 1, 1]]
    assert curves[2] == pytest.approx([2, 0.5005, 0.5005])
    assert curves[3] == [0.01, 0.01]
    assert split.get_ylabel() == "training accuracy (%)"
    assert list(split.get_lines()[2].get_ydata()) == pytest.approx([50, 60, 96])
    learned["learning"][1]["steps"] = [None, None]
    assert draw(learned, "learning").axes[1].get_title().endswith("0 of 2 seeds\nNOT LEARNED")
    for learning in learned["learning"]:
        learning["could_not"] = []
    assert "can the network learn" in draw(learned, "learning").get_suptitle()


def test_the_figure_of_losses_marks_where_they_part(learned):
    figure = draw(learned, "losses")
    baseline, augmentation = figure.axes
    titles = ["baseline\n2 seeds, lowest after epoch 2", "augmentation\n2 seeds"]
    assert [axes.get_title() for axes in figure.axes] == titles
    for axes, epochs in ((baseline, [2]), (augmentation, [])):  # which still falls at the end
        assert [
            line.get_xdata()[0] for line in axes.get_lines() if line.get_linestyle() == "-."
        ] == epochs
    mean = lines(baseline)
    assert list(mean["validation, mean"].get_ydata()) == pytest.approx([1.5, 1, 2.5])
    assert list(mean["training, mean"].get_ydata()) == pytest.approx([2, 1, 0.5])
    assert baseline.get_ylim() == augmentation.get_ylim()
    assert "lowest mean validation loss" in legend(figure)


def test_the_other_figures_leave_out_what_is_learned_by_heart(learned):
    makers = lab.figures.figures(learned)
    assert list(makers)[:5] == ["learning", "losses", "test_accuracy", "differences", "comparison"]
    names = [name.split("\n")[0] for name in row_names(makers["test_accuracy"]().axes[0])]
    assert names == ["baseline", "augmentation"]
    assert len(makers["comparison"]().axes[0].get_lines()) == 2
    assert "one batch" not in makers


# --- 4.2


@pytest.fixture
def searched() -> Summary:
    """Two searches of two runs, repeated twice; one run diverged, and one has accuracy 0."""

    def search(rates: list[tuple], accuracies: list[tuple]) -> dict[str, Any]:
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
    found = {
        "random": search([(0.001, 0.002), (0.003, 0.004)], [(0.0, 0.7), (0.6, None)]),
        "grid": search([(0.001, 0.01), (0.01, 0.001)], [(0.2, 0.4), (0.3, 0.5)]),
    }
    settings = {"LEARNING_RATE_RANGE": [1e-4, 1e-2]}
    return summary_of("exp4_search", "4.2, search", groups, settings=settings, search=found)


def test_a_search_is_shown_where_it_looked(searched):
    random, grid, bar = draw(searched, "search").axes
    assert random.get_xscale() == grid.get_xscale() == "log"
    assert (random.get_xlabel(), random.get_ylabel()) == ("learning rate", "momentum")
    assert "validation accuracy" in bar.get_ylabel()
    points, ring = random.collections
    assert points.get_offsets()[:, 0].compressed().tolist() == [0.001, 0.003, 0.002]
    assert points.get_array().compressed() == pytest.approx([0, 60, 70])
    (lost,) = random.get_lines()
    assert (lost.get_marker(), list(lost.get_xdata())) == ("x", [0.004])
    assert ring.get_offsets()[:, 0].tolist() == [0.002]
    assert not len(ring.get_facecolor())
    assert ring.get_edgecolor().tolist() == [[0, 0, 0, 1]]  # not the colour of a setting
    assert random.get_title() == (
        "random search: 2 repeats of 2 runs\n× diverged: 1, ○ highest: 70.0%"
    )
    by_grid, _ = grid.collections  # one scale of colours for both
    assert by_grid.norm is points.norm
    assert (points.norm.vmin, points.norm.vmax) == (50, 70)  # 20 points tell the best apart
    assert "20 percentage points below the highest, or lower" in caption(draw(searched, "search"))
    # the repeats of one point side by side, about where it is
    xs = by_grid.get_offsets()[:, 0]
    assert len(set(xs)) == 4
    assert sorted(xs)[0] * sorted(xs)[1] == pytest.approx(0.001**2)
    assert sorted(xs)[2] * sorted(xs)[3] == pytest.approx(0.01**2)
    assert random.get_xlim() == grid.get_xlim()
    assert "side by side" in caption(draw(searched, "search"))


def test_best_so_far_shows_every_repeat_and_the_mean(searched):
    figure = draw(searched, "best_so_far")
    (runs,) = figure.axes
    assert legend(figure) == [
        "one repeat",
        "random search, mean of 2 repeats",
        "grid search, mean of 2 repeats",
    ]
    mean = lines(runs)["grid search, mean of 2 repeats"]
    assert list(mean.get_xdata()) == [1, 2]
    assert list(mean.get_ydata()) == pytest.approx([30, 40])
    repeats = [list(line.get_ydata()) for line in faint(runs)]
    assert repeats == [[0, 60], pytest.approx([70, 70]), [20, 30], [40, 50]]
    winner = canvas.styles(searched)["random, lr=0.002, momentum=0.9"]  # as its search
    assert winner["color"] == lines(runs)["random search, mean of 2 repeats"].get_color()
    assert winner["color"] != mean.get_color()
    assert runs.get_ylim()[0] == pytest.approx(50)  # 20 points below 70%
    assert runs.get_ylim()[1] >= 70
    assert "begins 20 percentage points below the highest" in caption(figure)


def test_a_search_that_only_diverged_still_draws(searched):
    for name, search in searched["search"].items():
        for repeat in search["repeats"]:
            for point in repeat["points"]:
                point["val_accuracy"] = None
            repeat |= {"best_so_far": [None, None], "winner": None}
        nothing = {"best_so_far": {"mean": [None, None], "std": [None, None]}, "winner": None}
        searched["search"][name] |= nothing
    assert draw(searched, "best_so_far") is not None
    assert draw(searched, "search").axes[0].get_title().endswith("× diverged: 4")


# --- 4.3


@pytest.fixture
def initialised() -> Summary:
    """Three initialisations: one is sound, one has no gradients but one, one diverged."""

    def gradients(means: list[list[float]]) -> dict[str, Any]:
        pooled = {"mean": means[0], "std": means[0]}
        return {
            "parameters": ["conv1.weight", "conv1.bias", "fc2.weight", "fc2.bias"],
            "history": {"mean": [means[0]] * 2, "std": [means[0]] * 2},
            "by_step": [{"mean": step, "std": step} for step in means],
            **dict.fromkeys(("first_epochs", "last_epochs", "first_steps", "last_steps"), pooled),
        }

    steps = [[0.3, 0.4, 0.1, 0.1], [30.0, 80.0, 10.0, 10.0]]
    other = [[0.3, 1.2, 0.1, 0.5], [30.0, 80.0, 10.0, 10.0]]
    zeros = [[0.0, 0.0, 0.0, 0.02], [0.0, 0.0, 0.0, 0.02]]
    groups = {
        "xavier": [
            record(1, 0.6, gradients=gradients(steps)),
            record(2, 0.6, gradients=gradients(other)),
        ],
        "zeros": [record(1, 0.1, test=0.1, gradients=gradients(zeros))],
        "uniform": [record(1, 0.6, diverged_at=1, gradients=None)],
    }
    groups["uniform"][0]["train_loss"][0] = 50_000.0
    settings = {"EPOCHS": 2, "EARLY_EPOCHS": 5}
    return summary_of("exp4_init", "4.3, initialisation", groups, settings=settings)


def test_gradients_of_zero_stand_at_the_foot_of_the_axis(initialised):
    figure = draw(initialised, "gradients_first_steps")
    weights, weights_of_step_2, biases, _ = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["step 1", "step 2", "", ""]
    assert [tick.get_text() for tick in biases.get_xticklabels()] == ["conv1", "fc2"]

    def drawn(axes: Axes) -> list[list[float]]:
        return [list(container.lines[0].get_ydata()) for container in axes.containers]

    xavier, zeros = drawn(weights)
    assert xavier == pytest.approx([0.3, 0.1])
    assert zeros == [0, 0]
    xavier, zeros = drawn(biases)
    assert xavier == pytest.approx([0.8, 0.3])  # the means of 0.4 and 1.2, of 0.1 and 0.5
    assert zeros == [0, 0.02]
    assert drawn(weights_of_step_2)[0] == pytest.approx([30, 10])
    bars = biases.containers[0].lines[2][0].get_segments()
    assert bars[0][:, 1] == pytest.approx([0.8 - 0.4 * 2**0.5, 0.8 + 0.4 * 2**0.5])
    assert bars[1][:, 1] == pytest.approx([0.3 - 0.2 * 2**0.5, 0.3 + 0.2 * 2**0.5])
    assert len({axes.get_ylim() for axes in figure.axes}) == 1  # one scale for all
    low, high = weights.get_ylim()
    assert low < 0 < 80 < high
    height = {y: weights.transData.transform((0, y))[1] for y in (0, 0.01, 0.02, 0.2, 2)}
    assert height[0] < height[0.01] < height[0.02]  # zero is on the axis, apart from the smallest
    assert height[0.2] - height[0.02] == pytest.approx(height[2] - height[0.2])  # logarithmic
    assert "uniform" in caption(figure)  # without gradients, and told
    assert legend(figure) == ["xavier, 2 seeds", "zeros, 1 seed"]


def test_first_epochs_have_a_comparison_of_their_own(initialised):
    figure = draw(initialised, "early")
    loss, _, accuracy, _ = figure.axes
    assert loss.get_ylim() == (0, pytest.approx(1.05 * 2))
    assert list(lines(loss)["xavier, 2 seeds"].get_ydata()) == [2.0, 1.0]
    assert list(lines(accuracy)["zeros, 1 seed"].get_ydata()) == [50, 90]
    assert "uniform, 0 seeds (1 diverged)" in legend(figure)
    assert all(axes.get_xlim() == (0.5, 5.5) for axes in figure.axes)
    assert "epochs 1 to 5" in figure.get_suptitle()


def test_divergence_and_guessing_are_marked_beside_the_results(initialised):
    accuracy, _ = draw(initialised, "test_accuracy").axes
    names = ["xavier\n(best)", "zeros", "uniform\n(1 of 1 diverged)"]
    assert row_names(accuracy) == names
    assert list(lines(accuracy)["guessing"].get_xdata()) == [10, 10]
    for group in initialised["groups"]:
        for run in group["runs"]:
            run["confusion_matrix"] = run["confusion_matrix"] and [[1] * 8] * 8
    accuracy, _ = draw(initialised, "test_accuracy").axes
    assert list(lines(accuracy)["guessing"].get_xdata()) == [12.5, 12.5]  # among eight classes
    for run in initialised["groups"][1]["runs"]:  # far from it, guessing is not marked
        run["test_accuracy"] = 0.5
    initialised["groups"][1]["test_accuracy"]["mean"] = 0.5
    assert "guessing" not in lines(draw(initialised, "test_accuracy").axes[0])


def test_nothing_but_divergence_still_draws():
    groups = {"uniform": [record(1, 0.6, diverged_at=0, gradients=None)]}
    settings = {"EPOCHS": 2, "EARLY_EPOCHS": 5}
    nothing = summary_of("exp4_init", "4.3, initialisation", groups, settings=settings)
    found = lab.figures.figures(nothing)
    assert list(found) == ["early", "test_accuracy", "comparison", "uniform"]
    assert all(make() is not None for make in found.values())


def test_the_figures_are_written_where_they_are_asked_for(summary, tmp_path: Path):
    folder = tmp_path / "new"
    (tmp_path / "exp1_lr").mkdir()
    (tmp_path / "exp1_lr" / "summary.json").write_text(json.dumps(summary))
    assert lab.figures.draw_at_a_glance(tmp_path) == [tmp_path / "at_a_glance.png"]
    one = {"lr=0.1": lab.figures.figures(summary)["lr=0.1"], "none": lambda: None}
    folder.mkdir()
    assert lab.figures.save(one, folder) == [folder / "lr=0.1.png"]
