"""The fingerprint of code: which edits retire which runs, and which cost nothing."""

import ast
import dataclasses
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import data
import models
from lab import provenance

TRAIN, DATA, MODELS = "train.py", "data.py", "models.py"
GRADIENTS, ENGINE = "lab/gradients.py", "lab/stacked.py"


class Code:
    """The text of the code that decides numbers, to edit without touching the files."""

    def __init__(self) -> None:
        self.texts = {name: provenance.text_of(name) for name in provenance.SOURCES}

    def edit(self, name: str, old: str, new: str) -> None:
        assert old in self.texts[name], f"{old!r} is not in {name}"
        self.change(name, self.texts[name].replace(old, new, 1))

    def add(self, name: str, text: str) -> None:
        self.change(name, f"{self.texts[name]}\n\n{text}\n")

    def change(self, name: str, text: str) -> None:
        ast.parse(text)
        self.texts[name] = text
        forget()


def forget() -> None:
    provenance._fingerprint.cache_clear()
    provenance.engine_fingerprint.cache_clear()


@pytest.fixture
def code(monkeypatch) -> Iterator[Code]:
    edited = Code()
    monkeypatch.setattr(provenance, "text_of", edited.texts.get)
    forget()
    yield edited
    forget()


@pytest.fixture
def runs(a_run) -> dict[str, provenance.Run]:
    """One run of each kind that an edit may or may not retire."""
    retrained = {"start": a_run(network="DropoutNet", initialisation="xavier", split="halves")}
    return {
        "baseline": a_run(),
        "dropout": a_run(network="DropoutNet", dropout_rate=0.4),
        "batch norm": a_run(network="BatchNormNet"),
        "kaiming": a_run(initialisation="kaiming"),
        "small uniform": a_run(initialisation="small uniform"),
        "cifar10": a_run(dataset="cifar10"),
        "halves": a_run(split="halves"),
        "watched": a_run(gradient_statistics=True),
        "retrained": a_run(**retrained),
    }


UNEDITED: dict[str, str] = {}  # the fingerprints of the code as it is, worked out once


@pytest.fixture
def retired(code, runs) -> Callable[[], set[str]]:
    """A function that says which runs the edits so far retire, and "engine" where they do that."""

    def fingerprints() -> dict[str, str]:
        found = {name: provenance.fingerprint(run) for name, run in runs.items()}
        return found | {"engine": provenance.engine_fingerprint()}

    if not UNEDITED:
        UNEDITED.update(fingerprints())

    def changed() -> set[str]:
        after = fingerprints()
        return {name for name in after if after[name] != UNEDITED[name]}

    return changed


ALL = {
    *("baseline", "dropout", "batch norm", "kaiming", "small uniform"),
    *("cifar10", "halves", "watched", "retrained"),
}


def test_a_fingerprint_is_eight_hexadecimal_digits_of_a_kind_of_run(runs):
    found = {name: provenance.fingerprint(run) for name, run in runs.items()}
    for fingerprint in [*found.values(), provenance.engine_fingerprint()]:
        assert re.fullmatch("[0-9a-f]{8}", fingerprint)
    assert len(set(found.values())) == len(runs)
    # settings are part of a run's own hash, not of the code's
    longer = dataclasses.replace(runs["baseline"], epochs=9, seed=4, learning_rate=0.1)
    assert provenance.fingerprint(longer) == found["baseline"]


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        # the training step, the draws, the measures
        (TRAIN, "optimizer.zero_grad()", "pass", ALL),
        (TRAIN, "EVALUATION_BATCH = 500", "EVALUATION_BATCH = 501", ALL),
        (TRAIN, ">> 1))", ">> 2))", ALL),
        (TRAIN, "< 0.5\n", "< 0.4\n", ALL),
        (TRAIN, "nn.init.zeros_(layer.bias)", "nn.init.ones_(layer.bias)", ALL),
        (TRAIN, "weight_decay: float = 0.0", "weight_decay: float = 0.1", ALL),
        # data that every run goes through, its own data set, the other one
        (DATA, "SPLIT_SEED = 0", "SPLIT_SEED = 1", ALL),
        (DATA, ".sub_(0.5)", ".sub_(0.49)", ALL),
        (DATA, "CROP_PADDING = 4", "CROP_PADDING = 5", ALL),
        (DATA, "/ 16 * 255", "/ 16 * 254", ALL - {"cifar10"}),
        (DATA, "tuple(parts[0].classes)", "tuple(parts[1].classes)", {"cifar10"}),
        # a network, its base class, its own part, an initialisation
        (MODELS, "F.relu(self.fc1(x.flatten(1)))", "F.gelu(self.fc1(x.flatten(1)))", ALL),
        (MODELS, "2 * width, 3, padding=1)", "2 * width, 3, padding=0)", ALL),
        (MODELS, "noise >= self.", "noise > self.", {"dropout", "retrained"}),
        (MODELS, "nn.BatchNorm1d(4 * width)", "nn.BatchNorm1d(4 * width, 1e-4)", {"batch norm"}),
        (MODELS, 'nonlinearity="relu"', 'nonlinearity="tanh"', {"kaiming"}),
        (MODELS, "-0.05, 0.05", "-0.06, 0.06", {"small uniform"}),
        (MODELS, "xavier_uniform_", "xavier_normal_", {"retrained"}),
        (MODELS, "std=0.05", "std=0.06", set()),
        # what watches, and the engine
        (GRADIENTS, "WINDOW = 5", "WINDOW = 6", {"watched"}),
        (GRADIENTS, "clamp(min=1)", "clamp(min=2)", {"watched"}),
    ],
)
def test_an_edit_retires_the_runs_whose_numbers_it_decides(name, old, new, expected, code, retired):
    code.edit(name, old, new)
    assert retired() == expected


def test_an_edit_of_the_engine_retires_no_run_of_the_plain_loop(code, retired):
    code.add(ENGINE, "ANOTHER = 1")
    assert retired() == {"engine"}


def test_an_edit_inside_a_function_of_the_engine_is_noticed(code, retired):
    tree = ast.parse(code.texts[ENGINE])
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef))
    function.body.append(ast.parse("del edited").body[0])
    code.change(ENGINE, ast.unparse(tree))
    assert retired() == {"engine"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (MODELS, "class WideNet(BaselineNet):\n    width = 64"),
        (MODELS, "class OwnNet(nn.Module):\n    def forward(self, x):\n        return helper(x)"),
        (MODELS, "def orthogonal(weight):\n    nn.init.orthogonal_(weight)"),
        (MODELS, "SLOPE = 0.1"),
        (DATA, "def svhn(folder) -> Dataset:\n    return digits(folder)"),
        (DATA, "def cutout(images):\n    return images"),
        (DATA, "def order(folder) -> Dataset:\n    return digits(folder)"),  # train.py has its own
        (MODELS, "def relu(weight):\n    nn.init.zeros_(weight)"),  # F.relu is another
        (DATA, "TRAINING_FRACTIONS['thirds'] = (0.0, 0.3)"),
    ],
)
def test_a_network_an_initialisation_or_a_data_set_that_is_added_retires_nothing(
    name, text, code, retired
):
    code.add(name, text)
    assert retired() == set()


def test_a_split_retires_its_own_runs_alone(code, retired, a_run, monkeypatch):
    code.edit(DATA, '    "halves": (0.0, 0.5),\n', '    "thirds": (0.0, 0.3),\n')
    monkeypatch.setitem(data.TRAINING_FRACTIONS, "thirds", [0.0, 0.3])
    assert provenance.fingerprint(a_run(split="thirds")) != provenance.fingerprint(a_run())
    assert retired() == set()
    monkeypatch.setitem(data.TRAINING_FRACTIONS, "halves", (0.0, 0.4))
    assert retired() == {"halves", "retrained"}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        # a name that is assigned, defined or changed once more
        (DATA, "def normalise(images):\n    return images", ALL),
        (DATA, "normalise = augment", ALL),
        (DATA, "if True:\n    normalise = augment", ALL),
        (DATA, "CROP_PADDING, OTHER = 5, 6", ALL),
        (DATA, "CROP_PADDING += 1", ALL),
        (MODELS, "BatchNormNet.hidden = BaselineNet.hidden", {"batch norm"}),
        (MODELS, "kaiming = xavier", {"kaiming"}),
        (MODELS, "def kaiming(weight):\n    nn.init.zeros_(weight)", {"kaiming"}),
        # what may change anything
        (MODELS, "for kind in (BatchNormNet,):\n    kind.hidden = BaselineNet.hidden", ALL),
        (MODELS, "setattr(BatchNormNet, 'hidden', BaselineNet.hidden)", ALL),
        (MODELS, "from mine import *", ALL),
        (TRAIN, "measure = evaluate", ALL),
        (ENGINE, "INNER = 512", {"engine"}),
    ],
)
def test_every_statement_about_a_name_counts_not_the_last_alone(
    name, text, expected, code, retired
):
    first = {MODELS: "class BaselineNet", DATA: "def cifar10"}
    for before in [True, False] if name in first else [False]:
        original = code.texts[name]
        if before:
            code.edit(name, first[name], f"{text}\n\n\n{first[name]}")
        else:
            code.add(name, text)
        assert retired() == expected, before
        code.change(name, original)
        assert retired() == set()


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        (MODELS, "import torch.nn.functional as F", "import mine as F", ALL),
        (
            MODELS,
            "from torch import Tensor, nn",
            "from torch import Tensor\nfrom mine import nn",
            ALL,
        ),
        (DATA, "import numpy as np", "import mine as np", ALL),
        (DATA, "import torch.nn.functional as F", "from mine import other as F", ALL),
        (TRAIN, "from data import Dataset", "from data import digits as Dataset", ALL),
        (GRADIENTS, "from torch import Tensor, nn", "from mine import Tensor, nn", {"watched"}),
        (ENGINE, "from lab.gradients import moments", "from mine import moments", {"engine"}),
    ],
)
def test_an_import_that_is_swapped_counts_where_it_is_used(name, old, new, expected, code, retired):
    code.edit(name, old, new)
    assert retired() == expected


def test_an_import_counts_for_the_runs_that_use_it_alone(code, retired):
    code.edit(MODELS, "import torch\n", "import torch\nfrom mine import squash as leaky\n")
    assert retired() == set()
    code.edit(MODELS, "F.relu(self.bn4(", "leaky(self.bn4(")
    code.edit(MODELS, "import squash as leaky", "import sink as leaky")
    assert retired() == {"batch norm"}


def test_a_function_that_is_imported_by_another_name_is_followed(code, runs):
    code.add(DATA, "def cutout(images):\n    return images")
    code.edit(TRAIN, "from data import Dataset", "from data import cutout as cut, Dataset")
    code.edit(TRAIN, "images = data.normalise(images)", "images = cut(data.normalise(images))")
    before = provenance.fingerprint(runs["baseline"])
    code.edit(DATA, "def cutout(images):\n    return images", "def cutout(images):\n    return 0")
    assert provenance.fingerprint(runs["baseline"]) != before


def test_a_nameless_statement_counts_by_its_content(code, retired, runs):
    code.add(DATA, "for _ in range(2):\n    CROP_PADDING = 5")
    first = {name: provenance.fingerprint(run) for name, run in runs.items()}
    code.edit(DATA, "def cifar10", "def added(images):\n    return images\n\n\ndef cifar10")
    assert {name: provenance.fingerprint(run) for name, run in runs.items()} == first
    code.edit(DATA, "range(2)", "range(3)")
    found = {name: provenance.fingerprint(run) for name, run in runs.items()}
    assert all(found[name] != first[name] for name in runs)


@pytest.mark.parametrize("name", [MODELS, DATA])
def test_what_is_added_at_the_top_retires_nothing_either(name, code, retired):
    first = "class BaselineNet" if name == MODELS else "def cifar10"
    code.edit(name, first, f"def added(weight):\n    return weight\n\n\n{first}")
    assert retired() == set()


def test_a_definition_that_the_training_uses_counts_from_its_addition_on(code, retired, runs):
    """A helper retires nothing before something uses it, and decides numbers afterwards."""
    code.add(MODELS, "SLOPE = 0.1\n\n\ndef leaky(x):\n    return F.leaky_relu(x, SLOPE)")
    assert retired() == set()
    code.edit(MODELS, "F.relu(self.bn4(", "leaky(self.bn4(")
    assert retired() == {"batch norm"}
    used = provenance.fingerprint(runs["batch norm"])
    code.edit(MODELS, "SLOPE = 0.1", "SLOPE = 0.2")
    assert retired() == {"batch norm"}
    assert provenance.fingerprint(runs["batch norm"]) != used


def test_a_network_of_the_users_own_is_retired_by_its_own_edits(code, retired, a_run, add_to):
    add_to(models, type("MyNet", (models.BaselineNet,), {}))
    run = a_run(network="MyNet")
    code.add(MODELS, "class MyNet(BaselineNet):\n    depth = 3")
    first = provenance.fingerprint(run)
    code.edit(MODELS, "depth = 3", "depth = 4")
    second = provenance.fingerprint(run)
    code.edit(MODELS, "F.max_pool2d(self.conv2(x), 2)", "F.avg_pool2d(self.conv2(x), 2)")
    assert len({first, second, provenance.fingerprint(run)}) == 3
    assert "batch norm" in retired()  # which has BaselineNet as its base class, too


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (MODELS, "import torch\n", "# the networks\nimport torch\n"),
        (MODELS, '"""BaselineNet with dropout', '"""A BaselineNet with dropout'),
        (MODELS, "import torch\n", "import math\nimport torch\n"),
        (DATA, "SPLIT_SEED = 0", "SPLIT_SEED  =  0  # the seed of the split"),
        (DATA, "from torch import Tensor\n", "from torch import Tensor, nn\n"),
        (TRAIN, '"""Training: from a run', '"""How training goes: from a run'),
        (TRAIN, '"""Train for one epoch; the mean', '"""The mean'),
        (GRADIENTS, '"""Close the epoch\'s sums."""', '"""Close them."""'),
        (ENGINE, "import torch\n", "import torch\n\n# a comment\n"),
    ],
)
def test_a_comment_a_docstring_and_an_import_cost_nothing(name, old, new, code, retired):
    code.edit(name, old, new)
    assert retired() == set()


def test_a_move_within_a_file_and_another_layout_cost_nothing(code, retired):
    """Every file with its statements in reverse order, as ast writes them."""
    for name, text in code.texts.copy().items():
        tree = ast.parse(text)
        moved = ast.unparse(ast.Module(tree.body[::-1], []))
        assert moved != text
        code.change(name, moved)
    assert retired() == set()


def test_a_string_that_is_no_docstring_counts(code, retired):
    code.edit(TRAIN, '"network")', '"networks")')
    assert retired() == ALL


def test_the_code_is_that_of_when_the_process_began(tmp_path, monkeypatch):
    """A file that is edited while a sweep runs must not give its fingerprint to older code."""
    for name in provenance.SOURCES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(provenance.HERE / name, tmp_path / name)
    provenance.text_of.cache_clear()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(provenance, "HERE", tmp_path)
            at_first = provenance.text_of(MODELS)
            assert "class BatchNormNet" in at_first
            (tmp_path / MODELS).write_text("edited = True\n")
            assert provenance.text_of(MODELS) == at_first
            provenance.text_of.cache_clear()
            assert provenance.text_of(MODELS) == "edited = True\n"
            assert provenance.text_of("absent.py") is None
    finally:
        provenance.text_of.cache_clear()


@pytest.mark.parametrize(
    ("source", "line", "used", "files"),
    [
        (MODELS, "from parts.blocks import Block", "Block", ["parts/blocks.py"]),
        (MODELS, "from parts import blocks", "blocks.Block", ["parts/blocks.py"]),
        (MODELS, "import parts.blocks", "parts.blocks.Block", ["parts/blocks.py"]),
        (MODELS, "import parts.blocks as b", "b.Block", ["parts/blocks.py"]),
        (MODELS, "import sizes", "sizes.WIDTH", ["sizes.py"]),
        (MODELS, "from parts.blocks import B", "B", ["parts/blocks.py", "parts/__init__.py"]),
        (MODELS, "import parts", "parts.WIDTH", ["parts/__init__.py"]),
        (DATA, "import sizes", "sizes.WIDTH", ["sizes.py"]),
        (TRAIN, "from sizes import WIDTH", "WIDTH", ["sizes.py"]),
        (TRAIN, "import sizes", "0", ["sizes.py"]),  # for what it does, not for a name
        (MODELS, "", "0\n    from sizes import WIDTH", ["sizes.py"]),
        (MODELS, "from sizes import *", "WIDTH", ["sizes.py"]),
        (MODELS, "import parts.p.q", "parts.p.q.x", ["parts/p/q.py"]),
        (DATA, "", "__import__\n    import sizes\n    sizes.WIDTH", ["sizes.py"]),  # inside
        # from one that is imported, in its own package
        (DATA, "from p import b", "b.x", ["p/b.py:from .m import x", "p/m.py"]),
        (MODELS, "from p import b", "b.x", ["p/b.py:from . import m", "p/m.py"]),
        (MODELS, "from p import b", "b.x", ["p/b.py:import sizes", "sizes.py"]),
    ],
)
def test_what_is_imported_from_this_folder_counts_where_it_is_used(
    source, line, used, files, tmp_path, monkeypatch, a_run
):
    """A block that the user's network takes from a file of its own decides its numbers, too."""
    for name in provenance.SOURCES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(provenance.HERE / name, tmp_path / name)
    monkeypatch.setattr(provenance, "HERE", tmp_path)
    monkeypatch.setattr(provenance, "text_of", provenance.text_of.__wrapped__)
    head = "class Own(nn.Module)" if source == MODELS else "def own(folder)"
    mine = {MODELS: {"network": "Own"}, DATA: {"dataset": "own"}, TRAIN: {}}[source]

    def now(**fields) -> str:
        forget()
        return provenance.fingerprint(a_run(**fields))

    with (tmp_path / source).open("a") as file:
        file.write(f"\n{line}\n\n\n{head}:\n    part = {used}\n")
    other, seen = now(), [now(**mine)]  # without the files
    *_, edited = files
    for file, text in (name.partition(":")[::2] for name in files):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(f"{text}\nWIDTH = 1\n")
        seen.append(now(**mine))
    (tmp_path / edited).write_text("WIDTH = 2\n")
    seen.append(now(**mine))
    assert len(set(seen)) == len(seen)
    # which does not use it; of a star nobody knows who does
    assert (now() == other) == (source != TRAIN and "*" not in line)
    (tmp_path / edited).write_text("WIDTH = 2  # channels\n")
    assert now(**mine) == seen[-1]
    forget()


def test_a_gpu_has_the_fingerprint_of_the_engine_beside_those_of_the_runs(a_run):
    runs = [a_run(), a_run(seed=2), a_run(network="BatchNormNet")]
    found = {provenance.fingerprint(run) for run in runs}
    assert len(found) == 2
    assert provenance.fingerprints(runs, "cpu") == found
    assert provenance.fingerprints(runs, "cuda:1") == found | {provenance.engine_fingerprint()}


# Versions, device and commit


def test_the_environment_names_versions_device_and_commit():
    found = provenance.environment("cpu")
    assert list(found) == ["torch", "python", "device", "git_commit", "git_dirty"]
    assert found["torch"] == torch.__version__
    assert re.fullmatch(r"cpu \(.+\)", found["device"])
    assert found["device"].endswith(f", {torch.backends.cpu.get_cpu_capability()})")


def test_the_environment_names_commit_and_edits(tmp_path, monkeypatch):
    def git(*words: str) -> str:
        who = ("-c", "user.name=A", "-c", "user.email=a@b.c")
        done = subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def found() -> list[Any]:
        provenance.git.cache_clear()
        return [provenance.environment("cpu")[name] for name in ("git_commit", "git_dirty")]

    monkeypatch.setattr(provenance, "HERE", tmp_path)
    (tmp_path / "code.py").write_text("x = 1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD")
    try:
        assert found() == [commit, False]
        (tmp_path / "notes.md").write_text("no code")
        assert found() == [commit, False]
        (tmp_path / "code.py").write_text("x = 2\n")
        assert found() == [commit, True]
    finally:
        provenance.git.cache_clear()


def test_without_a_repository_there_is_no_commit(tmp_path, monkeypatch):
    provenance.git.cache_clear()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(provenance, "HERE", tmp_path)
            found = provenance.environment("cpu")
            assert found["git_commit"] is found["git_dirty"] is None
            patch.setenv("PATH", str(tmp_path))  # nor without git
            provenance.git.cache_clear()
            assert provenance.environment("cpu")["git_commit"] is None
    finally:
        provenance.git.cache_clear()
