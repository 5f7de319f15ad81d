"""The figures of experiment 1.0: extremes, and accuracy by learning rate."""

from functools import partial

from matplotlib.figure import Figure

from lab.figures import canvas, sweep
from lab.figures.canvas import AXIS_LABELS, PALETTE, TRAINING_COLOUR, Figures, Summary
from lab.summary import spread


def figures(summary: Summary) -> Figures:
    """The extremes, what each rate reaches, and what a sweep has."""
    return {
        "extremes": partial(extremes, summary),
        "accuracy_by_rate": partial(accuracy_by_rate, summary),
        **sweep.figures(summary),
    }


def extremes(summary: Summary) -> Figure:
    """Every seed and the mean at the highest, the best and the lowest rate, beside guessing."""
    by_rate = sorted(summary["groups"], key=lambda group: -group["settings"]["learning_rate"])
    which = {
        "highest": by_rate[0]["label"],
        "best": summary["best"],
        "lowest": by_rate[-1]["label"],
    }
    titles = {}
    for group in by_rate:
        if group["label"] in which.values():
            words = " and ".join(word for word, label in which.items() if label == group["label"])
            titles[f"{words}: {group['label']}\n{canvas.counted(group)}"] = group
    words = "extremes of the learning rate"
    figure, panels = sweep.side_by_side(summary, words, titles, list(AXIS_LABELS), row=3.1)
    for at, axes in enumerate(panels):
        canvas.mark_guessing(axes.axhline, list(AXIS_LABELS)[at // len(titles)])
    canvas.legend(figure, panels[0], canvas.one_seed())
    return figure


def accuracy_by_rate(summary: Summary) -> Figure:
    """Accuracy at the last epoch by learning rate, the suggested range, and who diverged."""
    groups = sorted(summary["groups"], key=lambda group: group["settings"]["learning_rate"])
    rates = [group["settings"]["learning_rate"] for group in groups]
    words = "accuracy after the last epoch by learning rate"
    figure, (axes,) = canvas.blank(summary, words, groups, row=4.4)
    for words, accuracy_of, colour, line in (
        ("training", lambda run: run["final_train_accuracy"], TRAINING_COLOUR, "--"),
        ("validation", lambda run: run["val_accuracy"][-1], PALETTE[0][0], "-"),
    ):
        ends = [
            [100 * accuracy_of(run) for run in group["runs"] if run["diverged_at_epoch"] is None]
            for group in groups
        ]
        means = [spread(values)["mean"] if values else float("nan") for values in ends]
        style = {"color": colour, "linestyle": line, "linewidth": 2, "label": f"{words}, mean"}
        axes.plot(rates, means, **style)
        for rate, values in zip(rates, ends, strict=True):
            axes.plot([rate] * len(values), values, "o", color=colour, alpha=0.4, markersize=5)
    canvas.mark_guessing(axes.axhline, "accuracy")
    lost = {rate: g for rate, g in zip(rates, groups, strict=True) if g["diverged"]}
    if lost:
        place = {"transform": axes.get_xaxis_transform()}
        label = "seeds diverged, and of how many"
        axes.plot(list(lost), [0.94] * len(lost), label=label, **canvas.DIVERGED, **place)
        for rate, group in lost.items():
            words = f"{group['diverged']} of {len(group['runs'])}"
            axes.text(rate, 0.89, words, ha="center", va="top", fontsize=9, **place)
    if summary["suggested_range"]:
        low, high = summary["suggested_range"]
        words = f"suggested range, {' to '.join(f'{r:.12g}' for r in dict.fromkeys((low, high)))}"
        # a little wider, as the range may be a single rate
        axes.axvspan(low / 1.1, high * 1.1, color=PALETTE[4][0], alpha=0.2, label=words)
    axes.set(xlabel="learning rate", ylabel=AXIS_LABELS["accuracy"], ylim=(0, 100), xscale="log")
    canvas.legend(figure, axes, canvas.one_seed(marker="o", linestyle="none"))
    return figure
