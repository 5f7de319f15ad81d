"""Experiment 4.1: its runs, and a rehearsal in which one batch cannot be learned."""

import dataclasses
import json
from collections.abc import Callable

import pytest
from conftest import Lab, Rehearsal
from project import files

import exp1_lr
import exp4_overfit
from lab import experiment, figures
from lab.tables import named
from train import Run

SMALL = {"EPOCHS": 1, "SEEDS": [1], "OVERFIT_STEPS": 40, "WEIGHT_DECAYS": [0.01]}


def test_first_runs_are_one_image_and_one_batch() -> None:
    first = exp4_overfit.first_runs()
    assert list(first) == ["one image", "one batch"]
    sizes = [(run.overfit_images, run.batch_size) for run, *_ in first.values()]
    assert sizes == [(1, 1), (64, 64)]
    for group in first.values():
        assert [run.seed for run in group] == [6, 7, 8, 9, 10]
        kinds = {(run.network, run.learning_rate, run.epochs) for run in group}
        assert kinds == {("BaselineNet", 0.05, 600)}  # an epoch is one step


def test_each_remedy_differs_from_the_baseline_in_itself_alone() -> None:
    groups = exp4_overfit.runs()
    together = {"network": "DropoutNet", "dropout_rate": 0.4, "weight_decay": 0.001}
    differing = {
        "baseline": {},
        "dropout=0.4": {"network": "DropoutNet", "dropout_rate": 0.4},
        "weight decay=0.0001": {"weight_decay": 0.0001},
        "weight decay=0.001": {"weight_decay": 0.001},
        "weight decay=0.01": {"weight_decay": 0.01},
        "augmentation": {"augmentation": ("flip", "crop")},
        "width=8": {"width": 8},
        "combined": together | {"augmentation": ("flip", "crop")},
    }
    like = exp1_lr.runs()["lr=0.05"]
    baseline = [dataclasses.replace(run, seed=run.seed + 5) for run in like]
    assert list(groups) == list(differing)
    for label, fields in differing.items():
        assert groups[label] == [dataclasses.replace(run, **fields) for run in baseline]
    assert sum(map(len, groups.values())) == 40
    assert "40 runs of 50 epochs and 10 of 600 steps" in exp4_overfit.__doc__


def test_rehearsal_leaves_a_few_images_enough_steps() -> None:
    rehearsed = experiment.rehearsal(exp4_overfit.first_runs() | exp4_overfit.runs())
    assert {run.epochs for label in ("one image", "one batch") for run in rehearsed[label]} == {250}
    assert {run.epochs for run in rehearsed["width=8"]} == {experiment.QUICK_EPOCHS}
    assert rehearsed["one batch"][0].overfit_images == 64


@pytest.fixture(scope="module")
def rehearsal(rehearse: Callable[..., Rehearsal], rehearsal_of_1_1: Rehearsal) -> Rehearsal:
    """Enough steps for one image, not for one batch."""
    return rehearse(exp4_overfit, beside=rehearsal_of_1_1.root, **SMALL)


@pytest.mark.slow
def test_what_cannot_be_learned_is_said_before_the_others_are_trained(
    rehearsal: Rehearsal,
) -> None:
    said = "**COULD NOT LEARN ONE BATCH**, from seed 1"
    assert rehearsal.out.count(said) == 2  # and once more at the end
    lines = rehearsal.out.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("runs  ")]
    first = next(number for number, line in enumerate(lines) if said in line)
    assert starts[0] < first < starts[1]
    assert said in (rehearsal.root / "quick" / "README.md").read_text()


@pytest.mark.slow
def test_steps_parameters_and_comparisons_are_told(
    rehearsal: Rehearsal, rehearsal_of_1_1: Rehearsal
) -> None:
    folder = rehearsal.root / "quick" / "exp4_overfit"
    summary = json.loads((folder / "summary.json").read_text())
    image, batch, split = summary["learning"]
    assert image["could_not"] == []
    assert all(1 < steps < 40 for steps in image["steps"])
    assert batch["could_not"] == [1]
    assert (batch["most_steps"], split["most_steps"]) == (40, 22)  # 1,350 images: 22 steps
    groups = {group["label"]: group for group in summary["groups"]}
    remedies = ["dropout=0.4", "weight decay=0.01", "augmentation", "width=8", "combined"]
    assert list(groups) == ["one image", "one batch", "baseline", *remedies]
    assert summary["candidates"] == ["baseline", *remedies]  # what is by heart is not ranked
    pairs = [(pair["label"], pair["minus"]) for pair in summary["comparisons"]]
    assert pairs == [(label, "baseline") for label in remedies]
    assert len(groups["one image"]["mean"]["val_loss"]) == 40
    assert summary["answer"].startswith(
        "1 of 1 seeds fit one image, 0 of 1 seeds fit one batch and 0 of 1 seeds reach 90% on the "
        "whole split during training. "
    )
    for label in remedies:
        change = 100 * (groups[label]["gap"]["mean"] - groups["baseline"]["gap"]["mean"])
        assert f"{change:+.2f}".replace("-", "−") + f" with {named(label)}" in summary["answer"]
    assert (
        f". On the test set, “baseline” is without a verdict against {named(remedies[0])}"
        in (summary["answer"])
    )
    counts = dict.fromkeys(groups, 89_834) | {"width=8": 22_778}
    assert summary["trainable_parameters"] == counts
    table = (folder / "table.md").read_text()
    assert "one batch" in table
    assert "22,778" in table
    theirs = files(rehearsal_of_1_1.root / "quick", "runs").keys()
    new = files(rehearsal.root / "quick", "runs").keys() - theirs
    assert len([name for name in new if name.endswith(".json")]) == 8
    page = (folder.parent / "README.md").read_text()
    for name in map(figures.file_name, figures.figures(summary)):
        assert (folder / name).exists()
        assert f"(exp4_overfit/{name})" in page


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        ("OVERFIT_STEPS", 0),
        ("NEAR_ZERO_LOSS", 0),
        ("NEAR_ZERO_LOSS", "0.01"),
        ("WHOLE_SPLIT_ACCURACY", 1.1),
        ("WEIGHT_DECAYS", [0.1, -0.1]),
        ("COMBINED_WEIGHT_DECAY", -1),
        ("WIDTH", 0),
        ("DROPOUT_RATE", 1),
    ],
)
def test_bad_constant_is_named_before_anything_is_trained(
    constant: str,
    value: object,
    a_lab: Lab,
    no_training: list[Run],
    refused: Callable[..., str],
) -> None:
    line = refused(a_lab.edit(exp4_overfit, **{constant: value}), exp4_overfit, "--quick")
    assert line.startswith(constant)
    assert not no_training
