"""The figures that every sweep has: curves, their comparison, results, and the best model."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain, product
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.figures import canvas, mistakes, results
from lab.figures.canvas import AXIS_LABELS, Figures, Group, Summary


def figures(summary: Summary) -> Figures:
    """What the settings reach, their curves compared, each one's curves, and the best model."""
    groups = summary["groups"]
    return {
        "test_accuracy": partial(results.results, summary, groups),
        "comparison": partial(comparison, summary, groups),
        **each(summary, groups),
        **mistakes.figures(summary),
    }


def each(summary: Summary, groups: Sequence[Group]) -> Figures:
    """The curves of each setting, on scales that they share."""
    return {group["label"]: partial(curves, summary, group, groups) for group in groups}


def curves(summary: Summary, group: Group, others: Sequence[Group]) -> Figure:
    """One setting: loss and accuracy, training and validation, every seed and the mean.

    others are the settings whose scales it shares.
    """
    words = f"{group['label']}, {canvas.counted(group)}"
    figure, panels = canvas.blank(summary, words, [group], 2, 2, curves=True)
    for axes, quantity in zip(panels, AXIS_LABELS, strict=True):
        canvas.train_and_val(axes, group, quantity, canvas.styles(summary)[group["label"]][0])
        canvas.share_scale([axes], quantity, canvas.values_of(others, quantity))
    canvas.legend(figure, panels[0], canvas.entry("one seed"))
    return figure


def comparison(summary: Summary, groups: Sequence[Group]) -> Figure:
    """The mean curves of several settings: training as it is, validation smoothed."""
    window = summary["settings"].get("SMOOTHING_WINDOW", 1)
    figure, panels = canvas.blank(summary, "mean curves", groups, 4, 2, row=3.2, curves=True)
    look = canvas.styles(summary)
    for axes, (quantity, part) in zip(panels, product(AXIS_LABELS, canvas.PARTS), strict=True):
        for group in groups:
            name, label = f"{part}_{quantity}", f"{group['label']}, {canvas.counted(group)}"
            curve = smooth(group["mean"][name], window if part == "val" else 1)
            canvas.plot(axes, curve, name, label=label, **mean_style(look[group["label"]], curve))
        canvas.label_epochs(axes, quantity, groups)
        smoothed = f", moving mean of {window} epochs" if window > 1 else ""
        axes.set_title(f"validation{smoothed}" if part == "val" else "training")
    for row, quantity in ((panels[:2], "loss"), (panels[2:], "accuracy")):  # beside each other
        means = [g["mean"][f"{part}_{quantity}"] for g in groups for part in canvas.PARTS]
        canvas.share_scale(row, quantity, chain(*means))
    canvas.legend(figure, panels[0])
    return figure


def mean_style(style: canvas.Style, curve: Sequence[float | None]) -> dict[str, Any]:
    """How the mean curve of a setting is drawn beside others, with about six markers."""
    found = dict(zip(("color", "marker", "linestyle"), style, strict=True))
    return found | {"markersize": 5, "markevery": max(1, len(curve) // 6)}


def side_by_side(
    summary: Summary,
    words: str,
    titles: Mapping[str, Group],
    quantities: Sequence[str],
    row: float,
    draw: Callable[[Axes, Group, str, str], None] = canvas.train_and_val,
) -> tuple[Figure, list[Axes]]:
    """A panel for each setting, on one scale: every seed and the mean; the panels, row by row.

    titles name the panels. With several quantities, each has a row of its own.
    """
    groups, look = list(titles.values()), canvas.styles(summary)
    columns = len(groups) if len(quantities) > 1 else min(-(-len(groups) // 2), 4)
    shown = list(product(quantities, groups))
    figure, panels = canvas.blank(summary, words, groups, len(shown), columns, row=row, curves=True)
    for at, (axes, (quantity, group)) in enumerate(zip(panels, shown, strict=True)):
        draw(axes, group, quantity, look[group["label"]][0])
        canvas.share_scale([axes], quantity, canvas.values_of(groups, quantity))
        axes.set_ylabel("" if at % columns else axes.get_ylabel())
    for axes, title in zip(panels, titles, strict=False):
        axes.set_title(title, fontsize=11)
    return figure, panels


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
