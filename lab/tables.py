"""What a summary says in tables and sentences: for the terminal, the page, pandas and figures."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from tabulate import tabulate

from lab.records import all_settings
from lab.store import write
from lab.summary import FINAL, Record, Records, generalisation_gap, in_words
from train import CURVES, Run

GLOSSARY = """\
Every number is of the last epoch: mean ± sample standard deviation over the seeds that did not
diverge. Accuracies (acc.) are in percent, losses in nats. Training accuracy in a table is that of
the final weights, measured as validation is; in the curves it is that of each batch as it is
trained on. Gap: training minus validation accuracy in points (percentage points). 95% CI: Student's
interval of a mean. Difference: of test accuracy, in points, paired by seed. p: the paired t-test. p
(Holm): p after Holm's correction for the number of comparisons in the table. Within noise: p (Holm)
is 0.05 or more, so these runs do not tell which of the two settings is better. The 95% CI is of one
comparison alone, so it can exclude 0 all the same. Code: a hash of the code that decides the
numbers, not a git commit."""
NEAR_CHANCE = 1.5  # times the accuracy of guessing: more than always naming one class can reach


def save(summary: dict[str, Any], records: Records, folder: Path) -> list[Path]:
    """Write summary.json, table.md and the CSV files into a folder; the paths.

    curves.csv counts epochs from 1. Its cells are empty from the epoch on in which a run diverged;
    "diverged_at_epoch" in runs.csv is, as in summary.json, the number of epochs before that one.
    """
    curves, runs = [], []
    for label, group in records.items():
        for record in group:
            who = {"setting": label, "seed": record["seed"]}
            for epoch in range(len(record["train_loss"])):
                values = {name: record[name][epoch] for name in CURVES}
                curves.append(who | {"epoch": epoch + 1} | values)
            runs.append(who | run_row(record))
    contents = {
        "summary.json": json.dumps(summary, indent=1, allow_nan=False),
        "table.md": f"{table(summary)}\n\n{notes(summary)}\n",
    }
    for name, rows in {"table": table_rows(summary), "curves": curves, "runs": runs}.items():
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        contents[f"{name}.csv"] = text.getvalue()
    for name, content in contents.items():
        write(folder / name, content.encode())
    return [folder / name for name in contents]


def run_row(record: Record) -> dict[str, Any]:
    """Every field of a run and every final number; lists and the run it starts from are JSON."""
    settings = all_settings(record["run"])
    values = {field.name: settings[field.name] for field in fields(Run)}
    return {
        **{k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in values.items()},
        **{f"final_{name}": record[name][-1] for name in ("val_loss", "val_accuracy")},
        **{name: record[name] for name in FINAL},
        "gap": generalisation_gap(record),
        "diverged_at_epoch": record["diverged_at_epoch"],
    }


def table_rows(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a setting, of numbers: accuracies as fractions, losses in nats, at the last epoch."""
    rows = []
    for group in summary["groups"]:
        row = {"setting": group["label"], "runs": len(group["runs"]), "diverged": group["diverged"]}
        for name in CURVES:
            row |= {f"{name}_{key}": group[key][name][-1] for key in ("mean", "std")}
        for name in (*FINAL, "gap"):
            row |= {f"{name}_{key}": value for key, value in group[name].items()}
        if counts := summary.get("trainable_parameters"):
            row["trainable_parameters"] = counts.get(group["label"])
        rehearsal = " (rehearsal)" if summary["rehearsal"] else ""
        row["data"] = group["settings"]["dataset"] + rehearsal
        rows.append(row | ({"finished": half_way(summary)} if summary["finished"] else {}))
    return rows


def half_way(summary: dict[str, Any]) -> str:
    """How many of how many runs a report rests on that is made half-way: "7 of 25 runs"."""
    return "{runs} of {of} runs".format(**summary["finished"])


def table(summary: dict[str, Any], style: str = "github") -> str:
    """The tables for people: settings, comparisons, and those that the script handed in."""

    def mean(name: str, scale: float = 100, digits: int = 2) -> str:
        value, std = row[f"{name}_mean"], row[f"{name}_std"]
        deviation = "" if std is None else f" ± {scale * std:.{digits}f}"
        return "–" if value is None else f"{scale * value:.{digits}f}{deviation}".replace("-", "−")

    settings, comparisons = [], []
    for row in table_rows(summary):
        best = " (best)" if row["setting"] == summary["best"] else ""
        line = {"setting": row["setting"] + best}
        if "trainable_parameters" in row:
            count = row["trainable_parameters"]
            line["trainable parameters"] = "–" if count is None else f"{count:,}"
        ci95 = row["test_accuracy_ci95"]
        settings.append(
            line
            | {"train acc. %": mean("final_train_accuracy"), "val acc. %": mean("val_accuracy")}
            | {"gap": mean("gap"), "val loss": mean("val_loss", 1, 3)}
            | {"test loss": mean("test_loss", 1, 3), "test acc. %": mean("test_accuracy")}
            | {"95% CI": "–" if ci95 is None else f"± {100 * ci95:.2f}"}
            | {"diverged": f"{row['diverged']} of {row['runs']}"}
        )
    for pair in summary["comparisons"]:
        ps = ["–" if pair[p] is None else f"{pair[p]:.3g}" for p in ("p", "p_holm")]
        none = "none: different devices" if len(pair["seeds"]) > 1 else "none: too few seeds"
        comparisons.append(
            {"comparison": f"{pair['label']} minus {pair['minus']}", **difference(pair)}
            | {"p": ps[0], "p (Holm)": ps[1], "verdict": pair["verdict"] or none}
            | {"gap difference": signed(pair["gap"]["mean"]), "its 95% CI": interval(pair["gap"])}
        )
    rests = f" ({half_way(summary)})" if summary["finished"] else ""
    found = {"Settings": settings, "Comparisons": comparisons} | summary["tables"]
    return "\n\n".join(
        f"{title}{rests}:\n\n" + tabulate(rows, "keys", style, disable_numparse=True)
        for title, rows in found.items()
        if rows
    )


def difference(pair: dict[str, Any]) -> dict[str, str]:
    """What compare() found of test accuracy, as cells of a table."""
    found, seeds = pair["test_accuracy"], f"{len(pair['seeds'])}{left_out(pair)}"
    return {"difference": signed(found["mean"]), "95% CI": interval(found), "seeds": seeds}


def against_published_lines(agreements: Sequence[dict[str, Any]]) -> str:
    """A table of how far results agree with the published ones, setting by setting."""
    lines = []
    for pair in agreements:
        words = {None: "–", 0.0: "equal to the last bit"}
        loss = words.get(pair["first_loss"]) or f"differs by up to {pair['first_loss']:.1e} nats"
        line = {"yours minus published": pair["label"]} | difference(pair)
        lines.append(line | {"training loss of epoch 1": loss})
    return tabulate(lines, "keys", "simple", disable_numparse=True)


def facts(summary: dict[str, Any]) -> str:
    """Epochs, seeds, device and code in one line, and what makes this report no finding."""
    epochs = sorted({len(group["mean"]["train_loss"]) for group in summary["groups"]})
    seeds = sorted({len(group["seeds"]) for group in summary["groups"]})
    device, code = in_words(summary["environment"]["device"]), in_words(summary["code"])
    rehearsal = "REHEARSAL on handwritten digits, not a finding. " if summary["rehearsal"] else ""
    rests = f"HALF-WAY: {half_way(summary)} are finished. " if summary["finished"] else ""
    numbers = f"Epochs: {in_words(epochs)}. Seeds: {in_words(seeds)}. "
    return f"{rehearsal}{rests}{numbers}Device: {device}. Code: {code}."


def notes(summary: dict[str, Any]) -> str:
    """What a reader must know beside the tables: epochs, seeds, device, code, and the terms."""
    return f"{facts(summary)}\n\n{GLOSSARY}"


def answer(summary: dict[str, Any]) -> str:
    """The best setting, and what it is better than on the test set, in a sentence."""
    groups = {group["label"]: group for group in summary["groups"]}
    label, ranked = summary["best"], [named(one) for one in summary["candidates"]]
    if label is None:
        return "There is no best setting, because too many runs diverged."
    told: dict[str, list[str]] = {}
    for pair in summary["comparisons"]:
        if label in (pair["label"], pair["minus"]):
            other = named(pair["minus"] if pair["label"] == label else pair["label"])
            if pair["verdict"] in (None, "within noise"):
                relation = "within noise of" if pair["verdict"] else "without a verdict against"
            else:
                relation = "better" if pair["verdict"] == f"{label} is better" else "worse"
                relation += f" by {100 * abs(pair['test_accuracy']['mean']):.2f} points than"
            told.setdefault(relation, []).append(other + left_out(pair))
    relations = "".join(f", {relation} {in_words(others)}" for relation, others in told.items())
    among = f" among {in_words(ranked)}" if len(ranked) < len(groups) else ""
    validation, test = groups[label]["mean"]["val_accuracy"][-1], groups[label]["test_accuracy"]
    ci95 = "" if test["ci95"] is None else f" (95% interval ± {100 * test['ci95']:.2f})"
    return (
        f"{named(label)} has the highest mean validation accuracy{among}, {percent(validation)}, "
        f"and a mean test accuracy of {percent(test['mean'])}{ci95}{relations}."
    )


def caveats(summary: dict[str, Any]) -> list[str]:
    """What limits the answer: the edge of what was tried, the loss, divergence; sentences."""
    groups, found = {group["label"]: group for group in summary["groups"]}, []
    if best := groups.get(summary["best"]):
        found += at_the_edge(best, summary["groups"])
        losses = {label: groups[label]["mean"]["val_loss"][-1] for label in summary["candidates"]}
        lowest = min((loss, label) for label, loss in losses.items() if loss is not None)[1]
        if losses[lowest] < losses[best["label"]]:
            found.append(
                f"The mean validation loss is lowest for {named(lowest)}, {losses[lowest]:.3f} "
                f"nats; that of {named(best['label'])} is {losses[best['label']]:.3f}."
            )
    matrices = [run.get("confusion_matrix") for group in groups.values() for run in group["runs"]]
    guessing = 100 / next((len(matrix) for matrix in matrices if matrix), 10)
    least = NEAR_CHANCE * guessing
    nothing = (
        f"learned nothing (final validation accuracy below {least:g}%; guessing: {guessing:g}%)"
    )
    lost: dict[str, list[str]] = {"diverged and are left out of every mean": [], nothing: []}
    for label, group in groups.items():
        ends = [run["val_accuracy"][-1] for run in group["runs"]]
        stuck = sum(end is not None and 100 * end < least for end in ends)
        for fate, n in zip(lost, (group["diverged"], stuck), strict=True):
            lost[fate] += [f"{n} of {len(ends)} of {named(label)}"] if n else []
    return found + [f"These runs {fate}: {in_words(w)}." for fate, w in lost.items() if w]


def at_the_edge(best: dict[str, Any], groups: Sequence[dict[str, Any]]) -> list[str]:
    """Numbers of the best beyond which nothing was tried with all else equal; sentences."""
    found, own = [], best["settings"]
    for field, value in own.items():
        tried = [g["settings"][field] for g in groups if g["settings"] | {field: value} == own]
        if not {type(one) for one in tried} <= {int, float} or len(set(tried)) == 1:
            continue
        if value and value in (min(tried), max(tried)):  # nothing can be tried below zero
            way = "low" if value == min(tried) else "high"
            found.append(
                f"Its {field.replace('_', ' ')}, {value:g}, is the {way}est that was tried; a "
                f"{way}er one may be better."
            )
    return found


def zero_gradients(records: Records) -> list[str]:
    """Which settings' gradients are exactly zero in the first steps, from all seeds; sentences."""
    found = []
    for label, group in records.items():
        seeds = [record["gradients"] for record in group if record.get("gradients")]
        steps = zip(*(seed["by_step"] for seed in seeds), strict=True)
        means = [list(zip(*(seed["mean"] for seed in step), strict=True)) for step in steps]
        dead = [sum(not any(tensor) for tensor in tensors) for tensors in means]
        if any(dead):
            found.append(
                f"The gradients of this many of {len(means[0])} parameter tensors are exactly zero "
                f"in the first {len(dead)} steps of {named(label)}: {in_words(dead)}."
            )
    return found


def left_out(pair: dict[str, Any]) -> str:
    """The seeds that a comparison leaves out because they diverged, in brackets, or nothing."""
    return f" (without {seeds_in_words(out)}, which diverged)" if (out := pair["left_out"]) else ""


def seeds_in_words(seeds: Sequence[int]) -> str:
    """ "seed 5" or "seeds 3 and 5"."""
    return f"seed{'s' if len(seeds) > 1 else ''} {in_words(list(seeds))}"


def named(label: str) -> str:
    """A label for a sentence: in quotation marks where it holds a comma itself."""
    return f"“{label}”" if "," in label else label


def percent(mean: float, std: float | None = None) -> str:
    """A mean accuracy ± its standard deviation in percent."""
    return f"{100 * mean:.2f}%" if std is None else f"{100 * mean:.2f} ± {100 * std:.2f}%"


def signed(fraction: float | None) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return "–" if fraction is None else f"{100 * fraction:+.2f}".replace("-", "−")


def interval(spread: dict[str, float | None]) -> str:
    """Student's 95% interval in percentage points, from its lower to its upper end."""
    if spread["ci95"] is None:
        return "–"
    return " to ".join(signed(spread["mean"] + side * spread["ci95"]) for side in (-1, 1))
