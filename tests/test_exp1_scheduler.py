"""Experiment 1.2: the formulas of its schedules, its runs, and its rehearsal beside 1.1."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Lab, Rehearsal

import exp1_lr
import exp1_scheduler
from exp1_scheduler import inverse_time, other_schedules, step_decay
from lab import experiment, figures
from lab.tables import beside_others
from train import Run


# by hand: 0.1, 0.1 / 1.25, 0.1 / 1.5, and 0.1 / 13.25 in the last of 50 epochs
@pytest.mark.parametrize(("epoch", "rate"), [(0, 0.1), (1, 0.08), (2, 0.0667), (49, 0.00755)])
def test_inverse_time_by_hand(epoch: int, rate: float) -> None:
    found = inverse_time(0.1, 0.25)(epoch)
    assert found == pytest.approx(rate, abs=5e-5 if epoch < 49 else 5e-6)


def test_step_and_exponential_decay_by_hand() -> None:
    halved = [step_decay(0.1, 0.5, 10)(epoch) for epoch in (0, 9, 10, 19, 20, 49)]
    assert halved == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.00625])
    assert step_decay(0.1, 0.95, 1)(0) == 0.1
    assert step_decay(0.1, 0.95, 1)(2) == pytest.approx(0.09025)


def test_both_schedules_run_from_the_same_first_to_the_same_last_rate() -> None:
    groups = exp1_scheduler.runs()
    assert list(groups) == ["inverse time", "step"]
    smooth, steps = (group[0].learning_rate for group in groups.values())
    assert smooth[0] == steps[0] == 0.1
    assert smooth[-1] == pytest.approx(0.1 / 13.25)
    assert steps[-1] == pytest.approx(smooth[-1])
    assert len(set(steps)) == 5
    assert steps[:10] == (0.1,) * 10
    assert steps[10] == pytest.approx(steps[20] * steps[0] / steps[10])  # one factor for all drops


def test_runs_have_the_seeds_and_the_split_of_1_1() -> None:
    runs = [run for group in exp1_scheduler.runs().values() for run in group]
    seeds = [run.seed for group in exp1_lr.runs().values() for run in group]
    for run in runs:
        assert (run.network, run.split, run.epochs) == ("BaselineNet", "standard", 50)
        assert run.seed in seeds
    assert exp1_scheduler.SMOOTHING_WINDOW == 3
    assert "10 runs of 50 epochs" in exp1_scheduler.__doc__
    assert len(set(runs)) == 10


def test_considered_schedules_end_where_the_formulas_say() -> None:
    # in the last of 50 epochs: 0.1 / 5.9, 0.1 / 3.45, four halvings, two tenths, 0.95 to the 49th
    last = [schedule(49) for schedule in other_schedules().values()]
    assert last == pytest.approx([0.016949, 0.028986, 0.00625, 0.001, 0.0080997], rel=1e-4)
    assert not other_schedules().keys() & exp1_scheduler.trained_schedules().keys()


def test_rehearsal_goes_through_the_whole_schedule() -> None:
    smooth, steps = experiment.rehearsal(exp1_scheduler.runs()).values()
    assert len(smooth) == experiment.QUICK_SEEDS
    assert len(smooth[0].learning_rate) == smooth[0].epochs == experiment.QUICK_EPOCHS
    assert len(set(steps[0].learning_rate)) == 5


@pytest.mark.slow
def test_each_schedule_is_compared_with_the_best_fixed_rate(
    a_lab: Lab, no_training: list[Run], no_figures: None
) -> None:
    assert a_lab.run(exp1_scheduler) == 0
    assert a_lab.run(exp1_lr) == 0
    summary, fixed = (
        json.loads((a_lab.root / name / "summary.json").read_text())
        for name in ("exp1_scheduler", "exp1_lr")
    )
    assert len(no_training) == 25 + 10  # 1.1's own runs are found by 1.1
    best = fixed["best"]
    assert [group["label"] for group in summary["groups"]] == [best, "inverse time", "step"]
    theirs = next(group for group in fixed["groups"] if group["label"] == best)
    assert summary["groups"][0]["runs"] == theirs["runs"]
    pairs = [(pair["label"], pair["minus"]) for pair in summary["comparisons"]]
    assert pairs == [("inverse time", best), ("step", best)]
    told = beside_others(best, summary["comparisons"])
    assert summary["answer"] == f"On the test set, the best fixed rate, {best}, is {told}."
    rates = summary["schedules"]
    assert list(rates) == ["inverse time", "step", *other_schedules()]
    for label, group in exp1_scheduler.runs().items():
        assert tuple(rates[label]) == group[0].learning_rate


@pytest.fixture(scope="module")
def rehearsal(
    rehearse: Callable[..., Rehearsal], rehearsed: Path, tmp_path_factory: pytest.TempPathFactory
) -> Rehearsal:
    """Beside a rehearsal of 1.1 of which one run is missing."""
    beside = tmp_path_factory.mktemp("beside") / "results"
    shutil.copytree(rehearsed, beside)
    next((beside / "quick" / "runs").glob("*lr=0.05_seed=2*.json")).unlink()
    return rehearse(exp1_scheduler, beside=beside, EPOCHS=3, SEEDS=[1], STEP_EPOCHS=1)


@pytest.mark.slow
def test_rehearsal_trains_only_what_1_1_has_not(rehearsal: Rehearsal, rehearsed: Path) -> None:
    assert "the runs of exp1_lr.py" in rehearsal.out
    assert "4, of which 3 are finished" in rehearsal.out
    assert "2, of which 0 are finished" in rehearsal.out
    mine, theirs = (
        json.loads((root / "quick" / name / "summary.json").read_text())
        for root, name in ((rehearsal.root, "exp1_scheduler"), (rehearsed, "exp1_lr"))
    )
    best = next(group for group in theirs["groups"] if group["label"] == theirs["best"])
    assert mine["groups"][0]["label"] == theirs["best"]
    assert [without_times(run) for run in mine["groups"][0]["runs"]] == [
        without_times(run) for run in best["runs"]
    ]


def without_times(run: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in run.items() if key != "weights_sha256"}


@pytest.mark.slow
def test_rehearsal_is_drawn_and_on_the_page_after_1_1(rehearsal: Rehearsal) -> None:
    folder = rehearsal.root / "quick" / "exp1_scheduler"
    summary = json.loads((folder / "summary.json").read_text())
    page = (folder.parent / "README.md").read_text()
    assert page.index("## 1.1") < page.index("## 1.2")
    names = [figures.file_name(name) for name in figures.figures(summary)]
    assert "schedules.png" in names
    for name in names:
        assert (folder / name).exists()
        assert f"(exp1_scheduler/{name})" in page


@pytest.mark.parametrize(
    ("constant", "value"), [("DECAY_RATE", -1), ("STEP_EPOCHS", 0), ("STEP_EPOCHS", 50)]
)
@pytest.mark.parametrize("option", ["--quick", "--so-far"])
def test_bad_constant_is_named_before_anything_is_trained(
    option: str,
    constant: str,
    value: object,
    a_lab: Lab,
    no_training: list[Run],
    refused: Callable[..., str],
) -> None:
    line = refused(a_lab.edit(exp1_scheduler, **{constant: value}), exp1_scheduler, option)
    assert line.startswith(constant)
    assert not no_training


@pytest.mark.parametrize(
    ("constant", "value"),
    [("LEARNING_RATES", ["0.1"]), ("SEEDS", 5), ("SEEDS", []), ("EPOCHS", 0)],
)
def test_bad_constant_of_1_1_is_named_with_its_file(
    constant: str, value: object, a_lab: Lab, refused: Callable[..., str]
) -> None:
    line = refused(a_lab.edit(exp1_lr, **{constant: value}), exp1_scheduler, "--quick")
    assert line.startswith(constant)
    assert "edit it at the top of exp1_lr.py" in line
