"""Every figure of the study, drawn from the summaries alone: `python plots.py` redraws them all.

Colour says which setting, in every figure the same; grey is training where a figure has both.
Single seeds are faint, their mean is strong. The colours are Okabe and Ito's (2008), which colour-
blind readers can tell apart, and markers tell the curves apart in black and white.
"""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import errors
from errors import UserError
from store import HERE, write

PALETTE = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
    ("#000000", "X"),
)
# the settings of the study as it stands; others take what is left, in the order they come
SETTINGS = ("lr=0.1", "lr=0.075", "lr=0.05", "lr=0.025", "lr=0.01")
TRAINING_COLOUR = "#7F7F7F"
REHEARSAL_COLOUR = "#B22222"
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 9,
    "figure.dpi": 150,
}
AXIS_LABELS = {"loss": "loss (nats)", "accuracy": "accuracy (%)"}

Summary = dict[str, Any]
Group = dict[str, Any]


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Draw all figures of one experiment into its folder as PNG; their paths."""
    paths = []
    with matplotlib.rc_context(STYLE):
        for name, figure in FIGURES[summary["experiment"]](summary).items():
            content = io.BytesIO()
            figure.savefig(content, format="png")
            path = folder / f"{name.replace(', ', '_').replace(' ', '_')}.png"
            write(path, content.getvalue())
            paths.append(path)
    return paths


def learning_rate_figures(summary: Summary) -> dict[str, Figure]:
    """One figure a learning rate, and the comparison of their means."""
    figures = {
        group["label"]: curves_of_group(summary, group, f"BaselineNet, {group['label']}")
        for group in summary["groups"]
    }
    return figures | {
        "comparison": comparison(summary, "BaselineNet: mean curves by learning rate")
    }


def curves_of_group(summary: Summary, group: Group, title: str) -> Figure:
    """One setting: loss and accuracy, training and validation, every seed and the mean."""
    figure, panels = canvas(summary, title, columns=2, height=3.6)
    colour, _ = styles(summary)[group["label"]]
    for axes, quantity in zip(panels, AXIS_LABELS, strict=True):
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
                label=f"{words}, mean of {counted(group)}",
            )
        label_axes(axes, quantity)
    panels[0].plot([], [], color="black", linewidth=0.7, alpha=0.35, label="one seed")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def comparison(summary: Summary, title: str) -> Figure:
    """The mean curves of all settings: training as it is, validation smoothed."""
    window = summary["settings"]["SMOOTHING_WINDOW"]
    figure, panels = canvas(summary, title, rows=2, columns=2, height=6)
    for axes, (quantity, part) in zip(
        panels, [(q, p) for q in AXIS_LABELS for p in ("train", "val")], strict=True
    ):
        for group in summary["groups"]:
            curve = group["mean"][f"{part}_{quantity}"]
            colour, marker = styles(summary)[group["label"]]
            plot(
                axes,
                curve if part == "train" else smooth(curve, window),
                quantity,
                color=colour,
                marker=marker,
                markersize=4,
                markevery=max(1, len(curve) // 6),
                label=f"{group['label']}, {counted(group)}",
            )
        label_axes(axes, quantity)
        axes.set_title("training" if part == "train" else f"validation, moving mean of {window}")
    for row in (panels[:2], panels[2:]):  # training beside validation on one scale
        row[1].sharey(row[0])
        row[0].autoscale(axis="y")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def canvas(
    summary: Summary, title: str, rows: int = 1, columns: int = 1, height: float = 4
) -> tuple[Figure, list[Axes]]:
    """An empty figure with its title, and below it what the data are; its panels row by row."""
    figure = Figure(figsize=(10, height), layout="constrained")
    figure.suptitle("REHEARSAL: " * summary["rehearsal"] + title, fontweight="bold")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    epochs = len(summary["groups"][0]["mean"]["train_loss"])
    split = summary["groups"][0]["settings"]["split"]
    if summary["rehearsal"]:
        data, colour = "REHEARSAL on handwritten digits, not a finding", REHEARSAL_COLOUR
    else:
        data, colour = "CIFAR-10", "black"
    caption = (
        f"{data}; {split} split, {epochs} epochs; training is measured on each batch as it is "
        f"trained on. Code {summary['code']}, {summary['environment']['device']}."
    )
    figure.supxlabel(caption, fontsize=7, color=colour)
    return figure, panels


def styles(summary: Summary) -> dict[str, tuple[str, str]]:
    """Colour and marker of each setting: fixed for the study's own, what is left for others."""
    labels = [group["label"] for group in summary["groups"]]
    known = {label: PALETTE[SETTINGS.index(label)] for label in labels if label in SETTINGS}
    others = [label for label in labels if label not in known]
    free = [style for style in PALETTE if style not in known.values()] or list(PALETTE)
    return known | {label: free[i % len(free)] for i, label in enumerate(others)}


def plot(axes: Axes, curve: Sequence[float | None], quantity: str, **style: Any) -> None:
    """A curve over the epochs, counted from 1; where it has no value (diverged) it stops."""
    scale = 100 if quantity == "accuracy" else 1
    values = [float("nan") if value is None else scale * value for value in curve]
    axes.plot(range(1, len(values) + 1), values, **style)


def label_axes(axes: Axes, quantity: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(AXIS_LABELS[quantity])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


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


FIGURES: dict[str, Callable[[Summary], dict[str, Figure]]] = {"exp1_lr": learning_rate_figures}


def main() -> None:
    """Redraw the figures of every experiment that has a summary."""
    paths = sorted(HERE.glob("results/*/summary.json"))
    paths += sorted(HERE.glob("results/quick/*/summary.json"))
    if not paths:
        raise UserError("there is no results/*/summary.json yet: run python exp1_lr.py first")
    damaged = []
    for path in paths:
        try:
            figures = draw(json.loads(path.read_text()), path.parent)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            damaged.append(f"{path} is damaged ({error})")
            continue
        print(f"{path.parent}: {', '.join(figure.name for figure in figures)}")
    if damaged:
        raise UserError(f"{'; '.join(damaged)}: run its script again, which trains nothing twice")


if __name__ == "__main__":
    errors.run(main)
