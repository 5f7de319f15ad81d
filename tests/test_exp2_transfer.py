"""Experiment 2.2: what it retrains and freezes, from which runs, and what it compares."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Lab, Rehearsal
from made_up import finish
from project import SMALL

import data
import exp1_lr
import exp2_dropout
import exp2_transfer
from lab import experiment, figures
from lab.checks import UserError
from lab.experiment import Store
from lab.store import digest
from lab.tables import beside_others
from train import Run

LAYERS = ("conv1", "conv2", "conv3")
FINER = [  # what is retrained beside "retrained, dropout=0", which freezes all layers at 0.1
    f"frozen={frozen}, lr={rate}"
    for rate in (0.1, 0.01)
    for frozen in range(4)
    if (frozen, rate) != (3, 0.1)
]
OWN = {"EPOCHS": 1, "SEEDS": [2]}
SOURCES = {"EPOCHS": 1, "SEEDS": [1, 2], "DROPOUT_RATES": [0, 0.9, 0.4]}


def test_each_model_is_retrained_from_its_own_seed_on_the_other_half() -> None:
    sources = exp2_dropout.runs()["dropout=0.4"]
    runs = exp2_transfer.retrained(sources, LAYERS, 0.1)
    assert [run.seed for run in runs] == [run.start.seed for run in runs] == [1, 2, 3, 4, 5]
    for run, source in zip(runs, sources, strict=True):
        assert run.start == source
        assert run.frozen == LAYERS
        assert run.reinitialised == ("fc1", "fc2")
        assert (run.split, run.learning_rate, run.epochs) == ("swapped halves", 0.1, 50)
        assert run.dropout_rate == source.dropout_rate == 0.4
    # what 2.2 retrains on is just what 2.1 never trained on
    halves, swapped = (data.split_indices(name, 50_000) for name in ("halves", "swapped halves"))
    assert torch.equal(swapped[0], halves[1])
    assert exp2_transfer.SMOOTHING_WINDOW == 3


def test_four_frozen_sets_at_two_rates_start_from_the_models_without_dropout() -> None:
    sources = exp2_dropout.runs()["dropout=0"]
    groups = exp2_transfer.runs()
    for frozen in range(4):
        for rate in (0.1, 0.01):
            full = (frozen, rate) == (3, 0.1)
            group = groups.pop("retrained, dropout=0" if full else f"frozen={frozen}, lr={rate}")
            assert [run.start for run in group] == sources
            for run in group:
                assert (run.frozen, run.learning_rate) == (LAYERS[:frozen], rate)
                assert (run.reinitialised, run.split) == (("fc1", "fc2"), "swapped halves")
                assert (run.network, run.dropout_rate) == ("DropoutNet", 0)
    assert not groups
    # and five more from the best rate above zero
    assert sum(map(len, exp2_transfer.runs().values())) + 5 == 45
    assert "45 runs of 50 epochs" in exp2_transfer.__doc__


def test_sources_are_the_seeds_asked_for_that_did_not_diverge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = [{"seed": seed, "diverged_at_epoch": 7 if seed == 2 else None} for seed in (1, 2, 3)]
    monkeypatch.setattr(exp2_transfer, "SEEDS", [2, 3, 4])
    found = exp2_transfer.sources("dropout=0.4", records)
    assert [(run.seed, run.dropout_rate) for run in found] == [(3, 0.4), (4, 0.4)]
    monkeypatch.setattr(exp2_transfer, "SEEDS", [2])
    with pytest.raises(UserError, match=r"SEEDS = \[2\]: all runs of dropout=0.4 diverged"):
        exp2_transfer.sources("dropout=0.4", records)


def test_rehearsal_starts_from_rehearsed_runs() -> None:
    sources = exp2_dropout.runs()
    retrained = exp2_transfer.retrained(sources["dropout=0"], LAYERS, 0.1)
    (rehearsed,) = experiment.rehearsal({"x": retrained}).values()
    assert [run.start for run in rehearsed] == experiment.rehearsal(sources)["dropout=0"]


@pytest.mark.slow
def test_comparisons_are_those_that_the_study_asks_for(
    a_lab: Lab, no_training: list[Run], no_figures: None
) -> None:
    store = Store(a_lab.root)
    for label, group in exp2_dropout.runs().items():
        accuracy = {"dropout=0": 0.9, "dropout=0.4": 0.7}.get(label, 0.5)
        finish(group, store, val_accuracy=accuracy)
    assert a_lab.run(exp2_transfer) == 0
    assert a_lab.run(exp1_lr) == 0
    summary, fixed = (
        json.loads((a_lab.root / name / "summary.json").read_text())
        for name in ("exp2_transfer", "exp1_lr")
    )
    best = fixed["best"]
    assert [group["label"] for group in summary["groups"]] == [
        f"untouched, {best}",
        "dropout=0",
        "dropout=0.4",
        "retrained, dropout=0",
        "retrained, dropout=0.4",
        *FINER,
    ]
    assert summary["candidates"] == ["retrained, dropout=0", "retrained, dropout=0.4"]
    assert [(pair["label"], pair["minus"]) for pair in summary["comparisons"]] == [
        ("retrained, dropout=0.4", "retrained, dropout=0"),
        ("retrained, dropout=0", "dropout=0"),
        ("retrained, dropout=0.4", "dropout=0.4"),
        ("retrained, dropout=0.4", f"untouched, {best}"),
        ("dropout=0.4", "dropout=0"),
        ("frozen=3, lr=0.01", "retrained, dropout=0"),
        *((f"frozen={frozen}, lr=0.1", "retrained, dropout=0") for frozen in range(3)),
        *((f"frozen={frozen}, lr=0.01", "frozen=3, lr=0.01") for frozen in range(3)),
    ]
    assert summary["twins"] == {
        "retrained, dropout=0": "dropout=0",
        "retrained, dropout=0.4": "dropout=0.4",
        "frozen=3, lr=0.01": "retrained, dropout=0",
        **{f"frozen={frozen}, lr=0.01": f"frozen={frozen}, lr=0.1" for frozen in range(3)},
    }
    judged = summary["comparisons"]
    assert summary["answer"].endswith(
        "Without dropout, conv1, conv2 and conv3 are frozen, or only the first n of them "
        "(“frozen=n”). At lr=0.1, freezing all (“retrained, dropout=0”) is "
        f"{beside_others('retrained, dropout=0', judged[6:9])}. At lr=0.01, freezing all "
        f"(“frozen=3, lr=0.01”) is {beside_others('frozen=3, lr=0.01', judged[9:])}."
    )
    assert summary["groups"][3]["settings"]["start"]["split"] == "halves"
    assert "seed" not in summary["groups"][3]["settings"]["start"]


@pytest.mark.slow
def test_a_source_that_diverged_is_told(
    a_lab: Lab, no_training: list[Run], no_figures: None
) -> None:
    finish(exp2_dropout.runs()["dropout=0"][1:2], Store(a_lab.root), diverged_at=3)
    assert a_lab.run(exp2_transfer) == 0
    summary = json.loads((a_lab.root / "exp2_transfer" / "summary.json").read_text())
    assert summary["findings"][1:] == ["dropout=0 diverged from seed 2: no run starts from it."]
    groups = {group["label"]: group["seeds"] for group in summary["groups"]}
    assert groups["retrained, dropout=0"] == [1, 3, 4, 5]


@pytest.fixture(scope="module")
def transferred(rehearse: Callable[..., Rehearsal], rehearsed: Path) -> Rehearsal:
    """Beside small rehearsals of 1.1 and 2.1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.figures.save", lambda found, folder: [])
        dropout = rehearse(exp2_dropout, beside=rehearsed, **SOURCES)
    assert "Of the rates above zero, dropout=0.4 has" in dropout.out
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SOURCES.items():
            patch.setattr(exp2_dropout, name, value)
        return rehearse(exp2_transfer, beside=dropout.root, **OWN)


def trained(root: Path) -> list[tuple[dict[str, Any], dict[str, torch.Tensor]]]:
    """Settings and trained weights of every run in a results folder."""
    paths = sorted((root / "quick" / "runs").glob("*.json"))
    return [
        (
            json.loads(path.read_text())["run"],
            torch.load(path.with_suffix(".pt"), weights_only=True),
        )
        for path in paths
    ]


@pytest.mark.slow
def test_frozen_weights_are_the_same_bits_and_all_others_are_not(transferred: Rehearsal) -> None:
    runs = trained(transferred.root)
    for dropout, expected in ((0, 8), (0.4, 1)):
        mine = [
            (run, weights)
            for run, weights in runs
            if run["network"] == "DropoutNet"
            and (run.get("dropout_rate", 0), run["seed"]) == (dropout, 2)
        ]
        (before,) = (weights for run, weights in mine if "start" not in run)
        found = [(run, weights) for run, weights in mine if "start" in run]
        assert len(found) == expected
        for run, after in found:
            for name in before:
                frozen = name.split(".")[0] in run.get("frozen", ())
                assert torch.equal(before[name], after[name]) == frozen, (run["frozen"], name)


@pytest.mark.slow
def test_trainable_parameters_and_class_reports_are_told(transferred: Rehearsal) -> None:
    folder = transferred.root / "quick" / "exp2_transfer"
    summary = json.loads((folder / "summary.json").read_text())
    # conv1 448, conv2 4,640, conv3 18,496, fc1 65,600, fc2 650
    by_frozen = (89_834, 89_386, 84_746, 66_250)
    for label, count in summary["trainable_parameters"].items():
        frozen = int(label[len("frozen=")]) if label in FINER else 3 * ("retrained" in label)
        assert count == by_frozen[frozen], label
    assert len(summary["trainable_parameters"]) == 5 + len(FINER)
    for group in summary["groups"]:
        assert group["seeds"] == ([2] if group["settings"]["start"] else [1, 2])
        assert all("f1-score" in run["report"]["7"] for run in group["runs"])
    table = (folder / "table.md").read_text()
    assert "| frozen=2, lr=0.01" in table
    assert "84,746" in table
    page = (folder.parent / "README.md").read_text()
    assert "84,746" in page
    for name in map(figures.file_name, figures.figures(summary)):
        assert (folder / name).exists()
        assert f"(exp2_transfer/{name})" in page


@pytest.mark.slow
def test_weights_that_a_run_starts_from_are_trained_again(
    transferred: Rehearsal,
    a_lab: Lab,
    no_figures: None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A checkpoint makes that cheap: the source is evaluated again, not trained."""
    shutil.copytree(transferred.root, a_lab.root)
    store = Store(a_lab.root / "quick")
    before = json.loads((store.root / "exp2_transfer" / "summary.json").read_text())
    for script, constants in (
        (exp1_lr, SMALL),
        (exp2_dropout, SOURCES),
        (exp2_transfer, OWN),
    ):
        a_lab.edit(script, **constants)
    source = experiment.rehearsal(exp2_dropout.runs())["dropout=0.4"][1]
    path = store.find_record(source)[0].with_suffix(".pt")
    other = experiment.rehearsal(exp2_dropout.runs())["dropout=0"][1]
    shutil.copy(store.find_record(other)[0].with_suffix(".pt"), path)  # of another run
    (retrained,) = exp2_transfer.retrained([source], LAYERS, 0.1)
    for file in store.root.glob(f"*/*_{digest(retrained)}_*"):
        file.unlink()
    assert a_lab.run(exp2_transfer, "--quick") == 0
    said = "".join(capfd.readouterr())
    assert "first    1 trained networks that runs start from" in said
    assert f"{path.name} is damaged" in said
    after = json.loads((store.root / "exp2_transfer" / "summary.json").read_text())
    for groups in (before["groups"], after["groups"]):
        for group in groups:
            for run in group["runs"]:
                run.pop("weights_sha256")
    assert after["groups"] == before["groups"]


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        ("SEEDS", [1, 9]),
        ("SEEDS", []),
        ("FINE_TUNING_LEARNING_RATE", 0),
        ("FINE_TUNING_LEARNING_RATE", 0.1),
        ("LEARNING_RATE", -1),
    ],
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
    line = refused(a_lab.edit(exp2_transfer, **{constant: value}), exp2_transfer, option)
    assert line.startswith(constant)
    assert not no_training


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        ("DROPOUT_RATES", 0.5),
        ("DROPOUT_RATES", [0, "0.2"]),
        ("DROPOUT_RATES", [0]),
        ("DROPOUT_RATES", [0.2, 0.4]),
        ("SEEDS", 5),
        ("SEEDS", [1, [2]]),
    ],
)
def test_bad_constant_of_2_1_is_named_with_its_file(
    constant: str,
    value: object,
    a_lab: Lab,
    no_training: list[Run],
    refused: Callable[..., str],
) -> None:
    line = refused(a_lab.edit(exp2_dropout, **{constant: value}), exp2_transfer, "--quick")
    assert line.startswith(constant)
    assert "exp2_dropout.py" in line
    assert not no_training
