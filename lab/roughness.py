"""How rough validation is: how much its accuracy changes from one epoch to the next."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from lab.summary import Record, Records, device_by_seed, paired, spread
from lab.tables import interval, plus_minus, signed


def roughness(record: Record) -> float | None:
    """Mean absolute change of validation accuracy into each epoch of training's second half.

    None for a run that diverged, or that has one epoch only.
    """
    if record["diverged_at_epoch"] is not None or len(record["val_accuracy"]) < 2:
        return None
    changes = [abs(after - before) for before, after in pairwise(record["val_accuracy"])]
    return fmean(changes[(len(changes) - 1) // 2 :])


def compare_roughness(records: Records, pairs: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """The roughness of two settings and its difference, paired by seed, for each pair of labels.

    {"label", "minus", "of_label" and "of_minus": mean, std and ci95, "difference": the same}
    """
    return [
        {
            "label": label,
            "minus": minus,
            "of_label": spread(map(roughness, records[label])),
            "of_minus": spread(map(roughness, records[minus])),
            "difference": spread(differences(records[label], records[minus])),
        }
        for label, minus in pairs
    ]


def differences(ours: list[Record], theirs: list[Record]) -> list[float]:
    """The differences of roughness of the seeds whose two runs were trained on one device."""
    one, other = device_by_seed(ours), device_by_seed(theirs)
    found = paired(ours, theirs, roughness)
    return [difference for seed, difference in found.items() if one[seed] == other[seed]]


def table(compared: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Each setting with the short last batch and without it, as rows of a table for people."""
    return [
        {
            "setting": found["minus"],
            "with the last batch": plus_minus(found["of_minus"]["mean"], found["of_minus"]["std"]),
            "without it": plus_minus(found["of_label"]["mean"], found["of_label"]["std"]),
            "difference": signed(found["difference"]["mean"]),
            "95% CI": interval(found["difference"]),
        }
        for found in compared
    ]
