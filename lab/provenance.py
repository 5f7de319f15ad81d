"""Where a number comes from: the code that decides it, the versions, the device, the commit."""

import ast
import functools
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from train import Run

HERE = Path(__file__).resolve().parent.parent
SOURCES = ("train.py", "data.py", "models.py", "lab/gradients.py", "lab/stacked.py")


@functools.cache
def sources() -> dict[str, str]:
    """The text of every file that decides numbers, as this process first read it."""
    return read_sources()


def read_sources() -> dict[str, str]:
    """The text of every file that decides numbers, as it is now."""
    return {name: (HERE / name).read_text(encoding="utf-8") for name in SOURCES}


def fingerprint(run: Run) -> str:
    """Eight hexadecimal digits that change with the code that decides this run's numbers.

    That is train.py, whole; of data.py what train.py uses, and the run's data set; of models.py
    the run's network and initialisation; of lab/gradients.py all, for runs that gather statistics.
    Where a definition stands, its comments and its docstring count for nothing.
    """
    runs = [run]
    while runs[-1].start:
        runs.append(runs[-1].start)
    names = {name for each in runs for name in (each.network, each.dataset)}
    names |= {each.initialisation.replace(" ", "_") for each in runs}
    return _digest(frozenset(names), run.gradient_statistics)


@functools.cache
def _digest(names: frozenset[str], gradient_statistics: bool) -> str:
    training = definitions("train.py")
    used = names | {name for node in training.values() for name in names_in(node)}
    parts = {
        "train.py": training,
        "data.py": reachable(definitions("data.py"), used),
        "models.py": reachable(definitions("models.py"), names),
    }
    if gradient_statistics:
        parts["gradients.py"] = definitions("lab/gradients.py")
    return hashed(parts)


@functools.cache
def engine_fingerprint() -> str:
    """Eight hexadecimal digits that change with the code of the GPU engine."""
    return hashed({"stacked.py": definitions("lab/stacked.py")})


def hashed(parts: dict[str, dict[str, ast.stmt]]) -> str:
    code = {
        module: {name: canonical(node) for name, node in nodes.items()}
        for module, nodes in parts.items()
    }
    return hashlib.sha256(json.dumps(code, sort_keys=True).encode()).hexdigest()[:8]


def definitions(name: str) -> dict[str, ast.stmt]:
    """The statements at the top level of a file by the name that they define; no imports.

    A statement that defines no name (an if, say) has its number as its name.
    """
    found: dict[str, ast.stmt] = {}
    for number, node in enumerate(ast.parse(sources()[name]).body):
        if isinstance(node, ast.Import | ast.ImportFrom) or is_docstring(node):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node]
        for target in targets:
            at = getattr(target, "target", target)  # of an annotated assignment
            found[getattr(at, "name", getattr(at, "id", str(number)))] = node
    return found


def reachable(nodes: dict[str, ast.stmt], names: Iterable[str]) -> dict[str, ast.stmt]:
    """The definitions of these names and of all that they use; statements without a name, too."""
    waiting = {name for name in nodes if name in names or name.isdigit()}
    found: dict[str, ast.stmt] = {}
    while waiting:
        name = waiting.pop()
        found[name] = nodes[name]
        waiting |= names_in(nodes[name]) & nodes.keys() - found.keys()
    return found


def names_in(node: ast.AST) -> set[str]:
    """Every name and every attribute that occurs in a piece of code."""
    walked = list(ast.walk(node))
    names = {part.id for part in walked if isinstance(part, ast.Name)}
    return names | {part.attr for part in walked if isinstance(part, ast.Attribute)}


def is_docstring(node: ast.AST) -> bool:
    constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return constant and isinstance(node.value.value, str)


def canonical(node: Any) -> Any:
    """A syntax tree without comments, layout and docstrings, ready for JSON.

    Fields that are empty are left out: which ones there are differs between versions of Python.
    """
    if isinstance(node, list):
        return [canonical(item) for item in node if not is_docstring(item)]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: canonical(v) for name, v in ast.iter_fields(node) if v not in (None, [])}
    return [type(node).__name__, fields]


def environment(device: str) -> dict[str, Any]:
    """The versions, device and commit that a run is trained with."""
    changes = git("status", "--porcelain", "--", "*.py")
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device_name(device),
        "git_commit": git("rev-parse", "HEAD"),
        "git_dirty": None if changes is None else bool(changes),
    }


def device_name(device: str) -> str:
    """The device in words: "NVIDIA H200", or "cpu (AMD EPYC)"."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"cpu ({models[0] if models else platform.machine()})"


@functools.cache
def git(*words: str) -> str | None:
    """What git prints of this repository, or None where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
