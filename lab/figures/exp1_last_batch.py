"""The figures of experiment 1.3: with and without the short last batch, setting by setting."""

from functools import partial

from matplotlib.figure import Figure

from lab.figures import canvas, mistakes, results, sweep
from lab.figures.canvas import TRAINING_COLOUR, Figures, Group, Summary
from lab.roughness import roughness

NOTE = (
    "Roughness: mean absolute change of validation accuracy from one epoch to the next, over the "
    "second half of training. Rank 1: the highest mean test accuracy. Open markers: without the "
    "last batch"
)


def figures(summary: Summary) -> Figures:
    """The twins' curves, the two rankings, the differences, and each setting's curves."""
    return {
        "with_and_without": partial(with_and_without, summary),
        "rankings": partial(rankings, summary),
        **results.differences(summary, summary["groups"]),
        **sweep.each(summary, summary["groups"]),
        **mistakes.figures(summary),
    }


def twins(summary: Summary) -> list[tuple[Group, Group]]:
    """Each setting with the short last batch, and the same setting without."""
    by_label = {group["label"]: group for group in summary["groups"]}
    return [(by_label[one], by_label[other]) for other, one in summary["twins"].items()]


def with_and_without(summary: Summary) -> Figure:
    """Validation accuracy of every setting, every seed and the mean: grey with the batch."""
    pairs, look = twins(summary), canvas.styles(summary)
    words = "validation with and without the last batch"
    figure, panels = canvas.blank(summary, words, summary["groups"], len(pairs), 3, row=2.9)
    for axes, (one, other) in zip(panels, pairs, strict=True):
        grey = {"color": TRAINING_COLOUR, "label": "with the last batch, mean (grey)"}
        canvas.seeds_and_mean(axes, one, "val_accuracy", **grey)
        colour, label = look[other["label"]]["color"], "without the last batch, mean (in colour)"
        canvas.seeds_and_mean(axes, other, "val_accuracy", color=colour, label=label)
        canvas.label_epochs(axes, "accuracy", [one, other])
        axes.set(title=one["label"], ylim=(0, 100))
    return figure


def rankings(summary: Summary) -> Figure:
    """Test accuracy of every setting with the last batch and without it, and roughness."""
    pairs, look = twins(summary), canvas.styles(summary)
    words, height = "test accuracy and roughness", 0.8 + 0.6 * len(pairs)
    figure, panels = canvas.blank(summary, words, summary["groups"], 3, 3, row=height, note=NOTE)
    for axes, groups in zip(panels, zip(*pairs, strict=True), strict=False):
        order = sorted(groups, key=lambda group: -(group["test_accuracy"]["mean"] or 0))
        rows = []
        for group in groups:
            rank = f"rank {order.index(group) + 1}"
            name = f"{rank}: {results.name_of(group)}" if axes is panels[0] else rank
            tested = [run["test_accuracy"] for run in group["runs"]]
            rows.append((name, tested, look[group["label"]]))
        canvas.dots(axes, rows, "test accuracy (%)")
    canvas.share_limits(panels[:2])
    rough = [
        (words, [*map(roughness, group["runs"])], look[group["label"]])
        for pair in pairs
        for words, group in zip(("with", "without"), pair, strict=True)
    ]
    canvas.dots(panels[2], rough, "percentage points")
    panels[2].set_xlim(left=0)
    for axes, title in zip(panels, ("with the last batch", "without it", "roughness"), strict=True):
        axes.set_title(title)
    return figure
