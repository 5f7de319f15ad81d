"""The figures of experiment 1.0: extremes, and accuracy by learning rate."""

from functools import partial

from matplotlib.figure import Figure

from lab.figures import canvas, sweep
from lab.figures.canvas import AXIS_LABELS, TRAINING_COLOUR, Figures, Group, Summary


def figures(summary: Summary) -> Figures:
    """The extremes, what each rate reaches, and what a sweep has."""
    return {
        "extremes": partial(extremes, summary),
        "accuracy_by_rate": partial(accuracy_by_rate, summary),
        **sweep.figures(summary),
    }


def by_rate(summary: Summary) -> list[Group]:
    """The settings from the lowest to the highest learning rate."""
    return sorted(summary["groups"], key=lambda group: group["settings"]["learning_rate"])


def extremes(summary: Summary) -> Figure:
    """Every seed and the mean at the highest, the best and the lowest rate, beside guessing."""
    groups = by_rate(summary)
    best = [("best", group) for group in groups if group["label"] == summary["best"]]
    titles = {
        f"{word}: {group['label']}\n{canvas.counted(group)}": group
        for word, group in [("highest", groups[-1]), *best, ("lowest", groups[0])]
    }
    words, quantities = "highest, best and lowest learning rate", list(AXIS_LABELS)
    figure, panels = sweep.side_by_side(summary, words, titles, quantities, len(titles))
    for at, axes in enumerate(panels):
        canvas.mark_guessing(axes.axhline, quantities[at // len(titles)], groups)
    return figure


def accuracy_by_rate(summary: Summary) -> Figure:
    """Accuracy at the last epoch by learning rate, the suggested range, and who diverged."""
    groups, look = by_rate(summary), canvas.styles(summary)
    rates = [group["settings"]["learning_rate"] for group in groups]
    words = "accuracy after the last epoch by learning rate"
    figure, (axes,) = canvas.blank(summary, words, groups, row=4.4)
    for rate, group in zip(rates, groups, strict=True):
        train = canvas.percent(run["final_train_accuracy"] for run in group["runs"])
        val = canvas.percent(run["val_accuracy"][-1] for run in group["runs"])
        axes.plot([rate] * len(train), train, color=TRAINING_COLOUR, label="one seed", **canvas.DOT)
        axes.plot([rate] * len(val), val, color=look[group["label"]]["color"], **canvas.DOT)
        for n in range(group["diverged"]):
            top = axes.get_xaxis_transform()
            axes.plot(rate, 0.97 - 0.05 * n, transform=top, **canvas.DIVERGED)
    train = canvas.percent(group["final_train_accuracy"]["mean"] for group in groups)
    val = canvas.percent(group["mean"]["val_accuracy"][-1] for group in groups)
    axes.plot(rates, train, "--", color=TRAINING_COLOUR, label="training, mean", zorder=1)
    axes.plot(rates, val, "-", color="black", label="validation, mean", zorder=1)
    canvas.mark_guessing(axes.axhline, "accuracy", groups)
    if summary["suggested_range"]:
        low, high = summary["suggested_range"]
        words = f"suggested range, {low:.12g} to {high:.12g}"
        # a little wider, as the range may be a single rate
        axes.axvspan(low / 1.1, high * 1.1, color="black", alpha=0.08, label=words)
    axes.set(xlabel="learning rate", ylabel=AXIS_LABELS["accuracy"], ylim=(0, 100), xscale="log")
    return figure
