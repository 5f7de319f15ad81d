"""The figures that every sweep has: curves, their comparison, results, and the best model."""

from collections.abc import Sequence
from functools import partial

from matplotlib.figure import Figure

from lab.figures.canvas import (
    AXIS_LABELS,
    Figures,
    Group,
    Summary,
    canvas,
    counted,
    label_axes,
    legend_of,
    one_seed,
    plot,
    seeds_and_mean,
    share_scales,
    smooth,
    styles,
)
from lab.figures.mistakes import best_model_figures
from lab.figures.results import results


def figures(summary: Summary) -> Figures:
    """What the settings reach, their curves compared, each one's curves, and the best model."""
    groups = summary["groups"]
    return {
        "test_accuracy": partial(results, summary, groups),
        "comparison": partial(comparison, summary, groups),
        **each(summary, groups),
        **best_model_figures(summary),
    }


def each(summary: Summary, groups: Sequence[Group]) -> Figures:
    """The curves of each setting, on scales that they share."""
    return {group["label"]: partial(curves, summary, group, groups) for group in groups}


def curves(summary: Summary, group: Group, others: Sequence[Group]) -> Figure:
    """One setting: loss and accuracy, training and validation, every seed and the mean.

    others are the settings whose scales it shares.
    """
    words = f"{group['label']}, {counted(group)}"
    figure, panels = canvas(summary, words, [group], columns=2, height=3.8, curves=True)
    colour = styles(summary)[group["label"]][0]
    for axes, quantity in zip(panels, AXIS_LABELS, strict=True):
        seeds_and_mean(axes, group, quantity, colour)
    share_scales(dict(zip(AXIS_LABELS, ([axes] for axes in panels), strict=True)), others)
    legend_of(figure, panels[0], one_seed())
    return figure


def comparison(summary: Summary, groups: Sequence[Group]) -> Figure:
    """The mean curves of several settings: training as it is, validation smoothed."""
    window = summary["settings"].get("SMOOTHING_WINDOW", 1)
    parts = [(quantity, part) for quantity in AXIS_LABELS for part in ("train", "val")]
    figure, panels = canvas(summary, "mean curves", groups, 2, 2, height=7, curves=True)
    look = styles(summary)
    for axes, (quantity, part) in zip(panels, parts, strict=True):
        for group in groups:
            curve = group["mean"][f"{part}_{quantity}"]
            colour, marker, line = look[group["label"]]
            plot(
                axes,
                curve if part == "train" else smooth(curve, window),
                quantity,
                color=colour,
                marker=marker,
                linestyle=line,
                markersize=5,
                markevery=max(1, len(curve) // 6),
                label=f"{group['label']}, {counted(group)}",
            )
        label_axes(axes, quantity, max(len(group["mean"]["train_loss"]) for group in groups))
        smoothed = f", moving mean of {window} epochs" if window > 1 else ""
        axes.set_title("training" if part == "train" else f"validation{smoothed}")
    share_scales({"loss": panels[:2], "accuracy": panels[2:]}, groups)
    legend_of(figure, panels[0])
    return figure
