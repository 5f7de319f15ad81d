"""Sweeps shared by torchrun: two and four processes, and what happens when one is killed."""

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Lab
from project import SMALL, Project, children, summary, wait_until, workers

import exp1_lr
from lab import sweep
from lab.checks import UserError

FOUR_TOO = [2, pytest.param(4, marks=pytest.mark.endurance)]


def torchrun(processes: int) -> dict[str, Any]:
    """How Project.start() starts a script as so many processes on this machine."""
    module = "torch.distributed.run"
    options = ["--standalone", f"--nproc-per-node={processes}"]
    return {"launcher": [sys.executable, "-m", module, *options]}


def of_rank(rank: int, launcher: int) -> int:
    """The process of a rank among those that a torchrun started."""
    for pid in children(launcher):
        if f"RANK={rank}" in Path(f"/proc/{pid}/environ").read_text().split("\0"):
            return pid
    raise AssertionError(f"no process has rank {rank}")


@pytest.fixture
def quiet(project: Project) -> Project:
    """A project of the small constants that draws nothing."""
    return project.without_figures()


@pytest.fixture
def again(
    quiet: Project, a_lab: Lab, no_figures: None, capsys: pytest.CaptureFixture[str]
) -> Callable[[], str]:
    """A function that starts the project's sweep once more, in this process; what it prints."""

    def start() -> str:
        a_lab.monkeypatch.setenv("RESULTS_DIR", str(quiet.folder / "results"))
        capsys.readouterr()
        assert a_lab.edit(exp1_lr, **SMALL).run(exp1_lr, "--quick") == 0
        return capsys.readouterr().out

    return start


@pytest.mark.slow
@pytest.mark.parametrize("processes", FOUR_TOO)
def test_killed_process_is_named_and_the_next_ones_share_the_rest(
    processes: int, quiet: Project, rehearsed: Path
) -> None:
    """And rank 0 alone reports."""
    process = quiet.start("--quick", "--device", "cpu", **torchrun(processes))
    wait_until(lambda: bool(quiet.files("checkpoints")), process)
    os.kill(of_rank(processes - 1, process.pid), signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    report = err[err.index("Root Cause") :]  # torchrun's own, of who died first
    assert re.search(rf"rank *: {processes - 1} ", report)
    assert "SIGKILL" in report
    assert "Traceback" not in report
    kept = quiet.files("runs")
    records = [name for name in kept if name.endswith(".json")]
    done = quiet.run("--quick", **torchrun(processes))
    assert done.returncode == 0, done.stderr
    assert f"4, of which {len(records)} are finished" in done.stdout
    assert f"trained at once: {processes}" in done.stdout
    assert done.stdout.count("summary.json") == 1
    after = quiet.files("runs")
    assert all(after[name] == kept[name] for name in records)
    assert summary(quiet.results) == summary(rehearsed / "quick")


@pytest.mark.slow
@pytest.mark.endurance  # how it is named is tested below and in test_sweep.py, part by part
def test_killed_worker_is_named_and_what_is_finished_is_kept(
    quiet: Project, rehearsed: Path, again: Callable[[], str]
) -> None:
    process = quiet.start("--quick", "--device", "cpu", **torchrun(2))
    wait_until(lambda: bool(quiet.files("checkpoints")), process)
    (victim,) = workers(of_rank(1, process.pid))
    os.kill(victim, signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    (line,) = [line for line in err.splitlines() if "died" in line]
    assert re.search(rf"process 1 on \S+: worker process {victim} died while training .*", line)
    records = [name for name in quiet.files("runs") if name.endswith(".json")]
    assert f"4, of which {len(records)} are finished" in again()
    assert summary(quiet.results) == summary(rehearsed / "quick")


@pytest.mark.slow
def test_error_of_all_processes_is_said_once(quiet: Project) -> None:
    quiet.edit(SEEDS=5)
    done = quiet.run("--quick", script="exp1_scheduler.py", **torchrun(2))
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if "SEEDS" in line]
    assert line.startswith("SEEDS = 5: must be a list")
    assert "exp1_lr.py" in line


def test_process_has_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    places = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    assert sweep.worker_devices(None, 8) == ["cuda:1"]
    assert sweep.worker_devices("cpu", 8) == ["cpu"]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(UserError, match="--nproc-per-node=2"):
        sweep.worker_devices(None, 8)


def test_a_worker_begins_with_its_own_share_and_goes_on_with_the_others() -> None:
    assert sweep.shares(range(8), 1, 3) == [[1, 4, 7], [2, 5], [0, 3, 6]]
    assert sweep.shares(range(2), 2, 3) == [[0], [1]]  # it has none of its own
