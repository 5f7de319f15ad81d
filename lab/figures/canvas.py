"""What the figures share: colours, an empty figure with its caption, curves, dots and legends.

Colours are in the order of an experiment's settings, the same in all of its figures. Grey is
training where a figure has both. Single seeds are faint, their mean is strong.
"""

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lab.summary import common, in_words

# Okabe and Ito's colours (2008), and the marker that goes with each
PALETTE = (
    *(("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D")),
    *(("#E69F00", "v"), ("#56B4E9", "P"), ("#000000", "X")),
)
LINES = ("-", "--", ":", "-.")  # of the first round of colours, the second, and so on
TRAINING_COLOUR = "#7F7F7F"
WARNING_COLOUR = "#B22222"  # of a rehearsal and of a failure
FAINT = {"linewidth": 0.8, "alpha": 0.35}  # one seed's curve
DOT = {"marker": "o", "linestyle": "none", "alpha": 0.4, "markersize": 5}  # one seed's number
MARK = {"color": "black", "linewidth": 1, "zorder": 0}  # a line across a panel
DIVERGED = {"marker": "x", "color": "black", "linestyle": "none", "markersize": 8}
STYLE = {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True}
STYLE |= {"grid.alpha": 0.25, "legend.frameon": False, "figure.dpi": 120}
STYLE |= {"font.size": 12, "axes.titlesize": 12, "figure.titlesize": 13}
STYLE |= {"figure.titleweight": "bold", "legend.fontsize": 11}
SMALL = 10  # points, of captions and of numbers in a panel: legible at half size
CAPTION_WIDTH = 130  # characters that fit below a figure
LEGEND_WIDTH = 112  # characters, with 7 for the sign of each entry
BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}  # words across curves
PARTS = ("train", "val")
AXIS_LABELS = {"loss": "loss (nats)", "accuracy": "accuracy (%)"}
DATA = {"cifar10": "CIFAR-10", "digits": "handwritten digits"}
HIGHEST_LOSS = 8.0  # nats; more than three times that of guessing
MOST_DROPS = 10  # a schedule that changes more often has no drops to mark

Summary = dict[str, Any]
Group = dict[str, Any]
Style = tuple[str, str, str]  # colour, marker, line
Row = tuple[str, Sequence[float | None], Mapping[str, float | None], Style]
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
    curves: bool = False,
) -> tuple[Figure, list[Axes]]:
    """An empty figure with its title, and below it what the data are; its panels, row by row.

    groups are those that it shows; row is the height of a row of panels in inches. curves says
    that it shows training by its curves, and the caption how these are measured.
    """
    rows = -(-panels // columns)
    lines = [note, "; ".join(caption(summary, groups, curves))]
    lines = [part for line in lines if line for part in wrapped(line)]
    figure = Figure(figsize=(10, 0.4 + row * rows), layout="constrained")
    grow(figure, 0.1 + 0.18 * len(lines))
    rehearsal = "REHEARSAL " if summary["rehearsal"] else ""
    figure.suptitle(f"{rehearsal}{summary['title']}: {words}")
    colour = WARNING_COLOUR if summary["rehearsal"] else "black"
    style = {"fontsize": SMALL, "color": colour, "y": 0.005, "va": "bottom"}
    text = figure.supxlabel("\n".join(lines), **style)
    text.set_in_layout(False)  # the layout leaves room for it
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[panels:]:
        unused.remove()
    return figure, axes[:panels]


def grow(figure: Figure, inches: float) -> float:
    """Make a figure higher by an empty strip at its foot; the fraction that is empty below."""
    height, (_, empty, _, _) = figure.get_figheight(), figure.get_layout_engine().get()["rect"]
    below = (empty * height + inches) / (height + inches)
    figure.set_figheight(height + inches)
    figure.get_layout_engine().set(rect=(0, below, 1, 1 - below))
    return below


def wrapped(line: str) -> list[str]:
    """A caption's line in as few lines as fit below a figure, all about as long."""
    few = -(-len(line) // CAPTION_WIDTH)
    return textwrap.wrap(line, min(CAPTION_WIDTH, len(line) // few + 8))


def caption(summary: Summary, groups: Sequence[Group], curves: bool) -> list[str]:
    """What the data of a figure are, in phrases."""
    found = ["a rehearsal, not a finding"] if summary["rehearsal"] else []
    if summary["finished"]:
        found.append("{runs} of {of} runs".format(**summary["finished"]))
    if groups:
        names = common(DATA.get(g["settings"]["dataset"], g["settings"]["dataset"]) for g in groups)
        epochs = common(len(group["mean"]["train_loss"]) for group in groups)
        split = in_words(common(group["settings"]["split"] for group in groups))
        found = [in_words(names), *found, f"{split} split"]
        found.append(f"{in_words(epochs)} epoch{'' if epochs == 1 else 's'}")
    if curves:
        found.append("training is measured on each batch as it is trained on")
        fields = {"dropout": "dropout_rate", "augmentation": "augmentation"}
        own = [word for word, field in fields.items() if any(g["settings"][field] for g in groups)]
        found[-1] += f", with a setting's own {in_words(own)}" if own else ""
    return found + ([in_words(summary["environment"]["device"])] if groups else [])


def styles(summary: Summary) -> dict[str, Style]:
    """Colour, marker and line of each setting, in the order of the settings.

    The first that starts from another's trained weights, or differs from it in drop_last only, has
    that one's colour and a dashed line.
    """
    found: dict[str, Style] = {}
    for group in summary["groups"]:
        sources = [found[o["label"]] for o in summary["groups"][: len(found)] if varies(group, o)]
        wanted = [(colour, marker, "--") for colour, marker, _ in sources]
        wanted += [(*pair, line) for line in LINES for pair in PALETTE]
        free = (style for style in wanted if style not in found.values())
        found[group["label"]] = next(free, wanted[0])
    return found


def varies(group: Group, other: Group) -> bool:
    """Whether a setting starts from another, or is it without the short last batch."""
    settings, others = group["settings"], other["settings"]
    if settings.get("start"):
        return settings["start"] == {**others, "epochs": settings["start"].get("epochs")}
    return settings.get("drop_last", False) and {**settings, "drop_last": False} == others


def legend(figure: Figure, axes: Axes, *others: Artist) -> None:
    """A legend of what a panel shows, and others, below the panels in as few rows as fit."""
    handles = [*axes.get_legend_handles_labels()[0], *others]
    named = {handle.get_label(): handle for handle in handles}
    columns = max(1, LEGEND_WIDTH // (max(map(len, named), default=1) + 7))
    rows = -(-len(named) // columns)
    below = figure.get_layout_engine().get()["rect"][1] * figure.get_figheight()
    grow(figure, 0.12 + 0.23 * rows)
    below /= figure.get_figheight()
    style = {"bbox_to_anchor": (0, below, 1, 1 - below), "borderaxespad": 0.2}
    style["ncols"] = max(1, -(-len(named) // max(1, rows)))  # of rows that are about as long
    figure.legend(named.values(), named, loc="lower center", **style)


def entry(words: str, **style: Any) -> Line2D:
    """A legend's entry in black: by default that of a faint curve."""
    return Line2D([], [], color="black", label=words, **(style or FAINT))


def plot(axes: Axes, curve: Sequence[float | None], name: str, **style: Any) -> None:
    """A curve ("val_loss") over the epochs from 1; where it has no value (diverged) it stops."""
    scale = 100 if name.endswith("accuracy") else 1
    values = [float("nan") if value is None else scale * value for value in curve]
    if len(values) == 1:
        style.setdefault("marker", "o")  # a line needs two points to be seen
    axes.plot(range(1, len(values) + 1), values, **style)


def seeds_and_mean(axes: Axes, group: Group, name: str, last: int | None = None, **style) -> None:
    """One curve of a setting until an epoch: every seed faint, the mean strong."""
    for run in group["runs"]:
        plot(axes, run[name][:last], name, color=style["color"], **FAINT)
    plot(axes, group["mean"][name][:last], name, **({"linewidth": 2} | style))


def train_and_val(axes: Axes, group: Group, quantity: str, colour: str) -> None:
    """Training and validation of one setting, and a × where a seed diverged."""
    training = {"color": TRAINING_COLOUR, "linestyle": "--", "label": "training, mean"}
    seeds_and_mean(axes, group, f"train_{quantity}", **training)
    seeds_and_mean(axes, group, f"val_{quantity}", color=colour, label="validation, mean")
    label_epochs(axes, quantity, [group])
    mark_divergence(axes, [group])


def mark_divergence(axes: Axes, groups: Sequence[Group]) -> None:
    """A × at the top of the panel in each epoch in which a seed diverged."""
    ends = [run["diverged_at_epoch"] for group in groups for run in group["runs"]]
    if ends := [end + 1 for end in ends if end is not None]:
        place = {"transform": axes.get_xaxis_transform(), "clip_on": False}
        axes.plot(ends, [0.97] * len(ends), label="a seed diverged", **DIVERGED, **place)


def label_epochs(
    axes: Axes, quantity: str, groups: Sequence[Group], last: int | None = None
) -> None:
    """Name the axes of curves. Epochs begin at 1; drops of the learning rate are marked."""
    epochs = last or max(len(group["mean"]["train_loss"]) for group in groups)
    falls = {at for g in groups for at in drops(g["settings"]["learning_rate"]) if at <= epochs}
    axes.set(xlabel="epoch", ylabel=AXIS_LABELS[quantity], xlim=(0.5, epochs + 0.5))
    axes.set_xticks(epoch_ticks(epochs, falls))
    for at in falls:
        axes.axvline(at - 0.5, label="learning rate drops", linestyle=":", **MARK)


def drops(rates: float | Sequence[float]) -> list[int]:
    """The epochs, counted from 1, that begin at another rate than the last; few, or none."""
    rates = rates if isinstance(rates, list) else [rates]
    found = [at + 1 for at in range(1, len(rates)) if rates[at] != rates[at - 1]]
    return found if len(found) <= MOST_DROPS else []


def epoch_ticks(epochs: int, falls: Iterable[int] = ()) -> list[int]:
    """The first epoch, and where the learning rate drops and the last, or about five round ones."""
    step = max(1, 5 * round(epochs / 25)) if epochs > 12 else max(1, round(epochs / 5))
    round_ones = [epoch for epoch in range(step, epochs + 1, step) if epoch > step / 2]
    return sorted({1, *falls, epochs}) if falls else [1, *(at for at in round_ones if at > 1)]


def values_of(groups: Sequence[Group], quantity: str, parts: Sequence[str] = PARTS) -> list[float]:
    """Every value of a quantity's curves, in all runs."""
    curves = [run[f"{part}_{quantity}"] for g in groups for run in g["runs"] for part in parts]
    return [value for curve in curves for value in curve]


def share_scale(panels: Iterable[Axes], quantity: str, values: Iterable[float | None]) -> None:
    """Give panels one scale, that of these values. Accuracies lie between 0 and 100%.

    A scale of losses ends where a few would flatten all others, and a panel says what it cuts.
    """
    known = sorted(value for value in values if value is not None) or [1.0]
    if quantity == "accuracy":
        low = min(90, 10 * math.floor(10 * known[0])) if known[0] > 0.2 else 0
        limits = (low, max(low + 10, min(100, 10 * math.ceil(10 * known[-1]))))
    else:
        most = 2 * known[int(0.95 * (len(known) - 1))]
        limits = (0, 1.05 * min(known[-1], most, HIGHEST_LOSS))
    for axes in panels:
        axes.set_ylim(limits)
        if (highest := axes.dataLim.y1) > limits[1] and quantity == "loss":
            words = f"{highest:,.1f}" if highest < 1e6 else f"{highest:.0e}"
            style = {"ha": "right", "va": "top", "fontsize": SMALL, "bbox": BOX}
            axes.text(0.99, 0.99, f"cut: up to {words} nats", transform=axes.transAxes, **style)


def mark_guessing(line: Callable[..., Line2D], quantity: str) -> None:
    """Mark, by axhline or axvline, what guessing among ten classes reaches."""
    value = {"loss": math.log(10), "accuracy": 10}[quantity]  # in the units of the axes
    line(value, label="guessing", linestyle="-.", **MARK)


def dots(
    axes: Axes, rows: Sequence[Row], label: str, scale: float = 100, below: float = 0.25
) -> None:
    """A row of dots for each (name, seeds, spread, style): seeds faint, mean and interval below.

    The interval of two seeds is many times their distance, and is left out. label names the axis;
    what the dots are is added. An axis in percent (%) stays between 0 and 100.
    """
    drawn = "seeds and mean"
    for at, (_, values, spread, (colour, marker, line)) in enumerate(rows):
        known = [scale * value for value in values if value is not None]
        axes.plot(known, [at] * len(known), color=colour or None, **DOT)
        if spread["mean"] is not None:
            style = {"color": colour, "marker": marker, "markersize": 7, "capsize": 4}
            style["markerfacecolor"] = colour if line == "-" else "white"
            interval = scale * spread["ci95"] if spread["ci95"] and len(known) > 2 else None
            drawn = drawn if interval is None else "seeds, mean, 95% interval"
            axes.errorbar(scale * spread["mean"], at + below, xerr=interval, **style)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set(xlabel=f"{label}\n{drawn}", ylim=(len(rows) - 0.4, -0.6))
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
