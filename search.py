"""Searching for a setting: where a grid and a random search look, and what they found.

Both are scikit-learn's. A point is {"learning_rate": x, "momentum": y}; a search tries its points
one after the other, so that what it has found depends on how many runs it may spend.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from runs import all_settings
from summary import Record, spread

Point = dict[str, float]


def grid(
    learning_rates: Sequence[float], momenta: Sequence[float], side: int, seed: int
) -> list[Point]:
    """side × side points at fixed intervals, in an order drawn from the seed.

    Both ranges, [lowest, highest], are covered with their ends: the learning rate at equal
    intervals of its logarithm, the momentum at equal ones.
    """
    from sklearn.model_selection import ParameterGrid  # a second, which no start-up need wait for

    values = {
        "learning_rate": np.geomspace(*learning_rates, side).tolist(),
        "momentum": np.linspace(*momenta, side).tolist(),
    }
    points = list(ParameterGrid(values))
    return [points[i] for i in stream(seed).permutation(len(points))]


def sample(
    learning_rates: Sequence[float], momenta: Sequence[float], n: int, seed: int
) -> list[Point]:
    """n points drawn from the seed: the learning rate's logarithm and the momentum are uniform."""
    from scipy.stats import loguniform, uniform  # as above
    from sklearn.model_selection import ParameterSampler

    lowest, highest = momenta
    distributions = {
        "learning_rate": loguniform(*learning_rates),
        "momentum": uniform(lowest, highest - lowest),
    }
    draws = ParameterSampler(distributions, n, random_state=stream(seed))
    return [{name: float(value) for name, value in draw.items()} for draw in draws]


def stream(seed: int) -> np.random.RandomState:
    """The random numbers of a seed, of which any whole number will do, in scikit-learn's kind."""
    return np.random.RandomState(np.random.MT19937(seed))


def summarise_search(tried: Sequence[Sequence[Record]]) -> dict[str, Any]:
    """What the repeats of one search found, from the records of each point: one a repeat.

    {"repeats": [{"seed": the repeat's, "points": [what was found at each, in the order of the
    search], "best_so_far": [after each], "winner": a point or None}],
    "best_so_far": {"mean": [after each], "std": [...]} over the repeats, "winner": a point or None}

    A point's accuracy is that of validation after the last epoch, None where the run diverged.
    Test results choose nothing, and are left out. The winner over all repeats is one run, for a
    random search has no two at one point: the highest of many noisy numbers, which flatters.
    """
    repeats = []
    for records in zip(*tried, strict=True):
        points = [searched(record) for record in records]
        repeats.append(
            {
                "seed": records[0]["seed"],
                "points": points,
                "best_so_far": best_so_far([point["val_accuracy"] for point in points]),
                "winner": winner(points),
            }
        )
    by_budget = [
        spread([value for value in values if value is not None])
        for values in zip(*(repeat["best_so_far"] for repeat in repeats), strict=True)
    ]
    return {
        "repeats": repeats,
        "best_so_far": {key: [point[key] for point in by_budget] for key in ("mean", "std")},
        "winner": winner([point for repeat in repeats for point in repeat["points"]]),
    }


def searched(record: Record) -> dict[str, Any]:
    """A point of a search with what was found there."""
    settings = all_settings(record["run"])
    return {
        "seed": record["seed"],
        "learning_rate": settings["learning_rate"],
        "momentum": settings["momentum"],
        "val_accuracy": record["val_accuracy"][-1],
        "diverged_at_epoch": record["diverged_at_epoch"],
    }


def winner(points: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The point with the highest accuracy, the first of equals; None if all diverged."""
    sound = [point for point in points if point["val_accuracy"] is not None]
    return max(sound, key=lambda point: point["val_accuracy"], default=None)


def best_so_far(accuracies: Sequence[float | None]) -> list[float | None]:
    """The highest of the first accuracy, the first two, and so on; None while there is none."""
    found: list[float | None] = []
    for accuracy in accuracies:
        before = found[-1] if found else None
        known = [value for value in (before, accuracy) if value is not None]
        found.append(max(known, default=None))
    return found
