"""Experiment 1.3: every run has a twin that differs in its last batch alone."""

import dataclasses
import json
from collections.abc import Callable, Iterable

import pytest
from conftest import Lab, Rehearsal
from made_up import finish
from project import files

import exp1_last_batch
import exp1_lr
import exp3_gradients
from lab import figures
from lab.store import Store
from train import Run

RATES = ["lr=0.1", "lr=0.075", "lr=0.05", "lr=0.025", "lr=0.01"]


def test_every_run_differs_from_its_twin_in_the_last_batch_alone() -> None:
    twins, groups = exp1_last_batch.twins(), exp1_last_batch.runs()
    assert list(twins) == [*RATES, "BatchNormNet"]
    assert list(groups) == [f"{label}, drop last" for label in twins]
    for label, group in twins.items():
        without = [dataclasses.replace(run, drop_last=True) for run in group]
        assert groups[f"{label}, drop last"] == without
        assert [run.seed for run in group] == [1, 2, 3, 4, 5]
        assert not any(run.drop_last for run in group)
    assert {label: twins[label] for label in RATES} == exp1_lr.runs()
    assert twins["BatchNormNet"] == exp3_gradients.performance_runs()["BatchNormNet"]
    assert sum(map(len, groups.values())) == 30
    assert "30 runs of 50 epochs" in exp1_last_batch.__doc__


@pytest.mark.slow
def test_every_run_is_compared_with_its_twin(
    a_lab: Lab, no_training: list[Run], no_figures: None
) -> None:
    finish(exp1_lr.runs()["lr=0.1"][4:], Store(a_lab.root), diverged_at=0)
    assert a_lab.run(exp1_last_batch) == 0
    summary = json.loads((a_lab.root / "exp1_last_batch" / "summary.json").read_text())
    assert len(no_training) == 60 - 1
    labels = [*RATES, "BatchNormNet"]
    pairs = [(pair["label"], pair["minus"]) for pair in summary["comparisons"]]
    assert pairs == [(f"{label}, drop last", label) for label in labels]
    assert summary["candidates"] == [group["label"] for group in summary["groups"]]
    assert summary["roughness"].keys() == {group["label"] for group in summary["groups"]}
    ((title, rows),) = summary["tables"].items()
    assert "oughness" in title
    assert [row["setting"] for row in rows] == labels
    for row in rows:
        rough = [summary["roughness"][row["setting"] + end] for end in ("", ", drop last")]
        cells = [f"{100 * found['mean']:.2f} ± {100 * found['std']:.2f}" for found in rough]
        assert list(row.values())[1:] == cells
    ends = {group["label"]: group["mean"]["val_accuracy"][-1] for group in summary["groups"]}
    best = max(RATES, key=ends.get)
    best_without = max(RATES, key=lambda label: ends[f"{label}, drop last"])
    changes = {pair["minus"]: pair["test_accuracy"]["mean"] for pair in summary["comparisons"]}
    told = sum(pair["verdict"] != "within noise" for pair in summary["comparisons"])
    tested = {group["label"]: group["test_accuracy"]["std"] for group in summary["groups"]}

    def span(values: Iterable[float], form: str = ".2f") -> str:
        low, *_, high = sorted(100 * value for value in values)
        return f"{low:{form}} to {high:{form}}".replace("-", "−")

    rough, stds = (
        [span(values[label + ending] for label in RATES) for ending in ("", ", drop last")]
        for values in ({n: x["mean"] for n, x in summary["roughness"].items()}, tested)
    )
    other = f"{100 * changes['BatchNormNet']:+.2f}".replace("-", "−")
    assert summary["answer"] == (
        "Without the last batch, the mean test accuracy of 1.1's rates changes by "
        f"{span((changes[label] for label in RATES), '+.2f')} points, that of BatchNormNet by "
        f"{other}. More than noise: {told} of 6 changes. Seeds that diverged are left out. "
        f"From one epoch to the next, validation accuracy changes by {rough[1]} points instead of "
        f"{rough[0]}, on average over the second half of training at 1.1's rates (not tested)."
    )
    assert summary["findings"] == [
        "The standard deviation of test accuracy over the seeds is, for 1.1's rates, "
        f"{stds[0]} points with the last batch and {stds[1]} without it. The highest mean "
        f"validation accuracy of 1.1's rates is that of {best} with it, and that of "
        f"“{best_without}, drop last” without it."
    ]
    table = (a_lab.root / "exp1_last_batch" / "table.md").read_text()
    assert title in table
    assert rows[0]["without it"] in table


@pytest.mark.slow
def test_fresh_leaves_the_runs_of_1_1_alone(
    a_lab: Lab, no_training: list[Run], no_figures: None
) -> None:
    assert a_lab.run(exp1_last_batch) == 0
    no_training.clear()
    assert a_lab.run(exp1_last_batch, "--fresh") == 0
    theirs = {run for group in exp1_lr.runs().values() for run in group}
    assert len(no_training) == 35
    assert theirs.isdisjoint(no_training)


@pytest.fixture(scope="module")
def rehearsal(rehearse: Callable[..., Rehearsal], rehearsal_of_1_1: Rehearsal) -> Rehearsal:
    return rehearse(exp1_last_batch, beside=rehearsal_of_1_1.root, EPOCHS=1, SEEDS=[1])


@pytest.mark.slow
def test_rehearsal_trains_the_twins_and_shows_them(
    rehearsal: Rehearsal, rehearsal_of_1_1: Rehearsal
) -> None:
    quick = rehearsal.root / "quick"
    theirs = files(rehearsal_of_1_1.root / "quick", "runs").keys()
    mine = files(quick, "runs").keys()
    assert theirs < mine
    new = {name for name in mine - theirs if name.endswith(".json")}
    assert len([name for name in new if "drop-last" in name]) == 5
    assert len([name for name in new if "BatchNormNet" in name]) == 2
    assert len(new) == 6
    summary = json.loads((quick / "exp1_last_batch" / "summary.json").read_text())
    losses = {group["label"]: group["test_loss"]["mean"] for group in summary["groups"]}
    for pair in summary["comparisons"]:
        # 1,350 images leave a short last batch
        assert losses[pair["label"]] != losses[pair["minus"]]
    page = (quick / "README.md").read_text()
    for name in map(figures.file_name, figures.figures(summary)):
        assert (quick / "exp1_last_batch" / name).exists()
        assert f"(exp1_last_batch/{name})" in page
    assert f"**Answer.** {summary['answer']}\n" in page
    assert summary["answer"] in rehearsal.out


@pytest.mark.parametrize(("constant", "value"), [("LEARNING_RATE", 0), ("SEEDS", [])])
def test_bad_constant_is_named(
    constant: str, value: object, a_lab: Lab, refused: Callable[..., str]
) -> None:
    line = refused(a_lab.edit(exp1_last_batch, **{constant: value}), exp1_last_batch, "--quick")
    assert line.startswith(constant)
    assert "exp1_last_batch.py" in line


@pytest.mark.parametrize("option", ["--quick", "--so-far"])
def test_bad_constant_of_1_1_is_named_with_its_file(
    option: str, a_lab: Lab, refused: Callable[..., str]
) -> None:
    line = refused(a_lab.edit(exp1_lr, SEEDS=5), exp1_last_batch, option)
    assert line.startswith("SEEDS")
    assert "edit it at the top of exp1_lr.py" in line
