"""The page that tells the study: README.md of a results folder, from the summaries alone."""

import json
from collections.abc import Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from statistics import fmean, median
from typing import Any

from lab.figures import figures, file_name
from lab.records import run_of
from lab.store import Store, write
from lab.summary import DAMAGE, SIGNIFICANCE, common, in_words, load_summaries, without_seed
from lab.tables import GLOSSARY, conclusions, facts, table

INTRODUCTION = f"""\
# Results

This page is written from the `summary.json` of each experiment. The best setting has the highest
mean validation accuracy after the last epoch. The test set is not used for any choice.

{GLOSSARY}
"""


def write_page(root: Path) -> Path:
    """Write README.md into a results folder that holds a summary; its path."""
    parts = [INTRODUCTION]
    if (root / "at_a_glance.png").exists():
        parts.append("![The study at a glance](at_a_glance.png)\n")
    sound = []
    for summary in load_summaries(root):
        with suppress(*DAMAGE):
            parts.append(section(summary, root))
            sound.append(summary)
    names = {path.parent.name for path in root.glob("*/summary.json")}
    for name in sorted(names - {summary["experiment"] for summary in sound}):
        parts.append(f"## {name}\n\nIts summary.json is damaged.\n")
    if sound:
        sentences = "".join(f"- {sentence}\n" for sentence in how_sure(sound, root))
        parts.append(f"## How sure is this?\n\n{sentences}")
    write(root / "README.md", "\n".join(parts).encode())
    return root / "README.md"


def section(summary: dict[str, Any], root: Path) -> str:
    """One experiment: question, method, answer, tables and figures."""
    name = summary["experiment"]
    files = [file_name(figure) for figure in figures(summary)]
    answer, *more = conclusions(summary)
    parts = [
        f"## {summary['title']}",
        f"**Question.** {summary['question']}",
        f"**Method.** {summary['method']} {facts(summary)}",
        f"**{'So far' if summary['finished'] else 'Answer'}.** {answer}",
        "\n".join(f"- {found}" for found in more),
        table(summary),
        *(f"![{file}]({name}/{file})" for file in files if (root / name / file).exists()),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def how_sure(summaries: Sequence[dict[str, Any]], root: Path) -> list[str]:
    """What the results in a folder rest on, and what they leave open; sentences."""
    groups = [group for summary in summaries for group in summary["groups"]]
    pairs = [pair for summary in summaries for pair in summary["comparisons"]]
    runs = {
        json.dumps([group["settings"], run["seed"]]): run["diverged_at_epoch"] is not None
        for group in groups
        for run in group["runs"]
    }
    told = sum(pair["verdict"] not in (None, "within noise") for pair in pairs)
    uncorrected = sum(pair["p"] is not None and pair["p"] < SIGNIFICANCE for pair in pairs)
    known = {str((g["settings"], g["seeds"])): g["test_accuracy"]["ci95"] for g in groups}
    widths = [100 * ci95 for ci95 in known.values() if ci95] or [0]
    devices: dict[str, list[str]] = {}
    for summary in summaries:
        device = in_words(summary["environment"]["device"])
        devices.setdefault(device, []).append(summary["title"].split()[0])
    places = "; ".join(f"{in_words(titles)} on {device}" for device, titles in devices.items())
    return [
        f"Seeds: a setting is trained from {in_words(sorted({len(g['seeds']) for g in groups}))} "
        "seeds. A seed fixes all that is random in a run. It does not change the split of the "
        "images, so no interval says how much another split would change.",
        f"Intervals: the widest 95% interval of a setting's mean test accuracy is ± "
        f"{max(widths):.2f} points. The median is ± {median(widths):.2f} points.",
        f"Comparisons: more than noise are {told} of the {len(pairs)} in the tables. Without "
        f"Holm's correction {uncorrected} would be. Each table is corrected for its own number of "
        "comparisons. So one that stands in two tables can have another p (Holm) in each.",
        "Choice: the best setting is chosen by the validation accuracy of the same runs that are "
        "then compared. So its validation accuracy tends to be too high, and its test accuracy can "
        "be, too.",
        f"Divergence: {sum(runs.values())} of {len(runs)} runs diverged.",
        f"Devices: {places}. A comparison has no verdict where the two runs of a seed were trained "
        "on different devices.",
        *second_machine(root),
    ]


def second_machine(root: Path) -> list[str]:
    """How far another machine agrees, whose records lie in second_machine/runs; a sentence or none.

    Its runs are those of records in runs/, by their values.
    """
    ours, both = Store(root, any_code=True), []
    for path in sorted(root.glob("second_machine/runs/*.json")):
        with suppress(*DAMAGE):
            theirs = json.loads(path.read_text(encoding="utf-8"))
            if found := ours.load_record(run_of(theirs["run"])):
                both.append((found, theirs))
    pairs = [(a, b) for a, b in both if None not in (a["test_accuracy"], b["test_accuracy"])]
    if not pairs:
        return []
    one, other = (
        in_words(common(record["environment"]["device"] for record in side))
        for side in zip(*pairs, strict=True)
    )
    losses = [100 * abs(a["train_loss"][0] / b["train_loss"][0] - 1) for a, b in pairs]
    again = [100 * abs(a["test_accuracy"] - b["test_accuracy"]) for a, b in pairs]
    seeds = [
        100 * abs(a["test_accuracy"] - b["test_accuracy"])
        for side in zip(*pairs, strict=True)
        for a, b in combinations(side, 2)
        if without_seed(a["run"]) == without_seed(b["run"])
    ]
    lost = f" Left out: {len(both) - len(pairs)} that diverged." if len(both) > len(pairs) else ""
    as_seeds = (
        f" On one machine, two seeds of a setting differ by {fmean(seeds):.2f} on average."
        if seeds
        else ""
    )
    return [
        f"Second machine: {len(pairs)} of the runs on {one} were trained on {other}, too.{lost} "
        f"The training loss of the first epoch differs by up to {max(losses):.2g}%, the final "
        f"test accuracy by {fmean(again):.2f} points on average and by up to {max(again):.2f}."
        + as_seeds
    ]
