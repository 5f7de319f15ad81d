"""What the README promises is there."""

import json
import re

from conftest import ROOT

from benchmarks import throughput

README = (ROOT / "README.md").read_text()


def test_every_command_and_module_it_names_exists():
    scripts = set(re.findall(r"python (\w+\.py)", README)) | set(re.findall(r"`(\w+\.py)`", README))
    assert {"exp1_lr.py", "plots.py", "train.py"} <= scripts
    for script in scripts:
        assert (ROOT / script).exists(), script
    assert {
        path.name for path in ROOT.glob("*.py")
    } <= scripts  # a reader is told what every module is for


def test_ci_runs_the_test_command_of_the_readme():
    (command,) = re.findall(r"^pip install .*pytest$", README, re.MULTILINE)
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith(command)


def test_what_it_finds_is_what_the_results_say():
    section = README.split("## What it finds\n")[1].split("\n## ")[0]
    page = (ROOT / "results" / "README.md").read_text()
    told = [line for line in section.splitlines() if line.startswith(("- ", "| "))]
    assert (ROOT / "results" / "exp1_lr" / "table.md").read_text().split("\n\n")[0] in section
    assert len(told) > 10
    for line in told:
        assert line in page


def test_how_fast_it_says_it_is_is_what_was_measured():
    paths = sorted((ROOT / "benchmarks").glob("throughput_*.json"))
    assert paths
    for path in paths:
        assert throughput.report(json.loads(path.read_text())) in README
        figure = path.with_suffix(".png")
        assert f"](benchmarks/{figure.name})" in README
        assert figure.exists()
