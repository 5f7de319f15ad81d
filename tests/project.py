"""A copy of the project that tests edit, run, interrupt and damage."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SMALL = {"EPOCHS": 2, "SEEDS": [1, 2], "LEARNING_RATES": [0.1, 0.05]}


def answer_ctrl_c() -> None:
    """As in a terminal, even where the tests themselves run in the background of a shell."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Project:
    """A copy of the project, to edit and to run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for path in ROOT.glob("*.py"):
            shutil.copy(path, folder)
        shutil.copytree(ROOT / "lab", folder / "lab", ignore=shutil.ignore_patterns("__pycache__"))
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("CIFAR10")}

    def edit(self, script: str = "exp1_lr.py", **constants) -> "Project":
        path = self.folder / script
        text = path.read_text()
        for name, value in constants.items():
            text, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value!r}", text)
            assert count == 1
        path.write_text(text)
        return self

    def without_figures(self) -> "Project":
        """Draws nothing, where figures are not the point."""
        with (self.folder / "lab" / "figures" / "__init__.py").open("a") as file:
            file.write("\n\ndef save(found, folder):\n    return []\n")
        return self

    def insert(self, name: str, before: str, code: str) -> "Project":
        """Insert code into a file of the copy, before a piece of text that occurs once."""
        path = self.folder / name
        text = path.read_text()
        assert text.count(before) == 1, before
        path.write_text(text.replace(before, code + before))
        return self

    def start(
        self,
        *options: str,
        script: str = "exp1_lr.py",
        launcher: Sequence[str] = (sys.executable,),
        out: Any = subprocess.PIPE,
        err: Any = subprocess.PIPE,
    ) -> subprocess.Popen:
        return subprocess.Popen(
            [*launcher, script, *options],
            cwd=self.folder,
            env=self.environment,
            stdout=out,
            stderr=err,
            text=True,
            start_new_session=True,
            preexec_fn=answer_ctrl_c,
        )

    def run(self, *options: str, **how: Any) -> subprocess.CompletedProcess:
        """Run a command to its end. A pipe would wait for the server of its workers, too."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = self.start(*options, out=out, err=err, **how)
            process.wait(timeout=240)
            printed = [file.seek(0) or file.read() for file in (out, err)]
        return subprocess.CompletedProcess(process.args, process.returncode, *printed)

    @property
    def results(self) -> Path:
        return self.folder / "results" / "quick"

    def files(self, kind: str) -> dict[str, int]:
        """Name and time of last change of all files of a kind, once they are whole."""
        return files(self.results, kind)

    def summary(self, experiment: str = "exp1_lr") -> dict:
        return summary(self.results, experiment)


def files(root: Path, kind: str) -> dict[str, int]:
    """Name and time of last change of all files of a kind in a results folder, but partial ones."""
    paths = [path for path in (root / kind).glob("*") if path.suffix != ".partial"]
    return {path.name: path.stat().st_mtime_ns for path in paths}


def summary(root: Path, experiment: str = "exp1_lr") -> dict:
    """summary.json without what may differ between two trainings: timing and environment."""
    found = json.loads((root / experiment / "summary.json").read_text())
    del found["seconds"], found["environment"]
    for group in found["groups"]:
        for run in group["runs"]:
            run.pop("weights_sha256", None)
    return found


def one_line(done: subprocess.CompletedProcess) -> str:
    """The one line on stderr of a command that failed as users' errors do."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    return line


def wait_until(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    """Look until something is so, three minutes at most, while a command runs."""
    deadline = time.monotonic() + 180
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """The processes that a process has started and that are still there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found


def workers(pid: int) -> list[int]:
    """The processes that train for a sweep: those that its server has forked."""
    return [worker for child in children(pid) for worker in children(child)]
