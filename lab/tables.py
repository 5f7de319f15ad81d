"""What a summary says in tables and sentences: for the terminal, the page, pandas and figures."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from tabulate import tabulate

from lab.records import FINAL, Record, Records, all_settings
from lab.store import write
from lab.summary import class_count, common, compare, generalisation_gap, in_words, paired
from train import CURVES, Run

GLOSSARY = """\
- Accuracies (acc., in percent), losses (in nats) and gaps are measured after the last epoch. Each
  is the mean ± the sample standard deviation over the seeds that did not diverge.
- Training accuracy: in the tables, it is measured with the final weights, like validation accuracy.
  In the curves, it is measured during training, on each batch before its update. The two values can
  be very different.
- Gap: training minus validation accuracy, in percentage points.
- Split, of CIFAR-10's 50,000 images: "standard" trains on 45,000 and validates on the other 5,000,
  "halves" trains on 25,000 and validates on the other 25,000, "swapped halves" exchanges these two.
- 95% CI: Student's 95% confidence interval of the mean; of test accuracy, if nothing else is said.
- Difference: the difference of test accuracy, in percentage points, paired by seed. Gap difference:
  the same for the gap.
- p: the p-value of the paired t-test. p (Holm): p after Holm's correction for the number of
  comparisons in the table. Within noise: p (Holm) is 0.05 or more, so these runs do not tell which
  of the two settings is better. The 95% CI of a difference is not corrected. So it can exclude 0
  where the verdict is "within noise".
- Code: a hash of the code that decides the numbers, not a git commit. Runs with different hashes
  were trained by different versions of this project."""
FEW = 3  # labels that a sentence lists before it only counts them
NEAR_CHANCE = 1.5  # times the accuracy of guessing: more than always naming one class can reach
# what one setting can be beside another, in the order of the sentences, and the word between
RELATIONS = {"better": "than", "worse": "than"}
RELATIONS |= {"within noise": "of", "without a verdict": "against"}
COLUMNS = {"train acc. %": "final_train_accuracy", "val acc. %": "val_accuracy", "gap": "gap"}
COLUMNS |= {"val loss": "val_loss", "test loss": "test_loss", "test acc. %": "test_accuracy"}


def save(summary: dict[str, Any], records: Records, folder: Path) -> list[Path]:
    """Write summary.json, table.md and the CSV files into a folder; the paths.

    curves.csv counts epochs from 1. Its cells are empty from the epoch on in which a run diverged;
    "diverged_at_epoch" in runs.csv is, as in summary.json, the number of epochs before that one.
    """
    curves, runs = [], []
    for label, group in records.items():
        for record in group:
            who = {"setting": label, "seed": record["seed"]}
            for epoch, values in enumerate(zip(*map(record.get, CURVES), strict=True), 1):
                curves.append(who | {"epoch": epoch} | dict(zip(CURVES, values, strict=True)))
            runs.append(who | run_row(record))
    contents = {
        "summary.json": json.dumps(summary, indent=1, allow_nan=False),
        "table.md": f"{table(summary)}\n\n{facts(summary)}\n\n{GLOSSARY}\n",
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
            row["trainable_parameters"] = counts[group["label"]]
        rehearsal = " (rehearsal)" if summary["rehearsal"] else ""
        row["data"] = group["settings"]["dataset"] + rehearsal
        rows.append(row | ({"finished": half_way(summary)} if summary["finished"] else {}))
    return rows


def half_way(summary: dict[str, Any]) -> str:
    """How many of how many runs a report rests on that is made half-way: "7 of 25 runs"."""
    return "{runs} of {of} runs".format(**summary["finished"])


def table(summary: dict[str, Any], style: str = "github") -> str:
    """The tables for people: settings, comparisons, and those that the script handed in."""
    rests = f" ({half_way(summary)})" if summary["finished"] else ""
    settings = [setting_cells(row, summary["best"]) for row in table_rows(summary)]
    comparisons = [comparison_cells(pair) for pair in summary["comparisons"]]
    found = {"Settings": settings, "Comparisons": comparisons} | summary["tables"]
    return "\n\n".join(
        f"{title}{rests}:\n\n" + tabulate(rows, "keys", style, disable_numparse=True)
        for title, rows in found.items()
        if rows
    )


def setting_cells(row: dict[str, Any], best: str | None) -> dict[str, str]:
    """A row of table_rows() as cells for people."""
    cells = {"setting": row["setting"] + (" (best)" if row["setting"] == best else "")}
    if "trainable_parameters" in row:
        cells["trainable parameters"] = f"{row['trainable_parameters']:,}"
    for title, name in COLUMNS.items():
        scale, digits = (1, 3) if name.endswith("loss") else (100, 2)
        cells[title] = plus_minus(row[f"{name}_mean"], row[f"{name}_std"], scale, digits)
    ci95 = row["test_accuracy_ci95"]
    cells["95% CI"] = "–" if ci95 is None else f"± {100 * ci95:.2f}"
    return cells | {"diverged": f"{row['diverged']} of {row['runs']}"}


def comparison_cells(pair: dict[str, Any]) -> dict[str, str]:
    """A comparison as cells for people."""
    cells = {"comparison": f"{pair['label']} minus {pair['minus']}"} | difference(pair)
    for title, name in (("p", "p"), ("p (Holm)", "p_holm")):
        cells[title] = "–" if pair[name] is None else f"{pair[name]:.3g}"
    none = "none: different devices" if len(pair["seeds"]) > 1 else "none: too few seeds"
    cells["verdict"] = pair["verdict"] or none
    cells["gap difference"] = signed(pair["gap"]["mean"])
    cells["95% CI of gap difference"] = interval(pair["gap"])
    return cells


def difference(pair: dict[str, Any]) -> dict[str, str]:
    """What compare() found of test accuracy, as cells of a table."""
    found, seeds = pair["test_accuracy"], str(len(pair["seeds"]))
    seeds += f" ({left_out(pair)})" if pair["left_out"] else ""
    return {"difference": signed(found["mean"]), "95% CI": interval(found), "seeds": seeds}


def against_published(records: Records, published: Records) -> str:
    """A table of how far results agree with the published ones of equal runs, by setting."""
    rows = []
    for label, theirs in published.items():
        if theirs:
            losses = paired(records[label], theirs, lambda record: record["train_loss"][0])
            largest = max(map(abs, losses.values()), default=None)
            words = {None: "–", 0.0: "equal to the last bit"}
            loss = words.get(largest) or f"differs by up to {largest:.1e} nats"
            cells = difference(compare(label, records[label], "published", theirs))
            rows.append({"yours minus published": label, **cells, "training loss of epoch 1": loss})
    return tabulate(rows, "keys", "simple", disable_numparse=True)


def facts(summary: dict[str, Any]) -> str:
    """What all settings share, the device and the code, and what makes this report no finding."""
    groups, found = summary["groups"], {}
    for field in ("learning_rate", "batch_size", "epochs", "split"):
        values = common(str(group["settings"][field]) for group in groups)
        # the tables and figures tell a schedule, and how the settings differ
        if field in ("epochs", "batch_size") or (isinstance(values, str) and "[" not in values):
            found[field.replace("_", " ").capitalize()] = values
    found["Seeds"] = " or ".join(dict.fromkeys(in_words(group["seeds"]) for group in groups))
    found |= {"Device": summary["environment"]["device"], "Code": summary["code"]}
    found["Torch"] = summary["environment"]["torch"]
    rehearsal = "REHEARSAL on handwritten digits, not a finding. " if summary["rehearsal"] else ""
    rests = f"HALF-WAY: {half_way(summary)} are finished. " if summary["finished"] else ""
    words = [f"{name}: {in_words(value)}." for name, value in found.items()]
    return rehearsal + rests + " ".join(words)


def conclusions(summary: dict[str, Any]) -> list[str]:
    """What an experiment says, its answer first; each in a few sentences."""
    stands = " ".join([standing(summary), *gaps(summary), *caveats(summary)])
    own = [answer] if (answer := summary.get("answer")) else []
    return [*own, stands, *summary["findings"]]


def headline(summary: dict[str, Any]) -> str:
    """The answer in short: the script's own, or else how the best compares, and its gap."""
    return summary.get("answer") or " ".join([standing(summary), *gaps(summary)])


def standing(summary: dict[str, Any]) -> str:
    """The best setting, and how its test accuracy compares; sentences."""
    groups = {group["label"]: group for group in summary["groups"]}
    best, candidates = summary["best"], summary["candidates"]
    if best is None:
        return "There is no best setting, because too many runs diverged."
    among = ""
    if len(candidates) < len(groups):
        few = in_words([named(label) for label in candidates])
        among = f" among {few if len(candidates) <= FEW else f'{len(candidates)} candidates'}"
    # a run that starts from another's weights may have seen the images that it validates on
    new = not groups[best]["settings"]["start"]
    reached = f", {percent(groups[best]['mean']['val_accuracy'][-1])}" if new else ""
    highest = f"{named(best)} has the highest mean validation accuracy{among}{reached}."
    found = [
        highest if len(candidates) > 1 else f"{named(best)} is the only candidate.",
        f"Its mean test accuracy is {mean_and_interval(groups[best]['test_accuracy'])}.",
    ]
    if told := beside_others(best, summary["comparisons"]):
        found.append(f"Paired by seed, it is {told}.")
    return " ".join(found)


def beside_others(label: str, pairs: Iterable[dict[str, Any]]) -> str:
    """How a setting compares with those that it is paired with: "better than a, and worse than b".

    Empty where it is in none of the pairs.
    """
    others: dict[str, list[str]] = {}  # by how it compares with them
    for pair in pairs:
        if label in (pair["label"], pair["minus"]):
            other = pair["minus"] if pair["label"] == label else pair["label"]
            others.setdefault(relation(pair, label), []).append(named(other) + margin(pair))
    known = [is_it for is_it in RELATIONS if is_it in others]
    told = [f"{is_it} {RELATIONS[is_it]} {in_words(others[is_it])}" for is_it in known]
    return ", and ".join(told)


def gaps(summary: dict[str, Any]) -> list[str]:
    """The best setting's generalisation gap among those of all candidates; a sentence or none."""
    tried = {g["label"]: g for g in summary["groups"] if g["label"] in summary["candidates"]}
    known = {label: g["gap"]["mean"] for label, g in tried.items() if g["gap"]["mean"] is not None}
    best = summary["best"]
    if best not in known or tried[best]["settings"]["start"]:
        return []
    ends = (("lowest", min(known, key=known.get)), ("highest", max(known, key=known.get)))
    words = [f"{end}: {named(label)}, {plus_minus(known[label], None)}" for end, label in ends]
    span = f" ({'; '.join(words)})" if len(known) > 1 else ""
    return [f"Its mean generalisation gap is {plus_minus(known[best], None)} points{span}."]


def relation(pair: dict[str, Any], label: str) -> str:
    """What a comparison says of one of its two settings, one of RELATIONS."""
    if pair["verdict"] in (None, "within noise"):
        return pair["verdict"] or "without a verdict"
    return "better" if pair["verdict"] == f"{label} is better" else "worse"


def in_a_sentence(pair: dict[str, Any]) -> str:
    """What a comparison says of test accuracy, as a sentence."""
    is_it = relation(pair, pair["label"])
    one, other = named(pair["label"]), named(pair["minus"])
    return f"On the test set, {one} is {is_it} {RELATIONS[is_it]} {other}{margin(pair)}."


def margin(pair: dict[str, Any]) -> str:
    """A difference that is more than noise, and the seeds that diverged, in brackets."""
    notes = [left_out(pair)] if pair["left_out"] else []
    if pair["verdict"] not in (None, "within noise"):
        notes.insert(0, f"by {100 * abs(pair['test_accuracy']['mean']):.2f} points")
    return f" ({', '.join(notes)})" if notes else ""


def caveats(summary: dict[str, Any]) -> list[str]:
    """What limits the answer: the edge of what was tried, the loss, epochs, guessing; sentences."""
    groups, found, stuck = summary["groups"], [], []
    tried = {group["label"]: group for group in groups if group["label"] in summary["candidates"]}
    if best := tried.get(summary["best"]):
        found += at_the_edge(best, groups)
        losses = {label: group["mean"]["val_loss"][-1] for label, group in tried.items()}
        lowest = min((label for label in losses if losses[label] is not None), key=losses.get)
        if losses[lowest] < losses[best["label"]]:
            of_these = " of these" if len(tried) < len(groups) else ""
            found.append(f"By mean validation loss, {named(lowest)} would be the best{of_these}.")
        curves = {label: group["mean"]["val_accuracy"] for label, group in tried.items()}
        peaks = {label: peak for label, curve in curves.items() if (peak := highest(curve))}
        ahead = max(peaks, key=lambda label: peaks[label][0])
        accuracy, epoch = peaks[ahead]
        if accuracy > peaks[best["label"]][0] and not best["settings"]["start"]:
            found.append(
                f"Stopped after the best epoch of its mean validation accuracy, {named(ahead)} "
                f"would be the best ({percent(accuracy)} after epoch {epoch})."
            )
    lengths = {group["label"]: group["settings"]["epochs"] for group in groups}
    for pair in summary["comparisons"]:
        one, other = (f"{named(pair[key])} ({lengths[pair[key]]})" for key in ("label", "minus"))
        if lengths[pair["label"]] != lengths[pair["minus"]]:
            found.append(f"Different numbers of epochs are compared: {one} with {other}.")
    guessing = 100 / class_count(run for group in groups for run in group["runs"])
    least = NEAR_CHANCE * guessing
    for group in groups:
        if n := sum(map(near_guessing, group["runs"])):
            stuck.append(f"{named(group['label'])} ({n} of {len(group['runs'])})")
    if stuck:
        found.append(
            f"Some runs stayed near guessing (final validation accuracy below {least:g}%; guessing "
            f"gives {guessing:g}%): {in_words(stuck)}."
        )
    return found


def highest(curve: Sequence[float | None]) -> tuple[float, int] | None:
    """The highest value of a curve and its first epoch, from 1; None where it has no value."""
    known = [(value, epoch) for epoch, value in enumerate(curve, 1) if value is not None]
    return max(known, key=lambda pair: pair[0], default=None)


def near_guessing(run: Record) -> bool:
    """Whether a run that did not diverge ends near the validation accuracy of guessing."""
    end = run["val_accuracy"][-1]
    return end is not None and end < NEAR_CHANCE / class_count([run])


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
                f"The best setting's {field.replace('_', ' ')}, {value:g}, is the {way}est of this "
                f"experiment. It tried no {way}er one."
            )
    return found


def left_out(pair: dict[str, Any]) -> str:
    """The seeds that a comparison leaves out because they diverged."""
    return f"without {seeds_in_words(pair['left_out'])}, which diverged"


def seeds_in_words(seeds: Sequence[int]) -> str:
    """ "seed 5" or "seeds 3 and 5"."""
    return f"seed{'s' if len(seeds) > 1 else ''} {in_words(list(seeds))}"


def named(label: str) -> str:
    """A label for a sentence: in quotation marks, but for the likes of lr=0.1."""
    return label if "=" in label and not {",", " "} & set(label) else f"“{label}”"


def plus_minus(mean: float | None, std: float | None, scale: float = 100, digits: int = 2) -> str:
    """A mean ± its standard deviation; of fractions in percentage points, unless scale is 1."""
    if mean is None:
        return "–"
    deviation = "" if std is None else f" ± {scale * std:.{digits}f}"
    return f"{scale * mean:.{digits}f}{deviation}".replace("-", "−")


def percent(mean: float | None, std: float | None = None) -> str:
    """A mean accuracy ± its standard deviation in percent."""
    return plus_minus(mean, std) + ("" if mean is None else "%")


def mean_and_interval(found: dict[str, float | None]) -> str:
    """A mean accuracy in percent with its interval, of what spread() found."""
    ci95 = "" if found["ci95"] is None else f" (95% interval ± {100 * found['ci95']:.2f})"
    return percent(found["mean"]) + ci95


def signed(fraction: float | None) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return "–" if fraction is None else f"{100 * fraction:+.2f}".replace("-", "−")


def span(fractions: Iterable[float | None], form: str = ".2f") -> str:
    """The lowest and the highest of some fractions, in percentage points: "0.57 to 0.91"."""
    known = [100 * fraction for fraction in fractions if fraction is not None]
    ends = f"{min(known):{form}} to {max(known):{form}}" if known else "unknown"
    return ends.replace("-", "−")


def interval(spread: dict[str, float | None]) -> str:
    """Student's 95% interval in percentage points, from its lower to its upper end."""
    if spread["ci95"] is None:
        return "–"
    return " to ".join(signed(spread["mean"] + side * spread["ci95"]) for side in (-1, 1))
