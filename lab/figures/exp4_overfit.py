"""The figures of experiment 4.1: what is learned by heart, and when each strategy overfits."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lab.figures import sweep
from lab.figures.canvas import (
    AXIS_LABELS,
    FAINT,
    WARNING_COLOUR,
    Figures,
    Group,
    Summary,
    canvas,
    counted,
    label_axes,
    legend_of,
    one_seed,
    plot,
    seeds_and_mean,
    share_log_scale,
    styles,
)
from lab.figures.mistakes import best_model_figures
from lab.figures.results import differences, results
from lab.overfitting import failure, overfits_after
from lab.summary import in_words


def figures(summary: Summary) -> Figures:
    """What is learned by heart, when each strategy overfits, its gap, and what a sweep has."""
    tried = [group for group in summary["groups"] if group["label"] in summary["candidates"]]
    return {
        "learning": partial(learning, summary),
        "losses": partial(losses, summary, tried),
        "gap": partial(results, summary, tried),
        "differences": partial(differences, summary, tried),
        "comparison": partial(sweep.comparison, summary, tried),
        **sweep.each(summary, tried),
        **best_model_figures(summary),
    }


def learning(summary: Summary) -> Figure:
    """What had to be learned by heart, and the whole split: curves of every seed, and steps."""
    stages, look = summary["learning"], styles(summary)
    by_label = {group["label"]: group for group in summary["groups"]}
    groups = [by_label[stage["label"]] for stage in stages]
    failed = [failure(stage) for stage in stages if stage["could_not"]]
    words = "; ".join(failed) or "can the network learn what it trains on?"
    note = "Of one image and one batch an epoch is one step, and loss is measured after it"
    figure, panels = canvas(summary, words, groups, 2, 2, height=7, note=note)
    for axes, stage, group in zip(panels, stages, groups, strict=False):
        learning_curves(axes, stage, group, look[stage["label"]][0])
    axes, names = panels[-1], []
    for row, stage in enumerate(stages):
        colour, marker, _ = look[stage["label"]]
        took = [steps for steps in stage["steps"] if steps is not None]
        names.append(f"{stage['label']}\n{len(took)} of {len(stage['steps'])} seeds")
        axes.plot(took, [row] * len(took), "o", color=colour, alpha=0.4, markersize=5)
        if took:
            mean = (sum(took) / len(took), row + 0.25)
            axes.plot(*mean, marker, color=colour)
            axes.annotate(f"{mean[0]:,.1f}", mean, (7, 0), textcoords="offset points", va="center")
    axes.set_xscale("log")
    axes.set_xlim(0.8, 3 * max(stage["most_steps"] for stage in stages))
    axes.set_yticks(range(len(stages)), names)
    axes.set_ylim(len(stages) - 0.4, -0.6)
    axes.set_xlabel("steps: seeds and mean")
    axes.set_title("steps until the goal was reached")
    mean = Line2D([], [], color="black", linewidth=2, label="mean")
    legend_of(figure, panels[-1], mean, one_seed())
    return figure


def learning_curves(axes: Axes, stage: dict[str, Any], group: Group, colour: str) -> None:
    """Every seed and the mean on the way to a stage's goal: by heart in loss, else in accuracy."""
    if stage["by_heart"]:
        name, quantity, goal, words = "val_loss", "loss", stage["loss"], f"below {stage['loss']:g}"
    else:
        name, quantity, goal = "train_accuracy", "accuracy", 100 * stage["accuracy"]
        words = f"{goal:g}%"
    for run in group["runs"]:
        plot(axes, run[name], quantity, color=colour, **FAINT)
    plot(axes, group["mean"][name], quantity, color=colour, linewidth=2)
    axes.axhline(goal, color="black", linestyle=":")
    place = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    axes.annotate(f"goal: {words}", (0.02, goal), (0, 3), **place)
    label_axes(axes, quantity, len(group["mean"][name]))
    title = stage["label"]
    if stage["by_heart"]:
        axes.set_xlabel("step")
        axes.set_xscale("log")
        axes.set_xlim(1, len(group["mean"][name]))
        axes.set_yscale("log")
    else:
        title += ", on the whole training split"
        axes.set_ylabel(f"training {AXIS_LABELS[quantity]}")
        axes.set_ylim(0, 102)
    axes.set_title(title)
    if stage["could_not"]:
        seeds = f"SEED{'S' if len(stage['could_not']) > 1 else ''} {in_words(stage['could_not'])}"
        axes.set_title(f"{title}\nNOT LEARNED FROM {seeds}", color=WARNING_COLOUR)


def losses(summary: Summary, groups: Sequence[Group]) -> Figure:
    """Loss of every strategy on one scale: every seed, the mean, and where it overfits from."""
    columns = min(4, len(groups))
    rows = -(-len(groups) // columns)
    words = "where training and validation loss part"
    size = {"height": 1.2 + 3 * rows, "width": max(10.0, 3.2 * columns)}
    figure, panels = canvas(summary, words, groups, rows, columns, curves=True, **size)
    for axes in panels[len(groups) :]:
        axes.remove()
    shown = panels[: len(groups)]
    for axes, group in zip(shown, groups, strict=True):
        seeds_and_mean(axes, group, "loss", styles(summary)[group["label"]][0])
        axes.set_title(f"{group['label']}\n{counted(group)}")
        if epoch := overfits_after(group["mean"]["val_loss"]):
            early = epoch <= len(group["mean"]["val_loss"]) / 2
            axes.axvline(epoch, color="black", linestyle="-.", linewidth=0.8)
            axes.annotate(
                f"epoch {epoch}",
                (epoch, 0.98),
                (4 if early else -4, 0),
                xycoords=axes.get_xaxis_transform(),
                textcoords="offset points",
                ha="left" if early else "right",
                va="top",
            )
    share_log_scale(shown)  # so that one seed's spike leaves the others to be seen
    lowest = Line2D([], [], color="black", linestyle="-.", label="lowest mean validation loss")
    legend_of(figure, shown[0], one_seed(), lowest)
    return figure
