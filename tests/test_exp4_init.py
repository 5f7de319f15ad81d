"""Experiment 4.3: runs that differ in their first weights alone, and what zeros teach."""

import json
from collections.abc import Callable

import pytest
from conftest import Lab, Rehearsal
from test_summary import record

import exp4_init
from lab import figures
from train import initialisations


def test_runs_differ_in_their_first_weights_alone() -> None:
    groups = exp4_init.runs()
    assert list(groups) == list(exp4_init.INITIALISATIONS)
    assert set(groups) == set(initialisations())
    assert len(groups) == 7
    for label, group in groups.items():
        assert [run.seed for run in group] == [1, 2, 3, 4, 5]
        for run in group:
            assert run.initialisation == label
            assert run.gradient_statistics
            assert (run.network, run.split, run.learning_rate) == ("BaselineNet", "standard", 0.05)
            assert run.epochs == 30
    assert "35 runs of 30 epochs" in exp4_init.__doc__


def test_gradients_of_exactly_zero_are_named() -> None:
    def watched(*steps: list[float]) -> dict:
        return {"gradients": {"by_step": [{"mean": step} for step in steps]}}

    dead, alive = [0.0, 1e-30, 0.0], [1.0, 2.0, 3.0]
    records = {
        "zeros": [record(1, 0.6, **watched(*[dead] * 5))],
        # dead from one seed only, but for the third tensor in the last step
        "odd": [
            record(1, 0.6, **watched(alive, dead)),
            record(2, 0.6, **watched(dead, [1.0, 1.0, 0.0])),
            record(3, 0.6, diverged_at=0, gradients=None),
        ],
        "alive": [record(1, 0.6, **watched(alive))],
        "wild": [record(1, 0.5)],
    }
    end = "of 3 parameter tensors are exactly zero."
    assert exp4_init.zero_gradients(records) == [
        f"In the first 5 steps of “zeros”, the gradients of 2, 2, 2, 2 and 2 {end}",
        f"In the first 2 steps of “odd”, the gradients of 0 and 1 {end}",
    ]


@pytest.fixture(scope="module")
def rehearsal(rehearse: Callable[..., Rehearsal]) -> Rehearsal:
    return rehearse(exp4_init, EPOCHS=2, SEEDS=[1], INITIALISATIONS=["kaiming", "zeros"])


@pytest.mark.slow
def test_rehearsal_finds_that_zeros_have_no_gradient_but_one(rehearsal: Rehearsal) -> None:
    folder = rehearsal.root / "quick" / "exp4_init"
    summary = json.loads((folder / "summary.json").read_text())
    kaiming, zeros = summary["groups"]
    assert (kaiming["label"], kaiming["settings"]["initialisation"]) == ("kaiming", "kaiming")
    names, means = (zeros["gradients"]["parameters"], zeros["gradients"]["first_steps"]["mean"])
    moved = {name for name, mean in zip(names, means["mean"], strict=True) if mean}
    assert moved == {"fc2.bias"}  # as nothing else can have a gradient
    assert all(kaiming["gradients"]["first_steps"]["mean"]["mean"])
    (finding,) = summary["findings"]
    assert "steps of “zeros”, the gradients of 9, 9, 9, 9 and 9 of 10 parameter tensors" in finding
    page = (folder.parent / "README.md").read_text()
    assert finding in page
    assert "“zeros” (1 of 1)" in page  # learned nothing


@pytest.mark.slow
def test_rehearsal_draws_early_epochs_and_gradients_of_the_first_steps(
    rehearsal: Rehearsal,
) -> None:
    folder = rehearsal.root / "quick" / "exp4_init"
    summary = json.loads((folder / "summary.json").read_text())
    page = (folder.parent / "README.md").read_text()
    names = [figures.file_name(name) for name in figures.figures(summary)]
    assert {"early.png", "gradients_first_steps.png"} <= set(names)
    for name in names:
        assert (folder / name).exists()
        assert f"(exp4_init/{name})" in page


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        ("INITIALISATIONS", ["ones"]),
        ("INITIALISATIONS", "zeros"),
        ("INITIALISATIONS", [0]),
        ("EARLY_EPOCHS", 0),
        ("EARLY_EPOCHS", 2.5),
    ],
)
def test_bad_constant_is_named(
    constant: str, value: object, a_lab: Lab, refused: Callable[..., str]
) -> None:
    line = refused(a_lab.edit(exp4_init, **{constant: value}), exp4_init, "--quick")
    assert line.startswith(constant)
