"""The figures of experiment 4.1: what is learned by heart, and when each strategy overfits."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.figures import canvas, mistakes, results, sweep
from lab.figures.canvas import WARNING_COLOUR, Figures, Group, Summary
from lab.overfitting import failure, overfits_after
from lab.summary import in_words, spread


def figures(summary: Summary) -> Figures:
    """What is learned by heart, when each strategy overfits, its gap, and what a sweep has."""
    tried = [group for group in summary["groups"] if group["label"] in summary["candidates"]]
    return {
        "learning": partial(learning, summary),
        "losses": partial(losses, summary, tried),
        "gap": partial(results.results, summary, tried),
        "differences": partial(results.differences, summary, tried),
        "comparison": partial(sweep.comparison, summary, tried),
        **sweep.each(summary, tried),
        **mistakes.figures(summary),
    }


def learning(summary: Summary) -> Figure:
    """What had to be learned by heart, and the whole split: curves of every seed, and steps."""
    stages, look, rows = summary["learning"], canvas.styles(summary), []
    by_label = {group["label"]: group for group in summary["groups"]}
    groups = [by_label[stage["label"]] for stage in stages]
    failed = [failure(stage) for stage in stages if stage["could_not"]]
    words = "; ".join(failed) or "can the network learn what it trains on?"
    note = "Of one image and one batch an epoch is one step, and loss is measured after it"
    figure, panels = canvas.blank(summary, words, groups, len(stages) + 1, 2, row=3.2, note=note)
    for axes, stage, group in zip(panels, stages, groups, strict=False):
        style = look[stage["label"]]
        learning_curves(axes, stage, group, style[0])
        took = [steps for steps in stage["steps"] if steps is not None]
        name = f"{stage['label']}\n{len(took)} of {len(stage['steps'])} seeds"
        rows.append((name, took, spread(took) | {"ci95": None}, style))
    axes = panels[-1]
    canvas.dots(axes, rows, "steps", scale=1)
    for at, (_, took, found, _) in enumerate(rows):
        if took:
            text = {"xytext": (7, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(f"{found['mean']:,.1f}", (found["mean"], at + 0.25), **text)
    axes.set(xscale="log", xlim=(0.8, 5 * max(stage["most_steps"] for stage in stages)))
    axes.set_title("steps until the goal was reached")
    canvas.legend(figure, axes, canvas.entry("mean", linewidth=2), canvas.entry("one seed"))
    return figure


def learning_curves(axes: Axes, stage: dict[str, Any], group: Group, colour: str) -> None:
    """Every seed and the mean on the way to a stage's goal: by heart in loss, else in accuracy."""
    name, goal, title = "train_accuracy", 100 * stage["accuracy"], stage["label"]
    words = f"{goal:g}%"
    if stage["by_heart"]:
        name, goal, words = "val_loss", stage["loss"], f"below {stage['loss']:g}"
    canvas.seeds_and_mean(axes, group, name, color=colour)
    axes.axhline(goal, color="black", linestyle=":")
    place = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    axes.annotate(f"goal: {words}", (0.02, goal), (0, 3), **place)
    canvas.label_epochs(axes, name.split("_")[1], [group])
    if stage["by_heart"]:
        axes.set(xscale="log", yscale="log", xlabel="step", xlim=(1, len(group["mean"][name])))
    else:
        axes.set(ylabel="training accuracy (%)", ylim=(0, 100))
        title += ", on the whole training split"
    if lost := stage["could_not"]:
        title += f"\nNOT LEARNED FROM SEED{'S' if len(lost) > 1 else ''} {in_words(lost)}"
    axes.set_title(title, color=WARNING_COLOUR if lost else "black")


def losses(summary: Summary, groups: Sequence[Group]) -> Figure:
    """Loss of every strategy on one scale: every seed, the mean, and where it overfits from."""
    words = "where training and validation loss part"
    titles = {f"{group['label']}\n{canvas.counted(group)}": group for group in groups}
    figure, panels = sweep.side_by_side(summary, words, titles, ["loss"], row=3)
    for axes, group in zip(panels, groups, strict=True):
        if epoch := overfits_after(group["mean"]["val_loss"]):
            axes.axvline(epoch, color="black", linestyle="-.", linewidth=1)
            early = epoch <= len(group["mean"]["val_loss"]) / 2
            style = {"ha": "left" if early else "right", "va": "bottom", "fontsize": canvas.SMALL}
            style |= {"transform": axes.get_xaxis_transform(), "bbox": canvas.BOX}
            axes.text(epoch + (1 if early else -1), 0.03, f"epoch {epoch}", **style)
    lowest = canvas.entry("lowest mean validation loss", linestyle="-.")
    canvas.legend(figure, panels[0], canvas.entry("one seed"), lowest)
    return figure
