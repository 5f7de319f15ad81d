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
    assert len(summaries) == 11
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


def test_what_it_says_in_its_own_words_is_what_the_published_summaries_say():
    summaries = {s["experiment"]: s for s in load_summaries(ROOT / "results" / "published")}
    pairs = [pair for summary in summaries.values() for pair in summary["comparisons"]]

    def gain(experiment: str, label: str) -> float:
        """The difference of test accuracy of the first comparison of a setting, in points."""
        pairs = summaries[experiment]["comparisons"]
        pair = next(pair for pair in pairs if pair["label"] == label)
        return 100 * pair["test_accuracy"]["mean"]

    def means(experiment: str, name: str) -> dict[str, float]:
        groups = summaries[experiment]["groups"]
        return {g["label"]: 100 * g[name]["mean"] for g in groups if g[name]["mean"] is not None}

    fixed = summaries["exp1_lr"]["best"]
    schedules = [gain("exp1_scheduler", label) for label in ("inverse time", "step")]
    names = [f"{label}, drop last" for label in (fixed, "inverse time", "step")]
    again = summaries["exp1_scheduler_drop_last"]["comparisons"]
    assert [(pair["label"], pair["minus"]) for pair in again] == [(n, names[0]) for n in names[1:]]
    assert [pair["verdict"] for pair in again] == [f"{name} is better" for name in names[1:]]
    leads = [100 * pair["test_accuracy"]["mean"] for pair in again]
    with_it = means("exp1_scheduler", "test_accuracy")
    without = means("exp1_scheduler_drop_last", "test_accuracy")
    for experiment in ("exp1_scheduler", "exp1_scheduler_drop_last"):
        rate, *others = means(experiment, "test_loss").values()
        assert [round(other / rate) for other in others] == [2, 2]
    at_rates = summaries["exp1_last_batch"]["roughness"][:5]
    rough, before = ([100 * r[s]["mean"] for r in at_rates] for s in ("of_label", "of_minus"))
    twins = summaries["exp1_last_batch"]["comparisons"][:6]
    gains = [difference for pair in twins for difference in pair["differences"]]
    assert {pair["verdict"] for pair in twins} == {"within noise"}
    dropout = means("exp2_dropout", "test_accuracy").values()
    gaps, gaps_of_4_1 = means("exp2_dropout", "gap"), means("exp4_overfit", "gap")
    told = [pair for pair in pairs if pair["verdict"] not in (None, "within noise")]
    sides = [(pair["label"], pair["minus"]) for pair in told]
    late = [side for side in sides if all(label.endswith(", drop last") for label in side)]
    late += [side for side in sides if "frozen=3, lr=0.01" in side]
    text = " ".join(README.split())
    for sentence in (
        f"by {schedules[0]:.2f} and {schedules[1]:.2f} points of test accuracy. If all of them "
        "leave out that last batch and are trained from new seeds, they still do: by "
        f"{leads[0]:.2f} and {leads[1]:.2f} points. But their test loss is about twice as high.",
        f"mean test accuracy rises from {with_it[fixed]:.2f}% to {without[names[0]]:.2f}% (in 1.3, "
        f"from other seeds: {means('exp1_last_batch', 'test_accuracy')[names[0]]:.2f}%). That of "
        f"the schedules is {with_it['inverse time']:.2f}% and {with_it['step']:.2f}% in 1.2, and "
        f"{without[names[1]]:.2f}% and {without[names[2]]:.2f}% in 1.4.",
        f"by {min(rough):.2f} to {max(rough):.2f} points instead of {min(before):.2f} to "
        f"{max(before):.2f}, at five learning rates. Test accuracy is higher in "
        f"{sum(x > 0 for x in gains)} of {len(gains)} pairs of runs, but no single setting's gain "
        "is more than noise.",
        f"falls from {gaps['dropout=0']:.2f} points at dropout=0 to {gaps['dropout=0.8']:.2f} at "
        f"dropout=0.8. Test accuracy stays between {min(dropout):.2f}% and {max(dropout):.2f}%.",
        f"raise test accuracy by {gain('exp4_overfit', 'augmentation'):.2f} points, and the gap "
        f"falls from {gaps_of_4_1['baseline']:.2f} to {gaps_of_4_1['augmentation']:.2f} points.",
        f"more than noise, these are {len(late)}.",
    ):
        assert sentence in text
