"""What the README promises is there."""

import json
import re

import pytest
from conftest import ROOT

from benchmarks import throughput

README = (ROOT / "README.md").read_text()


def test_every_command_and_module_it_names_exists():
    scripts = set(re.findall(r"python (\w+\.py)", README)) | set(re.findall(r"`(\w+\.py)`", README))
    assert {"exp1_lr.py", "plots.py", "train.py"} <= scripts
    for script in scripts:
        assert (ROOT / script).exists(), script
    modules = {path.name for path in ROOT.glob("*.py")} - {"errors.py", "download.py"}
    assert modules <= scripts  # a reader is told what every module is for


def test_ci_runs_the_test_command_of_the_readme():
    (command,) = re.findall(r"^pip install .*pytest$", README, re.MULTILINE)
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith(command)


def test_its_table_is_that_of_the_results():
    path = ROOT / "results" / "exp1_lr" / "table.md"
    if not path.exists():
        pytest.skip("experiment 1.1 has not been run at full length here")
    table = path.read_text().split("\n\n")[0]
    assert table in README


def test_how_fast_it_says_it_is_is_what_was_measured():
    paths = sorted((ROOT / "benchmarks").glob("throughput_*.json"))
    assert paths
    for path in paths:
        assert throughput.report(json.loads(path.read_text())) in README
        figure = path.with_suffix(".png")
        assert f"](benchmarks/{figure.name})" in README
        assert figure.exists()
