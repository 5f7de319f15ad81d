"""The figures of experiment 4.2: where the searches looked, and what they found."""

from functools import partial

from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from lab.figures import sweep
from lab.figures.canvas import (
    DIVERGED,
    FAINT,
    PALETTE,
    Figures,
    Summary,
    canvas,
    dots,
    legend_of,
    name_rows,
    one_seed,
    plot,
    whole_numbers,
)
from lab.figures.results import differences
from lab.summary import spread

WINNER = {  # a ring around one of the points of a search
    **{"marker": "o", "markersize": 13, "markerfacecolor": "none", "markeredgewidth": 2},
    **{"color": "#D55E00", "linestyle": "none"},
}


def figures(summary: Summary) -> Figures:
    """Where the searches looked and what they found, by budget, and the winners trained again."""
    return {
        "search": partial(search_map, summary),
        "best_so_far": partial(best_by_budget, summary),
        "differences": partial(differences, summary, summary["groups"]),
        **sweep.figures(summary),
    }


def search_map(summary: Summary) -> Figure:
    """Every run of both searches: where it was in the ranges, and its validation accuracy."""
    searches = summary["search"]
    repeats = len(next(iter(searches.values()))["repeats"])
    figure, panels = canvas(
        summary,
        "where the searches looked, and what they found",
        summary["groups"],
        columns=len(searches),
        height=5,
        note=f"The {repeats} repeats of a search at one point lie side by side",
    )
    every = [
        point
        for found in searches.values()
        for repeat in found["repeats"]
        for point in repeat["points"]
    ]
    known = [100 * p["val_accuracy"] for p in every if p["val_accuracy"] is not None]
    scale = Normalize(min(known, default=0), max(known, default=100))
    low, high = summary["settings"]["LEARNING_RATE_RANGE"]
    for axes, (name, found) in zip(panels, searches.items(), strict=True):
        points = [point for repeat in found["repeats"] for point in repeat["points"]]
        different = len({(point["learning_rate"], point["momentum"]) for point in points})
        aside = (high / low) ** 0.025 if different < len(points) else 1.0  # between repeats
        placed = [
            (point["learning_rate"] * aside ** (n - (repeats - 1) / 2), point["momentum"], point)
            for n, repeat in enumerate(found["repeats"])
            for point in repeat["points"]
        ]
        sound = [(x, y, point) for x, y, point in placed if point["val_accuracy"] is not None]
        lost = [(x, y, point) for x, y, point in placed if point["val_accuracy"] is None]
        won = [(x, y, point) for x, y, point in sound if point == found["winner"]]
        image = axes.scatter(
            [x for x, _, _ in sound],
            [y for _, y, _ in sound],
            40,
            [100 * point["val_accuracy"] for _, _, point in sound],
            cmap="cividis",
            norm=scale,
        )
        for style, marked in ((DIVERGED, lost), (WINNER, won)):
            axes.plot([x for x, _, _ in marked], [y for _, y, _ in marked], **style)
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("momentum")
        highest = "".join(f", ○ highest: {100 * p['val_accuracy']:.1f}%" for _, _, p in won)
        axes.set_title(
            f"{name} search: {repeats} repeats of {len(placed) // repeats} runs\n"
            f"× diverged: {len(lost)}{highest}"
        )
    for axes in panels[1:]:
        axes.sharex(panels[0])
        axes.sharey(panels[0])
    panels[0].autoscale()
    label = "validation accuracy after the last epoch (%)"
    figure.subfigs[0].colorbar(image, ax=panels, label=label)
    return figure


def best_by_budget(summary: Summary) -> Figure:
    """The best validation accuracy by the number of runs spent, and where each repeat ends."""
    searches = summary["search"]
    figure, (axes, ends) = canvas(summary, "best so far by runs spent", columns=2)
    for row, (found, (colour, marker)) in enumerate(zip(searches.values(), PALETTE, strict=False)):
        line = {"color": colour, "drawstyle": "steps-post"}
        for repeat in found["repeats"]:
            plot(axes, repeat["best_so_far"], "accuracy", **line, **FAINT)
        label = f"{list(searches)[row]} search, mean of {len(found['repeats'])} repeats"
        style = {"marker": marker, "markersize": 5, "linewidth": 2, "label": label}
        plot(axes, found["best_so_far"]["mean"], "accuracy", **line, **style)
        values = [repeat["best_so_far"][-1] for repeat in found["repeats"]]
        known = [value for value in values if value is not None]
        dots(ends, row, values, spread(known), (colour, marker, "-"))
    axes.set_xlabel("runs spent")
    whole_numbers(axes)
    axes.set_ylabel("highest validation accuracy so far (%)")
    name_rows(ends, [f"{name}\nsearch" for name in searches])
    ends.set_xlabel("highest of all (%): repeats, mean, 95% interval")
    legend_of(figure, axes, one_seed("one repeat"))
    return figure
