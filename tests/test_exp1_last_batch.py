"""Experiment 1.3: every run has a twin that differs in its last batch alone."""

import dataclasses
import json
from collections.abc import Callable
from types import ModuleType

import pytest
from conftest import Lab, Rehearsal
from made_up import finish
from project import SMALL, files
from test_summary import record

import exp1_last_batch
import exp1_lr
import exp3_gradients
from lab import figures
from lab.store import Store
from train import Run

RATES = ["lr=0.1", "lr=0.075", "lr=0.05", "lr=0.025", "lr=0.01"]


def test_every_run_differs_from_the_one_with_the_last_batch_in_that_alone() -> None:
    settings, groups = exp1_last_batch.with_last_batch(), exp1_last_batch.runs()
    assert list(settings) == [*RATES, "BatchNormNet"]
    assert list(groups) == [f"{label}, drop last" for label in settings]
    for label, group in settings.items():
        without = [dataclasses.replace(run, drop_last=True) for run in group]
        assert groups[f"{label}, drop last"] == without
        assert [run.seed for run in group] == [1, 2, 3, 4, 5]
        assert not any(run.drop_last for run in group)
    assert {label: settings[label] for label in RATES} == exp1_lr.runs()
    assert settings["BatchNormNet"] == exp3_gradients.performance_runs()["BatchNormNet"]
    assert sum(map(len, groups.values())) == 30
    assert "30 runs of 50 epochs" in exp1_last_batch.__doc__


@pytest.mark.slow
def test_every_setting_is_compared_with_and_without_the_last_batch(
    a_lab: Lab, no_training: list[Run], no_figures: None
) -> None:
    finish(exp1_lr.runs()["lr=0.1"][4:], Store(a_lab.root), diverged_at=0)
    assert a_lab.run(exp1_last_batch) == 0
    summary = json.loads((a_lab.root / "exp1_last_batch" / "summary.json").read_text())
    assert len(no_training) == 60 - 1
    labels = [*RATES, "BatchNormNet"]
    ends = {group["label"]: group["mean"]["val_accuracy"][-1] for group in summary["groups"]}
    best = max((f"{label}, drop last" for label in RATES), key=ends.get)
    pairs = [(pair["label"], pair["minus"]) for pair in summary["comparisons"]]
    others = [f"{label}, drop last" for label in RATES if f"{label}, drop last" != best]
    assert pairs == [
        *((f"{label}, drop last", label) for label in labels),
        *((best, other) for other in others),
        ("BatchNormNet, drop last", "lr=0.05, drop last"),
    ]
    assert summary["candidates"] == [group["label"] for group in summary["groups"]]
    assert [(found["label"], found["minus"]) for found in summary["roughness"]] == pairs[:6]
    ((title, rows),) = summary["tables"].items()
    assert "oughness" in title
    assert [row["setting"] for row in rows] == labels
    for row, found in zip(rows, summary["roughness"], strict=True):
        assert row["with the last batch"] == cell(found["of_minus"])
        assert row["without it"] == cell(found["of_label"])
        assert row["difference"] == points(found["difference"]["mean"], "+.2f")
    assert len(summary["roughness"][0]["difference"]) == 3
    table = (a_lab.root / "exp1_last_batch" / "table.md").read_text()
    assert title in table
    assert rows[0]["without it"] in table
    assert summary["twins"] == dict(pairs[:6])


def points(fraction: float, form: str = ".2f") -> str:
    return f"{100 * fraction:{form}}".replace("-", "−")


def cell(found: dict[str, float]) -> str:
    return f"{points(found['mean'])} ± {points(found['std'])}"


def pair(label: str, minus: str, gains: list[float], verdict: str | None) -> dict:
    mean = {"mean": sum(gains) / len(gains)}
    found = {"label": label, "minus": minus, "differences": gains, "test_accuracy": mean}
    return found | {"verdict": verdict, "left_out": []}


def rough(minus: str, before: float, after: float, ci95: float | None) -> dict:
    found = {"minus": minus, "of_minus": {"mean": before}, "of_label": {"mean": after}}
    return found | {"difference": {"mean": after - before, "ci95": ci95}}


NOISE, BEST = "within noise", "lr=0.01, drop last"
BATCH_NORM = "BatchNormNet, drop last"
ROUGH = [rough(rate, 0.06 + 0.01 * n, 0.005, 0.01) for n, rate in enumerate(RATES)]
ROUGH += [rough("BatchNormNet", 0.5, 0.4, 0.01)]


def compared() -> list[dict]:
    gains = {rate: [0.01 * n, 0.03 * n] for n, rate in enumerate(RATES, 1)}
    twins = [pair(f"{rate}, drop last", rate, g, NOISE) for rate, g in gains.items()]
    twins[0]["verdict"] = None  # as of two devices: it is not counted
    twins[4] = pair(BEST, "lr=0.01", [-0.02, 0.01, 0.0], "lr=0.01 is better")
    twins += [pair(BATCH_NORM, "BatchNormNet", [0.2], f"{BATCH_NORM} is better")]
    others = [
        pair(BEST, f"{rate}, drop last", [0.01], f"{BEST} is better" if n else NOISE)
        for n, rate in enumerate(RATES[:4])
    ]
    others[3]["verdict"] = None
    return [
        *twins,
        *others,
        pair(BATCH_NORM, "lr=0.05, drop last", [0.01], f"{BATCH_NORM} is better"),
    ]


def test_the_answer_counts_changes_and_rates_by_hand() -> None:
    assert exp1_last_batch.in_short(compared(), ROUGH, BEST) == (
        "Without the last batch, validation accuracy changes from one epoch to the next by 0.50 to "
        "0.50 points instead of 6.00 to 10.00, at 1.1's rates and in the second half of training. "
        "Test accuracy is higher in 10 of 12 pairs of runs. Its mean changes by −0.33 to +8.00 "
        "points at these rates, and by +20.00 for BatchNormNet; 2 of these 5 changes are more than "
        "noise. Of 1.1's rates without the last batch, “lr=0.01, drop last” has the highest mean "
        "validation accuracy; on the test set it is better than 2 of the 3 others."
    )
    pairs = compared()
    pairs[0]["left_out"] = [2]
    lost = "10 of 12 pairs of runs (without seeds that diverged). "
    assert lost in exp1_last_batch.in_short(pairs, ROUGH, BEST)
    clear = [each | {"verdict": f"{each['label']} is better"} for each in pairs[6:]]
    told = exp1_last_batch.in_short(
        [e | {"verdict": NOISE} for e in pairs[:6]] + clear, ROUGH, BEST
    )
    assert "; none of these 6 changes are more than noise. " in told
    assert told.endswith("; on the test set it is better than all others.")


def test_the_findings_tell_deviations_and_best_epochs_by_hand() -> None:
    records = {}
    for n, rate in enumerate(RATES):
        tested = ((1, 0.5), (2, 0.5 + 0.01 * (n + 1)))  # deviations of 0.01 · (n + 1) / √2
        records[rate] = [record(seed, 0.4, test) for seed, test in tested]
        curve = [0.6 - 0.01 * n, 0.5]
        records[f"{rate}, drop last"] = [record(1, 0.5, 0.6, val_accuracy=curve)] * 2
    records["lr=0.1, drop last"] = [record(1, 0.5, diverged_at=0)]
    assert exp1_last_batch.findings(records) == [
        "The standard deviation of test accuracy over the seeds is, at 1.1's rates, 0.71 to 3.54 "
        "points with the last batch and 0.00 to 0.00 without it.",
        "Without the last batch, the mean validation accuracy of 1.1's rates is 56.00 to 59.00% in "
        "the best epoch of each, and 50.00 to 50.00% after the last epoch.",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("constant", ["LEARNING_RATE", "PERFORMANCE_EPOCHS"])
def test_networks_are_compared_without_the_last_batch_only_if_all_else_is_equal(
    constant: str, a_lab: Lab, no_training: list[Run], no_figures: None
) -> None:
    a_lab.edit(exp3_gradients, **{constant: 2}).run(exp1_last_batch)
    summary = json.loads((a_lab.root / "exp1_last_batch" / "summary.json").read_text())
    assert len(summary["comparisons"]) == 6 + 4


@pytest.mark.slow
def test_fresh_leaves_the_runs_of_1_1_and_3_4_alone(
    a_lab: Lab, no_training: list[Run], no_figures: None
) -> None:
    assert a_lab.run(exp1_last_batch) == 0
    no_training.clear()
    assert a_lab.run(exp1_last_batch, "--fresh") == 0
    own = {run for group in exp1_last_batch.runs().values() for run in group}
    assert len(no_training) == 30
    assert set(no_training) == own


@pytest.fixture(scope="module")
def rehearsal(rehearse: Callable[..., Rehearsal], rehearsal_of_1_1: Rehearsal) -> Rehearsal:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exp3_gradients, "PERFORMANCE_EPOCHS", SMALL["EPOCHS"])
        patch.setattr(exp3_gradients, "PERFORMANCE_SEEDS", [1])
        return rehearse(exp1_last_batch, beside=rehearsal_of_1_1.root)


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
    assert len(summary["comparisons"]) == 3 + 1 + 1
    for pair in summary["comparisons"]:
        # 1,350 images leave a short last batch
        assert losses[pair["label"]] != losses[pair["minus"]]
    page = (quick / "README.md").read_text()
    for name in map(figures.file_name, figures.figures(summary)):
        assert (quick / "exp1_last_batch" / name).exists()
        assert f"(exp1_last_batch/{name})" in page
    assert f"**Answer.** {summary['answer']}\n" in page
    assert summary["answer"] in rehearsal.out


@pytest.mark.parametrize("option", ["--quick", "--so-far"])
@pytest.mark.parametrize(
    ("script", "constant", "value"),
    [
        (exp1_last_batch, "SMOOTHING_WINDOW", 0),
        (exp1_lr, "SEEDS", 5),
        (exp3_gradients, "PERFORMANCE_SEEDS", []),
    ],
)
def test_bad_constant_is_named_with_its_file(
    option: str,
    script: ModuleType,
    constant: str,
    value: object,
    a_lab: Lab,
    refused: Callable[..., str],
) -> None:
    line = refused(a_lab.edit(script, **{constant: value}), exp1_last_batch, option)
    assert line.startswith(constant)
    assert f"edit it at the top of {script.__name__}.py" in line
