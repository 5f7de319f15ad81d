"""Experiment 4.3: runs that differ in their first weights alone, and what zeros teach."""

import json
from collections.abc import Callable

import pytest
from conftest import Lab, Rehearsal

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
    assert "of 10 parameter tensors are exactly zero in the first 5 steps of zeros: 9, 9" in finding
    page = (folder.parent / "README.md").read_text()
    assert finding in page
    assert "1 of 1 of zeros" in page  # learned nothing


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
