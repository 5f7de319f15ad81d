"""The figures of experiment 2.2: all models' results, and how many layers to freeze."""

from functools import partial

from matplotlib.figure import Figure

from lab.figures import sweep
from lab.figures.canvas import (
    PALETTE,
    Figures,
    Group,
    Summary,
    canvas,
    legend_of,
    one_seed,
)
from lab.figures.mistakes import best_model_figures
from lab.figures.results import at_the_end, classes, differences, results


def figures(summary: Summary) -> Figures:
    """All models' results, the retrained ones' curves, and what freezing fewer layers does."""
    counted = summary["trainable_parameters"]
    finer = [
        g
        for g in summary["groups"]
        if g["label"] in counted and g["label"] not in summary["candidates"]
    ]
    groups = [group for group in summary["groups"] if group not in finer]
    retrained = [group for group in groups if group["label"] in summary["candidates"]]
    return {
        "test_accuracy": partial(results, summary, groups),
        "differences": partial(differences, summary, groups),
        "classes": partial(classes, summary, groups),
        "comparison": partial(sweep.comparison, summary, retrained),
        **sweep.each(summary, retrained),
        "trainable_parameters": partial(trainable_parameters, summary),
        "differences_by_frozen_layers": partial(differences, summary, finer),
        **sweep.each(summary, finer),
        **best_model_figures(summary),
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
    figure, panels = canvas(
        summary,
        f"retrained from dropout={groups[0]['settings']['dropout_rate']:.12g}, by what is frozen",
        groups,
        rows=2,
        height=6.6,
        note="Validation is on the images that the source was trained on: the more is kept of it, "
        "the less the gap says about new images",
    )
    places = {count: i for i, count in enumerate(sorted({counts[g["label"]] for g in groups}))}
    names = {}
    for (rate, line), (colour, marker) in zip(lines.items(), PALETTE, strict=False):
        diverged = sum(group["diverged"] for group in line)
        label = f"lr={rate:.12g}, mean" + (f" ({diverged} runs diverged)" if diverged else "")
        for axes, quantity in zip(panels, ("test_accuracy", "gap"), strict=True):
            means = []
            for group in line:
                count, frozen = counts[group["label"]], group["settings"]["frozen"]
                names[places[count]] = f"{', '.join(frozen) or 'none'}\n{count:,} trainable"
                values = [at_the_end(run, quantity) for run in group["runs"]]
                known = [100 * value for value in values if value is not None]
                seeds = {"color": colour, "alpha": 0.4, "markersize": 5}
                axes.plot([places[count]] * len(known), known, "o", **seeds)
                mean = group[quantity]["mean"]
                means.append((places[count], float("nan") if mean is None else 100 * mean))
            axes.plot(
                *zip(*means, strict=True), color=colour, marker=marker, linewidth=2, label=label
            )
    for axes in panels:
        axes.set_xticks(list(names), [])
        axes.set_xlim(-0.4, len(places) - 0.6)
    panels[1].set_xticks(list(names), names.values())
    panels[1].set_xlabel("frozen layers, and how many parameters are left to train")
    panels[0].set_ylabel("test accuracy (%)")
    panels[1].set_ylabel("training minus validation\naccuracy (points)")
    legend_of(figure, panels[0], one_seed(marker="o", linestyle="none", alpha=0.4))
    return figure
