"""Experiment 1.4: 1.2's schedules and the best fixed rate, without the last batch, new seeds."""

import dataclasses
import json
from collections.abc import Callable
from types import ModuleType

import pytest
from conftest import Lab, Rehearsal
from made_up import finish

import exp1_last_batch
import exp1_lr
import exp1_scheduler
import exp1_scheduler_drop_last
from lab.store import Store
from lab.tables import beside_others
from train import Run

NAME = "exp1_scheduler_drop_last"
SCHEDULES = ["inverse time, drop last", "step, drop last"]


def test_runs_differ_from_those_of_1_2_in_seed_and_last_batch_alone() -> None:
    groups = exp1_scheduler_drop_last.runs()
    assert list(groups) == SCHEDULES
    for label, group in exp1_scheduler.runs().items():
        others = zip(group, [6, 7, 8, 9, 10], strict=True)
        again = [dataclasses.replace(run, seed=seed, drop_last=True) for run, seed in others]
        assert groups[f"{label}, drop last"] == again
    assert set(exp1_scheduler_drop_last.SEEDS).isdisjoint(exp1_lr.SEEDS)
    assert "15 runs of 50 epochs, and 25 of 1.3" in exp1_scheduler_drop_last.__doc__


def test_fixed_rates_are_those_of_1_3() -> None:
    theirs = exp1_last_batch.runs()
    assert exp1_scheduler_drop_last.fixed_rates() == {
        f"{rate}, drop last": theirs[f"{rate}, drop last"] for rate in exp1_lr.runs()
    }


@pytest.mark.slow
def test_best_rate_of_1_3_is_trained_from_new_seeds_and_compared(
    a_lab: Lab, no_training: list[Run], no_figures: None
) -> None:
    store = Store(a_lab.root)
    rates, best = exp1_scheduler_drop_last.fixed_rates(), "lr=0.025, drop last"
    for rate, group in rates.items():  # all but one rate have diverged: the choice is known
        finish(group, store, diverged_at=None if rate == best else 0)
    assert a_lab.run(exp1_scheduler_drop_last) == 0
    summary = json.loads((a_lab.root / NAME / "summary.json").read_text())
    assert [group["label"] for group in summary["groups"]] == [best, *SCHEDULES]
    for group in summary["groups"]:
        assert group["seeds"] == [6, 7, 8, 9, 10]
        assert group["settings"]["drop_last"]
    assert summary["groups"][0]["settings"]["learning_rate"] == 0.025
    pairs = [(pair["label"], pair["minus"]) for pair in summary["comparisons"]]
    assert pairs == [(schedule, best) for schedule in SCHEDULES]
    told = beside_others(best, summary["comparisons"])
    assert (
        summary["answer"] == f"On the test set, the best of 1.1's fixed rates, “{best}”, is {told}."
    )
    assert len(no_training) == 15
    no_training.clear()
    assert a_lab.run(exp1_scheduler_drop_last, "--fresh") == 0
    assert len(no_training) == 15  # 1.3's runs are left alone


@pytest.mark.slow
def test_rehearsal_answers_its_question(
    rehearse: Callable[..., Rehearsal], rehearsal_of_1_1: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for constant, value in {"EPOCHS": 3, "STEP_EPOCHS": 1}.items():
        monkeypatch.setattr(exp1_scheduler, constant, value)
    found = rehearse(exp1_scheduler_drop_last, beside=rehearsal_of_1_1.root, SEEDS=[6])
    summary = json.loads((found.root / "quick" / NAME / "summary.json").read_text())
    best, *schedules = (group["label"] for group in summary["groups"])
    assert best in ("lr=0.1, drop last", "lr=0.05, drop last")
    assert schedules == SCHEDULES
    start = f"On the test set, the best of 1.1's fixed rates, “{best}”, is "
    assert summary["answer"].startswith(start)
    assert summary["answer"] in found.out
    page = (found.root / "quick" / "README.md").read_text()
    assert "## 1.4 schedules again" in page


def test_seeds_that_chose_the_rate_are_refused(a_lab: Lab, refused: Callable[..., str]) -> None:
    a_lab.edit(exp1_scheduler_drop_last, SEEDS=[5, 6])
    line = refused(a_lab, exp1_scheduler_drop_last, "--quick")
    assert line == "SEEDS = [5, 6]: must hold none of those of exp1_lr.py"


@pytest.mark.parametrize(
    ("script", "constant", "value"),
    [
        (exp1_scheduler, "DECAY_RATE", -1),
        (exp1_scheduler, "STEP_EPOCHS", 50),
        (exp1_lr, "SEEDS", 5),
    ],
)
def test_bad_constant_of_a_script_that_it_needs_is_named_with_its_file(
    script: ModuleType, constant: str, value: int, a_lab: Lab, refused: Callable[..., str]
) -> None:
    a_lab.edit(script, **{constant: value})
    line = refused(a_lab, exp1_scheduler_drop_last, "--quick")
    assert line.startswith(constant)
    assert f"{script.__name__}.py" in line
