"""The figures of experiment 4.1: what is learned by heart, and when each strategy overfits."""

from collections.abc import Sequence
from functools import partial
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from lab.figures import canvas, sweep
from lab.figures.canvas import WARNING_COLOUR, Figures, Group, Summary
from lab.overfitting import failure, overfits_after


def figures(summary: Summary) -> Figures:
    """What is learned by heart, when each strategy overfits, and what a sweep has."""
    tried = [group for group in summary["groups"] if group["label"] in summary["candidates"]]
    return {
        "learning": partial(learning, summary),
        "losses": partial(losses, summary, tried),
        **sweep.figures(summary, tried),
    }


def learning(summary: Summary) -> Figure:
    """What had to be learned by heart, and the whole split: every seed, the mean, and the goal."""
    stages, look = summary["learning"], canvas.styles(summary)
    by_label = {group["label"]: group for group in summary["groups"]}
    groups = [by_label[stage["label"]] for stage in stages]
    failed = [failure(stage) for stage in stages if stage["could_not"]]
    words = "; ".join(failed) or "can the network learn what it trains on?"
    note = "With one image or one batch, an epoch is one step. The loss is measured after the step"
    figure, panels = canvas.blank(summary, words, groups, len(stages), len(stages), note=note)
    for axes, stage, group in zip(panels, stages, groups, strict=True):
        quantity, name, goal = "accuracy", "train_accuracy", 100 * stage["accuracy"]
        if stage["by_heart"]:
            quantity, name, goal = "loss", "val_loss", stage["loss"]
        colour = look[stage["label"]]["color"]
        canvas.seeds_and_mean(axes, group, name, color=colour, label="mean")
        axes.axhline(goal, color="black", linestyle=":", label="goal")
        canvas.label_epochs(axes, quantity, [group])
        if stage["by_heart"]:
            axes.set(xscale="log", yscale="log", xlabel="step", xlim=(1, len(group["mean"][name])))
        else:
            axes.set(ylabel="training accuracy (%)", ylim=(0, 100))
        axes.set_title(title(stage), color=WARNING_COLOUR if stage["could_not"] else "black")
    return figure


def title(stage: dict[str, Any]) -> str:
    """A stage, how many seeds reached its goal, and after how many steps."""
    what = stage["label"] if stage["by_heart"] else f"{stage['label']}, the whole split"
    goal = f"loss below {stage['loss']:g}" if stage["by_heart"] else f"{100 * stage['accuracy']:g}%"
    took = [steps for steps in stage["steps"] if steps is not None]
    words = f"{what}\n{goal}: {len(took)} of {len(stage['steps'])} seeds"
    return words + (f"\nafter {fmean(took):,.0f} steps (mean)" if took else "\nNOT LEARNED")


def losses(summary: Summary, groups: Sequence[Group]) -> Figure:
    """Loss of every strategy on one scale: every seed, the mean, and where it overfits from."""
    words = "training and validation loss"
    titles = {f"{group['label']}\n{canvas.counted(group)}": group for group in groups}
    figure, panels = sweep.side_by_side(summary, words, titles, ["loss"], 4)
    for axes, group in zip(panels, groups, strict=True):
        if epoch := overfits_after(group["mean"]["val_loss"]):
            label = "lowest mean validation loss"
            axes.axvline(epoch, linestyle="-.", label=label, **canvas.ACROSS)
            axes.set_title(f"{axes.get_title()}, lowest after epoch {epoch}", fontsize=11)
    return figure
