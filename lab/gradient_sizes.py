"""How large a network's gradients are beside those of another, layer by layer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lab.gradients import WINDOW
from lab.summary import Record, Records, in_words, over_seeds

WINDOWS = {
    name: name.replace("_", f" {WINDOW} ")
    for name in ("first_steps", "first_epochs", "last_epochs")
}
MEANING = (
    "A layer's weight gradient is here the mean absolute value over its weights, averaged over the "
    "seeds that did not diverge. Layers that only one network has are left out. The gradients were "
    "not tested."
)


class Multiples(NamedTuple):
    """Mean |gradient| of each layer's weights in each window, divided by another network's."""

    network: str
    other: str
    by_window: dict[str, dict[str, float]]  # {"first 5 steps": {"conv1": x, ...}, ...}


def multiples(records: Records) -> list[Multiples]:
    """Each network's gradients divided by those of the first, from the records of each network.

    What is unknown, as runs diverged, or divided by zero, is left out.
    """
    (first, base), *others = records.items()
    found = []
    for network, group in others:
        by_window = {}
        for window, words in WINDOWS.items():
            own, theirs = sizes(group, window), sizes(base, window)
            if ratios := {layer: own[layer] / theirs[layer] for layer in own if theirs.get(layer)}:
                by_window[words] = ratios
        if by_window:
            found.append(Multiples(network, first, by_window))
    return found


def sizes(group: Sequence[Record], window: str) -> dict[str, float]:
    """Mean |gradient| of every layer's weights in a window, over seeds that did not diverge."""
    seeds = [record["gradients"] for record in group if record["gradients"]]
    if not seeds:
        return {}
    means = over_seeds([seed[window]["mean"] for seed in seeds])["mean"]
    return {
        name.removesuffix(".weight"): mean
        for name, mean in zip(seeds[0]["parameters"], means, strict=True)
        if name.endswith(".weight")
    }


def in_short(found: Multiples) -> str:
    """The lowest and the highest multiple in each window; a sentence."""
    ends = [
        f"{min(ratios.values()):.3g} to {max(ratios.values()):.3g} in the {window}"
        for window, ratios in found.by_window.items()
    ]
    return (
        f"{found.network}'s weight gradients, divided by {found.other}'s, are {in_words(ends)}, "
        "depending on the layer."
    )


def table(found: Sequence[Multiples]) -> list[dict[str, Any]]:
    """The multiples as rows of a table for people, a column a layer."""
    return [
        {"network": f"{one.network}, {window}"} | {layer: f"{x:.3g}" for layer, x in ratios.items()}
        for one in found
        for window, ratios in one.by_window.items()
    ]
