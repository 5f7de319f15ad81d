"""The figures of experiment 1.0: extremes, and accuracy by learning rate."""

from functools import partial

from matplotlib.figure import Figure

from lab.figures import canvas, sweep
from lab.figures.canvas import AXIS_LABELS, TRAINING_COLOUR, Figures, Summary


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
    which = {"highest": by_rate[0]["label"], "best": summary["best"]}
    which["lowest"] = by_rate[-1]["label"]
    titles = {}
    for group in by_rate:
        if words := [word for word, label in which.items() if label == group["label"]]:
            title = f"{' and '.join(words)}: {group['label']}\n{canvas.counted(group)}"
            titles[title] = group
    words = "extremes of the learning rate"
    figure, panels = sweep.side_by_side(summary, words, titles, list(AXIS_LABELS), row=3.1)
    for at, axes in enumerate(panels):
        canvas.mark_guessing(axes.axhline, list(AXIS_LABELS)[at // len(titles)])
    canvas.legend(figure, panels[0], canvas.entry("one seed"))
    return figure


def accuracy_by_rate(summary: Summary) -> Figure:
    """Accuracy at the last epoch by learning rate, the suggested range, and who diverged."""
    groups = sorted(summary["groups"], key=lambda group: group["settings"]["learning_rate"])
    words = "accuracy after the last epoch by learning rate"
    figure, (axes,) = canvas.blank(summary, words, groups, row=4.4)
    look, means = canvas.styles(summary), {"training": [], "validation": []}
    for group in groups:
        rate, sound = group["settings"]["learning_rate"], len(group["runs"]) - group["diverged"]
        runs = [run for run in group["runs"] if run["diverged_at_epoch"] is None]
        ends = {"training": [run["final_train_accuracy"] for run in runs]}
        ends["validation"] = [run["val_accuracy"][-1] for run in runs]
        for part, colour in (
            ("training", TRAINING_COLOUR),
            ("validation", look[group["label"]][0]),
        ):
            values = [100 * value for value in ends[part]]
            axes.plot([rate] * sound, values, color=colour, **canvas.DOT)
            means[part].append((rate, sum(values) / sound if sound else float("nan")))
        crosses = [0.97 - 0.05 * n for n in range(group["diverged"])]
        place = {"transform": axes.get_xaxis_transform(), "label": "a seed diverged"}
        axes.plot([rate] * len(crosses), crosses, **canvas.DIVERGED, **(place if crosses else {}))
    for part, colour, line in (("training", TRAINING_COLOUR, "--"), ("validation", "black", "-")):
        style = {"color": colour, "linestyle": line, "linewidth": 1.5, "label": f"{part}, mean"}
        axes.plot(*zip(*means[part], strict=True), zorder=1, **style)
    canvas.mark_guessing(axes.axhline, "accuracy")
    if summary["suggested_range"]:
        low, high = summary["suggested_range"]
        words = f"suggested range, {' to '.join(f'{r:.12g}' for r in dict.fromkeys((low, high)))}"
        # a little wider, as the range may be a single rate
        axes.axvspan(low / 1.1, high * 1.1, color="black", alpha=0.08, label=words)
    axes.set(xlabel="learning rate", ylabel=AXIS_LABELS["accuracy"], ylim=(0, 100), xscale="log")
    canvas.legend(figure, axes, canvas.entry("one seed", **canvas.DOT))
    return figure
