"""What the figures share: colours, an empty figure with its caption, curves, dots and legends."""

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from runs import INITIALISATIONS, NETWORKS
from summary import common, generalisation_gap, in_words

# Okabe and Ito's colours (2008), and the marker that goes with each
PALETTE = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
    ("#000000", "X"),
)
# places in the palette of the study's own settings; families that share places share no figure
PLACES = {
    **{f"lr={rate}": i for i, rate in enumerate((0.1, 0.075, 0.05, 0.025, 0.01))},
    **{f"dropout={rate}": i for i, rate in enumerate((0, 0.2, 0.4, 0.6, 0.8))},
    **{network: i for i, network in enumerate(NETWORKS)},
    "inverse time": 5,
    "step": 6,
    "untouched": 6,
    **{search: i for i, search in enumerate(("grid", "random", "untuned"))},
    **{initialisation: i for i, initialisation in enumerate(INITIALISATIONS)},
    **{"baseline": 0, "one image": 2, "one batch": 6, "combined": 6},
}
TRAINING_COLOUR = "#7F7F7F"
REHEARSAL_COLOUR = "#B22222"
CAPTION_WIDTH = 170  # characters that fit below a figure
FAILURE_COLOUR = "#B22222"
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 9,
    "figure.dpi": 150,
}
CHANCE = 0.1  # the accuracy of guessing among the ten classes
LARGE_LOSS = 100.0  # nats; a loss above, of a run that went astray, asks for a logarithmic axis
AXIS_LABELS = {"loss": "loss (nats)", "accuracy": "accuracy (%)"}
GUESSING = {"loss": -math.log(CHANCE), "accuracy": 100 * CHANCE}  # on the axes of figures

Summary = dict[str, Any]
Group = dict[str, Any]


def canvas(
    summary: Summary,
    title: str,
    groups: Sequence[Group],
    rows: int = 1,
    columns: int = 1,
    height: float = 4,
    note: str = "",
    final: bool = False,
) -> tuple[Figure, list[Axes]]:
    """An empty figure with its title, and below it what the data are; its panels row by row.

    final says that training is not shown by its curves but by what the final weights reach.
    """
    figure = Figure(figsize=(10, height), layout="constrained")
    figure.suptitle("REHEARSAL: " * summary["rehearsal"] + title, fontweight="bold")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    caption = []
    if summary["rehearsal"]:
        caption.append("REHEARSAL on handwritten digits, not a finding")
    else:
        caption.append("CIFAR-10")
    if groups:
        splits = in_words(common(group["settings"]["split"] for group in groups))
        epochs = in_words(common(len(group["mean"]["train_loss"]) for group in groups))
        caption.append(f"{splits} split, {epochs} epochs")
        caption.append(how_training_is_measured(groups, final))
    device = in_words(summary["environment"]["device"])
    caption.append(f"code {in_words(summary['code'])}, {device}")
    colour = REHEARSAL_COLOUR if summary["rehearsal"] else "black"
    lines = [*([note] if note else []), textwrap.fill("; ".join(caption), CAPTION_WIDTH)]
    figure.supxlabel("\n".join(lines), fontsize=7, color=colour)
    return figure, panels


def how_training_is_measured(groups: Sequence[Group], final: bool) -> str:
    if final:
        return "training is measured as validation is, by the final weights"
    fields = {"dropout_rate": "dropout", "augmentation": "augmentation"}
    handicaps = [
        words
        for field, words in fields.items()
        if any(group["settings"][field] for group in groups)
    ]
    return (
        "training is measured on each batch as it is trained on"
        + f", with a setting's own {in_words(handicaps)}" * bool(handicaps)
    )


def styles(summary: Summary) -> dict[str, tuple[str, str, str]]:
    """Colour, marker and line of each setting: fixed for the study's own, what is left for others.

    A network that is retrained has the colour of the one that it was, and a dashed line.
    """
    found = {}
    for group in summary["groups"]:
        words = group["label"].split(", ")
        place = next((PLACES[word] for word in words if word in PLACES), None)
        found[group["label"]] = (place, "--" if words[0] == "retrained" else "-")
    free = [i for i in range(len(PALETTE)) if i not in [place for place, _ in found.values()]]
    others = [label for label, (place, _) in found.items() if place is None]
    places = free or range(len(PALETTE))
    for i, label in enumerate(others):  # more settings than colours: those of the second round dash
        found[label] = (places[i % len(places)], "--" if i >= len(places) else found[label][1])
    return {label: (*PALETTE[place], line) for label, (place, line) in found.items()}


def share_scale(panels: Sequence[Axes]) -> None:
    """Give panels that stand side by side one scale, which holds what all of them show."""
    if "log" in [axes.get_yscale() for axes in panels]:
        for axes in panels:
            axes.set_yscale("log")
    for axes in panels[1:]:
        axes.sharey(panels[0])
    panels[0].autoscale(axis="y")


def share_log_scale(panels: Sequence[Axes]) -> None:
    """Likewise, a logarithmic one, with plain numbers and enough of them on a narrow one, too."""
    for axes in panels:
        axes.set_yscale("log")
    share_scale(panels)
    lowest, highest = panels[0].get_ylim()
    if highest < 1e4 * lowest:
        panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panels[0].yaxis.set_major_formatter("{x:g}")
    panels[0].yaxis.set_minor_formatter(NullFormatter())


def plot(axes: Axes, curve: Sequence[float | None], quantity: str, **style: Any) -> None:
    """A curve over the epochs, counted from 1; where it has no value (diverged) it stops."""
    scale = 100 if quantity == "accuracy" else 1
    values = [float("nan") if value is None else scale * value for value in curve]
    if len(values) == 1:
        style.setdefault("marker", "o")  # a line needs two points to be seen
    axes.plot(range(1, len(values) + 1), values, **style)


def seeds_and_mean(axes: Axes, group: Group, quantity: str, colour: str, mean: str) -> None:
    """Training and validation of one setting: every seed faint, the mean strong."""
    for part, words, line in (("train", "training", "--"), ("val", "validation", "-")):
        name = f"{part}_{quantity}"
        shade = TRAINING_COLOUR if part == "train" else colour
        for run in group["runs"]:
            plot(axes, run[name], quantity, color=shade, linewidth=0.7, alpha=0.35)
        plot(
            axes,
            group["mean"][name],
            quantity,
            color=shade,
            linewidth=2,
            linestyle=line,
            label=f"{words}, {mean}",
        )
    label_axes(axes, quantity)


def label_axes(axes: Axes, quantity: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(AXIS_LABELS[quantity])
    if quantity == "loss" and axes.dataLim.y1 > LARGE_LOSS:
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def cut_off(axes: Axes, top: float) -> None:
    """End the axis of a loss below its highest values, and say in the panel how high they are."""
    highest = f"above {top:g} not shown: up to {axes.dataLim.y1:,.0f} nats"
    axes.set_ylim(top=top)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8}  # legible across curves
    place = {"transform": axes.transAxes, "ha": "right", "va": "top"}
    axes.text(0.98, 0.96, highest, fontsize=8, bbox=box, **place)


def mark_guessing(line: Callable[..., Line2D], value: float) -> Line2D:
    """Mark, by axhline or axvline, where guessing ends."""
    return line(value, color="black", linestyle=":", linewidth=1, label="guessing", zorder=0)


def dots(
    axes: Axes,
    row: int,
    values: Sequence[float | None],
    spread: dict[str, float | None],
    style: tuple[str, str, str],
) -> None:
    """One row of a dot plot, in percent: every seed faint, below them the mean and its interval."""
    colour, marker, line = style
    known = [100 * value for value in values if value is not None]
    axes.plot(known, [row] * len(known), "o", color=colour, alpha=0.4, markersize=4)
    if spread["mean"] is not None:
        axes.errorbar(
            100 * spread["mean"],
            row + 0.22,
            xerr=spread["ci95"] and 100 * spread["ci95"],
            color=colour,
            marker=marker,
            markerfacecolor="white" if line == "--" else colour,
            capsize=4,
        )


def at_the_end(run: dict[str, Any], quantity: str) -> float | None:
    """A run's "test_accuracy" or "gap"; None where it diverged."""
    return generalisation_gap(run) if quantity == "gap" else run["test_accuracy"]


def legend_of_panels(figure: Figure, *others: Artist) -> None:
    """One legend for panels with a setting each, whose colours their titles tell."""
    lines = [
        Line2D([], [], color=TRAINING_COLOUR, linewidth=2, linestyle="--", label="training, mean"),
        Line2D([], [], color="black", linewidth=2, label="validation, mean (in colour)"),
        Line2D([], [], color="black", linewidth=0.7, alpha=0.35, label="one seed"),
    ]
    figure.legend(handles=[*lines, *others], loc="outside right upper", frameon=False)


def counted(group: Group) -> str:
    """How many seeds a mean is over, and how many diverged."""
    sound = len(group["runs"]) - group["diverged"]
    words = f"{sound} seed{'' if sound == 1 else 's'}"
    return words + (f" ({group['diverged']} diverged)" if group["diverged"] else "")


def smooth(curve: Sequence[float | None], window: int) -> list[float | None]:
    """The centred moving mean over `window` epochs, over fewer at both ends.

    For an even window the extra epoch is the earlier one.
    """
    smoothed = []
    for at in range(len(curve)):
        near = curve[max(0, at - window // 2) : at + (window + 1) // 2]
        known = [value for value in near if value is not None]
        smoothed.append(sum(known) / len(known) if known and curve[at] is not None else None)
    return smoothed
