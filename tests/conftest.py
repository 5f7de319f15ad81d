"""What the tests share: small data, small runs, and results folders of their own."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from project import SMALL, Project

import data
import exp1_lr
import lab
from lab import download
from lab.store import Store
from train import Run


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Training sets this too; the oracles in the tests must agree with it to the last bit."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> data.Dataset:
    return data.digits(Path())


@pytest.fixture(scope="session")
def cifar10() -> data.Dataset:
    """Real CIFAR-10, where it is; the tests that need it say why they skip elsewhere."""
    folder = download.data_folder()
    if download.find_faults(folder):
        pytest.skip(f"no sound CIFAR-10 in {folder}: set CIFAR10_DIR to the folder that holds it")
    return data.cifar10(folder)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


@pytest.fixture
def a_run() -> Callable[..., Run]:
    """A function that makes a short run on digits; any field can be given."""

    def make(**fields: Any) -> Run:
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


class Lab:
    """Runs scripts in this process, into a results folder of its own.

    Workers are processes all the same; they share one import of torch.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.monkeypatch = root, monkeypatch
        monkeypatch.setenv("RESULTS_DIR", str(root))

    def edit(self, script: ModuleType, **constants: Any) -> "Lab":
        for name, value in constants.items():
            self.monkeypatch.setattr(script, name, value, raising=False)
        return self

    def run(self, script: ModuleType, *options: str, quick: dict[str, Any] | None = None) -> int:
        """The exit status of the script, whose rehearsal shortens these constants."""
        path = Path(script.__file__)
        self.monkeypatch.setattr("sys.argv", [path.name, *options])
        try:
            lab.run(script.main, vars(script), quick)
        except SystemExit as end:
            return end.code
        return 0


@pytest.fixture
def a_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path / "results", monkeypatch)


@pytest.fixture(scope="session")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a small rehearsal of 1.1 that was never interrupted. Copy it."""
    root = tmp_path_factory.mktemp("rehearsed") / "results"
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert Lab(root, monkeypatch).edit(exp1_lr, **SMALL).run(exp1_lr, "--quick") == 0
    return root


@pytest.fixture
def finished(rehearsed: Path, a_lab: Lab) -> Lab:
    """A lab that begins with the results of that rehearsal, and its constants."""
    shutil.copytree(rehearsed, a_lab.root)
    return a_lab.edit(exp1_lr, **SMALL)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A copy of the project, to edit its code and to start it as users do."""
    return Project(tmp_path / "project").edit(**SMALL)
