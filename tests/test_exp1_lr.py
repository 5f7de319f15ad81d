"""Experiment 1.1: its runs, what its rehearsal leaves, and one epoch on the real data."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Lab, Rehearsal
from project import Project, one_line

import data
import exp1_lr
from lab import figures


def test_runs_are_five_rates_from_five_seeds() -> None:
    groups = exp1_lr.runs()
    assert list(groups) == ["lr=0.1", "lr=0.075", "lr=0.05", "lr=0.025", "lr=0.01"]
    for label, group in groups.items():
        assert [run.seed for run in group] == [1, 2, 3, 4, 5]
        for run in group:
            assert f"lr={run.learning_rate}" == label
            assert (run.network, run.split, run.dataset) == ("BaselineNet", "standard", "cifar10")
            assert (run.epochs, run.batch_size, run.drop_last) == (50, 64, False)
            assert (run.momentum, run.weight_decay, run.augmentation) == (0, 0, ())
    assert exp1_lr.SMOOTHING_WINDOW == 5
    assert "25 runs of 50 epochs" in exp1_lr.__doc__


@pytest.mark.slow
def test_rehearsal_writes_everything_and_says_what_it_is(rehearsal_of_1_1: Rehearsal) -> None:
    folder = rehearsal_of_1_1.root / "quick" / "exp1_lr"
    names = {path.name for path in folder.iterdir()}
    assert {"summary.json", "table.md", "table.csv", "curves.csv", "runs.csv"} <= names
    summary = json.loads((folder / "summary.json").read_text())
    drawn = {figures.file_name(name) for name in figures.figures(summary)}
    assert drawn
    assert drawn <= names
    runs = {path.name for path in (folder.parent / "runs").iterdir()}
    assert len([name for name in runs if name.endswith(".json")]) == 4
    assert {Path(name).stem + ".pt" for name in runs} <= runs  # weights beside every record
    assert len(list((folder.parent / "checkpoints").iterdir())) == 4
    assert summary["rehearsal"] is True
    assert summary["title"] == "1.1 learning rates"
    assert summary["settings"]["EPOCHS"] == 2  # a rehearsal shortens runs, never constants
    assert [group["label"] for group in summary["groups"]] == ["lr=0.1", "lr=0.05"]
    assert all(len(run["val_loss"]) == 2 for group in summary["groups"] for run in group["runs"])
    (pair,) = summary["comparisons"]  # the best minus every other one
    assert pair["label"] == summary["best"]
    for words in ("REHEARSAL", "cpu (", "runs     4", " ± ", "lr=0.05", "summary.json"):
        assert words in rehearsal_of_1_1.out
    for name in (*drawn, "README.md"):
        assert name in rehearsal_of_1_1.out
    page = (folder.parent / "README.md").read_text()
    assert "1.1 learning rates" in page
    assert all(f"(exp1_lr/{name})" in page for name in drawn)


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        ("EPOCHS", 0),
        ("EPOCHS", "50"),
        ("BATCH_SIZE", -1),
        ("BATCH_SIZE", 64.5),
        ("SEEDS", []),
        ("SEEDS", [1, 1]),
        ("SEEDS", 5),
        ("LEARNING_RATES", [0.1, -0.05]),
        ("LEARNING_RATES", [0.1, 0]),
        ("LEARNING_RATES", ["0.1"]),
        ("SMOOTHING_WINDOW", 2.5),
    ],
)
def test_bad_constant_is_named_in_one_line(
    constant: str, value: object, a_lab: Lab, refused: Callable[..., str]
) -> None:
    line = refused(a_lab.edit(exp1_lr, **{constant: value}), exp1_lr, "--quick")
    assert line.startswith(constant)
    assert not (a_lab.root / "quick" / "exp1_lr").exists()


@pytest.mark.slow
def test_bad_constant_ends_the_command_with_status_2(project: Project) -> None:
    line = one_line(project.edit(EPOCHS=0).run("--quick"))
    assert line.startswith("EPOCHS = 0 must be a whole number, at least 1")
    assert "edit it at the top of exp1_lr.py" in line


@pytest.mark.slow
def test_runs_on_real_cifar10_where_it_is_no_rehearsal(
    a_lab: Lab,
    cifar10: data.Dataset,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As it is meant, but for the number of images; test_train.py trains on all of them."""
    (run, *_) = exp1_lr.runs()["lr=0.1"]
    few = dataclasses.replace(run, epochs=1, overfit_images=640)
    a_lab.edit(exp1_lr, runs=lambda: {"lr=0.1": [few]})
    assert a_lab.run(exp1_lr) == 0
    printed = capsys.readouterr()
    assert "data     cifar10" in printed.out
    assert "REHEARSAL" not in printed.out
    line = r"finished BaselineNet_lr=0.1_.*seed=1: validation \d+\.\d+%, test \d+\.\d+%"
    assert re.search(line, printed.err)
    folder = a_lab.root / "exp1_lr"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["rehearsal"] is False
    assert summary["groups"][0]["runs"][0]["report"]["airplane"]["support"] == 1000
    assert "REHEARSAL" not in (folder / "table.md").read_text()
