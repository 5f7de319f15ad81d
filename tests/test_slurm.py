"""slurm.sh on a real Slurm of two nodes, which the tests start and stop on this machine."""

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
from project import ROOT, Project, children, summary

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
        start = f"hostname {name} && exec slurmd -D -N {name}"
        self.nodes[name] = self._start(self._inside([*unshare, "bash", "-c", start]))

    def kill_node(self, name: str) -> None:
        """End all processes of a node at once, as when its power fails."""
        node = self.nodes.pop(name)
        (unshare,) = children(node.pid)
        (slurmd,) = children(unshare)  # the first of its processes: the others end with it
        os.kill(slurmd, signal.SIGKILL)
        node.wait()

    def call(self, *command: str) -> str:
        """What a command of Slurm prints."""
        done = subprocess.run(
            self._inside(list(command)), env=self.environment, capture_output=True, text=True
        )
        return done.stdout.strip() if done.returncode == 0 else done.stderr

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
