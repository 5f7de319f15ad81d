"""The figures of experiment 1.3: with and without the short last batch, setting by setting."""

from functools import partial

from matplotlib.figure import Figure

from lab.figures import sweep
from lab.figures.canvas import (
    FAINT,
    TRAINING_COLOUR,
    Figures,
    Group,
    Summary,
    canvas,
    dots,
    label_axes,
    legend_of,
    mark_divergence,
    name_of,
    name_rows,
    one_seed,
    plot,
    share_scales,
    styles,
    within_percent,
)
from lab.figures.mistakes import best_model_figures
from lab.figures.results import differences


def figures(summary: Summary) -> Figures:
    """The twins' curves, the two rankings, the differences, and each setting's curves."""
    return {
        "with_and_without": partial(with_and_without, summary),
        "rankings": partial(rankings, summary),
        "differences": partial(differences, summary, summary["groups"]),
        **sweep.each(summary, summary["groups"]),
        **best_model_figures(summary),
    }


def twins(summary: Summary) -> list[tuple[Group, Group]]:
    """Each setting with the short last batch, and its twin without."""
    groups = {group["label"]: group for group in summary["groups"]}
    return [(groups[pair["minus"]], groups[pair["label"]]) for pair in summary["comparisons"]]


def with_and_without(summary: Summary) -> Figure:
    """Validation accuracy of every setting, every seed and the mean: grey with the batch."""
    pairs = twins(summary)
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    words = "validation accuracy with and without the last batch"
    figure, panels = canvas(summary, words, summary["groups"], rows, columns, height=1 + 2.9 * rows)
    for axes in panels[len(pairs) :]:
        axes.remove()
    look, shown = styles(summary), panels[: len(pairs)]
    for axes, (one, other) in zip(shown, pairs, strict=True):
        for group, colour, label in (
            (one, TRAINING_COLOUR, "with the last batch, mean"),
            (other, look[other["label"]][0], "without it, mean (in colour)"),
        ):
            for run in group["runs"]:
                plot(axes, run["val_accuracy"], "accuracy", color=colour, **FAINT)
            curve = group["mean"]["val_accuracy"]
            plot(axes, curve, "accuracy", color=colour, linewidth=2, label=label)
        label_axes(axes, "accuracy", len(one["mean"]["val_accuracy"]))
        mark_divergence(axes, one)
        axes.set_title(one["label"])
    share_scales({"accuracy": shown}, summary["groups"])
    legend_of(figure, shown[0], one_seed())
    return figure


def rankings(summary: Summary) -> Figure:
    """Test accuracy and roughness of every setting, with the last batch above, without below."""
    pairs = twins(summary)
    words = "test accuracy and roughness with (filled) and without (open) the last batch"
    note = (
        "Roughness: mean absolute change of validation accuracy from one epoch to the next, over "
        "the second half of training"
    )
    figure, panels = canvas(
        summary, words, summary["groups"], columns=2, height=1.4 + 0.9 * len(pairs), note=note
    )
    look, names = styles(summary), []
    for row, group in enumerate(group for pair in pairs for group in pair):
        values = [run["test_accuracy"] for run in group["runs"]]
        dots(panels[0], row, values, group["test_accuracy"], look[group["label"]])
        dots(panels[1], row, [], summary["roughness"][group["label"]], look[group["label"]])
        names.append(name_of(group))
    for axes in panels:
        name_rows(axes, names)
    within_percent(panels[0])
    panels[0].set_xlabel("test accuracy (%): seeds, mean, 95% interval")
    panels[1].set_xlabel("roughness (points): mean over seeds")
    panels[1].set_xlim(left=0)
    panels[1].tick_params(labelleft=False)
    return figure
