"""What the figures share: colours, an empty figure with its caption, curves, dots and legends."""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from lab.summary import common, in_words

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
TRAINING_COLOUR = "#7F7F7F"
WARNING_COLOUR = "#B22222"  # of a rehearsal and of a failure
FAINT = {"linewidth": 0.8, "alpha": 0.35}  # one seed
DIVERGED = {"marker": "x", "color": "black", "linestyle": "none", "markersize": 8}
CAPTION_WIDTH = 150  # characters that fit below a figure
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 11,
    "axes.titlesize": 11,
    "figure.dpi": 120,
    "legend.frameon": False,
}
CHANCE = 0.1  # the accuracy of guessing among the ten classes
HIGHEST_LOSS = 8.0  # nats; a mean loss above this would flatten all others, so axes end below it
AXIS_LABELS = {"loss": "loss (nats)", "accuracy": "accuracy (%)"}
GUESSING = {"loss": -math.log(CHANCE), "accuracy": 100 * CHANCE}  # on the axes of figures

Summary = dict[str, Any]
Group = dict[str, Any]
Style = tuple[str, str, str]  # colour, marker, line
Figures = Mapping[str, Callable[[], Figure | None]]  # by name; None where it cannot be drawn here


def canvas(
    summary: Summary,
    words: str,
    groups: Sequence[Group] = (),
    rows: int = 1,
    columns: int = 1,
    height: float = 4.0,
    width: float = 10.0,
    note: str = "",
    curves: bool = False,
) -> tuple[Figure, list[Axes]]:
    """An empty figure with its title, and below it what the data are; its panels row by row.

    groups are those shown. curves says that training is shown by its curves: the caption then says
    how these are measured. Sizes are in inches.
    """
    lines = [note] if note else []
    lines.append("; ".join(caption(summary, groups, curves)))
    lines = [
        part for line in lines for part in textwrap.wrap(line, round(CAPTION_WIDTH * width / 10))
    ]
    figure = Figure(figsize=(width, height + 0.2 * len(lines)), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[height, 0.2 * len(lines)])
    rehearsal = "REHEARSAL " if summary["rehearsal"] else ""
    top.suptitle(f"{rehearsal}{summary['title']}: {words}", fontweight="bold", fontsize=12)
    colour = WARNING_COLOUR if summary["rehearsal"] else "black"
    place = {"ha": "center", "va": "center", "fontsize": 8, "color": colour}
    bottom.text(0.5, 0.5, "\n".join(lines), **place)
    return figure, list(top.subplots(rows, columns, squeeze=False).flat)


def caption(summary: Summary, groups: Sequence[Group], curves: bool) -> list[str]:
    """What the data of a figure are, in phrases."""
    found = ["handwritten digits, not a finding" if summary["rehearsal"] else "CIFAR-10"]
    if summary["finished"]:
        found.append("{runs} of {of} runs".format(**summary["finished"]))
    if groups:
        epochs = common(len(group["mean"]["train_loss"]) for group in groups)
        found.append(f"{in_words(common(g['settings']['split'] for g in groups))} split")
        found.append(f"{in_words(epochs)} epoch{'' if epochs == 1 else 's'}")
    if curves:
        found.append("training is measured on each batch as it is trained on")
        if any(g["settings"]["dropout_rate"] or g["settings"]["augmentation"] for g in groups):
            found[-1] += ", with a setting's own dropout and augmentation"
    return [*found, in_words(summary["environment"]["device"])]


def styles(summary: Summary) -> dict[str, Style]:
    """Colour, marker and line of each setting, by its place among the settings.

    A setting that starts from another's trained weights, or differs from it only in drop_last, has
    that one's colour and a dashed line, if it is the first to. So has the second round of colours.
    """
    found: dict[str, Style] = {}
    taken, place = set(), 0
    for group in summary["groups"]:
        source = next((o["label"] for o in summary["groups"] if is_variant(group, o)), None)
        if source in found and source not in taken:
            taken.add(source)
            found[group["label"]] = (*found[source][:2], "--")
            continue
        line = "-" if place < len(PALETTE) else "--"
        found[group["label"]] = (*PALETTE[place % len(PALETTE)], line)
        place += 1
    return found


def is_variant(group: Group, other: Group) -> bool:
    """Whether a setting starts from another, or is it without the short last batch."""
    settings, others = group["settings"], other["settings"]
    if settings.get("start"):
        return settings["start"] == {**others, "epochs": settings["start"].get("epochs")}
    return settings.get("drop_last", False) and {**settings, "drop_last": False} == others


def legend(figure: Figure, handles: Sequence[Artist], labels: Sequence[str] | None = None) -> None:
    """A legend below the panels, in as few rows as fit."""
    labels = [handle.get_label() for handle in handles] if labels is None else labels
    room = figure.get_figwidth() * 11  # characters of the legend's type
    longest = max(map(len, labels), default=1) + 6
    columns = max(1, min(len(labels), int(room // longest)))
    figure.subfigs[0].legend(
        handles, labels, loc="outside lower center", ncols=columns, fontsize=10
    )


def legend_of(figure: Figure, axes: Axes, *others: Artist) -> None:
    """A legend, below the panels, of what one of them shows."""
    handles, labels = axes.get_legend_handles_labels()
    handles, labels = [*handles, *others], [*labels, *(other.get_label() for other in others)]
    legend(figure, handles, labels)


def one_seed(words: str = "one seed", **style: Any) -> Line2D:
    """The legend's entry of a single seed."""
    return Line2D([], [], color="black", label=words, **(FAINT | style))


def plot(axes: Axes, curve: Sequence[float | None], quantity: str, **style: Any) -> None:
    """A curve over the epochs, counted from 1; where it has no value (diverged) it stops."""
    scale = 100 if quantity == "accuracy" else 1
    values = [float("nan") if value is None else scale * value for value in curve]
    if len(values) == 1:
        style.setdefault("marker", "o")  # a line needs two points to be seen
    axes.plot(range(1, len(values) + 1), values, **style)


def seeds_and_mean(axes: Axes, group: Group, quantity: str, colour: str) -> None:
    """Training and validation of one setting: seeds faint, their mean strong, × where one ends."""
    for part, words, line in (("train", "training, mean", "--"), ("val", "validation, mean", "-")):
        name = f"{part}_{quantity}"
        shade = TRAINING_COLOUR if part == "train" else colour
        for run in group["runs"]:
            plot(axes, run[name], quantity, color=shade, **FAINT)
        style = {"color": shade, "linewidth": 2, "linestyle": line, "label": words}
        plot(axes, group["mean"][name], quantity, **style)
    label_axes(axes, quantity, len(group["mean"][f"train_{quantity}"]))
    mark_divergence(axes, group)


def mark_divergence(axes: Axes, group: Group) -> None:
    """A × at the top of the panel in each epoch in which a seed diverged."""
    ends = [run["diverged_at_epoch"] for run in group["runs"]]
    ends = [end + 1 for end in ends if end is not None]
    if ends:
        place = {"transform": axes.get_xaxis_transform(), "clip_on": False}
        axes.plot(ends, [0.97] * len(ends), label="a seed diverged", **DIVERGED, **place)


def label_axes(axes: Axes, quantity: str, epochs: int) -> None:
    """Name the axes. Epochs begin at 1; accuracies lie between 0 and 100%."""
    axes.set_xlabel("epoch")
    axes.set_ylabel(AXIS_LABELS[quantity])
    axes.set_xticks(epoch_ticks(epochs))
    axes.set_xlim(0.5, epochs + 0.5)


def epoch_ticks(epochs: int) -> list[int]:
    """The first epoch, and about five round ones."""
    step = max(1, 5 * round(epochs / 25)) if epochs > 12 else max(1, round(epochs / 5))
    return [1, *(epoch for epoch in range(step, epochs + 1, step) if epoch > 1)]


def share_scales(panels: Mapping[str, Sequence[Axes]], groups: Sequence[Group]) -> None:
    """Give panels the scale of their quantity ("loss", "accuracy"), over the means of all groups.

    A scale of losses ends where one setting or seed would flatten the others, and says what is cut.
    """
    for axes in panels.get("accuracy", []):
        axes.set_ylim(0, 100)
    losses = values_of(groups, "loss")
    top = min(HIGHEST_LOSS, 1.05 * max(losses, default=1.0))
    for axes in panels.get("loss", []):
        axes.set_ylim(0, top)
        shown = [
            y
            for line in axes.get_lines()
            for y in line.get_ydata()
            if line.get_transform() == axes.transData
        ]
        highest = max((y for y in shown if math.isfinite(y)), default=0.0)
        if highest > top:
            tell_cut(
                axes, f"up to {highest:,.1f} nats" if highest < 1e4 else f"up to {highest:.0e} nats"
            )


def values_of(groups: Sequence[Group], quantity: str) -> list[float]:
    """Every value of the mean curves of a quantity."""
    curves = [group["mean"][f"{part}_{quantity}"] for group in groups for part in ("train", "val")]
    return [value for curve in curves for value in curve if value is not None]


def tell_cut(axes: Axes, words: str) -> None:
    """Say in a panel what its scale leaves out."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8}  # legible across curves
    place = {"transform": axes.transAxes, "ha": "right", "va": "top", "fontsize": 9}
    axes.text(0.98, 0.98, f"cut: {words}", bbox=box, **place)


def share_log_scale(panels: Sequence[Axes]) -> None:
    """Give panels one logarithmic scale, with plain numbers, and enough of them on a narrow one."""
    for axes in panels:
        axes.set_yscale("log")
    for axes in panels[1:]:
        axes.sharey(panels[0])
    panels[0].autoscale(axis="y")
    lowest, highest = panels[0].get_ylim()
    if highest < 1e4 * lowest:
        panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panels[0].yaxis.set_major_formatter("{x:g}")
    panels[0].yaxis.set_minor_formatter(NullFormatter())


def whole_numbers(axes: Axes) -> None:
    """Ticks of the x axis at whole numbers only."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def mark_guessing(line: Callable[..., Line2D], value: float) -> Line2D:
    """Mark, by axhline or axvline, what guessing reaches."""
    return line(value, color="black", linestyle=":", linewidth=1, label="guessing", zorder=0)


def dots(
    axes: Axes,
    row: float,
    values: Sequence[float | None],
    spread: dict[str, float | None],
    style: Style,
) -> None:
    """One row of a dot plot, in percent: every seed faint, below them the mean and its interval.

    The interval of two seeds is many times their distance, and is left out.
    """
    colour, marker, line = style
    known = [100 * value for value in values if value is not None]
    axes.plot(known, [row] * len(known), "o", color=colour, alpha=0.4, markersize=5)
    if spread["mean"] is not None:
        axes.errorbar(
            100 * spread["mean"],
            row + 0.25,
            xerr=100 * spread["ci95"] if spread["ci95"] and len(known) > 2 else None,
            color=colour,
            marker=marker,
            markersize=7,
            markerfacecolor="white" if line == "--" else colour,
            capsize=4,
        )


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a dot plot, from the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)


def within_percent(axes: Axes) -> None:
    """Keep an x axis of accuracies between 0 and 100%."""
    low, high = axes.get_xlim()
    axes.set_xlim(max(0, low), min(100, high))


def counted(group: Group) -> str:
    """How many seeds a mean is over, and how many diverged."""
    sound = len(group["runs"]) - group["diverged"]
    words = f"{sound} seed{'' if sound == 1 else 's'}"
    return words + (f" ({group['diverged']} diverged)" if group["diverged"] else "")


def name_of(group: Group) -> str:
    """A group's label, and how many of its seeds diverged, if any did."""
    lost = group["diverged"]
    return group["label"] + (f"\n({lost} of {len(group['runs'])} diverged)" if lost else "")


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
