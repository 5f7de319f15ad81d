"""Experiment 1.0: the range that it suggests, the runs that it shares, and its figures."""

import json
import math
import shutil

import numpy as np
import pytest
from project import Project
from test_summary import record

import canvas
import exp1_explore
import exp1_lr
import figures
from page import sentences
from summary import summarise, summarise_group


def at_rate(rate, *val, diverged=0):
    """Records at a rate: one for each validation accuracy, and so many that diverged."""
    run = {"network": "BaselineNet", "split": "standard", "learning_rate": rate}
    sound = [record(seed, accuracy, run=run) for seed, accuracy in enumerate(val)]
    lost = [record(10 + i, 0.99, diverged_at=1, run=run) for i in range(diverged)]
    return sound + lost


def suggested(*rates, margin=0.05):
    trained = {f"lr={row[0]['run']['learning_rate']}": row for row in rates}
    groups = [summarise_group(label, row) for label, row in trained.items()]
    return exp1_explore.suggested_range(groups, exp1_explore.mostly_sound(trained), margin)


@pytest.mark.parametrize(
    ("rates", "bounds"),
    [
        # 0.70 is the best: 0.66 is within 0.05 of it, 0.64 is not
        ([at_rate(0.2, 0.64), at_rate(0.1, 0.66), at_rate(0.01, 0.70)], [0.01, 0.1]),
        # of means, not of the best seed; in whatever order the rates are given
        ([at_rate(0.01, 0.70), at_rate(0.001, 0.4, 0.88), at_rate(0.1, 0.62, 0.70)], [0.01, 0.1]),
        # the row is unbroken: 0.001 is good, but 0.01 lies between
        ([at_rate(0.1, 0.70), at_rate(0.01, 0.60), at_rate(0.001, 0.69)], [0.1, 0.1]),
        # one of three diverged is few, and the mean is over the others
        ([at_rate(0.1, 0.68, 0.68, diverged=1), at_rate(0.01, 0.70)], [0.01, 0.1]),
        # two of three are most, however good the third is: it is not the best, either
        (
            [at_rate(0.1, 0.90, diverged=2), at_rate(0.01, 0.70), at_rate(0.001, 0.66)],
            [0.001, 0.01],
        ),
        # half of them is not most
        ([at_rate(0.1, 0.70, diverged=1), at_rate(0.01, 0.60)], [0.01, 0.01]),
        # a rate that diverges breaks the row
        ([at_rate(1, 0.70), at_rate(0.1, diverged=1), at_rate(0.01, 0.69)], [1, 1]),
        ([at_rate(0.1, diverged=2), at_rate(0.01, diverged=1)], None),
    ],
)
def test_the_suggested_range_by_hand(rates, bounds):
    assert suggested(*rates) == bounds


def test_the_margin_counts():
    rates = [at_rate(0.1, 0.60), at_rate(0.01, 0.70), at_rate(0.001, 0.45)]
    assert suggested(*rates, margin=0.0) == [0.01, 0.01]
    assert suggested(*rates, margin=0.11) == [0.01, 0.1]
    assert suggested(*rates, margin=0.3) == [0.001, 0.1]


def test_experiment_1_0():
    groups = exp1_explore.runs()
    rates = [0.2, 0.15, 0.1, 0.01, 0.001, 0.0001, 0.00001]
    assert [group[0].learning_rate for group in groups.values()] == rates
    for group in groups.values():
        assert [run.seed for run in group] == [1, 2, 3, 4, 5]
        for run in group:
            assert (run.network, run.split, run.dataset) == ("BaselineNet", "standard", "cifar10")
            assert (run.epochs, run.batch_size) == (50, 64)
    # the same runs as experiment 1.1's, trained once
    shared = {label for label, group in groups.items() if group == exp1_lr.runs().get(label)}
    assert shared == {"lr=0.1", "lr=0.01"}


def test_it_shares_its_runs_with_1_1_and_fresh_leaves_those_alone(finished, tmp_path):
    project = Project(tmp_path / "project")
    shutil.copytree(finished.folder, project.folder, dirs_exist_ok=True)
    next((project.results / "runs").glob("*lr=0.1_seed=2*")).unlink()
    before = project.files("runs")
    project.edit("exp1_explore.py", EPOCHS=3, SEEDS=[1, 2], LEARNING_RATES=[0.5, 0.1])
    done = project.run("--quick", script="exp1_explore.py")
    assert done.returncode == 0, done.stderr
    assert "2, of which 1 are finished" in done.stdout  # at 0.1, in 1.1's own folder
    assert "2, of which 0 are finished" in done.stdout  # at 0.5
    folder = project.results_of("exp1_explore")
    assert len(list(folder.glob("runs/*"))) == 2
    after = project.files("runs")
    assert len(after) == 4
    assert before.items() <= after.items()
    assert "4, of which 4 are finished" in project.run("--quick").stdout
    assert project.summary() == finished.summary()

    again = project.run("--quick", "--fresh", script="exp1_explore.py")
    assert again.returncode == 0, again.stderr
    assert "2, of which 2 are finished" in again.stdout
    assert "2, of which 0 are finished" in again.stdout
    assert project.files("runs") == after  # 1.1's own
    assert len(list(folder.glob("replaced/*/*.json"))) == 2
    assert not list(project.results.glob("replaced/*"))

    summary = json.loads((folder / "summary.json").read_text())
    assert [group["label"] for group in summary["groups"]] == ["lr=0.5", "lr=0.1"]
    groups = summary["groups"]
    assert summary["suggested_range"] == exp1_explore.suggested_range(
        groups, summary["candidates"], 0.05
    )
    assert "range of learning rates" in again.stdout
    for name in ("extremes", "accuracy_by_rate", "comparison", "lr=0.5"):
        assert (folder / f"{name}.png").exists()
    page = (project.folder / "results/quick/README.md").read_text()
    assert page.index("## Experiment 1.0") < page.index("## Experiment 1.1")
    assert "range of learning rates" in page


@pytest.fixture
def summary():
    """Three rates; of the first, one of two seeds diverged in the second epoch."""
    rates = [at_rate(0.2, 0.3, diverged=1), at_rate(0.01, 0.6, 0.7), at_rate(0.001, 0.1, 0.2)]
    groups = {f"lr={group[0]['run']['learning_rate']}": group for group in rates}
    settings = {"SMOOTHING_WINDOW": 3, "RANGE_MARGIN": 0.05}
    found = summarise("exp1_explore", "Question?\n\nMethod.", settings, groups)
    return found | {"suggested_range": [0.001, 0.01]}


def test_the_page_says_the_range(summary):
    assert (
        "The suggested range of learning rates is **0.001 to 0.01**: mean validation accuracy "
        "within 5 points of the best's, and most runs did not diverge."
    ) in sentences(summary)
    assert any(
        "**0.01**: mean" in s for s in sentences(summary | {"suggested_range": [0.01, 0.01]})
    )
    assert any("No range" in s for s in sentences(summary | {"suggested_range": None}))


def test_the_extremes_stand_side_by_side(summary):
    figure = figures.figures(summary)["extremes"]()
    losses, accuracies = figure.axes[:3], figure.axes[3:]
    assert [axes.get_title() for axes in losses] == [
        "highest rate: lr=0.2\n1 seed (1 diverged)",
        "best rate: lr=0.01\n2 seeds",
        "lowest rate: lr=0.001\n2 seeds",
    ]
    for row, guess in ((losses, math.log(10)), (accuracies, 10)):
        assert row[0].get_ylim() == row[1].get_ylim() == row[2].get_ylim()
        for axes in row:
            lines = {line.get_label(): line for line in axes.get_lines()}
            assert list(lines["guessing"].get_ydata()) == pytest.approx([guess, guess])
    assert (losses[0].get_yscale(), accuracies[0].get_yscale()) == ("log", "linear")
    best = {line.get_label(): line for line in accuracies[1].get_lines()}
    assert list(best["validation, mean"].get_ydata()) == pytest.approx([40, 65])
    seeds = [line for line in accuracies[1].get_lines() if line.get_alpha()]
    assert sorted(line.get_ydata()[1] for line in seeds) == pytest.approx([60, 70, 90, 90])
    lost = [line for line in losses[0].get_lines() if line.get_label() == "a seed diverged"]
    assert [list(line.get_xdata()) for line in lost] == [[2]]
    two = summary | {"best": "lr=0.2"}
    figure = figures.figures(two)["extremes"]()
    assert figure.axes[0].get_title().startswith("highest and best rate")


@pytest.mark.parametrize("loss", [4.0, 1e30])
def test_losses_however_large_have_ticks(loss, summary):
    summary["groups"][0]["runs"][1]["val_loss"][0] = loss  # just before it diverged
    figure = figures.figures(summary)["extremes"]()
    figure.draw_without_rendering()
    for axes in figure.axes[:3]:
        lowest, highest = axes.get_ylim()
        shown = [tick.get_text() for tick in axes.get_yticklabels(which="both") if tick.get_text()]
        assert lowest < highest
        assert len(shown) > 2
    assert highest > loss


def test_accuracy_by_rate_shows_seeds_means_range_and_divergence(summary):
    accuracy, divergence = figures.figures(summary)["accuracy_by_rate"]().axes
    lines = {line.get_label(): line for line in accuracy.get_lines()}
    assert list(lines["validation, mean"].get_xdata()) == [0.001, 0.01, 0.2]
    assert list(lines["validation, mean"].get_ydata()) == pytest.approx([15, 65, 30])
    assert list(lines["training, mean"].get_ydata()) == pytest.approx([90, 90, 90])
    assert lines["training, mean"].get_color() == canvas.TRAINING_COLOUR
    seeds = [line for line in accuracy.get_lines() if line.get_alpha() and len(line.get_xdata())]
    at = {(x, round(y)) for line in seeds for x, y in zip(*line.get_data(), strict=True)}
    assert {(0.01, 60), (0.01, 70), (0.001, 10), (0.2, 30)} <= at
    assert not any(np.isclose(y, 99) for _, y in at)
    assert accuracy.get_xscale() == divergence.get_xscale() == "log"
    assert divergence.get_xlim() == accuracy.get_xlim()
    bars = {
        round(bar.get_x() + bar.get_width() / 2, 6): bar.get_height()
        for bar in divergence.containers[0]
    }
    assert bars == {0.2: 1, 0.01: 0, 0.001: 0}
    (shade,) = [
        patch for patch in accuracy.patches if "suggested range, 0.001 to 0.01" in patch.get_label()
    ]
    assert shade.get_x() < 0.001 < 0.01 < shade.get_x() + shade.get_width() < 0.2


def test_rates_that_all_diverge_still_draw():
    groups = {"lr=0.2": at_rate(0.2, diverged=2)}
    settings = {"SMOOTHING_WINDOW": 3, "RANGE_MARGIN": 0.05}
    nothing = summarise("exp1_explore", "Question?\n\nMethod.", settings, groups)
    for make in figures.figures(nothing | {"suggested_range": None}).values():
        assert make() is not None
