"""Searching for a setting: where a grid and a random search look, and what they found.

A search tries points, {"learning_rate": x, "momentum": y}, one after the other.
"""

import math
from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import numpy as np

from lab.records import all_settings
from lab.summary import Record, Records, common, final_accuracy, spread
from lab.tables import interval, percent

Point = dict[str, float]


def point(learning_rate: float, momentum: float) -> Point:
    """A point, rounded to 12 digits: powers differ in the last one from processor to processor."""
    return {"learning_rate": float(f"{learning_rate:.12g}"), "momentum": float(f"{momentum:.12g}")}


def grid(
    learning_rates: Sequence[float], momenta: Sequence[float], side: int, seed: int
) -> list[Point]:
    """side × side points at fixed intervals, in an order drawn from the seed.

    Both ranges, [lowest, highest], are covered with their ends: the learning rate at equal
    intervals of its logarithm, the momentum at equal ones.
    """
    values = np.geomspace(*learning_rates, side), np.linspace(*momenta, side)
    points = [point(*pair) for pair in product(*values)]
    return [points[i] for i in stream(seed).permutation(len(points))]


def sample(
    learning_rates: Sequence[float], momenta: Sequence[float], n: int, seed: int
) -> list[Point]:
    """n points drawn from the seed: the learning rate's logarithm and the momentum are uniform."""
    from scipy.stats import loguniform, uniform  # a second, which no start-up need wait for
    from sklearn.model_selection import ParameterSampler

    lowest, highest = momenta
    distributions = {
        "learning_rate": loguniform(*learning_rates),
        "momentum": uniform(lowest, highest - lowest),
    }
    draws = ParameterSampler(distributions, n, random_state=stream(seed))
    return [point(**draw) for draw in draws]


def stream(seed: int) -> np.random.RandomState:
    """The random numbers of a seed, of which any whole number will do, in scikit-learn's kind."""
    return np.random.RandomState(np.random.MT19937(seed))


def summarise_search(tried: Sequence[Sequence[Record]]) -> dict[str, Any]:
    """What the repeats of one search found, from the records of each point: one a repeat.

    {"repeats": [{"seed", "device" (or several), "points": [what was found at each], "best_so_far":
    [after each], "winner": a point or None}], "best_so_far": {"mean": [after each], "std": [...]}
    over repeats, "winner"}

    A point's accuracy is that of validation after the last epoch, None where the run diverged.
    """
    repeats = []
    for records in zip(*tried, strict=True):
        points = [
            {name: all_settings(record["run"])[name] for name in ("learning_rate", "momentum")}
            | {"seed": record["seed"], "diverged_at_epoch": record["diverged_at_epoch"]}
            | {"val_accuracy": record["val_accuracy"][-1]}
            for record in records
        ]
        repeats.append(
            {
                "seed": records[0]["seed"],
                "device": common(record["environment"]["device"] for record in records),
                "points": points,
                "best_so_far": best_so_far([point["val_accuracy"] for point in points]),
                "winner": winner(points),
            }
        )
    by_budget = [spread(found) for found in zip(*(r["best_so_far"] for r in repeats), strict=True)]
    return {
        "repeats": repeats,
        "best_so_far": {key: [point[key] for point in by_budget] for key in ("mean", "std")},
        "winner": winner([point for repeat in repeats for point in repeat["points"]]),
    }


def winner(points: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The point with the highest accuracy, the first of equals; None if all diverged."""
    sound = [point for point in points if point["val_accuracy"] is not None]
    return max(sound, key=lambda point: point["val_accuracy"], default=None)


def best_so_far(accuracies: Sequence[float | None]) -> list[float | None]:
    """The highest of the first accuracy, the first two, and so on; None while there is none."""
    heads = [accuracies[: n + 1] for n in range(len(accuracies))]
    return [max((one for one in head if one is not None), default=None) for head in heads]


def at_an_end(found: Point, ranges: dict[str, Sequence[float]]) -> str:
    """Which values of a point are an end of their range, in words; empty where none is."""
    words = ""
    for name, (lowest, highest) in ranges.items():
        ends = {lowest: "lowest", highest: "highest"}
        if end := next((ends[x] for x in ends if math.isclose(x, found[name])), None):
            words += f" Its {name.replace('_', ' ')} is the {end} of the range."
    return words


def search_in_words(
    searches: dict[str, dict[str, Any]], records: Records, ranges: dict[str, Sequence[float]]
) -> list[str]:
    """What each search found, and how its winner did from fresh seeds: the runs in records.

    ranges are those of the searches: {"learning_rate": [lowest, highest], "momentum": the same}
    """
    found = []
    for name, search in searches.items():
        points = [point for repeat in search["repeats"] for point in repeat["points"]]
        sound = [point for point in points if point["val_accuracy"] is not None]
        if not (best := search["winner"]):
            found.append(f"Every run of the {name} search diverged.")
            continue
        highest = percent(*(search["best_so_far"][key][-1] for key in ("mean", "std")))
        found.append(
            f"A {name} search of {len(search['best_so_far']['mean'])} runs finds {highest} "
            f"validation accuracy; {len(points) - len(sound)} of {len(points)} runs diverged. Its "
            f"winner, learning rate {best['learning_rate']:.3g} and momentum "
            f"{best['momentum']:.3g}, has {percent(best['val_accuracy'])}."
            f"{at_an_end(best, ranges)} The highest of {len(sound)} noisy numbers tends to be "
            f"too high. From fresh seeds the winner's mean is "
            f"{percent(final_accuracy(records[name]))}."
        )
    return found


def leads(searches: dict[str, dict[str, Any]]) -> list[str]:
    """By how much one search leads another, over the repeats that both made on one device."""
    found = []
    for one, other in combinations(searches, 2):
        repeats = zip(searches[one]["repeats"], searches[other]["repeats"], strict=True)
        ahead = [
            a["winner"]["val_accuracy"] - b["winner"]["val_accuracy"]
            for a, b in repeats
            if a["winner"] and b["winner"]
            if a["device"] == b["device"] and isinstance(a["device"], str)
        ]
        if ahead:
            lead = spread(ahead)
            known = (
                "" if lead["ci95"] is None else f"; 95% interval of the difference {interval(lead)}"
            )
            found.append(
                f"The best run of a {one} search has, on average, {100 * abs(lead['mean']):.2f} "
                f"points {'more' if lead['mean'] > 0 else 'less'} validation accuracy than that of "
                f"a {other} search (repeats: {len(ahead)}, each on one device{known})."
            )
    return found
