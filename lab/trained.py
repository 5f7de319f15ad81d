"""Finished runs by name: their records, and their networks ready to evaluate."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lab import experiment
from lab.experiment import results_root
from lab.provenance import HERE, fingerprint
from lab.records import run_of
from train import UserError, build

CHOICES = 10  # how many files are listed where a name fits several


def find_run(name: str) -> Path:
    """The record of the one finished run that a path, or a part of it, names.

    Your own runs come before published ones, and those by the present code before others.

    Raises UserError, with the paths to choose from, where there is none or more than one.
    """
    folders = [results_root(), results_root() / "quick", experiment.PUBLISHED]
    paths = [path for folder in folders for path in sorted((folder / "runs").glob("*.json"))]
    if not paths:
        raise UserError("there is no finished run yet: run python exp1_lr.py first")
    exact = Path(name).resolve()
    matching = [path for path in paths if name in shown(path) or path.resolve() == exact]
    for preferred in (lambda path: path.parent.parent != experiment.PUBLISHED, is_present):
        if len(matching) > 1:
            matching = [path for path in matching if preferred(path)] or matching
    if len(matching) == 1:
        return matching[0]
    listed = [shown(path) for path in (matching or paths)]
    more = f" and {len(listed) - CHOICES} more" if len(listed) > CHOICES else ""
    found = f"{len(matching)} finished runs have" if matching else "no finished run has"
    raise UserError(
        f"{found} {name!r} in the path: choose one of {', '.join(listed[:CHOICES])}{more}"
    )


def shown(path: Path) -> str:
    """A path as users see it: from the project's folder, where it lies in that."""
    return path.relative_to(HERE).as_posix() if path.is_relative_to(HERE) else path.as_posix()


def is_present(path: Path) -> bool:
    """Whether a record is whole and by the code that would make it now."""
    try:
        record = load(path)
        return record["code"] == fingerprint(run_of(record["run"]))
    except (UserError, KeyError, TypeError):
        return False  # damaged, or of a network that is no longer there


def load(path: Path) -> dict[str, Any]:
    """A record from its file. Raises UserError where the file is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): run its script again") from None


def load_network(name: str) -> nn.Module:
    """The trained network of a finished run, on the CPU, in evaluation mode.

    name is the path of the run's record or of its weights, or any part of it that no other run has.

    Raises UserError where there is no such run, or its weights are not kept, or not its own.
    """
    if name.endswith(".pt"):  # the record lies in runs/, whether published or not
        name = str(Path(name).parent.parent / "runs" / f"{Path(name).stem}.json")
    path = find_run(name)
    record = load(path)
    published = path.parent.parent == experiment.PUBLISHED
    weights = (path.parent.parent / "weights" if published else path.parent) / f"{path.stem}.pt"
    content = weights.read_bytes() if weights.exists() else b""
    if hashlib.sha256(content).hexdigest() != record.get("weights_sha256"):
        raise UserError(f"{shown(weights)} is not there, or damaged: run its script again")
    network = build(run_of(record["run"]), classes=len(record["confusion_matrix"]))
    network.load_state_dict(torch.load(io.BytesIO(content), weights_only=True))
    return network.eval()
