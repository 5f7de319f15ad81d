"""Where a number comes from: the code that decides it, the versions, the device, the commit."""

import ast
import copy
import functools
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Iterator, Set
from pathlib import Path, PurePath
from typing import Any

import torch

import data
from train import Run

HERE = Path(__file__).resolve().parent.parent
SOURCES = ("train.py", "data.py", "models.py", "lab/gradients.py", "lab/stacked.py")
NAMELESS = ""  # stands for the name of a statement that defines none, such as a loop

# the statements at the top level of a file by the name that they define or change: their code
# without comments, layout and docstrings, and the names that they use
Statements = dict[str, list[tuple[str, frozenset[str]]]]


@functools.cache
def text_of(name: str) -> str | None:
    """A file of this folder, as this process first read it; None where there is none."""
    path = HERE / name
    return path.read_text(encoding="utf-8") if path.is_file() else None


def imported(name: str, used: Set[str] | None = None) -> Iterator[str]:
    """The files that one file may import from this folder, whether they exist or not.

    Where used is given, only imports that bind one of these names count.
    """
    for node in ast.walk(ast.parse(text_of(name))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            level = getattr(node, "level", 0)  # of a relative import: 1 is its own package
            package = PurePath(name).parts[:-level] if level else ()
            module = getattr(node, "module", None) or ""
            for alias in node.names:
                # the name that it binds; names_in() gives what code imports from a module, too
                known = {alias.asname or alias.name.split(".")[0], f"{module}.{alias.name}"}
                if used is None or alias.name == "*" or known & used:
                    yield from files_of([*package, module, alias.name])


def files_of(names: Iterable[str]) -> Iterator[str]:
    """The files that a dotted name, given in parts, may stand for: parts.blocks.Block."""
    path = ""
    for name in filter(None, ".".join(names).split(".")):
        path = f"{path}/{name}" if path else name
        yield from (f"{path}.py", f"{path}/__init__.py")


def fingerprints(runs: Iterable[Run], device: str) -> set[str]:
    """Those of all code that decides the numbers of runs on a device."""
    engine = set() if device == "cpu" else {engine_fingerprint()}
    return engine | {fingerprint(run) for run in runs}


def fingerprint(run: Run) -> str:
    """Eight hexadecimal digits that change with the code that decides this run's numbers.

    That is train.py, whole; of data.py what train.py uses, the run's data set and its split; of
    models.py the run's network and initialisation; of lab/gradients.py all, for runs that gather
    statistics. Of the imports those count that are used; other files of this folder count whole.
    Where a definition stands, its comments and its docstring count for nothing.
    """
    runs = [run]
    while runs[-1].start:
        runs.append(runs[-1].start)
    names = {name for each in runs for name in (each.network, each.dataset)}
    names |= {each.initialisation.replace(" ", "_") for each in runs}
    splits = {(each.split, *data.TRAINING_FRACTIONS[each.split]) for each in runs}
    return _fingerprint(frozenset(names), frozenset(splits), run.gradient_statistics)


@functools.cache
def _fingerprint(names: frozenset[str], splits: frozenset[tuple], gradient_statistics: bool) -> str:
    training, images, networks, gradients = (statements(text_of(name)) for name in SOURCES[:4])
    used = {name for group in training.values() for _, uses in group for name in uses}
    of_data = {name.removeprefix("data.") for name in used if name.startswith("data.")}
    # the table of splits does not count, so that a new split retires no run of another
    images = {name: group for name, group in images.items() if name != "TRAINING_FRACTIONS"}
    code: dict[str, Any] = {
        "train.py": training,
        "data.py": reachable(images, names | of_data),
        "models.py": reachable(networks, names),
    }
    others = {name: statements(text_of(name)) for name in other_files(code)}
    code |= {"gradients.py": gradients if gradient_statistics else None, "splits": sorted(splits)}
    return hashed(code | ({"imported": others} if others else {}))


def other_files(code: dict[str, Statements]) -> set[str]:
    """What these statements of the three files import of this folder, and what that imports."""
    found: set[str] = set()
    waiting = list(code)
    while waiting:
        name, used = waiting.pop(), None  # of train.py and of other files all counts
        if name in code and name != SOURCES[0]:
            used = {one for group in code[name].values() for _, uses in group for one in uses}
        new = set(filter(text_of, imported(name, used))) - found - set(SOURCES)
        found |= new
        waiting += new
    return found


@functools.cache
def engine_fingerprint() -> str:
    """Eight hexadecimal digits that change with the code of the GPU engine."""
    return hashed(statements(text_of("lab/stacked.py")))


def hashed(code: dict[str, Any]) -> str:
    text = json.dumps(code, sort_keys=True, default=sorted)  # which sorts sets
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def reachable(found: Statements, names: Set[str]) -> Statements:
    """The statements with these names, those that they use, and those that have no name."""
    waiting, reached = (names | {NAMELESS}) & found.keys(), {}
    while waiting:
        name = waiting.pop()
        reached[name] = found[name]
        used = {used for _, uses in found[name] for used in uses}
        waiting |= used & found.keys() - reached.keys()
    return reached


@functools.cache
def statements(text: str) -> Statements:
    """The statements at the top level of a file; of one name there may be several."""
    found: Statements = {}
    for node in ast.parse(text).body:
        for name, part in parts(node):
            code = json.dumps(canonical(part))
            found.setdefault(name, []).append((code, frozenset(names_in(part))))
    return found


def parts(node: ast.stmt) -> Iterator[tuple[str, ast.stmt]]:
    """Each name that a statement defines or changes, with the part of the statement that does."""
    if isinstance(node, ast.Import | ast.ImportFrom) and node.names[0].name != "*":
        for alias in node.names:
            part = copy.copy(node)
            part.names = [alias]
            yield alias.asname or alias.name.split(".")[0], part
    elif isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name, node
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            for part in ast.walk(target):  # as in a, b = 1, 2 or TABLE["a"] = 1
                if isinstance(part, ast.Name):
                    yield part.id, node
    elif not is_docstring(node):
        yield NAMELESS, node


def names_in(node: ast.stmt) -> Iterator[str]:
    """The names that a statement uses, and those in other modules: data.augment."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            yield part.id
        elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            yield f"{part.value.id}.{part.attr}"
        elif isinstance(part, ast.ImportFrom):
            yield from (f"{part.module}.{alias.name}" for alias in part.names)


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
    """The device in words: "NVIDIA H200", or "cpu (AMD EPYC, AVX2)".

    A CPU's name can stand for several generations, on virtual machines above all, so what torch
    makes of it is part of it: AVX2 and AVX512 do not give the same bits.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    return f"cpu ({model}, {torch.backends.cpu.get_cpu_capability()})"


@functools.cache
def git(*words: str) -> str | None:
    """What git prints of this repository, or None where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
