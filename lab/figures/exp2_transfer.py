"""The figures of experiment 2.2: all models' results, and how many layers to freeze."""

from functools import partial

from lab.figures import results, sweep
from lab.figures.canvas import Figures, Summary

SEEN = (
    "Retrained and frozen models are validated on images that their sources were trained on: their "
    "validation accuracies are too high, their gaps too small"
)
NOTE = f"Frozen: how many convolutions are not trained; where it is not said, all three. {SEEN}"
BY_FROZEN = " by frozen layers"


def figures(summary: Summary) -> Figures:
    """All models' results, the retrained ones' curves, and what freezing fewer layers does."""
    starts = {group["label"]: group["settings"]["start"] for group in summary["groups"]}
    plain = starts[summary["candidates"][0]]
    frozen = [group for group in summary["groups"] if starts[group["label"]] == plain]
    frozen.sort(key=lambda g: (-g["settings"]["learning_rate"], len(g["settings"]["frozen"])))
    finer = [group for group in frozen if group["label"] not in summary["candidates"]]
    groups = [group for group in summary["groups"] if group not in finer]
    retrained = [group for group in groups if group["label"] in summary["candidates"]]
    return {
        **sweep.figures(summary, retrained, f"\n{SEEN}"),
        "test_accuracy": partial(results.results, summary, groups, f"{results.NOTE}\n{SEEN}"),
        **results.differences(summary, groups),
        "classes": partial(results.classes, summary, groups),
        "by_frozen_layers": partial(results.results, summary, frozen, NOTE, BY_FROZEN),
        **results.differences(summary, finer, BY_FROZEN),
        **sweep.each(summary, finer, f"\n{SEEN}"),
    }
