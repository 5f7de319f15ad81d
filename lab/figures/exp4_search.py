"""The figures of experiment 4.2: where the searches looked, and what they found."""

from functools import partial

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from lab.figures import canvas, sweep
from lab.figures.canvas import COLOURS, FAINT, Figures, Summary

POINTS = 20  # percentage points of accuracy below the highest that shades and axes tell apart


def figures(summary: Summary) -> Figures:
    """Where the searches looked and what they found, by budget, and the winners trained again."""
    return {
        "search": partial(search_map, summary),
        "best_so_far": partial(best_by_budget, summary),
        **sweep.figures(summary),
    }


def search_map(summary: Summary) -> Figure:
    """Every run of both searches: where it was in the ranges, and its validation accuracy."""
    searches, groups, words = summary["search"], summary["groups"], "every run of both searches"
    repeats, count = max(len(found["repeats"]) for found in searches.values()), len(searches)
    note = f"The {repeats} repeats of a search at one point stand side by side. The darkest shade: "
    note += f"{POINTS} percentage points below the highest, or lower"
    figure, panels = canvas.blank(summary, words, groups, count, count, row=4.6, note=note)
    highest = highest_of(summary)
    scale = Normalize(highest - POINTS, highest, clip=True)
    low, high = summary["settings"]["LEARNING_RATE_RANGE"]
    for axes, (name, found) in zip(panels, searches.items(), strict=True):
        tried = [(n, p) for n, repeat in enumerate(found["repeats"]) for p in repeat["points"]]
        different = {(point["learning_rate"], point["momentum"]) for _, point in tried}
        aside = (high / low) ** 0.025 if len(different) < len(tried) else 1.0  # between repeats
        xs = np.array([p["learning_rate"] * aside ** (n - (repeats - 1) / 2) for n, p in tried])
        ys = np.array([point["momentum"] for _, point in tried])
        accuracies = canvas.percent(point["val_accuracy"] for _, point in tried)
        lost, won = np.isnan(accuracies), np.array([p == found["winner"] for _, p in tried])
        image = axes.scatter(xs, ys, 40, accuracies, cmap="cividis", norm=scale)
        axes.plot(xs[lost], ys[lost], **canvas.CROSS)  # the title tells it
        axes.scatter(xs[won], ys[won], 170, "none", edgecolors="black", linewidths=2)  # a ring
        axes.set(xscale="log", xlabel="learning rate", ylabel="momentum")
        best = "".join(f", ○ highest: {accuracy:.1f}%" for accuracy in accuracies[won])
        budget = f"{name} search: {repeats} repeats of {len(tried) // repeats} runs"
        axes.set_title(f"{budget}\n× diverged: {lost.sum()}{best}")
        axes.sharex(panels[0])
        axes.sharey(panels[0])
    panels[0].autoscale()
    figure.colorbar(image, ax=panels, label="validation accuracy after the last epoch (%)")
    return figure


def highest_of(summary: Summary) -> float:
    """The highest validation accuracy of all runs of the searches, in percent."""
    winners = [found["winner"] for found in summary["search"].values() if found["winner"]]
    return max((100 * winner["val_accuracy"] for winner in winners), default=100.0)


def best_by_budget(summary: Summary) -> Figure:
    """The best validation accuracy by the number of runs spent: every repeat and the mean."""
    words, groups = "highest accuracy so far", summary["groups"]
    note = f"The axis begins {POINTS} percentage points below the highest accuracy"
    figure, (axes,) = canvas.blank(summary, words, groups, row=4, note=note)
    for (name, found), colour in zip(summary["search"].items(), COLOURS, strict=False):
        style = {"color": colour, "drawstyle": "steps-post", "linewidth": 2}
        for repeat in found["repeats"]:
            faint = style | FAINT | {"label": "one repeat"}
            canvas.plot(axes, repeat["best_so_far"], "accuracy", **faint)
        label = f"{name} search, mean of {len(found['repeats'])} repeats"
        canvas.plot(axes, found["best_so_far"]["mean"], "accuracy", label=label, **style)
    axes.set_xticks(canvas.epoch_ticks(len(found["best_so_far"]["mean"])))
    axes.set_xlabel("runs that the search has trained")
    axes.set_ylabel("highest validation accuracy so far (%)")
    axes.set_ylim(bottom=highest_of(summary) - POINTS)
    return figure
