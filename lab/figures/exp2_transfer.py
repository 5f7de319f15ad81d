"""The figures of experiment 2.2: all models' results, and how many layers to freeze."""

from functools import partial

from matplotlib.figure import Figure

from lab.figures import canvas, mistakes, results, sweep
from lab.figures.canvas import PALETTE, Figures, Group, Summary

NOTE = (
    "Validation is on the images that the source was trained on: the more is kept of it, the less "
    "the gap says about new images"
)


def figures(summary: Summary) -> Figures:
    """All models' results, the retrained ones' curves, and what freezing fewer layers does."""
    counts, candidates = summary["trainable_parameters"], summary["candidates"]
    finer = [g for g in summary["groups"] if g["label"] in counts and g["label"] not in candidates]
    groups = [group for group in summary["groups"] if group not in finer]
    retrained = [group for group in groups if group["label"] in candidates]
    return {
        "test_accuracy": partial(results.results, summary, groups),
        "differences": partial(results.differences, summary, groups),
        "classes": partial(results.classes, summary, groups),
        "comparison": partial(sweep.comparison, summary, retrained),
        **sweep.each(summary, retrained),
        "trainable_parameters": partial(trainable_parameters, summary),
        "differences_by_frozen_layers": partial(results.differences, summary, finer),
        **sweep.each(summary, finer),
        **mistakes.figures(summary),
    }


def by_learning_rate(summary: Summary) -> dict[float, list[Group]]:
    """The groups whose trainable parameters are counted, by learning rate, the fewest first."""
    counts = summary["trainable_parameters"]
    groups = [group for group in summary["groups"] if group["label"] in counts]
    found: dict[float, list[Group]] = {}
    for group in sorted(groups, key=lambda group: counts[group["label"]]):
        found.setdefault(group["settings"]["learning_rate"], []).append(group)
    return found


def trainable_parameters(summary: Summary) -> Figure:
    """Test accuracy and gap by number of trainable parameters: seeds, and the mean of each rate."""
    lines, counts = by_learning_rate(summary), summary["trainable_parameters"]
    groups = [group for line in lines.values() for group in line]
    figure, panels = canvas.blank(summary, "by what is frozen", groups, 2, row=3.1, note=NOTE)
    places = {count: i for i, count in enumerate(sorted({counts[g["label"]] for g in groups}))}
    names = {}
    for (rate, line), (colour, marker) in zip(lines.items(), PALETTE, strict=False):
        diverged = sum(group["diverged"] for group in line)
        label = f"lr={rate:.12g}, mean" + (f" ({diverged} diverged)" if diverged else "")
        for axes, quantity in zip(panels, ("test_accuracy", "gap"), strict=True):
            means = []
            for group in line:
                at, frozen = places[counts[group["label"]]], group["settings"]["frozen"]
                names[at] = f"{', '.join(frozen) or 'none'}\n{counts[group['label']]:,} trainable"
                values = [results.at_the_end(run, quantity) for run in group["runs"]]
                known = [100 * value for value in values if value is not None]
                axes.plot([at] * len(known), known, "o", color=colour, alpha=0.4, markersize=5)
                mean = group[quantity]["mean"]
                means.append((at, float("nan") if mean is None else 100 * mean))
            style = {"color": colour, "marker": marker, "linewidth": 2, "label": label}
            axes.plot(*zip(*means, strict=True), **style)
    for axes, label in zip(panels, ("test accuracy (%)", "gap (points)"), strict=True):
        axes.set(ylabel=label, xlim=(-0.4, len(places) - 0.6))
        axes.set_xticks(list(names), names.values() if axes is panels[1] else [])
    panels[1].set_xlabel("frozen layers, and how many parameters are left to train")
    canvas.legend(figure, panels[0], canvas.one_seed(marker="o", linestyle="none"))
    return figure
