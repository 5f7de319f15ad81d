"""README keeps its promises: its commands exist and its numbers are those of committed files."""

import json
import re

from project import ROOT

from benchmarks import throughput
from lab import publish
from lab.page import elsewhere, twice_trained
from lab.summary import load_summaries
from lab.tables import headline

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_script_and_file_it_names_exists():
    scripts = set(re.findall(r"python (\w+\.py)", README)) | set(re.findall(r"`(\w+\.py)`", README))
    assert {"exp1_lr.py", "plots.py", "train.py"} <= scripts
    for script in scripts - {"my_experiment.py"}:
        assert (ROOT / script).exists(), script
    assert {path.name for path in ROOT.glob("*.py")} <= scripts  # it says what each is for
    for path in re.findall(r"`((?:tests|lab|benchmarks)/[\w/.]+)`", README):
        assert (ROOT / path).exists(), path
    for link in re.findall(r"\]\(([\w/.=]+)\)", README):
        assert (ROOT / link).exists(), link


def test_ci_runs_the_test_command_of_the_readme():
    (command,) = re.findall(r"^pip install .*pytest$", README, re.MULTILINE)
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith(command)


def test_what_it_finds_is_what_the_published_summaries_say(tmp_path):
    published = ROOT / "results" / "published"
    summaries = load_summaries(published)
    assert len(summaries) == 10
    for summary in summaries:
        told = " ".join([headline(summary), *elsewhere(summary, twice_trained(published))])
        assert f"**{summary['title']}: {summary['question']}** {told}\n" in README
    copy = tmp_path / "README.md"
    copy.write_text(README, encoding="utf-8")
    publish.write_findings(copy)
    assert copy.read_text(encoding="utf-8") == README


def test_how_fast_it_says_it_is_was_measured():
    paths = sorted((ROOT / "benchmarks").glob("throughput_*.json"))
    assert paths
    for path in paths:
        assert throughput.report(json.loads(path.read_text())) in README


def test_published_results_are_complete_and_small():
    published = ROOT / "results" / "published"
    files = [path for path in published.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 40e6
    for path in published.glob("runs/*.json"):
        assert json.loads(path.read_text())["run"].get("dataset", "cifar10") == "cifar10", path
    for summary in load_summaries(published):
        assert not summary["rehearsal"]
        assert summary["finished"] is None
