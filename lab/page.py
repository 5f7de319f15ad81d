"""The page that tells the study: README.md of a results folder, from the summaries alone."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from statistics import fmean, median
from typing import Any

from lab.checks import UserError
from lab.figures import figures, file_name
from lab.records import all_settings, parse_record, run_of
from lab.store import Store, write
from lab.summary import (
    DAMAGE,
    SIGNIFICANCE,
    Record,
    common,
    in_words,
    load_summaries,
    spread,
    without_seed,
)
from lab.tables import (
    GLOSSARY,
    conclusions,
    facts,
    mean_and_interval,
    named,
    near_guessing,
    table,
)

Twice = tuple[Record, Record]  # a run as two machines have trained it, ours first

TITLE = "# Results\n"  # by which the page is known
INTRODUCTION = f"""\
{TITLE}
This page is written from the `summary.json` of each experiment. The best setting has the highest
mean validation accuracy after the last epoch. The test set is not used for any choice.

{GLOSSARY}
"""


def check_place(root: Path) -> None:
    """Raise UserError where the page would replace a README.md that is none of ours."""
    path = root / "README.md"
    if path.exists() and not path.read_bytes().startswith(TITLE.encode()):
        raise UserError(f"{path} is no page of results: move it, or set RESULTS_DIR elsewhere")


def write_page(root: Path) -> Path:
    """Write README.md into a results folder that holds a summary; its path."""
    check_place(root)
    parts = [INTRODUCTION]
    if (root / "at_a_glance.png").exists():
        parts.append("![The study at a glance](at_a_glance.png)\n")
    sound, sections, both = [], [], twice_trained(root)
    for summary in load_summaries(root):
        with suppress(*DAMAGE):
            sections.append(section(summary, root, both))
            sound.append(summary)
    contents = "".join(f"- [{s['title']}](#{anchor(s['title'])})\n" for s in sound)
    parts += [contents, *sections]
    names = {path.parent.name for path in root.glob("*/summary.json")}
    for name in sorted(names - {summary["experiment"] for summary in sound}):
        parts.append(f"## {name}\n\nIts summary.json is damaged.\n")
    if sound:
        sentences = "".join(f"- {sentence}\n" for sentence in how_sure(sound, both))
        parts.append(f"## How sure is this?\n\n{sentences}")
    write(root / "README.md", "\n".join(parts).encode())
    return root / "README.md"


def anchor(title: str) -> str:
    """The name that GitHub gives to a heading, for links to it."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def section(summary: dict[str, Any], root: Path, both: Sequence[Twice] = ()) -> str:
    """One experiment: question, method, answer, tables and figures; both as of twice_trained()."""
    name, labels = summary["experiment"], {group["label"] for group in summary["groups"]}
    shown: dict[bool, list[str]] = {False: [], True: []}  # True: the curves of single settings
    for figure in figures(summary):
        if (root / name / (file := file_name(figure))).exists():
            shown[figure in labels].append(f"![{file}]({name}/{file})")
    answer, *more = [*conclusions(summary), *elsewhere(summary, both)]
    parts = [
        f"## {summary['title']}",
        f"**Question.** {summary['question']}",
        f"**Method.** {summary['method']} {facts(summary)}",
        f"**{'So far' if summary['finished'] else 'Answer'}.** {answer}",
        "\n".join(f"- {found}" for found in more),
        table(summary),
        *shown[False],
    ]
    if shown[True]:
        parts += ["<details><summary>The curves of each setting</summary>", *shown[True]]
        parts.append("</details>")
    return "\n\n".join(filter(None, parts)) + "\n"


def how_sure(summaries: Sequence[dict[str, Any]], both: Sequence[Twice]) -> list[str]:
    """What results rest on, and what they leave open; sentences. both as of twice_trained()."""
    groups = [group for summary in summaries for group in summary["groups"]]
    pairs = [pair for summary in summaries for pair in summary["comparisons"]]
    runs = {
        json.dumps([group["settings"], run["seed"]]): run["diverged_at_epoch"] is not None
        for group in groups
        for run in group["runs"]
    }
    told, easy = 0, 0
    for summary in summaries:
        stuck = {g["label"] for g in summary["groups"] if all(map(near_guessing, g["runs"]))}
        for pair in summary["comparisons"]:
            if pair["verdict"] not in (None, "within noise"):
                told += 1
                easy += not stuck.isdisjoint((pair["label"], pair["minus"]))
    of_them = f", {easy} of them against a setting of which all runs stayed near guessing"
    uncorrected = sum(pair["p"] is not None and pair["p"] < SIGNIFICANCE for pair in pairs)
    known = {str((g["settings"], g["seeds"])): g["test_accuracy"]["ci95"] for g in groups}
    widths = [100 * ci95 for ci95 in known.values() if ci95 is not None] or [0]
    devices: dict[str, list[str]] = {}
    for summary in summaries:
        device = in_words(summary["environment"]["device"])
        devices.setdefault(device, []).append(summary["title"].split()[0])
    places = "; ".join(f"{in_words(titles)} on {device}" for device, titles in devices.items())
    versions = {s["title"].split()[0]: s["environment"]["torch"] for s in summaries}
    mixed = [number for number, found in versions.items() if isinstance(found, list)]
    several = in_words(sorted({version for number in mixed for version in versions[number]}))
    return [
        f"Seeds: a setting is trained from {in_words(sorted({len(g['seeds']) for g in groups}))} "
        "seeds. A seed fixes all that is random in a run. It does not change the split of the "
        "images, so no interval says how much another split would change.",
        "Intervals: of the settings in the tables, the widest 95% interval of mean test accuracy "
        f"is ± {max(widths):.2f} points. The median is ± {median(widths):.2f} points.",
        f"Comparisons: {told} of the {len(pairs)} in the tables are more than noise"
        f"{of_them if easy else ''}. Without "
        f"Holm's correction it would be {uncorrected}. Each table is corrected for its own number "
        "of comparisons. So one that stands in two tables can have another p (Holm) in each.",
        "Choice: the best setting of a table is chosen by the runs in that table. So its "
        "validation accuracy is probably too high. Its test accuracy may be too high, too.",
        f"Divergence: {sum(runs.values())} of the {len(runs)} runs in the tables diverged.",
        f"Devices: {places}. A comparison has no verdict where the two runs of a seed were trained "
        "on different devices.",
        *(
            [f"Torch: versions {in_words(several)} are mixed in {in_words(mixed)}."]
            if mixed
            else []
        ),
        *second_machine(both),
    ]


def twice_trained(root: Path) -> list[Twice]:
    """Runs that another machine has trained, too: ours in runs/, theirs in second_machine/runs."""
    ours, found = Store(root, any_code=True), {}
    for path in sorted(root.glob("second_machine/runs/*.json")):
        with suppress(*DAMAGE):
            content = path.read_bytes()
            run = run_of(json.loads(content)["run"])
            theirs = parse_record(content, run)
            if record := ours.load_record(run):
                found[run] = record, theirs
    return list(found.values())


def elsewhere(summary: dict[str, Any], both: Sequence[Twice]) -> list[str]:
    """What settings reach that a second machine has trained from all their seeds; sentences."""
    theirs, found = [record for _, record in both], []
    for group in summary["groups"]:
        own = [r for r in theirs if without_seed(all_settings(r["run"])) == group["settings"]]
        again = [record for record in own if record["seed"] in group["seeds"]]
        sound = [record for record in again if record["test_accuracy"] is not None]
        if len(again) < len(group["seeds"]) or all(map(near_guessing, sound)):
            continue
        device = in_words(common(record["environment"]["device"] for record in again))
        lost = f"; {len(again) - len(sound)} of {len(again)} diverged" if sound != again else ""
        found.append(
            f"Trained from the same seeds on {device}, {named(group['label'])} has a mean test "
            f"accuracy of {mean_and_interval(spread(r['test_accuracy'] for r in sound))}{lost}."
        )
    return found


def second_machine(both: Sequence[Twice]) -> list[str]:
    """How far a second machine agrees, run by run; a sentence or none."""
    pairs = [(a, b) for a, b in both if None not in (a["test_accuracy"], b["test_accuracy"])]
    alive = [pair for pair in pairs if not all(map(near_guessing, pair))]
    if not alive:
        return []
    sides = list(zip(*alive, strict=True))
    one, other = (in_words(common(r["environment"]["device"] for r in side)) for side in sides)
    losses = [100 * abs(a["train_loss"][0] / b["train_loss"][0] - 1) for a, b in alive]
    leads = [100 * (a["test_accuracy"] - b["test_accuracy"]) for a, b in alive]
    again = list(map(abs, leads))
    seeds = list(map(seed_differences, sides))
    left = {"diverged": len(both) - len(pairs), "stayed near guessing": len(pairs) - len(alive)}
    lost = in_words([f"{n} that {what}" for what, n in left.items() if n])
    as_seeds = ""
    if all(seeds):
        means = [f"{fmean(found):.2f}" for found in seeds]
        as_seeds = (
            f" Two seeds of a setting differ by {means[0]} on the first machine and by {means[1]} "
            "on the second, on average."
        )
    return [
        f"Second machine: {len(both)} of the runs on {one} were trained on {other}, too."
        f"{f' Left out of what follows: {lost}.' if lost else ''} The training loss of the first "
        f"epoch differs by up to {max(losses):.2g}%. The final test accuracy differs by up to "
        f"{max(again):.2f} points, on average by {fmean(again):.2f}. The first "
        f"machine's is higher in {sum(lead > 0 for lead in leads)} of {len(leads)} runs.{as_seeds}"
    ]


def seed_differences(records: Sequence[Record]) -> list[float]:
    """How far the test accuracies of every two seeds of a setting are apart; percentage points."""
    return [
        100 * abs(a["test_accuracy"] - b["test_accuracy"])
        for a, b in combinations(records, 2)
        if without_seed(a["run"]) == without_seed(b["run"])
    ]
