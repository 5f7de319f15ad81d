"""Experiment 3: its runs, and that a rehearsal gathers gradients and compares 3.4 alone."""

import json
from collections.abc import Callable

import pytest
from conftest import Lab, Rehearsal
from project import SMALL, files

import exp1_lr
import exp3_gradients
from lab import figures
from lab.tables import in_a_sentence


def test_gradients_are_watched_in_three_networks() -> None:
    watched = exp3_gradients.watched_runs()
    networks = [group[0].network for group in watched.values()]
    assert networks == ["BaselineNet", "DropoutNet", "BatchNormNet"]
    for label, group in watched.items():
        assert label == f"{group[0].network}, gradients"
        assert group[0].seed == 1984
        assert len({run.seed for run in group}) == 5
        for run in group:
            assert run.gradient_statistics
            assert (run.learning_rate, run.epochs, run.split) == (0.05, 30, "standard")
            assert run.dropout_rate == (0.6 if run.network == "DropoutNet" else 0)
    assert exp3_gradients.SMOOTHING_WINDOW == 5
    assert "15 runs of 30 epochs and 10 of 50" in exp3_gradients.__doc__


def test_performance_runs_share_their_baseline_with_1_1() -> None:
    performance = exp3_gradients.performance_runs()
    assert list(performance) == ["BaselineNet", "BatchNormNet"]
    for group in performance.values():
        assert [run.seed for run in group] == [1, 2, 3, 4, 5]
        for run in group:
            assert (run.learning_rate, run.epochs) == (0.05, 50)
            assert not run.gradient_statistics
    assert performance["BaselineNet"] == exp1_lr.runs()["lr=0.05"]
    assert exp3_gradients.runs() == exp3_gradients.watched_runs() | performance


@pytest.fixture(scope="module")
def rehearsal(rehearse: Callable[..., Rehearsal], rehearsal_of_1_1: Rehearsal) -> Rehearsal:
    return rehearse(
        exp3_gradients,
        beside=rehearsal_of_1_1.root,
        EPOCHS=2,
        SEEDS=[1984],
        PERFORMANCE_EPOCHS=SMALL["EPOCHS"],
        PERFORMANCE_SEEDS=[1],
    )


@pytest.mark.slow
def test_rehearsal_gathers_gradients_and_shares_with_1_1(
    rehearsal: Rehearsal, rehearsal_of_1_1: Rehearsal
) -> None:
    assert "runs     5, of which 1 are finished" in rehearsal.out  # BaselineNet's is 1.1's
    folder = rehearsal.root / "quick" / "exp3_gradients"
    summary = json.loads((folder / "summary.json").read_text())
    groups = {group["label"]: group for group in summary["groups"]}
    assert len(groups["BatchNormNet, gradients"]["gradients"]["parameters"]) == 18
    assert len(groups["BaselineNet, gradients"]["gradients"]["history"]["mean"]) == 2
    assert len(groups["BatchNormNet"]["mean"]["val_loss"]) == SMALL["EPOCHS"]
    assert "gradients" not in groups["BatchNormNet"]
    assert summary["candidates"] == ["BaselineNet", "BatchNormNet"]
    (pair,) = summary["comparisons"]
    assert (pair["label"], pair["minus"]) == ("BatchNormNet", "BaselineNet")
    theirs = files(rehearsal_of_1_1.root / "quick", "runs").keys()
    new = files(rehearsal.root / "quick", "runs").keys() - theirs
    assert len([name for name in new if name.endswith(".json")]) == 4


@pytest.mark.slow
def test_rehearsal_draws_gradients_by_network_window_and_epoch(rehearsal: Rehearsal) -> None:
    folder = rehearsal.root / "quick" / "exp3_gradients"
    summary = json.loads((folder / "summary.json").read_text())
    page = (folder.parent / "README.md").read_text()
    assert f"**Answer.** {summary['answer']}\n" in page
    ((title, rows),) = summary["tables"].items()
    assert title in page
    assert [row["network"] for row in rows] == [
        f"{network}, {window}"
        for network in ("DropoutNet", "BatchNormNet")
        for window in ("first 5 steps", "first 5 epochs", "last 5 epochs")
    ]
    for row in rows:
        ratios = [float(cell) for layer, cell in row.items() if layer != "network"]
        assert len(ratios) == 5
        network, window = row["network"].split(", ")
        sentence = next(s for s in summary["answer"].split(". ") if s.startswith(f"{network}'s "))
        times = f"{min(ratios):.3g} to {max(ratios):.3g} in the {window}"
        assert times in sentence
    (pair,) = summary["comparisons"]
    assert summary["answer"].endswith(f", depending on the layer. {in_a_sentence(pair)}")
    names = list(figures.figures(summary))
    for part in ("DropoutNet", "compared", "epoch"):
        assert any("gradients" in name and part in name for name in names), part
    for name in map(figures.file_name, names):
        assert (folder / name).exists()
        assert f"(exp3_gradients/{name})" in page


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        ("DROPOUT_RATE", 1.5),
        ("PERFORMANCE_SEEDS", [1, 1]),
        ("PERFORMANCE_EPOCHS", 0),
        ("BATCH_SIZE", 19),  # leaves one image of the 1,350 of a rehearsal
    ],
)
def test_bad_constant_is_named(
    constant: str, value: object, a_lab: Lab, refused: Callable[..., str]
) -> None:
    line = refused(a_lab.edit(exp3_gradients, **{constant: value}), exp3_gradients, "--quick")
    assert line.startswith(constant)
