"""The figures of experiment 2.2: all models' results, and how many layers to freeze."""

from functools import partial

from matplotlib.figure import Figure

from lab.figures import canvas, mistakes, results, sweep
from lab.figures.canvas import LINES, Figures, Group, Summary

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


def trainable_parameters(summary: Summary) -> Figure:
    """Test accuracy and gap by number of trainable parameters: seeds, and the mean of each rate."""
    counts, look = summary["trainable_parameters"], canvas.styles(summary)
    groups = [group for group in summary["groups"] if group["label"] in counts]
    groups.sort(key=lambda group: counts[group["label"]])
    places = {n: at for at, n in enumerate(sorted({counts[g["label"]] for g in groups}))}
    lines: dict[float, list[Group]] = {}
    for group in groups:
        lines.setdefault(group["settings"]["learning_rate"], []).append(group)
    figure, panels = canvas.blank(summary, "by what is frozen", groups, 2, row=3.1, note=NOTE)
    for axes, (quantity, label) in zip(panels, results.QUANTITIES.items(), strict=True):
        for (rate, line), dashes in zip(sorted(lines.items(), reverse=True), LINES, strict=False):
            at = [places[counts[group["label"]]] for group in line]
            means = [group[quantity]["mean"] for group in line]
            means = [float("nan") if mean is None else 100 * mean for mean in means]
            lost = sum(group["diverged"] for group in line)
            words = f"lr={rate:.12g}, mean" + (f" ({lost} diverged)" if lost else "")
            axes.plot(at, means, color="black", linestyle=dashes, linewidth=1.5, label=words)
            for place, group, mean in zip(at, line, means, strict=True):
                colour, marker, _ = look[group["label"]]
                ends = [results.at_the_end(run, quantity) for run in group["runs"]]
                known = [100 * value for value in ends if value is not None]
                axes.plot([place] * len(known), known, color=colour, **canvas.DOT)
                axes.plot(place, mean, marker, color=colour, markersize=8)
        axes.set(ylabel=label, xlim=(-0.4, len(places) - 0.6))
    names = {
        places[counts[g["label"]]]: f"{', '.join(g['settings']['frozen']) or 'none'}\n"
        f"{counts[g['label']]:,} trainable"
        for g in groups
    }
    panels[0].set_xticks(list(names), [])
    panels[1].set_xticks(list(names), names.values())
    panels[1].set_xlabel("frozen layers, and how many parameters are left to train")
    canvas.legend(figure, panels[0], canvas.entry("one seed", **canvas.DOT))
    return figure
