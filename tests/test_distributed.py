"""Sweeps shared by torchrun: two and four processes, and what happens when one is killed."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest
from project import children, wait_until

import distributed
import sweep
from errors import UserError


def torchrun(processes: int) -> dict:
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


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_runs_and_one_writes_the_summary(processes, project, finished):
    done = project.run("--quick", **torchrun(processes))
    assert done.returncode == 0, done.stderr
    assert f"trained at once: {processes}" in done.stdout
    assert done.stdout.count("summary.json") == 1
    assert project.summary() == finished.summary()


@pytest.mark.parametrize("processes", [2, 4])
def test_a_process_that_is_killed_is_named_and_a_new_start_finishes(processes, project, finished):
    process = project.start("--quick", "--device", "cpu", **torchrun(processes))
    wait_until(lambda: bool(project.files("checkpoints")), process)
    os.kill(of_rank(processes - 1, process.pid), signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    report = err[err.index("Root Cause") :]  # torchrun's own, of who died first
    assert re.search(rf"rank *: {processes - 1} ", report)
    assert "SIGKILL" in report
    assert "Traceback" not in report
    kept = project.files("runs")
    done = project.run("--quick", **torchrun(processes))
    assert done.returncode == 0, done.stderr
    assert f"4, of which {len(kept)} are finished" in done.stdout
    assert kept.items() <= project.files("runs").items()
    assert project.summary() == finished.summary()


def test_a_worker_that_is_killed_is_named_and_the_others_finish(project, finished):
    process = project.start("--quick", "--device", "cpu", **torchrun(2))
    wait_until(lambda: bool(project.files("checkpoints")), process)
    (victim,) = (
        pid
        for pid in children(of_rank(1, process.pid))
        if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
    )
    os.kill(victim, signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    (line,) = [line for line in err.splitlines() if "died" in line]
    assert re.search(rf"process 1 on \S+: worker process {victim} died while training .*", line)
    others = project.files("runs")
    assert len(others) >= 2  # all of the first process's share
    done = project.run("--quick", **torchrun(2))
    assert done.returncode == 0, done.stderr
    assert others.items() <= project.files("runs").items()
    assert project.summary() == finished.summary()


def test_an_error_of_one_process_is_everyones_and_said_once(project):
    done = project.edit(BATCH_SIZE=1_351).run("--quick", **torchrun(2))
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if "BATCH_SIZE" in line]
    assert line.startswith("BATCH_SIZE = 1351: must be at most")


def test_shares_are_even_and_cover_everything(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    shares = []
    for rank in range(4):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(distributed.share(range(10)))
    assert shares == [[0, 4, 8], [1, 5, 9], [2, 6], [3, 7]]


def test_what_any_process_knows_all_do(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    seen = [[None, "a", None], ["b", None, None], ["c", "d", None]]
    monkeypatch.setattr(distributed, "_gather", lambda item: seen)
    assert distributed.known_to_any(seen[0]) == ["b", "a", None]


def test_alone_nothing_is_asked_of_anybody():
    assert distributed.share([1, 2, 3]) == [1, 2, 3]
    assert distributed.on_first(lambda: 5) == distributed.on_all(lambda: 5) == 5
    assert distributed.known_to_any([1, None]) == [1, None]
    assert distributed.local_rank() is None


def test_a_process_has_the_gpu_of_its_number(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert sweep.worker_devices(None, 25) == ["cuda:0", "cuda:1"]
    for name, value in {"WORLD_SIZE": "3", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert sweep.worker_devices(None, 8) == ["cuda:1"]
    assert sweep.worker_devices("cpu", 8) == ["cpu"]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="--nproc-per-node=2"):
        sweep.worker_devices(None, 8)
