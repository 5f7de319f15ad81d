"""What the runs of an experiment say together, in numbers: the content of summary.json."""

import json
import math
import re
import statistics
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from scipy.special import stdtrit

from lab.checks import UserError
from lab.records import FINAL, FINAL_RESULTS, Record, Records, all_settings
from train import CURVES

# what a summary's runs leave out, because their group or the whole summary tells it
NOT_IN_SUMMARY = ("run", "code", "environment", "trained", "gradients")
KEYS = {"experiment", "title", "question", "method", "settings", "code", "environment", "groups"}
KEYS |= {"candidates", "best", "comparisons", "rehearsal", "finished", "findings", "tables"}
GROUP_KEYS = {"label", "settings", "seeds", "diverged", "gap", "mean", "std", "runs", *FINAL}
RUN_KEYS = {"seed", "diverged_at_epoch", *CURVES, *FINAL_RESULTS}
SIGNIFICANCE = 0.05  # a Holm-corrected p below this makes a difference more than noise

# what a damaged summary can raise where it is read, told or drawn
DAMAGE = (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError)


def summarise(
    experiment: str,
    description: str,
    settings: dict[str, Any],
    records: Records,
    candidates: Sequence[str] | None = None,
    comparisons: Sequence[tuple[str, str]] = (),
    besides: Sequence[Record] = (),
    **more: Any,
) -> dict[str, Any]:
    """The content of summary.json: every group of runs with its mean, spread and runs.

    description is a script's docstring: "Experiment 1.1, topic: question?", then the method.
    candidates, comparisons, besides and more are those of Experiment.report(); more may also hold
    rehearsal (True or False) and finished ({"runs": n, "of": m} in a half-way report).
    """
    records = {label: group for label, group in records.items() if group}
    every = [*besides, *(record for group in records.values() for record in group)]
    first, method, *_ = [*(" ".join(part.split()) for part in description.split("\n\n")), ""]
    title, colon, question = first.partition(": ")
    groups = [summarise_group(label, group) for label, group in records.items()]
    candidates = [c for c in (records if candidates is None else candidates) if c in records]
    winner = best({label: records[label] for label in candidates})
    if not comparisons and winner:
        comparisons = [(winner, label) for label in candidates if label != winner]
    summary = {
        "experiment": experiment,
        "title": title.removeprefix("Experiment ").replace(",", "", 1) if colon else experiment,
        "question": question[:1].upper() + question[1:] if colon else first,
        "method": method,
        "settings": settings,
        "code": common(record["code"] for record in every),
        "environment": {
            key: common(record["environment"].get(key) for record in every)
            for key in every[0]["environment"]
        },
        "seconds": wall_seconds(every),
        "groups": groups,
        "candidates": candidates,
        "best": winner,
        "comparisons": compare_all(records, comparisons),
    }
    defaults = {"rehearsal": False, "finished": None, "answer": None, "findings": [], "tables": {}}
    return summary | defaults | more


def summarise_group(label: str, records: Sequence[Record]) -> dict[str, Any]:
    """One setting over all its seeds. Runs that diverged are counted and left out of the means."""
    sound = [record for record in records if record["diverged_at_epoch"] is None]
    settings = without_seed(all_settings(records[0]["run"]))
    # a run that validates on the images that it trains on has no generalisation gap
    gaps = [] if settings["overfit_images"] else map(generalisation_gap, records)
    gradients = [record["gradients"] for record in sound if record.get("gradients")]
    group = {
        "label": label,
        "settings": settings,
        "seeds": [record["seed"] for record in records],
        "diverged": len(records) - len(sound),
        "gap": spread(gaps),
        **({"gradients": summarise_gradients(gradients)} if gradients else {}),
        "runs": [
            {key: value for key, value in record.items() if key not in NOT_IN_SUMMARY}
            for record in records
        ],
    }
    for name in FINAL:
        group[name] = spread(record[name] for record in records)
        if name.endswith("loss"):
            del group[name]["ci95"]
    epochs = range(len(records[0]["train_loss"]))
    curves = {n: [spread([r[n][epoch] for r in sound]) for epoch in epochs] for n in CURVES}
    for key in ("mean", "std"):
        group[key] = {name: [point[key] for point in curve] for name, curve in curves.items()}
    return group


def generalisation_gap(record: Record) -> float | None:
    """Training minus validation accuracy after the last epoch; None for a run that diverged.

    Both are measured with the same weights, without dropout and augmentation, so that settings with
    and without them can be compared. The curve of training accuracy is measured during training.
    """
    if record["diverged_at_epoch"] is not None:
        return None
    return record["final_train_accuracy"] - record["val_accuracy"][-1]


def without_seed(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings that all runs of a group share, and so do the runs that they start from."""
    return {
        key: without_seed(value) if isinstance(value, dict) else value
        for key, value in settings.items()
        if key != "seed"
    }


def summarise_gradients(seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Gradient statistics of the same form as one seed's, but with mean and std over the seeds.

    Each list of one number a tensor becomes {"mean": [...], "std": [...]}; in "history" only the
    means are kept, and "parameters" stays the list of names.
    """
    summary = over_seeds(seeds)
    for statistic, epochs in summary["history"].items():
        summary["history"][statistic] = [epoch["mean"] for epoch in epochs]
    return summary


def over_seeds(values: Sequence[Any]) -> Any:
    """Mean and std of every list of numbers in nested dicts and lists; a list of names as it is."""
    first = values[0]
    if isinstance(first, dict):
        return {key: over_seeds([value[key] for value in values]) for key in first}
    if first and isinstance(first[0], str):
        return first
    if first and isinstance(first[0], list | dict):
        return [over_seeds(items) for items in zip(*values, strict=True)]
    spreads = [spread(numbers) for numbers in zip(*values, strict=True)]
    return {key: [point[key] for point in spreads] for key in ("mean", "std")}


def paired(ours: list[Record], theirs: list[Record], measure: Callable) -> dict[int, float]:
    """{seed: difference of what is measured}, where both groups have a number for the seed."""
    other = {record["seed"]: measure(record) for record in theirs}
    values = [(record["seed"], measure(record), other.get(record["seed"])) for record in ours]
    return {seed: a - b for seed, a, b in values if a is not None and b is not None}


def compare(label: str, ours: list[Record], minus: str, theirs: list[Record]) -> dict[str, Any]:
    """The differences of test accuracy and generalisation gap of two groups, paired by seed.

    "left_out" are the seeds of both of which one or both runs diverged. p is that of the paired
    t-test of test accuracy; None where the two runs of a seed were trained on different devices.
    """
    pairs = paired(ours, theirs, lambda record: record["test_accuracy"])
    differences = list(pairs.values())
    one, other = device_by_seed(ours), device_by_seed(theirs)
    return {
        "label": label,
        "minus": minus,
        "seeds": list(pairs),
        "differences": differences,
        "left_out": sorted((one.keys() & other.keys()) - pairs.keys()),
        "test_accuracy": spread(differences),
        "gap": spread(list(paired(ours, theirs, generalisation_gap).values())),
        "p": paired_p(differences) if all(one[seed] == other[seed] for seed in pairs) else None,
    }


def device_by_seed(records: Iterable[Record]) -> dict[int, str]:
    return {record["seed"]: record["environment"]["device"] for record in records}


def paired_p(differences: Sequence[float]) -> float | None:
    """The two-sided p of the paired t-test: None for fewer than two pairs, 1 if all are zero."""
    if len(differences) < 2:
        return None
    if not any(differences):
        return 1.0
    from scipy.stats import ttest_1samp  # takes a second, which the start of a sweep is spared

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # equal differences: p is (almost) zero
        return float(ttest_1samp(differences, 0).pvalue)


def compare_all(records: Records, pairs: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """What compare() and judge() find of pairs of labels; those without records are left out."""
    known = [(a, b) for a, b in pairs if a != b and {a, b} <= records.keys()]
    return judge([compare(a, records[a], b, records[b]) for a, b in known])


def judge(pairs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A report's comparisons with "p_holm", p after Holm's correction (1979), and "verdict".

    Both are None where p is undefined. Such a pair is not counted by the correction.
    """
    judged = [pair | {"p_holm": None, "verdict": None} for pair in pairs]
    order = sorted((pair for pair in judged if pair["p"] is not None), key=lambda pair: pair["p"])
    highest = 0.0
    for rank, pair in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * pair["p"]))
        better = pair["label"] if pair["test_accuracy"]["mean"] > 0 else pair["minus"]
        verdict = f"{better} is better" if highest < SIGNIFICANCE else "within noise"
        pair |= {"p_holm": highest, "verdict": verdict}
    return judged


def spread(values: Iterable[float | None]) -> dict[str, float | None]:
    """Mean, sample standard deviation, and half-width of Student's 95% interval of the mean.

    A value of None, of a run that diverged, is left out. A result is None where there are too few
    values: one has no spread, none has no mean.
    """
    known = [value for value in values if value is not None]
    n = len(known)
    if n < 2:
        return {"mean": known[0] if n else None, "std": None, "ci95": None}
    std = statistics.stdev(known)
    ci95 = float(stdtrit(n - 1, 0.975)) * std / math.sqrt(n)
    return {"mean": statistics.fmean(known), "std": std, "ci95": ci95}


def final_accuracy(records: Iterable[Record]) -> float | None:
    """Mean validation accuracy after the last epoch; None if all diverged."""
    return spread(record["val_accuracy"][-1] for record in records)["mean"]


def best(records: Records) -> str | None:
    """The label with the highest mean validation accuracy after the last epoch."""
    ends = {label: final_accuracy(group) for label, group in records.items()}
    sound = [label for label, end in ends.items() if end is not None]
    return max(sound, key=ends.get, default=None)


def best_label(records: Records) -> str:
    """The label of the best of several groups of records. Raises UserError if all diverged."""
    found = best(records)
    if found is None:
        raise UserError(f"every run of {', '.join(records)} diverged: lower the learning rate")
    return found


def class_count(records: Iterable[Record]) -> int:
    """How many classes the data of these runs have; ten where all diverged, which tells nothing."""
    matrices = (record["confusion_matrix"] for record in records)
    return next((len(matrix) for matrix in matrices if matrix), 10)


def common(values: Iterable[Any]) -> Any:
    """The value that all have, or the list of the different ones."""
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else different


def in_words(value: Any) -> str:
    """What common() found, or any list, for a sentence: "a, b and c"."""
    words = [str(item) for item in (value if isinstance(value, list) else [value])]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def wall_seconds(records: Sequence[Record]) -> float:
    """For how long at least one of the runs was being trained: the union of their intervals."""
    total, end = 0.0, -math.inf
    for begun, ended in sorted(tuple(span) for record in records for span in record["trained"]):
        total += max(0.0, ended - max(begun, end))
        end = max(end, ended)
    return total


def load_summary(path: Path) -> dict[str, Any]:
    """A summary from its file. Raises UserError where that is damaged."""
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        missing = KEYS - summary.keys()
        for group in summary["groups"]:
            missing |= GROUP_KEYS - group.keys()
            missing |= {key for run in group["runs"] for key in RUN_KEYS - run.keys()}
        if missing:
            raise UserError(f"it has no {in_words(sorted(missing))}")
        by_number(summary)
        return summary
    except DAMAGE as error:
        raise UserError(f"{path} is damaged ({error}): run its script again") from None


def load_summaries(root: Path) -> list[dict[str, Any]]:
    """The summaries in a results folder, but for damaged ones, in the order of their titles."""
    found = []
    for path in root.glob("*/summary.json"):
        with suppress(UserError):
            found.append(load_summary(path))
    return sorted(found, key=by_number)


def by_number(summary: dict[str, Any]) -> tuple[str, str]:
    """A key to sort summaries by title, 1.9 before 1.10, and by name."""
    title = re.sub(r"\d+", lambda number: number[0].zfill(4), summary["title"])
    return title, summary["experiment"]
