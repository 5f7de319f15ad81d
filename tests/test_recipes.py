"""README's recipes, followed to the letter: a network, schedule, data set, experiment of one's own.

Each trains, has figures, tables and a place on the page, and retires no finished run.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Rehearsal
from project import ROOT, SMALL, Project, summary

README = (ROOT / "README.md").read_text(encoding="utf-8")
FAKE = '''"""Random images of 20 classes for CIFAR-100, which a test does not download."""

import numpy as np


class CIFAR100:
    classes = [f"class {number}" for number in range(20)]

    def __init__(self, folder, train, download):
        n = 600 if train else 200
        stream = np.random.default_rng(train)
        self.data = stream.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        self.targets = [number % 20 for number in range(n)]
'''


def recipe(title: str) -> tuple[str, str]:
    """The words and the code of a recipe in README."""
    text = README.split(f"**{title} of your own.**")[1].split("**A")[0].split("\n## ")[0]
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert code, title
    return text, "".join(code)


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, rehearsal_of_1_1: Rehearsal
) -> Iterator[Project]:
    """A copy of the project, with finished runs, in which all recipes were followed."""
    project = Project(tmp_path_factory.mktemp("recipes") / "project").edit(**SMALL)
    shutil.copytree(rehearsal_of_1_1.root, project.folder / "results")
    follow_network(project)
    follow_schedule(project)
    follow_experiment(project)
    follow_data_set(project)
    yield project


def append(path: Path, code: str) -> None:
    with path.open("a") as file:
        file.write("\n\n" + code)


def follow_network(project: Project) -> None:
    append(project.folder / "models.py", recipe("A network")[1])
    assert '`initialisation="my own"`, if its name is `my_own`' in " ".join(README.split())
    code = "def my_own(weight: Tensor) -> None:\n    nn.init.orthogonal_(weight)\n"
    append(project.folder / "models.py", code)


def follow_schedule(project: Project) -> None:
    words, entry = recipe("A schedule")
    path = project.folder / "exp1_scheduler.py"
    start = '    return {"inverse time": smooth, '
    text = path.read_text()
    assert text.count(start) == 1
    text = text.replace(start, f'    return {{\n{entry}        "inverse time": smooth, ')
    if "import math" in words:
        text = text.replace("import lab\n", "import math\nimport lab\n", 1)
    path.write_text(text)
    project.edit("exp1_scheduler.py", EPOCHS=2, SEEDS=[1], STEP_EPOCHS=1)


def follow_experiment(project: Project) -> None:
    """In the copy BATCH_SIZES and LEARNING_RATE are constants, and runs() goes over the sizes."""
    words, body = recipe("An experiment")
    (command,) = re.findall(r"^(cp .*)$", words, re.MULTILINE)
    assert command == "cp exp1_lr.py my_experiment.py"
    text = (project.folder / "exp1_lr.py").read_text()
    for old, new in (
        (r"BATCH_SIZE = 64.*", "BATCH_SIZES = [32, 64, 128]"),
        (r"LEARNING_RATES = .*", "LEARNING_RATE = 0.05"),
    ):
        assert f"`{new}`" in words
        text, count = re.subn(f"(?m)^{old}$", new, text)
        assert count == 1
    text, count = re.subn(r"(?s)    return \{\n.*?\n    \}\n", lambda found: body, text)
    assert count == 1
    assert 'network="BaselineNet"' in text
    own = 'network="WideNet", initialisation="my own"'  # named in a script
    text = text.replace('network="BaselineNet"', own)
    (project.folder / "my_experiment.py").write_text(text.replace("[1, 2]", "[1]"))


def follow_data_set(project: Project) -> None:
    (project.folder / "fake_datasets.py").write_text(FAKE)
    code = recipe("A data set")[1]
    assert "from torchvision.datasets import CIFAR100" in code
    append(project.folder / "data.py", code.replace("torchvision.datasets", "fake_datasets"))
    text = (project.folder / "exp1_lr.py").read_text()
    text = text.replace("SEEDS = [1, 2]", "SEEDS = [1]").replace("EPOCHS = 2", "EPOCHS = 1")
    text = text.replace("= [0.1, 0.05]", "= [0.1]").replace("1.1, ", "5.2, ")
    text = text.replace('split="standard"', 'split="standard", dataset="cifar100"')
    (project.folder / "my_data.py").write_text(text)


def check_report(root: Path, name: str, labels: list[str]) -> dict:
    """See that an experiment has tables, figures and a place on the page; its summary."""
    found = summary(root, name)
    assert [group["label"] for group in found["groups"]] == labels
    folder, page = root / name, (root / "README.md").read_text()
    for table in ("table.md", "table.csv", "curves.csv", "runs.csv"):
        assert labels[0] in (folder / table).read_text()
    figures = list(folder.glob("*.png"))
    assert len(figures) > len(labels)
    assert all(f"({name}/{path.name})" in page for path in figures)
    assert f"## {found['title']}" in page
    return found


@pytest.mark.slow
def test_experiment_of_ones_own_sweeps_the_batch_size_of_a_network_of_ones_own(
    house: Project,
) -> None:
    done = house.run("--quick", script="my_experiment.py")
    assert done.returncode == 0, done.stderr
    assert "3, of which 0 are finished" in done.stdout
    labels = [f"batch size={size}" for size in (32, 64, 128)]
    found = check_report(house.results, "my_experiment", labels)
    assert [group["settings"]["batch_size"] for group in found["groups"]] == [32, 64, 128]
    assert {group["settings"]["network"] for group in found["groups"]} == {"WideNet"}
    assert {group["settings"]["initialisation"] for group in found["groups"]} == {"my own"}
    assert found["settings"]["BATCH_SIZES"] == [32, 64, 128]
    assert list(house.results.glob("runs/WideNet_*batch-size=128_*_seed=1_*.pt"))


@pytest.mark.slow
def test_schedule_of_ones_own_is_one_entry_more(house: Project) -> None:
    done = house.run("--quick", script="exp1_scheduler.py")
    assert done.returncode == 0, done.stderr
    assert "4, of which 4 are finished" in done.stdout  # those of 1.1 are not retired
    (own,) = re.findall(r'^ +"(.*?)": ', recipe("A schedule")[1], re.MULTILINE)
    found = summary(house.results, "exp1_scheduler")
    labels = [found["groups"][0]["label"], own, "inverse time", "step"]
    check_report(house.results, "exp1_scheduler", labels)
    assert [pair["label"] for pair in found["comparisons"]] == labels[1:]
    assert own in found["schedules"]


@pytest.mark.slow
def test_data_set_of_ones_own_has_its_own_classes(house: Project) -> None:
    """As it is, not rehearsed: a rehearsal takes digits."""
    done = house.run(script="my_data.py")
    assert done.returncode == 0, done.stderr
    assert "data     cifar100" in done.stdout
    root = house.folder / "results"
    found = check_report(root, "my_data", ["lr=0.1"])
    (run,) = found["groups"][0]["runs"]
    assert len(run["confusion_matrix"]) == 20
    assert run["report"]["class 19"]["support"] == 10
    (path,) = root.glob("runs/*.json")
    assert json.loads(path.read_text())["run"]["dataset"] == "cifar100"
