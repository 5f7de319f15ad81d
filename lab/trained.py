"""Finished runs by name: their records, and their networks ready to evaluate."""

import json
from pathlib import Path
from typing import Any

from torch import nn

from lab import experiment
from lab.checks import UserError
from lab.experiment import results_root
from lab.provenance import HERE
from lab.records import KEYS, run_of
from lab.store import by_present_code, parse_weights
from lab.summary import in_words
from train import build

CHOICES = 10  # how many files are listed where a name fits several


def find_run(name: str) -> Path:
    """The record of the one finished run that a path, or a part of it, names.

    Your own runs of full length come before published ones, and rehearsals last. Within a folder,
    runs by the present code come before others.

    Raises UserError where there is none, or, with the paths to choose from, more than one.
    """
    exact = Path(name).resolve()
    for folder in (results_root(), experiment.PUBLISHED, results_root() / "quick"):
        paths = sorted((folder / "runs").glob("*.json"))
        if matching := [p for p in paths if name in shown(p) or exact == p.resolve()]:
            break
    else:
        raise UserError(f"no finished run has {name!r} in its path: run an experiment first")
    if len(matching) > 1:
        matching = list(filter(is_present, matching)) or matching
    if len(matching) == 1:
        return matching[0]
    listed = ", ".join(map(shown, matching[:CHOICES]))
    more = f" and {len(matching) - CHOICES} more" if len(matching) > CHOICES else ""
    raise UserError(
        f"{len(matching)} finished runs have {name!r} in the path: choose one of {listed}{more}"
    )


def shown(path: Path) -> str:
    """A path as users see it: from the project's folder, where it lies in that."""
    return path.relative_to(HERE).as_posix() if path.is_relative_to(HERE) else path.as_posix()


def is_present(path: Path) -> bool:
    """Whether a record is whole and by the code that would make it now."""
    try:
        return by_present_code(path, run_of(load(path)["run"]))
    except (UserError, TypeError):
        return False  # damaged, or of a network that is no longer there


def load(path: Path) -> dict[str, Any]:
    """A record from its file. Raises UserError where that is gone or damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if missing := {"run", "diverged_at_epoch", *KEYS} - record.keys():
            raise UserError(f"it has no {in_words(sorted(missing))}")
        return record
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is gone or damaged ({error}): run its script again") from None


def load_network(name: str) -> nn.Module:
    """The trained network of a finished run, on the CPU, in evaluation mode.

    name is the path of the run's record or of its weights, or any part of it that no other run has.

    Raises UserError where there is no such run, or its weights are not kept, or not its own.
    """
    if name.endswith(".pt"):  # the record lies in runs/, whether published or not
        weights = Path(name)
        folder = weights.parent
        folder = folder.with_name("runs") if folder.name == "weights" else folder
        name = (folder / f"{weights.stem}.json").as_posix()
    path = find_run(name)
    record = load(path)
    if record["diverged_at_epoch"] is not None:
        raise UserError(f"{shown(path)} holds a run that diverged: it has no trained network")
    published = path.parent.parent == experiment.PUBLISHED
    weights = (path.parent.parent / "weights" if published else path.parent) / f"{path.stem}.pt"
    try:
        state = parse_weights(weights.read_bytes(), record.get("weights_sha256"))
    except (OSError, ValueError):
        remedy = "run its script" if published else f"move {path.name} away and run its script"
        raise UserError(f"{shown(weights)} is not there, or damaged: {remedy}") from None
    try:
        network = build(run_of(record["run"]), classes=len(record["confusion_matrix"]))
        network.load_state_dict(state)
    except (AttributeError, RuntimeError, TypeError):
        name = record["run"]["network"]
        line = f"{shown(path)}: {name} in models.py has other layers now, or Run other fields"
        raise UserError(line) from None
    return network.eval()
