"""What the tests share: small data, small runs, and a results folder of their own."""

import os
from pathlib import Path

import pytest
import torch
from project import ROOT, SMALL, Project

import data
import download
from runs import Run
from store import Store


@pytest.fixture(autouse=True)
def one_thread():
    """Training sets this too; the oracles in the tests must agree with it to the last bit."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> data.Dataset:
    return data.load("digits")


def cifar10_root() -> Path:
    return Path(os.environ.get("CIFAR10_DIR") or ROOT / "data")


@pytest.fixture(scope="session")
def cifar10() -> data.Dataset:
    """Real CIFAR-10, where it is; the tests that need it say why they skip elsewhere."""
    root = cifar10_root()
    if download.find_faults(root):
        pytest.skip(f"no sound CIFAR-10 in {root}: set CIFAR10_DIR to the folder that holds it")
    return data.load("cifar10", root / download.FOLDER)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results", "exp")


@pytest.fixture
def a_run():
    """A function that makes a short run on digits; any field can be given."""

    def make(**fields) -> Run:
        defaults = {
            "network": "BaselineNet",
            "seed": 1,
            "learning_rate": 0.05,
            "epochs": 2,
            "batch_size": 64,
            "split": "standard",
            "dataset": "digits",
        }
        return Run(**(defaults | fields))

    return make


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path / "project").edit(**SMALL)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """A small sweep that was never interrupted. Copy it to change it."""
    project = Project(tmp_path_factory.mktemp("finished") / "project").edit(**SMALL)
    done = project.run("--quick")
    assert done.returncode == 0, done.stderr
    project.printed = done.stdout
    return project
