"""The figures that every sweep has: curves, their comparison, results, and the best model."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.figures import canvas, mistakes, results
from lab.figures.canvas import AXIS_LABELS, PARTS, TRAINING_COLOUR, Figures, Group, Summary


def figures(summary: Summary, groups: Sequence[Group] | None = None, note: str = "") -> Figures:
    """What settings (all, or these) reach, how they differ, their curves, and the best model.

    note stands below every figure of curves.
    """
    groups = summary["groups"] if groups is None else groups
    return {
        "test_accuracy": partial(results.results, summary, groups),
        **results.differences(summary, groups),
        "comparison": partial(comparison, summary, groups, note=note),
        **each(summary, groups, note),
        **mistakes.figures(summary),
    }


def each(summary: Summary, groups: Sequence[Group], note: str = "") -> Figures:
    """The curves of each setting, on scales that they share."""
    return {group["label"]: partial(curves, summary, group, groups, note) for group in groups}


def curves(summary: Summary, group: Group, others: Sequence[Group], note: str = "") -> Figure:
    """One setting: loss and accuracy, training and validation, every seed and the mean.

    others are the settings whose scales it shares.
    """
    words = f"{group['label']}, {canvas.counted(group)}"
    return side_by_side(summary, words, {"": group}, list(AXIS_LABELS), 2, others, note)[0]


def comparison(summary: Summary, groups: Sequence[Group], last: int = 0, note: str = "") -> Figure:
    """The mean curves of settings: training as it is, validation smoothed.

    Where last is given, those of the first epochs, until this one: smoothing would hide them.
    """
    window = 1 if last else summary["settings"].get("SMOOTHING_WINDOW", 1)
    below, titles = "Lines: means over the seeds", {"train": "training", "val": "validation"}
    if window > 1:
        titles["val"] = f"validation, moving mean of {window} epochs"
        below += ". The moving mean is centred on its epoch"
    below += f"\n{canvas.how_trained(groups)}{note}"
    words = f"mean curves, epochs 1 to {last}" if last else "mean curves"
    figure, panels = canvas.blank(summary, words, groups, 4, 2, row=3.2, note=below)
    look = canvas.styles(summary)
    for axes, (quantity, part) in zip(panels, product(AXIS_LABELS, PARTS), strict=True):
        for at, group in enumerate(groups):
            name, label = f"{part}_{quantity}", f"{group['label']}, {canvas.counted(group)}"
            curve = smooth(group["mean"][name], window if part == "val" else 1)
            every = max(1, (last or len(curve)) // 6)
            # equal curves would hide each other: their markers stand apart, or around each other
            size = 5 if every > 1 else 4 + len(groups) - at
            few = {"markersize": size, "markevery": (at * every // len(groups), every)}
            canvas.plot(axes, curve, name, label=label, **few, **look[group["label"]])
        canvas.label_epochs(axes, quantity, groups, last)
        means = [group["mean"][f"{part}_{quantity}"] for group in groups for part in PARTS]
        canvas.set_scale(axes, quantity, means)
        axes.set_title(titles[part])
    return figure


def side_by_side(
    summary: Summary,
    words: str,
    titles: Mapping[str, Group],
    quantities: Sequence[str],
    columns: int,
    others: Sequence[Group] = (),
    note: str = "",
) -> tuple[Figure, list[Axes]]:
    """Training and validation of every setting, on one scale, in panels that titles name.

    others are more settings that have the same scale. The panels come quantity by quantity.
    """
    shown, look = list(product(quantities, titles.items())), canvas.styles(summary)
    groups = list(titles.values())
    below = canvas.how_trained(groups) + note
    figure, panels = canvas.blank(summary, words, groups, len(shown), columns, note=below)
    for at, (axes, (quantity, (title, group))) in enumerate(zip(panels, shown, strict=True)):
        grey = {"color": TRAINING_COLOUR, "linestyle": "--", "label": "training, mean"}
        canvas.seeds_and_mean(axes, group, f"train_{quantity}", **grey)
        colour = {"color": look[group["label"]]["color"], "label": "validation, mean"}
        canvas.seeds_and_mean(axes, group, f"val_{quantity}", **colour)
        canvas.label_epochs(axes, quantity, [group])
        runs = [run for group in [*groups, *others] for run in group["runs"]]
        every = [run[f"{part}_{quantity}"] for run in runs for part in PARTS]
        canvas.set_scale(axes, quantity, every)
        if at % len(titles) % columns:  # its neighbour to the left has the same axis
            axes.set_ylabel("")
        axes.set_title(title if quantity == quantities[0] else "", fontsize=11)
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
