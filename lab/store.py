"""The results folder: finished runs, checkpoints, and who trains what.

    results/runs/<run>.json           a finished run, written whole or not at all
    results/runs/<run>.pt             its trained weights, a plain state dictionary
    results/checkpoints/<run>.pt      the state of a run at its last checkpoint
    results/.locks/<run>.lock         held while a process trains the run

A file's name ends in a hash of the run's value and in the fingerprint of the code that decides its
numbers. So a run is found whichever experiment trained it, and a run by other code is never taken
for it.
"""

import hashlib
import io
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from lab import provenance
from lab.checks import UserError
from lab.records import parse_record, settings_of
from train import Run

try:
    import fcntl
except ImportError:  # on Windows, whose locks always work
    fcntl = None

CHECKSUM_BYTES = hashlib.sha256().digest_size
STALE_SECONDS = 3600.0  # a partial file this old belongs to a process that was killed
# at these values a label need not name the field: digits are only for rehearsals
STUDY = {"batch_size": 64, "split": "standard", "dataset": "digits"}
UNNAMED = ("network", "learning_rate", "seed", "epochs", "start")  # named otherwise
LONGEST_LABEL = 80  # characters before the seed, as Windows takes paths of up to 259


def label(run: Run) -> str:
    """A short name for people: the network, every field that is not at the study's value, the seed.

    A schedule is named by its first and last rate and its number of different rates. Every system
    accepts the name as that of a file.
    """
    rates = run.learning_rate
    if isinstance(rates, tuple):
        rate = f"{rates[0]:g}-{rates[-1]:g}-in-{len(set(rates))}"
    else:
        rate = f"{rates:g}"
    words = [run.network, f"lr={rate}"]
    if run.start:
        words.append("retrained")
    for field, value in settings_of(run).items():
        if field not in UNNAMED and value != STUDY.get(field):
            value = f"{value:g}" if isinstance(value, float) else value
            text = "+".join(map(str, value)) if isinstance(value, list) else str(value)
            words.append(f"{field.replace('_', '-')}={text}")
    name = re.sub(r"[^a-zA-Z0-9_=+.-]", "-", "_".join(words))
    return f"{name[:LONGEST_LABEL]}_seed={run.seed}"


def digest(run: Run) -> str:
    """The hash of the run's value. Runs that differ only in how many epochs they train share it.

    With gradient statistics they differ in more: the last steps are others.
    """
    settings = settings_of(run)
    if not run.gradient_statistics:
        del settings["epochs"]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]


class Store:
    """What is kept under one results folder.

    say receives one line about every file that is damaged and set aside. With any_code, records
    and weights count whatever code made them: published ones are found by their value alone, and
    damaged ones stay where they are.
    """

    def __init__(
        self, root: Path, say: Callable[[str], None] = print, any_code: bool = False
    ) -> None:
        self.root, self.say, self.any_code = root, say, any_code
        self.runs, self.checkpoints = root / "runs", root / "checkpoints"
        self.weights = root / "weights" if any_code else self.runs
        self.damaged: set[Path] = set()  # published files that were named
        for path in [*root.glob("*.partial"), *root.glob("*/*.partial")]:
            with suppress(OSError):  # its own process may finish with it at any moment
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink()

    def load_record(self, run: Run) -> dict[str, Any] | None:
        """The record of a finished run, or None."""
        found = self.find_record(run)
        return found and found[1]

    def find_record(self, run: Run, weights: bool = False) -> tuple[Path, dict[str, Any]] | None:
        """The file and the record of a finished run, or None.

        There are two where both the plain loop and the engine have finished the run; one that has
        its weights comes first. With weights, only such a record counts, or one of a run that
        diverged, which has none.
        """
        paths = self._find(self.runs, run, run.epochs, ".json")
        for path in sorted(paths, key=lambda path: not self._weights_of(path).exists()):
            record = self._load(path, parse_record, run)
            if record and (
                not weights
                or record["diverged_at_epoch"] is not None
                or self._load_weights(path, record) is not None
            ):
                return path, record
        return None

    def is_finished(self, run: Run, weights: bool = False) -> bool:
        """Whether find_record() finds the run."""
        return self.find_record(run, weights) is not None

    def save(self, run: Run, record: dict[str, Any], weights: dict[str, Any] | None) -> None:
        """Keep a finished run: its weights, None where it diverged, and its record with their hash.

        The record is written last: without it the run is not finished.
        """
        path = self.runs / f"{self.stem(run, record['code'], record['engine'])}.json"
        content = None if weights is None else saved(weights)
        if content:
            write(self._weights_of(path), content)
        record = record | {"weights_sha256": content and hashlib.sha256(content).hexdigest()}
        write(path, json.dumps(record, indent=1, allow_nan=False).encode())

    def load_weights(self, run: Run) -> dict[str, Any] | None:
        """The trained weights of a finished run, as a state dictionary, or None."""
        found = self.find_record(run, weights=True)
        return found and self._load_weights(*found)

    def load_checkpoint(self, run: Run) -> dict[str, Any] | None:
        """The state of the furthest checkpoint that this run can go on from, or None.

        A run that differs only in its number of epochs went the same way as far as it went.
        """
        paths = self._find(self.checkpoints, run)
        states = [self._load(path, parse_checkpoint, run) for path in paths]
        usable = [state for state in states if state and epochs_done(state) <= run.epochs]
        return max(usable, key=epochs_done, default=None)

    def save_checkpoint(self, run: Run, state: dict[str, Any], engine: str | None) -> None:
        """Keep the state of a run under way. engine is the fingerprint of the engine, if it trains.

        The last checkpoint stays, so that a run of more epochs can go on from it.
        """
        code = provenance.fingerprint(run)
        content = saved(state | {"digest": digest(run), "code": code, "engine": engine})
        content += hashlib.sha256(content).digest()  # torch.load notices no single wrong bit
        write(self.checkpoints / f"{self.stem(run, code, engine)}.pt", content)

    @contextmanager
    def claim(self, run: Run) -> Iterator[bool]:
        """Whether this process may train the run; no other may while the context lasts.

        The operating system frees the lock of a process that dies, however it dies.

        Raises UserError where the folder cannot be written, or its disk has no locks.
        """
        path = self.root / ".locks" / f"{self.stem(run, provenance.fingerprint(run), None)}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not has_locks(path.parent):
                raise UserError(
                    f"{self.root} is on a disk without file locks, by which processes keep out of "
                    "each other's way: set RESULTS_DIR to a folder on another disk"
                )
            lock = FileLock(path)
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        except OSError as error:
            raise UserError(cannot_write(path, error)) from None
        try:
            yield True
        finally:
            lock.release()

    def by_other_code(self, runs: Sequence[Run]) -> int:
        """How many of the runs are on disk, but only from code that was edited since."""
        return sum(
            self.load_record(run) is None
            and any(self.runs.glob(f"*_{digest(run)}_epochs={run.epochs}_code=*.json"))
            for run in runs
        )

    def replace(self, runs: Sequence[Run]) -> None:
        """Move all that is kept of the runs out of the way, to be trained again.

        The checkpoints of shorter and longer ones, too: a run would go on from those.

        Raises UserError where another process is training one of them.
        """
        replaced = self.root / "replaced" / time.strftime("%Y-%m-%d_%H-%M-%S")
        with ExitStack() as claims:
            for run in runs:
                if not claims.enter_context(self.claim(run)):
                    raise UserError(f"another process is training {label(run)}: stop it first")
            for run in runs:
                found = self._find(self.runs, run, run.epochs) + self._find(self.checkpoints, run)
                for path in found:
                    move(path, replaced / path.parent.name / path.name)

    def stem(self, run: Run, code: str, engine: str | None) -> str:
        """The name of a run's files, without their ending."""
        by = f"{code}+{engine}" if engine else code
        return f"{label(run)}_{digest(run)}_epochs={run.epochs}_code={by}"

    def _find(
        self, folder: Path, run: Run, epochs: int | str = "*", ending: str = ""
    ) -> list[Path]:
        """Files of a run by the code that would make it now; of the plain loop or of the engine."""
        paths = sorted(folder.glob(f"*_{digest(run)}_epochs={epochs}_code=*{ending}"))
        return [path for path in paths if self.any_code or by_present_code(path, run)]

    def _weights_of(self, record: Path) -> Path:
        return self.weights / f"{record.stem}.pt"

    def _load_weights(self, path: Path, record: dict[str, Any]) -> dict[str, Any] | None:
        expected = record.get("weights_sha256")
        return expected and self._load(self._weights_of(path), parse_weights, expected)

    def _load(self, path: Path, parse: Callable[..., dict[str, Any]], *expected: Any) -> Any | None:
        """What parse() makes of a file, None where the file is missing or damaged.

        A damaged file is named and, but for a published one, set aside.
        """
        try:
            return parse(path.read_bytes(), *expected)
        except FileNotFoundError:
            return None  # another process may have moved it since it was found
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError) as error:
            if self.any_code and path not in self.damaged:
                self.damaged.add(path)
                self.say(f"{path} is damaged ({error}); it counts as missing")
            if not self.any_code:
                target = path.with_name(path.name + ".damaged")
                move(path, target)
                self.say(f"{path} is damaged ({error}); it is set aside as {target.name}")
            return None


def by_present_code(path: Path, run: Run) -> bool:
    """Whether a file of a run is by the code that would make it now, the engine's included."""
    code = provenance.fingerprint(run)
    present = (code, f"{code}+{provenance.engine_fingerprint()}")
    return path.stem.split("_code=")[1] in present


def parse_weights(content: bytes, sha256: str) -> dict[str, Any]:
    """A state dictionary. Raises ValueError where it is not the one that the record describes."""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError("its hash is not that of its record")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def parse_checkpoint(content: bytes, run: Run) -> dict[str, Any]:
    """The state of a run. Raises ValueError where it is damaged or of another run."""
    if content[-CHECKSUM_BYTES:] != hashlib.sha256(content[:-CHECKSUM_BYTES]).digest():
        raise ValueError("its checksum is wrong")
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if (state["digest"], state["code"]) != (digest(run), provenance.fingerprint(run)):
        raise ValueError("it belongs to another run")
    return state


def has_locks(folder: Path) -> bool:
    """Whether files in a folder can be locked: on some network file systems they cannot.

    Asked of the system itself, as versions of filelock differ in what they do then.
    """
    if fcntl is None:
        return True
    with (folder / "probe").open("a+") as file:  # NFS shares no lock on a file only written
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def epochs_done(checkpoint: dict[str, Any]) -> int:
    """How many epochs the run had trained for at a checkpoint."""
    return len(checkpoint["curves"]["train_loss"])


def saved(state: dict[str, Any]) -> bytes:
    """What torch.save writes of a state dictionary."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def move(path: Path, target: Path) -> None:
    """Move a file, unless another process has done so. Raises UserError where it cannot be."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            path.replace(target)
    except OSError as error:
        raise UserError(cannot_write(target, error)) from None


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, whatever happens, and whoever else writes it.

    Raises UserError where the disk is full or the folder cannot be written.
    """
    # a name that no other process takes, on any machine that shares the folder
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.partial")
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
        raise UserError(cannot_write(path, error)) from None


def cannot_write(path: Path, error: OSError) -> str:
    return (
        f"cannot write {path}: {error.strerror or error}; mend that and start again: "
        "all finished runs and checkpoints are kept"
    )
