"""What the figures show, read back from their artists."""

import json

import numpy as np
import pytest
from test_summary import record

import plots
from summary import summarise

LABELS = ["lr=0.1", "lr=0.075", "lr=0.05", "lr=0.025", "lr=0.01"]


@pytest.fixture
def summary():
    groups = {
        label: [record(seed, 0.5 + 0.01 * seed + 0.05 * i) for seed in (1, 2, 3)]
        for i, label in enumerate(LABELS)
    }
    groups["lr=0.1"][1] = record(2, 0.9, diverged_at=1)
    return summarise("exp1_lr", "Question?\n\nMethod.", {"SMOOTHING_WINDOW": 3}, groups)


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_there_is_a_figure_for_every_setting_and_one_comparison(summary):
    assert list(plots.sweep_figures(summary)) == [*LABELS, "comparison", "best_model"]


def test_a_setting_shows_every_seed_and_the_mean(summary):
    figure = plots.sweep_figures(summary)["lr=0.05"]
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
    assert validation.get_color() != plots.TRAINING_COLOUR


def test_a_diverged_seed_stops_and_is_counted(summary):
    figure = plots.sweep_figures(summary)["lr=0.1"]
    accuracy = figure.axes[1]
    assert "validation, mean of 2 seeds (1 diverged)" in legend(figure)
    mean = lines(accuracy)["validation, mean of 2 seeds (1 diverged)"]
    assert list(mean.get_ydata()) == pytest.approx([40, 52])
    stopped = [line for line in accuracy.get_lines() if np.isnan(line.get_ydata()).any()]
    assert len(stopped) == 2  # its training and its validation


def test_the_comparison_smooths_validation_alone(summary):
    figure = plots.sweep_figures(summary)["comparison"]
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
    figure = plots.sweep_figures(summary)["comparison"]
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert not any(axes.get_window_extent().overlaps(box) for axes in figure.axes)


def test_a_setting_has_one_colour_everywhere(summary):
    figures = plots.sweep_figures(summary)
    for label in LABELS:
        (mean,) = (
            line for name, line in lines(figures[label].axes[1]).items() if "validation" in name
        )
        (compared,) = (
            line
            for name, line in lines(figures["comparison"].axes[3]).items()
            if name.startswith(f"{label},")
        )
        assert mean.get_color() == compared.get_color()
    styles = plots.styles(summary)
    assert len(set(styles.values())) == len(LABELS)
    fewer = {"groups": [group for group in summary["groups"] if group["label"] != "lr=0.1"]}
    fewer["groups"].append({"label": "lr=0.2"})
    assert plots.styles(fewer)["lr=0.05"] == styles["lr=0.05"]
    assert plots.styles(fewer)["lr=0.2"] not in [styles[label] for label in LABELS[1:]]


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
    assert plots.smooth([1, 2, 6, 4, 10], window) == pytest.approx(expected)


def test_smoothing_stops_where_a_curve_stops():
    assert plots.smooth([1.0, 3.0, None], 3) == [2.0, 2.0, None]


def test_a_rehearsal_says_so_in_every_figure(summary):
    for figure in plots.sweep_figures(summary | {"rehearsal": True}).values():
        assert "REHEARSAL" in figure.get_supxlabel()
        assert "REHEARSAL" in figure.get_suptitle()
    for figure in plots.sweep_figures(summary).values():
        assert "REHEARSAL" not in figure.get_supxlabel() + figure.get_suptitle()
        assert "CIFAR-10" in figure.get_supxlabel()


def test_drawing_needs_the_summary_alone(summary, tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    paths = plots.draw(json.loads((tmp_path / "summary.json").read_text()), tmp_path)
    names = [*LABELS, "comparison", "best_model"]
    assert [path.name for path in paths] == [f"{name}.png" for name in names]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_one_epoch_is_seen(summary):
    groups = {"lr=1": [record(1, 0.9)]}
    for key in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
        groups["lr=1"][0][key] = groups["lr=1"][0][key][:1]
    one = summarise("exp1_lr", "Question?\n\nMethod.", {"SMOOTHING_WINDOW": 3}, groups)
    for line in plots.sweep_figures(one)["lr=1"].axes[0].get_lines()[:-1]:
        assert line.get_marker() == "o"


def test_the_best_model_is_shown_by_class(summary):
    label, seed = "lr=0.01", 3  # the highest validation accuracy
    run = next(g for g in summary["groups"] if g["label"] == label)["runs"][2]
    run["confusion_matrix"] = [[30, 10], [5, 15]]
    run["report"] = {"cat": {}, "dog": {}, "accuracy": 0.75}
    figure = plots.sweep_figures(summary)["best_model"]
    matrix, classes = figure.axes[:2]
    assert f"{label}, seed {seed}" in figure.get_suptitle()
    assert [text.get_text() for text in matrix.texts] == ["75", "25", "25", "75"]
    assert (matrix.get_xlabel(), matrix.get_ylabel()) == ("predicted class", "true class")
    assert [tick.get_text() for tick in matrix.get_yticklabels()] == ["cat", "dog"]
    assert [patch.get_width() for patch in classes.patches] == pytest.approx([75, 75])


def test_all_diverged_still_draws(summary):
    groups = {"lr=1": [record(1, 0.9, diverged_at=0)]}
    nothing = summarise("exp1_lr", "Question?\n\nMethod.", {"SMOOTHING_WINDOW": 3}, groups)
    assert "0 seeds (1 diverged)" in legend(plots.sweep_figures(nothing)["lr=1"])[0]
