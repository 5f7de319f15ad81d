"""What the figures share: colours, an empty figure with its caption, curves, dots and legends."""

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lab.summary import class_count, common, in_words, spread
from lab.tables import half_way

# Okabe and Ito's colours (2008), and the marker that goes with each
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^DvPX"
LINES = ("-", "--", ":", "-.")  # of the first round of colours, the second, and so on
OPEN = {"linestyle": "--", "markerfacecolor": "white"}  # of what has another's colour
TRAINING_COLOUR = "#7F7F7F"
WARNING_COLOUR = "#B22222"  # of a rehearsal and of a failure
FAINT = {"linewidth": 0.8, "alpha": 0.35, "label": "one seed"}  # its curve
DOT = {"marker": "o", "linestyle": "none", "alpha": 0.4, "markersize": 5}  # one seed's number
ACROSS = {"color": "black", "linewidth": 1, "zorder": 0}  # a line across a panel
CROSS = {"marker": "x", "color": "black", "linestyle": "none", "markersize": 8}
DIVERGED = CROSS | {"label": "a seed diverged"}
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.dpi": 120,
    "font.size": 12,
    "axes.titlesize": 12,
    "figure.titlesize": 13,
    "figure.titleweight": "bold",
    "legend.fontsize": 11,
}
SMALL = 10  # points, of captions and of numbers in a panel: legible at half size
TITLE_WIDTH = 84  # characters that fit above a figure
CAPTION_WIDTH = 130  # below it
LEGEND_WIDTH = 112  # characters, with 7 for the sign of each entry
BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}  # words across curves
PARTS = ("train", "val")
AXIS_LABELS = {"loss": "loss (nats)", "accuracy": "accuracy (%)"}
DATA = {"cifar10": "CIFAR-10", "digits": "handwritten digits"}
HIGHEST_LOSS = 6.0  # nats; more than twice that of guessing
MOST_DROPS = 10  # a schedule that changes more often has no drops to mark

Summary = dict[str, Any]
Group = dict[str, Any]
Style = dict[str, Any]  # matplotlib's keywords: colour, marker, line
Row = tuple[str, Sequence[float | None], Style]
Figures = dict[str, Callable[[], Figure | None]]  # by name; None where it cannot be drawn here


def blank(
    summary: Summary,
    words: str,
    groups: Sequence[Group] = (),
    panels: int = 1,
    columns: int = 1,
    *,
    row: float = 3.5,
    note: str = "",
) -> tuple[Figure, list[Axes]]:
    """An empty figure with its title, and below it what the data are; its panels, row by row.

    groups are those that it shows; row is the height of a row of panels in inches.
    """
    rows = math.ceil(panels / columns)
    words_below = [*note.split("\n"), caption(summary, groups)]
    lines = [line for part in words_below for line in textwrap.wrap(part, CAPTION_WIDTH)]
    rehearsal = "REHEARSAL " if summary["rehearsal"] else ""
    title = textwrap.wrap(f"{rehearsal}{summary['title']}: {words}", TITLE_WIDTH)
    height = 0.25 + 0.25 * len(title) + row * rows + 0.18 * len(lines)
    figure = Figure(figsize=(10, height), layout="constrained")
    colour = WARNING_COLOUR if summary["rehearsal"] else "black"
    figure.suptitle("\n".join(title))
    figure.supxlabel("\n".join(lines), fontsize=SMALL, color=colour)
    # panels and legend have a part of their own, between title and caption
    axes = list(figure.subfigures().subplots(rows, columns, squeeze=False).flat)
    for unused in axes[panels:]:
        unused.remove()
    return figure, axes[:panels]


def caption(summary: Summary, groups: Sequence[Group]) -> str:
    """What the data of a figure are."""
    found = ["a rehearsal, not a finding"] if summary["rehearsal"] else []
    if summary["finished"]:
        found.append(half_way(summary))
    if groups:
        data = common(DATA.get(g["settings"]["dataset"], g["settings"]["dataset"]) for g in groups)
        split = common(group["settings"]["split"] for group in groups)
        epochs = common(len(group["mean"]["train_loss"]) for group in groups)
        found.append(in_words(data))
        found.append(f"{in_words(split)} split")
        found.append(f"{in_words(epochs)} epoch{'' if epochs == 1 else 's'}")
        found.append(in_words(summary["environment"]["device"]))
    return "; ".join(found)


def how_trained(groups: Sequence[Group]) -> str:
    """A note on how the training curves of these settings are measured."""
    fields = {"dropout": "dropout_rate", "augmentation": "augmentation"}
    own = [word for word, field in fields.items() if any(g["settings"][field] for g in groups)]
    words = "Training curves are measured on each batch before its update"
    return words + (f", with the setting's own {in_words(own)}" if own else "")


def styles(summary: Summary) -> dict[str, Style]:
    """Colour, marker and line of each setting, in the order of the settings.

    A setting that the script names as another's twin has that one's colour, with another line.
    Markers on other lines than solid ones are open.
    """
    looks = [
        {"color": colour, "marker": marker, "markerfacecolor": colour, "linestyle": "-"}
        for colour, marker in zip(COLOURS, MARKERS, strict=True)
    ]
    looks += [{**look, **OPEN, "linestyle": line} for line in LINES[1:] for look in looks]
    looks += [{**look, "marker": marker} for marker in MARKERS for look in looks]
    found: dict[str, Style] = {}
    for group in summary["groups"]:
        twin = found.get(summary.get("twins", {}).get(group["label"]))
        alike = [{**twin, **OPEN, "linestyle": line} for line in LINES[1:]] if twin else []
        unused = (look for look in [*alike, *looks] if look not in found.values())
        found[group["label"]] = next(unused, looks[0])
    return found


def legend(figure: Figure) -> None:
    """A legend of all panels, each label once, below them in as few rows as fit."""
    handles: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if not handles:
        return
    columns = max(1, LEGEND_WIDTH // (max(map(len, handles)) + 7))
    rows = math.ceil(len(handles) / columns)
    style = {"loc": "outside lower center", "ncols": math.ceil(len(handles) / rows)}
    figure.subfigs[0].legend(handles.values(), handles, borderaxespad=0, **style)
    figure.set_figheight(figure.get_figheight() + 0.12 + 0.23 * rows)


def percent(values: Iterable[float | None]) -> np.ndarray:
    """Fractions as percentages, for drawing: NaN where there is none."""
    return 100 * np.array(list(values), dtype=float)


def plot(axes: Axes, curve: Sequence[float | None], name: str, **style: Any) -> None:
    """A curve ("val_loss") over the epochs from 1; where it has no value (diverged) it stops."""
    values = percent(curve) if name.endswith("accuracy") else np.array(curve, dtype=float)
    if len(values) == 1:
        style.setdefault("marker", "o")  # a line needs two points to be seen
    axes.plot(range(1, len(values) + 1), values, **style)


def seeds_and_mean(axes: Axes, group: Group, name: str, **style: Any) -> None:
    """A curve of a setting: seeds faint, their mean strong, a × on the axis where one diverged."""
    for run in group["runs"]:
        plot(axes, run[name], name, color=style["color"], **FAINT)
        if (end := run["diverged_at_epoch"]) is not None:
            on_axis = {"transform": axes.get_xaxis_transform(), "clip_on": False}
            axes.plot(end + 1, 0, **on_axis, **DIVERGED)
    plot(axes, group["mean"][name], name, **{"linewidth": 2, **style})


def label_epochs(axes: Axes, quantity: str, groups: Sequence[Group], last: int = 0) -> None:
    """Name the axes of curves. Epochs begin at 1; drops of the learning rate are marked."""
    epochs = last or max(len(group["mean"]["train_loss"]) for group in groups)
    found = {group["label"]: drops(group["settings"]["learning_rate"]) for group in groups}
    falls = {at for falls in found.values() for at in falls if at <= epochs}
    whose = in_words([label for label, falls in found.items() if falls])
    axes.set(xlabel="epoch", ylabel=AXIS_LABELS[quantity], xlim=(0.5, epochs + 0.5))
    axes.set_xticks(sorted({1, *falls, epochs}) if falls else epoch_ticks(epochs))
    for at in falls:
        axes.axvline(at - 0.5, label=f"{whose}: learning rate drops", linestyle=":", **ACROSS)


def epoch_ticks(epochs: int) -> list[int]:
    """The first epoch and a few round ones."""
    round_ones = MaxNLocator(6, steps=[1, 2, 5, 10], integer=True).tick_values(1, epochs)
    return [1, *(int(epoch) for epoch in round_ones if 1 < epoch <= epochs)]


def drops(rates: float | Sequence[float]) -> list[int]:
    """The epochs, counted from 1, that begin at another rate than the last; few, or none."""
    rates = rates if isinstance(rates, list) else [rates]
    found = [at + 1 for at in range(1, len(rates)) if rates[at] != rates[at - 1]]
    return found if len(found) <= MOST_DROPS else []


def set_scale(axes: Axes, quantity: str, curves: Iterable[Sequence[float | None]]) -> None:
    """Show all accuracies of these curves, and losses from 0 to the highest.

    Losses above HIGHEST_LOSS would flatten all others: they are cut, and the panel says so.
    """
    values = [value for curve in curves for value in curve if value is not None] or [1.0]
    if quantity == "accuracy":
        low = min(90, 10 * math.floor(10 * min(values)))
        axes.set_ylim(low, max(low + 10, 10 * math.ceil(10 * max(values))))
        return
    top = 1.05 * min(max(values), HIGHEST_LOSS)
    axes.set_ylim(0, top)
    if (highest := axes.dataLim.y1) > top:
        for line in axes.lines:  # a line to a point far above would look vertical: a false jump
            line.set_ydata(np.minimum(np.asarray(line.get_ydata(), dtype=float), 1.2 * top))
        words = f"{highest:,.1f}" if highest < 1e6 else f"{highest:.0e}"
        style = {"ha": "right", "va": "top", "fontsize": SMALL, "bbox": BOX}
        axes.text(0.99, 0.99, f"cut off; the highest is {words}", transform=axes.transAxes, **style)


def mark_guessing(line: Callable[..., Line2D], quantity: str, groups: Sequence[Group]) -> None:
    """Mark, by axhline or axvline, what guessing reaches on the data of these settings."""
    n = class_count(run for group in groups for run in group["runs"])
    value = math.log(n) if quantity == "loss" else 100 / n  # in the units of the axes
    line(value, label="guessing", linestyle="-.", **ACROSS)


def dots(axes: Axes, rows: Sequence[Row], label: str) -> None:
    """A row of dots for each (name, seeds, style): seeds faint, below them mean and interval.

    The interval of two seeds is many times their distance, and is left out. label names the axis;
    one in percent (%) stays between 0 and 100. Seeds are fractions, None where one diverged.
    """
    for at, (_, seeds, style) in enumerate(rows):
        known = [100 * value for value in seeds if value is not None]
        axes.plot(known, [at] * len(known), color=style["color"], **DOT)
        if known:
            found = spread(known)
            interval = found["ci95"] if len(known) > 2 else None
            axes.errorbar(found["mean"], at + 0.25, xerr=interval, markersize=7, capsize=4, **style)
    drawn = any(len(seeds) > 2 for _, seeds, _ in rows)
    mean = {"color": "black", "fmt": "o", "markersize": 4, "capsize": 4}  # for the legend
    mean |= {"xerr": [], "label": "mean and 95% interval"} if drawn else {"label": "mean"}
    axes.plot([], [], color="black", label="one seed", **DOT)
    axes.errorbar([], [], **mean)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set(xlabel=label, ylim=(len(rows) - 0.4, -0.6))
    if "%" in label:
        axes.set_xlim(max(0, axes.get_xlim()[0]), min(100, axes.get_xlim()[1]))


def share_limits(panels: Sequence[Axes]) -> None:
    """Give panels one x axis, as wide as the widest."""
    low, high = zip(*(axes.get_xlim() for axes in panels), strict=True)
    for axes in panels:
        axes.set_xlim(min(low), max(high))


def counted(group: Group) -> str:
    """How many seeds a mean is over, and how many diverged."""
    sound = len(group["runs"]) - group["diverged"]
    words = f"{sound} seed{'' if sound == 1 else 's'}"
    return words + (f" ({group['diverged']} diverged)" if group["diverged"] else "")
