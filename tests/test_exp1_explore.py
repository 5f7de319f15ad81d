"""Experiment 1.0: its runs, the range that it suggests, and its rehearsal beside 1.1."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Lab, Rehearsal
from made_up import finish, made_up

import exp1_explore
import exp1_lr
from lab import figures
from train import Run

Record = dict[str, Any]


def at_rate(rate: float, *val: float, diverged: int = 0) -> list[Record]:
    """Records at a rate: one for each validation accuracy, and so many that diverged."""

    def run(seed: int) -> Run:
        return exp1_explore.lab.from_seeds(
            [seed],
            network="BaselineNet",
            learning_rate=rate,
            epochs=2,
            batch_size=64,
            split="standard",
        )[0]

    sound = [made_up(run(seed), val_accuracy=accuracy) for seed, accuracy in enumerate(val)]
    return sound + [made_up(run(10 + i), diverged_at=1) for i in range(diverged)]


def suggested(*rates: list[Record], margin: float = 0.05) -> list[float] | None:
    records = {f"lr={group[0]['run']['learning_rate']}": group for group in rates}
    return exp1_explore.suggested_range(records, margin)


def test_runs_are_seven_rates_and_share_two_with_1_1() -> None:
    groups = exp1_explore.runs()
    rates = [0.2, 0.15, 0.1, 0.01, 0.001, 0.0001, 0.00001]
    assert [group[0].learning_rate for group in groups.values()] == rates
    for group in groups.values():
        assert [run.seed for run in group] == [1, 2, 3, 4, 5]
        for run in group:
            assert (run.network, run.split, run.dataset) == ("BaselineNet", "standard", "cifar10")
            assert (run.epochs, run.batch_size) == (50, 64)
    shared = {label for label, group in groups.items() if group == exp1_lr.runs().get(label)}
    assert shared == {"lr=0.1", "lr=0.01"}
    assert "35 runs of 50 epochs, 10 of which are among those of 1.1" in exp1_explore.__doc__


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
def test_suggested_range_by_hand(rates: list[list[Record]], bounds: list[float] | None) -> None:
    assert suggested(*rates) == bounds


def test_wider_margin_suggests_a_wider_range() -> None:
    rates = [at_rate(0.1, 0.60), at_rate(0.01, 0.70), at_rate(0.001, 0.45)]
    assert suggested(*rates, margin=0.0) == [0.01, 0.01]
    assert suggested(*rates, margin=0.11) == [0.01, 0.1]
    assert suggested(*rates, margin=0.3) == [0.001, 0.1]


def test_all_runs_diverged_suggests_no_range(
    a_lab: Lab, no_figures: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for group in exp1_explore.runs().values():
        finish(group, a_lab_store(a_lab), diverged_at=0)
    assert a_lab.run(exp1_explore) == 0
    summary = json.loads((a_lab.root / "exp1_explore" / "summary.json").read_text())
    assert (summary["best"], summary["candidates"]) == (None, [])
    assert summary["suggested_range"] is None
    answer = "None: at every rate, half of the runs or more diverged."
    assert summary["answer"] == answer
    assert answer in capsys.readouterr().out
    assert answer in (a_lab.root / "README.md").read_text()


def a_lab_store(a_lab: Lab) -> Any:
    return exp1_explore.lab.experiment.Store(a_lab.root)


@pytest.fixture(scope="module")
def rehearsal(rehearse: Callable[..., Rehearsal], rehearsal_of_1_1: Rehearsal) -> Rehearsal:
    return rehearse(
        exp1_explore,
        beside=rehearsal_of_1_1.root,
        EPOCHS=2,
        SEEDS=[1, 2],
        LEARNING_RATES=[0.5, 0.1],
    )


@pytest.mark.slow
def test_rehearsal_trains_only_what_1_1_has_not(
    rehearsal: Rehearsal, rehearsal_of_1_1: Rehearsal
) -> None:
    assert "runs     4, of which 2 are finished" in rehearsal.out
    quick = rehearsal.root / "quick"
    assert len(list(quick.glob("runs/*.json"))) == 4 + 2
    summary = json.loads((quick / "exp1_explore" / "summary.json").read_text())
    assert [group["label"] for group in summary["groups"]] == ["lr=0.5", "lr=0.1"]
    theirs = rehearsal_of_1_1.root / "quick" / "exp1_lr" / "summary.json"
    assert summary["groups"][1]["runs"] == json.loads(theirs.read_text())["groups"][0]["runs"]


def test_answer_counts_the_rates_in_the_range(a_lab: Lab, no_figures: None) -> None:
    for label, group in exp1_explore.runs().items():
        accuracy = 0.6 if label in ("lr=0.1", "lr=0.01") else 0.3
        finish(group, a_lab_store(a_lab), val_accuracy=accuracy)
    assert a_lab.run(exp1_explore) == 0
    summary = json.loads((a_lab.root / "exp1_explore" / "summary.json").read_text())
    assert summary["answer"] == (
        "0.01 to 0.1. Rates tried in this range: 2 of 7. The mean validation accuracy of each is "
        "within 5 percentage points of the best's."
    )


@pytest.mark.slow
def test_rehearsal_says_the_range_and_draws_it(rehearsal: Rehearsal) -> None:
    folder = rehearsal.root / "quick" / "exp1_explore"
    summary = json.loads((folder / "summary.json").read_text())
    low, high = summary["suggested_range"]
    assert low <= high
    inside = sum(low <= rate <= high for rate in (0.5, 0.1))
    told = f"\n{low:.12g} to {high:.12g}. Rates tried in this range: {inside} of 2. The mean "
    assert told in rehearsal.out
    page = (folder.parent / "README.md").read_text()
    assert f"**Answer.** {summary['answer']}\n" in page
    assert page.index("## 1.0") < page.index("## 1.1")
    for name in figures.figures(summary):
        assert (folder / figures.file_name(name)).exists()


def test_negative_margin_is_named(a_lab: Lab, refused: Callable[..., str]) -> None:
    line = refused(a_lab.edit(exp1_explore, RANGE_MARGIN=-0.1), exp1_explore, "--quick")
    assert line.startswith("RANGE_MARGIN = -0.1")
