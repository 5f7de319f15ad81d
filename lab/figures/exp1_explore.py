"""The figures of experiment 1.0: extremes, and accuracy by learning rate."""

from functools import partial

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lab.figures import sweep
from lab.figures.canvas import (
    AXIS_LABELS,
    GUESSING,
    PALETTE,
    TRAINING_COLOUR,
    Figures,
    Summary,
    canvas,
    counted,
    legend_of,
    mark_guessing,
    one_seed,
    seeds_and_mean,
    share_log_scale,
    share_scales,
    styles,
)
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
    which: dict[str, list[str]] = {}
    for words, label in (
        ("highest", by_rate[0]["label"]),
        ("best", summary["best"]),
        ("lowest", by_rate[-1]["label"]),
    ):
        which.setdefault(label, []).append(words)
    groups = [group for group in by_rate if group["label"] in which]
    words = "extremes of the learning rate"
    figure, panels = canvas(summary, words, groups, 2, len(groups), height=6.5, curves=True)
    losses, accuracies = panels[: len(groups)], panels[len(groups) :]
    for row, quantity in ((losses, "loss"), (accuracies, "accuracy")):
        for axes, group in zip(row, groups, strict=True):
            seeds_and_mean(axes, group, quantity, styles(summary)[group["label"]][0])
            mark_guessing(axes.axhline, GUESSING[quantity])
    share_log_scale(losses)  # so that a loss that diverges leaves the others to be seen
    share_scales({"accuracy": accuracies}, groups)
    for axes, group in zip(losses, groups, strict=True):
        axes.set_title(f"{' and '.join(which[group['label']])}: {group['label']}, {counted(group)}")
    legend_of(figure, losses[0], one_seed())
    return figure


def accuracy_by_rate(summary: Summary) -> Figure:
    """Accuracy at the last epoch by learning rate, the suggested range, and who diverged."""
    groups = sorted(summary["groups"], key=lambda group: group["settings"]["learning_rate"])
    rates = [group["settings"]["learning_rate"] for group in groups]
    figure, (accuracy, divergence) = canvas(
        summary, "accuracy after the last epoch by learning rate", groups, rows=2, height=5.6
    )
    divergence.sharex(accuracy)
    accuracy.get_gridspec().set_height_ratios([3, 1])
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
        accuracy.plot(rates, means, **style)
        for rate, values in zip(rates, ends, strict=True):
            accuracy.plot([rate] * len(values), values, "o", color=colour, alpha=0.4, markersize=5)
    mark_guessing(accuracy.axhline, GUESSING["accuracy"])
    lost, widths = [group["diverged"] for group in groups], [0.15 * rate for rate in rates]
    divergence.bar(rates, lost, widths, color=PALETTE[1][0])
    most = max(len(group["runs"]) for group in groups)
    divergence.set_ylim(0, most)
    divergence.yaxis.set_major_locator(MaxNLocator(integer=True))
    divergence.set_ylabel(f"diverged\n(of {most})")
    if summary["suggested_range"]:
        lowest, highest = summary["suggested_range"]
        words = f"suggested range, {lowest:.12g} to {highest:.12g}"
        for axes, label in ((accuracy, words), (divergence, None)):
            # a little wider, as the range may be a single rate
            axes.axvspan(lowest / 1.1, highest * 1.1, color=PALETTE[4][0], alpha=0.2, label=label)
    accuracy.set_ylabel(AXIS_LABELS["accuracy"])
    accuracy.set_ylim(0, 100)
    for axes in (accuracy, divergence):
        axes.set_xscale("log")
    accuracy.tick_params(labelbottom=False)
    divergence.set_xlabel("learning rate")
    seed = one_seed(marker="o", linestyle="none", alpha=0.4)
    legend_of(figure, accuracy, seed)
    return figure
