"""What the tests share: small data, small runs, and results folders of their own."""

import io
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from made_up import finish
from project import SMALL, Project

import data
import exp1_lr
import lab
from lab import download
from lab.store import Store
from train import Run


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes endurance is slow, too, so that "not slow" leaves it out."""
    for item in items:
        if item.get_closest_marker("endurance"):
            item.add_marker("slow")


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


@pytest.fixture
def add_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType, Any], None]:
    """A function that adds a class or a function to a module as if it had been written there."""

    def add(module: ModuleType, definition: Any) -> None:
        monkeypatch.setattr(definition, "__module__", module.__name__)
        monkeypatch.setattr(module, definition.__name__, definition, raising=False)

    return add


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


@dataclass
class Rehearsal:
    """A script that was rehearsed to its end: its results folder and what it printed."""

    root: Path
    out: str
    err: str


@pytest.fixture(scope="session")
def rehearse(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Rehearsal]:
    """A function that rehearses a script with these constants, beside the results in `beside`.

    1.1 has its small constants, and a script is rehearsed once for all tests of a file.
    """

    def once(
        script: ModuleType,
        *,
        beside: Path | None = None,
        quick: dict[str, Any] | None = None,
        **constants: Any,
    ) -> Rehearsal:
        root = tmp_path_factory.mktemp(script.__name__) / "results"
        if beside:
            shutil.copytree(beside, root)
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            lab = Lab(root, patch).edit(exp1_lr, **SMALL).edit(script, **constants)
            status = lab.run(script, "--quick", quick=quick)
        assert status == 0, out.getvalue() + err.getvalue()
        return Rehearsal(root, out.getvalue(), err.getvalue())

    return once


@pytest.fixture(scope="session")
def rehearsal_of_1_1(rehearse: Callable[..., Rehearsal]) -> Rehearsal:
    """A small rehearsal of 1.1 that was never interrupted."""
    return rehearse(exp1_lr)


@pytest.fixture(scope="session")
def rehearsed(rehearsal_of_1_1: Rehearsal) -> Path:
    """The results folder of that rehearsal. Copy it to change it."""
    return rehearsal_of_1_1.root


@pytest.fixture
def finished(rehearsed: Path, a_lab: Lab) -> Lab:
    """A lab that begins with the results of that rehearsal, and its constants."""
    shutil.copytree(rehearsed, a_lab.root)
    return a_lab.edit(exp1_lr, **SMALL)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A copy of the project, to edit its code and to start it as users do."""
    return Project(tmp_path / "project").edit(**SMALL)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that runs a script in a lab which must refuse it; the one line that it says."""

    def run(lab: Lab, script: ModuleType, *options: str, **how: Any) -> str:
        capsys.readouterr()
        assert lab.run(script, *options, **how) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return run


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is drawn, where figures are not the point."""
    monkeypatch.setattr("lab.figures.save", lambda found, folder: [])


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch, digits: data.Dataset) -> list[Run]:
    """Runs are finished with made-up records as soon as they are to be trained; those runs.

    So they need no CIFAR-10: the digits stand for it.
    """
    trained: list[Run] = []

    def train(
        runs: list[Run], store: Store, device: str | None, fresh: bool
    ) -> list[dict[str, Any]]:
        todo = [run for run in dict.fromkeys(runs) if fresh or not store.is_finished(run)]
        starts = [run.start for run in todo if run.start and not store.is_finished(run.start)]
        finish([*starts, *todo], store)
        trained.extend(todo)
        return [store.load_record(run) for run in runs]

    monkeypatch.setattr("lab.sweep.train", train)
    monkeypatch.setattr("lab.sweep.load_data", lambda name: digits)
    return trained
