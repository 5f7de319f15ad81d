"""The figures of experiment 1.3: with and without the short last batch, setting by setting."""

from functools import partial
from itertools import chain, repeat

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.figures import canvas, mistakes, results, sweep
from lab.figures.canvas import TRAINING_COLOUR, Figures, Group, Summary
from lab.summary import roughness

NOTE = (
    "Roughness: mean absolute change of validation accuracy from one epoch to the next, over the "
    "second half of training. (n): rank by mean test accuracy"
)


def figures(summary: Summary) -> Figures:
    """The twins' curves, the two rankings, the differences, and each setting's curves."""
    return {
        "with_and_without": partial(with_and_without, summary),
        "rankings": partial(rankings, summary),
        "differences": partial(results.differences, summary, summary["groups"]),
        **sweep.each(summary, summary["groups"]),
        **mistakes.figures(summary),
    }


def twins(summary: Summary) -> list[tuple[Group, Group]]:
    """Each setting with the short last batch, and its twin without."""
    groups = {group["label"]: group for group in summary["groups"]}
    return [(groups[pair["minus"]], groups[pair["label"]]) for pair in summary["comparisons"]]


def with_and_without(summary: Summary) -> Figure:
    """Validation accuracy of every setting, every seed and the mean: grey with the batch."""
    pairs = {other["label"]: one for one, other in twins(summary)}

    def draw(axes: Axes, group: Group, quantity: str, colour: str) -> None:
        """A panel: the twin with the batch, then the setting without it."""
        one, name = pairs[group["label"]], f"val_{quantity}"
        style = {"color": TRAINING_COLOUR, "label": "with the last batch, mean (grey)"}
        canvas.seeds_and_mean(axes, one, name, **style)
        style = {"color": colour, "label": "without the last batch, mean (in colour)"}
        canvas.seeds_and_mean(axes, group, name, **style)
        canvas.label_epochs(axes, quantity, [group])
        canvas.mark_divergence(axes, [one, group])

    titles = {one["label"]: other for one, other in twins(summary)}
    words = "validation with and without the last batch"
    figure, panels = sweep.side_by_side(summary, words, titles, ["accuracy"], 2.9, draw)
    values = canvas.values_of(summary["groups"], "accuracy", ["val"])
    canvas.share_scale(panels, "accuracy", values)
    canvas.legend(figure, panels[0], canvas.entry("one seed"))
    return figure


def rankings(summary: Summary) -> Figure:
    """Test accuracy of every setting with the last batch and without it, and roughness."""
    pairs, look = twins(summary), canvas.styles(summary)
    words = "rankings and roughness"
    shape = {"panels": 3, "columns": 3, "row": 1.1 + 0.6 * len(pairs), "note": NOTE}
    figure, panels = canvas.blank(summary, words, summary["groups"], **shape)
    titles = ("with the last batch", "without the last batch")
    for axes, groups, title in zip(panels, zip(*pairs, strict=True), titles, strict=False):
        order = sorted(groups, key=lambda group: -(group["test_accuracy"]["mean"] or 0))
        names = [f" {results.name_of(g)}" if axes is panels[0] else "" for g in groups]
        names = [f"({order.index(g) + 1}){name}" for g, name in zip(groups, names, strict=True)]
        rows = map(results.row, groups, repeat("test_accuracy"), repeat(look), names)
        canvas.dots(axes, list(rows), "test accuracy (%)")
        axes.set_title(title)
    canvas.share_limits(panels[:2])
    rows = [
        ("", map(roughness, g["runs"]), summary["roughness"][g["label"]], look[g["label"]])
        for g in chain(*pairs)
    ]
    canvas.dots(panels[2], rows, "points", below=0.0)
    panels[2].set(title="roughness (open: without)", xlim=(0, None))
    return figure
