"""Finished runs by name, and their networks: they give the recorded test accuracy."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Lab
from made_up import made_up
from torch import nn

import lab
import models
import train
from data import Dataset
from lab import experiment
from lab.checks import UserError
from lab.store import Store
from lab.trained import find_run
from train import Run

ONE = "lr=0.05_seed=2"


@pytest.fixture
def trained(finished: Lab, tmp_path: Path) -> Path:
    """The results folder of four finished runs; nothing is published.

    A folder of weights above the project must not be taken for the published weights.
    """
    finished.monkeypatch.setattr("lab.experiment.PUBLISHED", tmp_path / "weights" / "published")
    return finished.root / "quick"


@pytest.fixture
def record(trained: Path) -> Path:
    return next(trained.glob(f"runs/*{ONE}*.json"))


def test_run_is_found_by_any_part_of_its_path_and_by_the_path(record: Path) -> None:
    for name in (ONE, record.name, record.stem, f"quick/runs/{record.name}", str(record)):
        assert find_run(name) == record
    assert find_run(os.path.relpath(record)) == record


def test_no_finished_run_says_what_to_run(trained: Path) -> None:
    message = r"^no finished run has 'nonsense' in its path: run an experiment first$"
    with pytest.raises(UserError, match=message):
        find_run("nonsense")
    shutil.rmtree(trained / "runs")
    with pytest.raises(UserError, match=message):
        find_run("nonsense")


def test_many_runs_are_not_all_listed(record: Path) -> None:
    content = record.read_text()
    for i in range(12):
        (record.parent / f"another_{i}_code=0.json").write_text(content)
    with pytest.raises(UserError, match=r"12 finished runs have 'another' .* and 2 more$"):
        find_run("another")
    assert find_run("another_11") == record.parent / "another_11_code=0.json"


def test_run_by_the_present_code_comes_before_others(record: Path) -> None:
    old = json.loads(record.read_text()) | {"code": "00000000"}
    (record.parent / f"{record.stem.split('_code=')[0]}_code=00000000.json").write_text(
        json.dumps(old)
    )
    assert find_run(ONE) == record
    # or of a network that is no longer there, or damaged
    gone = old | {"run": old["run"] | {"network": "WideNet"}}
    (record.parent / f"WideNet_{ONE}.json").write_text(json.dumps(gone))
    (record.parent / f"Damaged_{ONE}.json").write_text("{")
    assert find_run(ONE) == record


def test_own_run_comes_before_a_published_one_and_a_rehearsal_last(record: Path) -> None:
    own = record.parent.parent.parent / "runs" / record.name
    published = experiment.PUBLISHED / "runs" / record.name
    for path in (own, published):
        path.parent.mkdir(parents=True)
        shutil.copy(record, path)
    assert find_run(ONE) == own
    for path in (own, published, record):
        assert find_run(str(path)) == path
    own.unlink()
    assert find_run(ONE) == published
    published.unlink()
    assert find_run(ONE) == record


def test_record_that_vanishes_or_is_damaged_is_named(
    record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may move it away after it was listed."""
    monkeypatch.setattr("lab.trained.find_run", lambda name: record)
    for content in ("{", "[]", "{}", json.dumps({"run": 5}), None):
        if content is None:
            record.unlink()
        else:
            record.write_text(content)
        message = r"\.json is gone or damaged \(.*\): run its script again$"
        with pytest.raises(UserError, match=message):
            lab.load_network(ONE)
        assert not lab.trained.is_present(record)


def test_weights_are_a_plain_state_dictionary(record: Path) -> None:
    weights = torch.load(record.with_suffix(".pt"), weights_only=True)
    network = train.networks()["BaselineNet"]()
    network.load_state_dict(weights)


@pytest.mark.parametrize("kind", ["part", "record", "weights", "relative"])
def test_network_gives_the_recorded_test_accuracy(kind: str, record: Path, digits: Dataset) -> None:
    weights = record.with_suffix(".pt")
    names = {"part": ONE, "record": record, "weights": weights, "relative": weights.name}
    network = lab.load_network(str(names[kind]))
    assert not network.training
    loss, accuracy = train.measure(
        train.evaluate(network, digits.test_images), digits.test_labels
    ).tolist()
    found = json.loads(record.read_text())
    assert accuracy == found["test_accuracy"]
    assert loss == found["test_loss"]


@pytest.mark.parametrize("by", ["name", "path of the weights"])
def test_published_network_is_loaded_with_published_weights(by: str, record: Path) -> None:
    for path, folder in ((record, "runs"), (record.with_suffix(".pt"), "weights")):
        (experiment.PUBLISHED / folder).mkdir(parents=True)
        path.rename(experiment.PUBLISHED / folder / path.name)
    weights = experiment.PUBLISHED / "weights" / f"{record.stem}.pt"
    network = lab.load_network(ONE if by == "name" else str(weights))
    for name, tensor in torch.load(weights, weights_only=True).items():
        assert torch.equal(network.state_dict()[name], tensor)
    weights.unlink()
    with pytest.raises(UserError, match=r"\.pt is not there, or damaged: run its script$"):
        lab.load_network(ONE)


def test_network_of_a_run_by_other_code_is_its_own(record: Path) -> None:
    """Named by its path, it is not that of the present code."""
    old = json.loads(record.read_text())
    weights = torch.load(record.with_suffix(".pt"), weights_only=True)
    other = {name: tensor + 1 for name, tensor in weights.items()}
    run = lab.trained.run_of(old["run"])
    Store(record.parent.parent).save(run, old | {"code": "00000000"}, other)
    name = record.name.split("_code=")[0] + "_code=00000000"
    network = lab.load_network(name)
    assert torch.equal(network.state_dict()["fc2.bias"], other["fc2.bias"])


@pytest.mark.parametrize("trouble", ["missing", "foreign", "damaged"])
def test_weights_that_are_not_those_of_the_record_are_refused(trouble: str, record: Path) -> None:
    path = record.with_suffix(".pt")
    if trouble == "missing":
        path.unlink()
    elif trouble == "foreign":
        shutil.copy(next(record.parent.glob("*lr=0.1_seed=2*.pt")), path)
    else:
        path.write_bytes(path.read_bytes()[:-100])
    remedy = f"move {re.escape(record.name)} away and run its script$"
    with pytest.raises(UserError, match=rf"\.pt is not there, or damaged: {remedy}"):
        lab.load_network(ONE)


def test_network_that_has_other_layers_by_now_is_told(
    record: Path, add_to: Callable[..., None]
) -> None:
    class BaselineNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.other = nn.Linear(1, 1)

    add_to(models, BaselineNet)
    with pytest.raises(UserError, match=r": BaselineNet in models.py has other layers now, or "):
        lab.load_network(ONE)


def test_record_with_a_field_that_run_does_not_have_is_told(record: Path) -> None:
    content = json.loads(record.read_text())
    content["run"]["nesterov"] = True
    record.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r": BaselineNet in .* or Run other fields$"):
        lab.load_network(ONE)


def test_diverged_run_has_no_network(trained: Path, a_run: Callable[..., Run]) -> None:
    run = a_run(learning_rate=7, dataset="digits")
    Store(trained).save(run, made_up(run, diverged_at=1), None)
    with pytest.raises(UserError, match=r"lr=7_seed=1.* holds a run that diverged"):
        lab.load_network("lr=7_seed=1")


def test_frozen_and_retrained_run_is_loaded_whole(
    trained: Path, a_run: Callable[..., Run], digits: Dataset
) -> None:
    run = a_run(network="DropoutNet", start=a_run(network="DropoutNet"), frozen=("conv1",))
    weights = train.build(a_run(network="DropoutNet", seed=9)).state_dict()
    Store(trained).save(run, made_up(run), weights)
    network = lab.load_network("retrained_frozen=conv1")
    assert torch.equal(network.conv1.weight, weights["conv1.weight"])
