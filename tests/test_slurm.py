"""slurm.sh on a real Slurm of two nodes, which the tests start and stop on this machine."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from project import ROOT, SMALL, Project, children, files, summary

from lab.checks import UserError
from lab.store import Store
from train import Run

NODES = {"n1": "10.0.0.1", "n2": "10.0.0.2"}
PATIENCE = 300  # seconds that anything here may take; the machine may be busy
CONFIGURATION = """\
ClusterName=two
SlurmctldHost=n1
SlurmUser=root
AuthInfo=socket={folder}/munge,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdTimeout=15
ReturnToService=2
NodeName=n1 CPUs=1 Port=6821
NodeName=n2 CPUs=1 Port=6822
PartitionName=all Nodes=ALL Default=YES
"""
# waits in the middle of training, once two runs are finished, for as long as a file is there
HOLD = """\
        import pathlib

        records = pathlib.Path("results/quick/runs").glob("*.json")
        if done > 1 and len([*records]) >= 2 and pathlib.Path("hold").exists():
            pathlib.Path("held").touch()
            while pathlib.Path("hold").exists():
                time.sleep(0.1)
"""


def obstacle() -> str | None:
    """Why no cluster can be started here, or None."""
    programs = ["munged", "slurmctld", "slurmd", "sbatch", "ip", "unshare", "nsenter"]
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "only root can start a Slurm cluster of its own"
    if missing := [name for name in programs if shutil.which(name) is None]:
        return f"{', '.join(missing)}: not installed (on Debian: slurm-wlm munge iproute2)"
    if subprocess.run(["unshare", *ALONE, "true"], capture_output=True).returncode:
        return "namespaces of Linux are not allowed here"
    return None


ALONE = ["--mount", "--net", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]


class Cluster:
    """A Slurm cluster of two nodes on this machine.

    It has its own network, host names and process numbers (namespaces of Linux), and so has each
    node its own processes: nothing outside is changed, and whatever ends it ends all of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "state").mkdir()
        (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder))
        (folder / "key").write_bytes(os.urandom(128))
        (folder / "key").chmod(0o400)
        names = "".join(f"{address} {name}\n" for name, address in NODES.items())
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # for torchrun
        }
        addresses = "".join(f"ip address add {address} dev lo\n" for address in NODES.values())
        start = f"""
            set -e
            hostname n1
            mount --bind hosts /etc/hosts
            ip link set lo up
            {addresses}
            munged --foreground --force --socket=munge --key-file=key --log-file=munge.log \
                --pid-file=munge.pid --seed-file=munge.seed &
            slurmctld -D &
            read  # until the test closes this pipe, or has died
        """
        self.control = self._start(["unshare", *ALONE, "bash", "-c", start], stdin=subprocess.PIPE)
        wait_until(lambda: bool(children(self.control.pid)))
        (self.init,) = children(self.control.pid)
        self.nodes: dict[str, subprocess.Popen] = {}
        wait_until(lambda: (folder / "munge").exists())
        for name in NODES:
            self.start_node(name)
        wait_until(lambda: self.call("sinfo", "-h", "-o", "%T %D") == "idle 2")

    def _start(self, command: list[str], **how: int) -> subprocess.Popen:
        with (self.folder / "out").open("a") as out:
            return subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=out, stderr=out, **how
            )

    def _inside(self, command: list[str]) -> list[str]:
        return ["nsenter", f"--target={self.init}", "--mount", "--net", "--pid", "--uts", *command]

    def start_node(self, name: str) -> None:
        unshare = ["unshare", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
        start = f"hostname {name}; slurmd -D -N {name}; true"  # bash stays, for orphans
        self.nodes[name] = self._start(self._inside([*unshare, "bash", "-c", start]))

    def kill_node(self, name: str) -> None:
        """End all processes of a node at once, as when its power fails."""
        node = self.nodes.pop(name)
        (unshare,) = children(node.pid)
        (init,) = children(unshare)  # the first of its processes: all others end with it
        os.kill(init, signal.SIGKILL)
        node.wait()

    def call(self, *command: str) -> str:
        """What a command of Slurm prints."""
        done = subprocess.run(
            self._inside(list(command)), env=self.environment, capture_output=True, text=True
        )
        return done.stdout.strip() if done.returncode == 0 else done.stderr

    def submit(self, project: Project, *options: str) -> str:
        """Submit a rehearsal of 1.1 that waits in its middle while it is held; the job's number."""
        (project.folder / "held").unlink(missing_ok=True)
        script = str(project.folder / "slurm.sh")
        command = ["sbatch", "--parsable", f"--chdir={project.folder}", *options, script]
        return self.call(*command, "exp1_lr.py", "--quick")

    def job(self, number: str) -> dict[str, str]:
        """What Slurm knows of a job: JobState, Restarts and so on."""
        return dict(re.findall(r"(\w+)=(\S*)", self.call("scontrol", "show", "job", number)))

    def end(self, number: str) -> str:
        """The state in which a job ends, once it has."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        wait_until(lambda: self.job(number)["JobState"] in over)
        wait_until(lambda: number not in self.call("squeue", "-h", "-o", "%i").split())
        return self.job(number)["JobState"]

    def stop(self) -> None:
        self.control.communicate()
        for node in self.nodes.values():
            node.wait()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := obstacle():
        pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    yield cluster
    cluster.stop()


@pytest.fixture
def held(tmp_path: Path) -> Project:
    """A project whose sweep waits in the middle of training, once two of four runs are finished."""
    project = Project(tmp_path / "project").edit(**SMALL).without_figures()
    project.insert("lab/sweep.py", "        now, last = time.monotonic(), self.sent", HOLD)
    path = project.folder / "lab" / "records.py"
    text = path.read_text()
    assert "CHECKPOINT_SECONDS = 10.0" in text
    path.write_text(text.replace("CHECKPOINT_SECONDS = 10.0", "CHECKPOINT_SECONDS = 0"))
    shutil.copy(ROOT / "slurm.sh", project.folder)
    (project.folder / "hold").touch()
    return project


def log(project: Project, job: str) -> str:
    return (project.folder / f"slurm-{job}.log").read_text()


def in_the_middle(project: Project) -> dict[str, int]:
    """Wait for the middle of a held sweep; the records that are there by then."""
    wait_until((project.folder / "held").exists)
    (project.folder / "held").unlink()
    found = records(project)
    assert len(found) in (2, 3)
    return found


def records(project: Project) -> dict[str, int]:
    kept = files(project.results, "runs")
    return {name: when for name, when in kept.items() if name.endswith(".json")}


def release(project: Project) -> None:
    (project.folder / "hold").unlink()


@pytest.mark.endurance
def test_submitted_sweep_is_shared_by_both_nodes(
    cluster: Cluster, held: Project, rehearsed: Path
) -> None:
    release(held)
    job = cluster.submit(held)
    assert cluster.end(job) == "COMPLETED", log(held, job)
    said = log(held, job)
    assert "trained at once: 2" in said
    assert said.count("summary.json") == 1
    assert "Traceback" not in said
    assert "error" not in said
    assert held.summary() == summary(rehearsed / "quick")


@pytest.mark.endurance
def test_requeued_sweep_resumes_by_itself_and_cancelled_one_when_submitted(
    cluster: Cluster, held: Project, rehearsed: Path
) -> None:
    job = cluster.submit(held)
    kept = in_the_middle(held)
    cluster.call("scontrol", "requeue", job)
    kept_longer = in_the_middle(held)
    assert kept.items() <= kept_longer.items()
    assert cluster.job(job)["Restarts"] == "1"
    assert f"runs     4, of which {len(kept)} are finished" in log(held, job)
    cluster.call("scancel", job)
    assert cluster.end(job) == "CANCELLED"
    finish(cluster, held, kept_longer, rehearsed)


@pytest.mark.endurance
def test_lost_node_is_named_and_sweep_resumes_when_it_is_back(
    cluster: Cluster, held: Project, rehearsed: Path
) -> None:
    job = cluster.submit(held)
    kept = in_the_middle(held)
    cluster.kill_node("n2")
    wait_until(lambda: cluster.job(job)["JobState"] == "PENDING")
    assert "Node failure on n2" in log(held, job)
    release(held)
    cluster.start_node("n2")
    assert cluster.end(job) == "COMPLETED", log(held, job)
    assert cluster.job(job)["Restarts"] == "1"
    assert kept.items() <= records(held).items()
    assert held.summary() == summary(rehearsed / "quick")


@pytest.mark.endurance
def test_sweep_stopped_by_a_time_limit_resumes_when_submitted(
    cluster: Cluster, held: Project, rehearsed: Path
) -> None:
    job = cluster.submit(held, "--time=1")
    kept = in_the_middle(held)
    assert cluster.end(job) == "TIMEOUT"
    assert "DUE TO TIME LIMIT" in log(held, job)
    finish(cluster, held, kept, rehearsed)


def finish(cluster: Cluster, held: Project, kept: dict[str, int], rehearsed: Path) -> None:
    """Submit a sweep again: it keeps its records and comes to what an uninterrupted one does."""
    kept = kept | records(held)
    release(held)
    job = cluster.submit(held)
    assert cluster.end(job) == "COMPLETED", log(held, job)
    assert f"runs     4, of which {len(kept)} are finished" in log(held, job)
    assert kept.items() <= records(held).items()
    assert held.summary() == summary(rehearsed / "quick")


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files cannot be locked: the errors are those of Lustre and NFS without a lock service."""
    fcntl = pytest.importorskip("fcntl")

    def fail(file: object, operation: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", fail)


def test_folder_on_a_disk_without_locks_is_refused_in_one_line(
    no_locks: None, store: Store, a_run: Callable[..., Run]
) -> None:
    with pytest.raises(UserError, match=r"disk without file locks.*: set RESULTS_DIR"):
        store.claim(a_run()).__enter__()


def test_disk_that_shares_no_lock_on_a_file_that_is_only_written_is_accepted(
    store: Store, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NFS, which makes a lock on a range of bytes of it."""
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr("lab.store.fcntl.flock", fcntl.lockf)
    with store.claim(a_run()) as free:
        assert free
