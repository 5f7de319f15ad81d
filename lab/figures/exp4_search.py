"""The figures of experiment 4.2: where the searches looked, and what they found."""

from functools import partial

from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lab.figures import canvas, results, sweep
from lab.figures.canvas import FAINT, PALETTE, Figures, Summary
from lab.summary import spread

# a ring around one of the points of a search
WINNER = {"marker": "o", "markersize": 13, "markerfacecolor": "none", "markeredgewidth": 2}
WINNER |= {"color": "black", "linestyle": "none"}


def figures(summary: Summary) -> Figures:
    """Where the searches looked and what they found, by budget, and the winners trained again."""
    return {
        "search": partial(search_map, summary),
        "best_so_far": partial(best_by_budget, summary),
        "differences": partial(results.differences, summary, summary["groups"]),
        **sweep.figures(summary),
    }


def search_map(summary: Summary) -> Figure:
    """Every run of both searches: where it was in the ranges, and its validation accuracy."""
    searches = summary["search"]
    repeats, count = max(len(found["repeats"]) for found in searches.values()), len(searches)
    note = f"The {repeats} repeats of a search at one point lie side by side"
    words = "where the searches looked, and what they found"
    shape = {"panels": count, "columns": count, "row": 4.6, "note": note}
    figure, panels = canvas.blank(summary, words, summary["groups"], **shape)
    points = [p for found in searches.values() for r in found["repeats"] for p in r["points"]]
    known = [100 * p["val_accuracy"] for p in points if p["val_accuracy"] is not None]
    scale = Normalize(min(known, default=0), max(known, default=100))
    low, high = summary["settings"]["LEARNING_RATE_RANGE"]
    for axes, (name, found) in zip(panels, searches.items(), strict=True):
        tried = [(n, p) for n, repeat in enumerate(found["repeats"]) for p in repeat["points"]]
        different = {(point["learning_rate"], point["momentum"]) for _, point in tried}
        aside = (high / low) ** 0.025 if len(different) < len(tried) else 1.0  # between repeats
        sound, lost, won = [], [], []
        for n, point in tried:
            x = point["learning_rate"] * aside ** (n - (repeats - 1) / 2)
            accuracy = point["val_accuracy"]
            where = lost if accuracy is None else sound
            where.append((x, point["momentum"], accuracy and 100 * accuracy))
            won += where[-1:] if point == found["winner"] else []
        xs, ys, colours = zip(*sound, strict=True) if sound else ((), (), ())
        image = axes.scatter(xs, ys, 40, colours, cmap="cividis", norm=scale)
        for style, marked in ((canvas.DIVERGED, lost), (WINNER, won)):
            axes.plot([x for x, _, _ in marked], [y for _, y, _ in marked], **style)
        axes.set(xscale="log", xlabel="learning rate", ylabel="momentum")
        highest = "".join(f", ○ highest: {accuracy:.1f}%" for *_, accuracy in won)
        budget = f"{name} search: {repeats} repeats of {len(tried) // repeats} runs"
        axes.set_title(f"{budget}\n× diverged: {len(lost)}{highest}")
        axes.sharex(panels[0])
        axes.sharey(panels[0])
    panels[0].autoscale()
    figure.colorbar(image, ax=panels, label="validation accuracy after the last epoch (%)")
    return figure


def best_by_budget(summary: Summary) -> Figure:
    """The best validation accuracy by the number of runs spent, and where each repeat ends."""
    searches, look, rows = summary["search"], canvas.styles(summary), []
    words = "best so far by runs spent"
    figure, (axes, ends) = canvas.blank(summary, words, summary["groups"], 2, 2)
    for name, found in searches.items():
        # a search has the colour of its winner, trained again
        labels = [label for label in look if label.startswith(f"{name},")]
        style = look[labels[0]] if labels else (*PALETTE[-1], "-")
        line = {"color": style[0], "drawstyle": "steps-post"}
        for repeat in found["repeats"]:
            canvas.plot(axes, repeat["best_so_far"], "accuracy", **line, **FAINT)
        line |= {"marker": style[1], "markersize": 5, "linewidth": 2}
        line["label"] = f"{name} search, mean of {len(found['repeats'])} repeats"
        canvas.plot(axes, found["best_so_far"]["mean"], "accuracy", **line)
        values = [repeat["best_so_far"][-1] for repeat in found["repeats"]]
        known = [value for value in values if value is not None]
        rows.append((f"{name}\nsearch", values, spread(known), style))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="runs spent", ylabel="highest validation accuracy so far (%)")
    canvas.dots(ends, rows, "highest of all (%)")
    canvas.legend(figure, axes, canvas.entry("one repeat"))
    return figure
