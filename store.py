"""The results folder: finished runs, checkpoints, and who trains what.

    results/<experiment>/runs/<run>.json          a finished run, written whole or not at all
    results/<experiment>/checkpoints/<run>.pt     the state of a run at its last checkpoint
    results/.locks/<run>.lock                     held while a process trains the run

A file's name follows from the run and from the code that decides its numbers, so that a run is
found whichever experiment trained it, and one trained by older code is never taken for it.
"""

import ast
import functools
import hashlib
import io
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from errors import UserError
from runs import CURVES, Run, settings_of

HERE = Path(__file__).resolve().parent
CODE_THAT_DECIDES_NUMBERS = ("models.py", "data.py", "train.py", "engine.py", "gradients.py")
CHECKSUM_BYTES = hashlib.sha256().digest_size
RECORD_KEYS = {  # what a record holds beside its curves
    *("seed", "report", "confusion_matrix", "most_confident_mistakes", "test_loss"),
    *("final_train_loss", "final_train_accuracy"),
    *("trained", "environment", "code"),
}
STALE_SECONDS = 3600.0  # a partial file this old belongs to a process that was killed


class Store:
    """What is kept under one results folder, seen from one experiment.

    experiment names the folder that new files go to; finished runs are found in all of them.
    say receives one line about every file that is damaged and set aside.
    """

    def __init__(
        self, root: Path, experiment: str, say: Callable[[str], None] = print, code: str = ""
    ) -> None:
        self.root = root
        self.folder = root / experiment
        self.say = say
        self.code = code or code_fingerprint()
        for path in self.folder.glob("**/*.partial"):
            with suppress(OSError):  # its own process may finish with it at any moment
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink()

    def load_result(self, run: Run) -> dict[str, Any] | None:
        """The record of a finished run, or None. A damaged file is named and set aside."""
        for path in self._find(f"runs/{self._stem(run)}.json"):
            try:
                result = json.loads(_read(path))
                if _is_whole(result, run):
                    return result
                self._set_aside(path, "it does not hold this run")
            except (ValueError, KeyError, TypeError) as error:
                self._set_aside(path, str(error))
        return None

    def is_finished(self, run: Run, weights: bool = False) -> bool:
        """Whether the run has a record and, where weights are asked for, its trained weights.

        A run that diverged has none, and is finished without.
        """
        result = self.load_result(run)
        if result is None or not weights or result["diverged_at_epoch"] is not None:
            return result is not None
        return self.load_weights(run) is not None

    def save_result(self, run: Run, result: dict[str, Any], device: Any) -> None:
        """Keep the record of a finished run, with what it was trained with.

        A record that is there stays: its run was trained again for the sake of its weights. Only if
        one of the two trainings diverged, as can be on another device, does the later one count.
        """
        earlier = self.load_result(run)
        if earlier and earlier["diverged_at_epoch"] == result["diverged_at_epoch"]:
            return
        record = {
            "run": settings_of(run),
            "seed": run.seed,
            "code": self.code,
            "environment": environment(str(device)),
        }
        name = f"runs/{self._stem(run)}.json"
        path = next(iter(self._find(name)), self.folder / name)
        write(path, json.dumps(record | result, indent=1, allow_nan=False).encode())

    def load_checkpoint(self, run: Run) -> dict[str, Any] | None:
        """The state of the furthest checkpoint that this run can go on from, or None.

        A run that differs only in its number of epochs went the same way as far as it went.
        """
        paths = self._find(f"checkpoints/{run.trajectory}_epochs=*_code={self.code}.pt")
        states = [state for path in paths if (state := self._load(path, run))]
        usable = [state for state in states if epochs_done(state) <= run.epochs]
        return max(usable, key=epochs_done, default=None)

    def save_checkpoint(self, run: Run, state: dict[str, Any]) -> None:
        """Keep the state of an unfinished run; the last one stays as its trained weights."""
        import torch  # only those who train need it, and it takes seconds to import

        buffer = io.BytesIO()
        torch.save(state | {"trajectory": run.trajectory, "code": self.code}, buffer)
        content = buffer.getvalue()
        content += hashlib.sha256(content).digest()  # torch.load notices no single wrong bit
        write(self.folder / "checkpoints" / f"{self._stem(run)}.pt", content)

    def load_weights(self, run: Run) -> dict[str, Any] | None:
        """The trained weights of a finished run, as a state dictionary, or None."""
        for path in self._find(f"checkpoints/{self._stem(run)}.pt"):
            state = self._load(path, run)
            if state and epochs_done(state) == run.epochs:
                return state["network"]
        return None

    @contextmanager
    def claim(self, run: Run) -> Iterator[bool]:
        """Whether this process may train the run; no other may while the context lasts.

        The operating system frees the lock of a process that dies, however it dies.
        """
        path = self.root / ".locks" / f"{self._stem(run)}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                yield False
                return
        except OSError as error:
            raise UserError(_cannot_write(path, error)) from None
        try:
            yield True
        finally:
            lock.release()

    def older_code(self, runs: list[Run]) -> int:
        """How many of the runs are on disk, but only from code that has been edited since."""
        names = {path.name.split("_code=")[0] for path in self._find("runs/*_code=*.json")}
        return sum(run.name in names and self.load_result(run) is None for run in runs)

    def replace(self, runs: list[Run]) -> None:
        """Move all that is kept of the runs out of the way, to be trained again.

        The checkpoints of shorter and longer ones, too: a run would go on from those.

        Raises UserError where another process is training one of them.
        """
        when = time.strftime("%Y-%m-%d_%H-%M-%S")
        with ExitStack() as claims:
            for run in runs:
                if not claims.enter_context(self.claim(run)):
                    raise UserError(f"another process is training {run.label}: stop it first")
            for run in runs:
                paths = self._find(f"runs/{self._stem(run)}.json")
                paths += self._find(f"checkpoints/{run.trajectory}_epochs=*_code={self.code}.pt")
                for path in paths:
                    target = path.parent.parent / "replaced" / when / path.name
                    try:
                        target.parent.mkdir(parents=True, exist_ok=True)
                        path.replace(target)
                    except OSError as error:
                        raise UserError(_cannot_write(target, error)) from None

    def _stem(self, run: Run) -> str:
        return f"{run.name}_code={self.code}"

    def _find(self, pattern: str) -> list[Path]:
        return sorted(self.root.glob(f"*/{pattern}"))

    def _load(self, path: Path, run: Run) -> dict[str, Any] | None:
        import torch

        content = _read(path)
        checksum = hashlib.sha256(content[:-CHECKSUM_BYTES]).digest()
        if content[-CHECKSUM_BYTES:] != checksum:
            return self._set_aside(path, "its checksum is wrong")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if (state["trajectory"], state["code"]) != (run.trajectory, self.code):
            return self._set_aside(path, "it belongs to another run")
        return state

    def _set_aside(self, path: Path, reason: str) -> None:
        target = path.with_name(path.name + ".damaged")
        try:
            path.replace(target)
        except FileNotFoundError:
            return  # another process has just set it aside
        except OSError as failure:
            raise UserError(_cannot_write(target, failure)) from None
        self.say(f"{path} is damaged ({reason}); it is kept as {target.name} and trained again")


def epochs_done(checkpoint: dict[str, Any]) -> int:
    """How many epochs the run had trained for at a checkpoint."""
    return len(checkpoint["curves"]["train_loss"])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, whatever happens, and whoever else writes it.

    Raises UserError where the disk is full or the folder cannot be written.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise UserError(_cannot_write(path, error)) from None


def _cannot_write(path: Path, error: OSError) -> str:
    return (
        f"cannot write {path}: {error.strerror or error}; mend that and start again: "
        "all finished runs and checkpoints are kept"
    )


def _is_whole(result: dict[str, Any], run: Run) -> bool:
    diverged_at = result["diverged_at_epoch"]
    finite = run.epochs if diverged_at is None else diverged_at
    curves = all(
        len(result[name]) == run.epochs
        and all(isinstance(value, float) for value in result[name][:finite])
        for name in CURVES
    )
    tested = diverged_at is not None or isinstance(result["test_accuracy"], float)
    complete = result.keys() >= RECORD_KEYS
    return curves and tested and complete and result["run"] == settings_of(run)


def code_fingerprint(folder: Path = HERE) -> str:
    """Eight hexadecimal digits that change with any code that decides numbers.

    Taken over the syntax trees, without comments, layout and docstrings, so that editing those
    costs nothing. Fields that are empty are left out: which ones there are differs between
    versions of Python.
    """

    def canonical(node: Any) -> Any:
        if isinstance(node, list):
            return [canonical(item) for item in node]
        if not isinstance(node, ast.AST):
            return repr(node)
        fields = dict(ast.iter_fields(node))
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if documented and ast.get_docstring(node) is not None:
            fields["body"] = node.body[1:]
        kept = {name: canonical(value) for name, value in fields.items() if value not in (None, [])}
        return [type(node).__name__, kept]

    sources = [(folder / name).read_bytes() for name in CODE_THAT_DECIDES_NUMBERS]
    trees = [canonical(ast.parse(source)) for source in sources]
    return hashlib.sha256(json.dumps(trees).encode()).hexdigest()[:8]


def environment(device: str) -> dict[str, Any]:
    """The versions, device and commit that a run is trained with."""
    import torch

    changes = _git("status", "--porcelain", "--", "*.py")
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device_name(device),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": None if changes is None else bool(changes),
    }


def device_name(device: str) -> str:
    """The device in words: "NVIDIA H200", or "cpu (AMD EPYC)"."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"cpu ({models[0] if models else platform.machine()})"


@functools.cache
def _git(*words: str) -> str | None:
    """What git prints of this repository, or None where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
