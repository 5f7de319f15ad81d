"""What the runs of an experiment say together: means, spreads, tables and summary.json."""

import csv
import io
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scipy.special import stdtrit
from tabulate import tabulate

from errors import UserError
from runs import CURVES, all_settings
from store import write

# what a summary's runs leave out, as their group or the whole summary tells it
NOT_IN_SUMMARY = ("run", "code", "environment", "trained", "gradients")

Record = dict[str, Any]  # a finished run, as it stands in its file


def summarise(
    experiment: str,
    description: str,
    settings: dict[str, Any],
    groups: dict[str, list[Record]],
    candidates: Sequence[str] | None = None,
    rehearsal: bool = False,
) -> dict[str, Any]:
    """The content of summary.json: every group of runs with its mean, spread and runs.

    The description's first paragraph is the question, its second the method. candidates are the
    labels that the best is chosen from, as settings that differ in more than what is studied (in
    length, or in the images that they are validated on) cannot be ranked; by default all.
    """
    records = [record for group in groups.values() for record in group]
    paragraphs = [" ".join(part.split()) for part in description.split("\n\n")]
    summary = {
        "experiment": experiment,
        "question": paragraphs[0],
        "method": paragraphs[1] if len(paragraphs) > 1 else "",
        "rehearsal": rehearsal,
        "settings": settings,
        "code": common([record["code"] for record in records]),
        "environment": {
            key: common([record["environment"][key] for record in records])
            for key in records[0]["environment"]
        },
        "seconds": wall_seconds(records),
        "groups": [summarise_group(label, records) for label, records in groups.items()],
    }
    candidates = list(groups) if candidates is None else list(candidates)
    ranked = [group for group in summary["groups"] if group["label"] in candidates]
    return summary | {"candidates": candidates, "best": best(ranked)}


def summarise_group(label: str, records: Sequence[Record]) -> dict[str, Any]:
    """One setting over all its seeds. Runs that diverged are counted and left out of the means."""
    sound = [record for record in records if record["diverged_at_epoch"] is None]
    epochs = range(len(records[0]["train_loss"]))
    curves = {
        name: [spread([record[name][epoch] for record in sound]) for epoch in epochs]
        for name in CURVES
    }
    settings = without_seed(all_settings(records[0]["run"]))
    # a run that validates on the images it trains on has no gap to speak of
    gaps = [] if settings["overfit_images"] else [generalisation_gap(record) for record in sound]
    test_loss, train_loss = (
        spread([record[name] for record in sound]) for name in ("test_loss", "final_train_loss")
    )
    gradients = {}
    if any(record.get("gradients") for record in sound):
        gradients["gradients"] = summarise_gradients([record["gradients"] for record in sound])
    return {
        "label": label,
        "settings": settings,
        "seeds": [record["seed"] for record in records],
        "diverged": len(records) - len(sound),
        "mean": {name: [point["mean"] for point in curve] for name, curve in curves.items()},
        "std": {name: [point["std"] for point in curve] for name, curve in curves.items()},
        "final_train_loss": {"mean": train_loss["mean"], "std": train_loss["std"]},
        "final_train_accuracy": spread([record["final_train_accuracy"] for record in sound]),
        "test_loss": {"mean": test_loss["mean"], "std": test_loss["std"]},
        "test_accuracy": spread([record["test_accuracy"] for record in sound]),
        "gap": spread(gaps),
        **gradients,
        "runs": [
            {key: value for key, value in record.items() if key not in NOT_IN_SUMMARY}
            for record in records
        ],
    }


def generalisation_gap(record: Record) -> float | None:
    """Training minus validation accuracy after the last epoch; None for a run that diverged.

    Both are of the same weights, without dropout and augmentation, so that settings with them and
    without can be compared. The curve of training accuracy is measured otherwise.
    """
    if record["diverged_at_epoch"] is not None:
        return None
    return record["final_train_accuracy"] - record["val_accuracy"][-1]


def without_seed(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as all runs of a group have them, those of the runs they start from, too."""
    return {
        key: without_seed(value) if isinstance(value, dict) else value
        for key, value in settings.items()
        if key != "seed"
    }


def summarise_gradients(seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Gradient statistics with their mean and standard deviation over seeds.

    {"parameters": [name, ...], "history": {"mean": [[one a tensor] an epoch], "std": the same},
    "by_step" and window: {statistic: {"mean": [one a tensor], "std": [one a tensor]}}, the former
    in a list of steps}
    """

    def over_seeds(values: Sequence[Sequence[float]]) -> dict[str, list]:
        spreads = [spread(tensor) for tensor in zip(*values, strict=True)]
        return {key: [point[key] for point in spreads] for key in ("mean", "std")}

    summary: dict[str, Any] = {"parameters": seeds[0]["parameters"], "history": {}}
    for statistic, epochs in seeds[0]["history"].items():
        summary["history"][statistic] = [
            over_seeds([seed["history"][statistic][epoch] for seed in seeds])["mean"]
            for epoch in range(len(epochs))
        ]
    for window in ("first_steps", "last_steps", "first_epochs", "last_epochs"):
        summary[window] = {
            statistic: over_seeds([seed[window][statistic] for seed in seeds])
            for statistic in seeds[0][window]
        }
    summary["by_step"] = [
        {statistic: over_seeds([seed[statistic] for seed in step]) for statistic in step[0]}
        for step in zip(*(seed["by_step"] for seed in seeds), strict=True)
    ]
    return summary


def by_learning_rate(summary: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The groups whose trainable parameters are counted, by learning rate, the fewest first."""
    counts = summary.get("trainable_parameters", {})
    groups = sorted(
        (group for group in summary["groups"] if group["label"] in counts),
        key=lambda group: counts[group["label"]],
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for group in groups:
        found.setdefault(f"lr={group['settings']['learning_rate']:.12g}", []).append(group)
    return found


def compare(
    label: str,
    records: Sequence[Record],
    other_label: str,
    others: Sequence[Record],
    quantities: Sequence[str] = ("test_accuracy", "gap"),
) -> dict[str, Any]:
    """The differences of test accuracy and generalisation gap between two groups, paired by seed.

    Other quantities of a record can be asked for; "differences" are those of the first, seed by
    seed. Only seeds that are in both groups, and diverged in neither, count.
    """

    def measured(record: Record, quantity: str) -> float | None:
        return generalisation_gap(record) if quantity == "gap" else record[quantity]

    first = quantities[0]
    other = {record["seed"]: record for record in others if record[first] is not None}
    pairs = {
        record["seed"]: (record, other[record["seed"]])
        for record in records
        if record[first] is not None and record["seed"] in other
    }
    differences = {
        quantity: [measured(one, quantity) - measured(two, quantity) for one, two in pairs.values()]
        for quantity in quantities
    }
    return {
        "label": label,
        "minus": other_label,
        "seeds": list(pairs),
        "differences": differences[first],
        **{quantity: spread(values) for quantity, values in differences.items()},
    }


def stage(
    label: str, records: Sequence[Record], accuracy: float, loss: float | None = None
) -> dict[str, Any]:
    """After how many steps each seed of a group had learned what it trains on; None: it had not.

    Learned means at least this accuracy and, where one is given, a loss below this (nats), at the
    end of an epoch: measured after it on the same images where the runs validate on those, else
    during it.
    """
    import data  # takes seconds, which scripts that do without need not wait for

    run = all_settings(records[0]["run"])
    part = "val" if run["overfit_images"] else "train"
    images, _ = data.split_sizes(run["dataset"], run["split"], run["overfit_images"])
    steps_per_epoch = math.ceil(images / run["batch_size"])
    epochs = [
        first_epoch(record[f"{part}_accuracy"], record[f"{part}_loss"], accuracy, loss)
        for record in records
    ]
    seeds = [record["seed"] for record in records]
    ends = [record["train_accuracy"][-1] for record in records]
    return {
        "label": label,
        "by_heart": bool(run["overfit_images"]),
        "accuracy": accuracy,
        "loss": loss,
        "seeds": seeds,
        "could_not": [seed for seed, epoch in zip(seeds, epochs, strict=True) if epoch is None],
        "steps": [epoch and epoch * steps_per_epoch for epoch in epochs],
        "most_steps": run["epochs"] * steps_per_epoch,
        "train_accuracy": spread([end for end in ends if end is not None]),
    }


def failure(stage: dict[str, Any]) -> str:
    """A stage that some seed did not learn, as a headline."""
    what = stage["label"] if stage["by_heart"] else f"the whole split ({stage['label']})"
    return f"COULD NOT LEARN {what.upper()}"


def first_epoch(
    accuracies: Sequence[float | None],
    losses: Sequence[float | None],
    accuracy: float,
    loss: float | None,
) -> int | None:
    """The first epoch, counted from 1, with at least this accuracy and less than this loss."""
    for epoch, (reached, left) in enumerate(zip(accuracies, losses, strict=True), 1):
        if reached is not None and reached >= accuracy and (loss is None or left < loss):
            return epoch
    return None


def overfits_after(val_losses: Sequence[float | None]) -> int | None:
    """The epoch, counted from 1, of the lowest validation loss; None if that is the last."""
    losses = [math.inf if loss is None else loss for loss in val_losses]
    lowest = losses.index(min(losses)) + 1
    return lowest if lowest < len(losses) and min(losses) < math.inf else None


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, sample standard deviation, and half-width of Student's 95% interval of the mean.

    Null where there are too few values: one has no spread, none has no mean.
    """
    n = len(values)
    if n == 0:
        return {"mean": None, "std": None, "ci95": None}
    if n == 1:
        return {"mean": values[0], "std": None, "ci95": None}
    std = statistics.stdev(values)
    return {
        "mean": statistics.fmean(values),
        "std": std,
        "ci95": float(stdtrit(n - 1, 0.975)) * std / math.sqrt(n),
    }


def best(groups: Sequence[dict[str, Any]]) -> str | None:
    """The label with the highest mean validation accuracy at the last epoch."""
    sound = [group for group in groups if group["mean"]["val_accuracy"][-1] is not None]
    if not sound:
        return None
    return max(sound, key=lambda group: group["mean"]["val_accuracy"][-1])["label"]


def best_label(groups: dict[str, list[Record]]) -> str:
    """The label of the best of several groups of records. Raises UserError if all diverged."""
    found = best([summarise_group(label, records) for label, records in groups.items()])
    if found is None:
        raise UserError(f"every run of {', '.join(groups)} diverged: lower the learning rate")
    return found


def common(values: Iterable[Any]) -> Any:
    """The value that all have, or the list of the different ones."""
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else different


def in_words(value: Any) -> str:
    """What common() found, for a sentence."""
    return " and ".join(str(item) for item in (value if isinstance(value, list) else [value]))


def wall_seconds(records: Sequence[Record]) -> float:
    """For how long at least one of the runs was being trained: the union of their intervals."""
    total, end = 0.0, -math.inf
    for begun, ended in sorted(tuple(span) for record in records for span in record["trained"]):
        total += max(0.0, ended - max(begun, end))
        end = max(end, ended)
    return total


def table_rows(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a group, of numbers: accuracies as fractions, losses in nats, at the last epoch."""
    rows = []
    for group in summary["groups"]:
        row = {"setting": group["label"], "runs": len(group["runs"]), "diverged": group["diverged"]}
        for name in CURVES:
            row[f"{name}_mean"] = group["mean"][name][-1]
            row[f"{name}_std"] = group["std"][name][-1]
        for name in (
            "final_train_loss",
            "final_train_accuracy",
            "gap",
            "test_loss",
            "test_accuracy",
        ):
            row |= {f"{name}_{key}": value for key, value in group[name].items()}
        if "parameters" in group:
            row["parameters"] = group["parameters"]
        row["data"] = "digits (rehearsal)" if summary["rehearsal"] else "CIFAR-10"
        rows.append(row)
    return rows


def table(summary: dict[str, Any], style: str = "github") -> str:
    """The table for people: percentages, mean ± standard deviation over seeds."""

    def percent(row: dict[str, Any], name: str) -> str:
        return _plus_minus(row[f"{name}_mean"], row[f"{name}_std"], 100, 2)

    lines = []
    for row in table_rows(summary):
        interval = row["test_accuracy_ci95"]
        lines.append(
            {
                "setting": row["setting"] + " (best)" * (row["setting"] == summary["best"]),
                **({"parameters": f"{row['parameters']:,}"} if "parameters" in row else {}),
                "train acc. %": percent(row, "final_train_accuracy"),
                "val acc. %": percent(row, "val_accuracy"),
                "gap": percent(row, "gap"),
                "val loss": _plus_minus(row["val_loss_mean"], row["val_loss_std"], 1, 3),
                "test loss": _plus_minus(row["test_loss_mean"], row["test_loss_std"], 1, 3),
                "test acc. %": percent(row, "test_accuracy"),
                "95% CI": "–" if interval is None else f"± {100 * interval:.2f}",
                "diverged": f"{row['diverged']} of {row['runs']}",
            }
        )
    return tabulate(lines, headers="keys", tablefmt=style, disable_numparse=True)


def _plus_minus(mean: float | None, std: float | None, scale: float, digits: int) -> str:
    if mean is None:
        return "–"
    return f"{scale * mean:.{digits}f}" + ("" if std is None else f" ± {scale * std:.{digits}f}")


def notes(summary: dict[str, Any]) -> str:
    """What a reader must know beside a table: data, length, seeds, units, device and code."""
    groups = summary["groups"]
    epochs = in_words(common(len(group["mean"]["train_loss"]) for group in groups))
    seeds = in_words(common(len(group["seeds"]) for group in groups))
    by_heart = [
        group["label"] for group in groups if all_settings(group["settings"])["overfit_images"]
    ]
    rehearsal = "REHEARSAL on scikit-learn's handwritten digits, not a finding. "
    return (
        f"{rehearsal * summary['rehearsal']}{epochs} epochs, {seeds} seeds. After the last epoch: "
        "mean ± sample standard deviation over the seeds that did not diverge; accuracies (acc.) "
        "in percent, losses in nats; training is measured as validation is, by the final weights, "
        "without dropout and augmentation; gap: training minus validation accuracy in percentage "
        "points; "
        f"{f'{in_words(by_heart)}: validated on the images trained on; ' * bool(by_heart)}"
        "95% CI: half-width of Student's interval of the mean test accuracy. "
        f"Device {in_words(summary['environment']['device'])}, code {in_words(summary['code'])}."
    )


def range_in_words(bounds: Sequence[float]) -> str:
    """A range of learning rates, which may be a single one."""
    return " to ".join(f"{rate:.12g}" for rate in dict.fromkeys(bounds))


def save(summary: dict[str, Any], folder: Path) -> list[Path]:
    """Write summary.json, table.md and table.csv into a folder; the paths."""
    rows = table_rows(summary)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    contents = {
        "summary.json": json.dumps(summary, indent=1, allow_nan=False),
        "table.md": f"{table(summary)}\n\n{notes(summary)}\n",
        "table.csv": text.getvalue(),
    }
    for name, content in contents.items():
        write(folder / name, content.encode())
    return [folder / name for name in contents]
