"""Whether a network can learn what it trains on, after how many steps, and when it overfits."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from lab.records import all_settings
from lab.summary import Record, Records, in_words, spread, summarise_group
from lab.tables import beside_others, named, percent, seeds_in_words, signed

Curve = Sequence[float | None]  # one number an epoch, None once the run has diverged


def stage(
    label: str,
    records: Sequence[Record],
    accuracy: float,
    steps_per_epoch: int = 1,
    loss: float | None = None,
) -> dict[str, Any]:
    """After how many steps each seed of a group had learned what it trains on; None: it had not.

    Learned means at least this accuracy and, where one is given, a loss below this (nats), measured
    after an epoch where a run validates on its training images, else during it.
    """
    run = all_settings(records[0]["run"])
    part = "val" if run["overfit_images"] else "train"
    epochs = [
        first_epoch(record[f"{part}_accuracy"], record[f"{part}_loss"], accuracy, loss)
        for record in records
    ]
    seeds = [record["seed"] for record in records]
    return {
        "label": label,
        "by_heart": bool(run["overfit_images"]),
        "accuracy": accuracy,
        "loss": loss,
        "seeds": seeds,
        "could_not": [seed for seed, epoch in zip(seeds, epochs, strict=True) if epoch is None],
        "steps": [epoch and epoch * steps_per_epoch for epoch in epochs],
        "most_steps": run["epochs"] * steps_per_epoch,
        "train_accuracy": spread(record["train_accuracy"][-1] for record in records),
    }


def first_epoch(reached: Curve, left: Curve, accuracy: float, loss: float | None) -> int | None:
    """The first epoch, from 1, that reached this accuracy and left less than this loss."""
    for epoch, (one, other) in enumerate(zip(reached, left, strict=True), 1):
        if one is not None and one >= accuracy and (loss is None or other < loss):
            return epoch
    return None


def overfits_after(val_losses: Curve) -> int | None:
    """The epoch, counted from 1, of the lowest validation loss; None if that is the last."""
    losses = [math.inf if loss is None else loss for loss in val_losses]
    lowest = losses.index(min(losses)) + 1
    return lowest if lowest < len(losses) and min(losses) < math.inf else None


def failure(stage: dict[str, Any]) -> str:
    """A headline for a stage that some seed did not learn."""
    what = stage["label"] if stage["by_heart"] else f"the whole split ({stage['label']})"
    return f"COULD NOT LEARN {what.upper()}"


def learned(stage: dict[str, Any]) -> str:
    """Which seeds learned what they train on, in how many steps; in capitals if some did not."""
    took, end = [n for n in stage["steps"] if n is not None], stage["train_accuracy"]
    reached = f"reached by {len(took)} of {len(stage['steps'])} seeds"
    if took:
        reached += f", after {min(took):,} to {max(took):,} steps (mean {fmean(took):,.1f})"
    goal = f"{100 * stage['accuracy']:g}% training accuracy"
    what = f"The whole split ({stage['label']})"
    if stage["by_heart"]:
        goal = f"a loss below {stage['loss']:g} with {100 * stage['accuracy']:g}% accuracy"
        what = f"Memorising {stage['label']}"
    elif end["mean"]:
        reached += f"; after {stage['most_steps']:,} steps it is {percent(end['mean'], end['std'])}"
    if not stage["could_not"]:
        return f"{what}: {goal} is {reached}."
    return (
        f"**{failure(stage)}**, from {seeds_in_words(stage['could_not'])}: {goal} in "
        f"{stage['most_steps']:,} steps is {reached}. Trust no other result of this experiment "
        "before every stage is learned. Check the learning rate (does the loss swing, or does it "
        "still fall?), the initial weights, the gradients, and that images and labels match."
    )


def in_short(stages: Sequence[dict[str, Any]], comparisons: Sequence[dict[str, Any]]) -> str:
    """How many seeds learned what they train on, and how the comparisons with one setting end.

    The comparisons are those of several settings minus the same one.
    """
    fitted = []
    for one in stages:
        what = f"fit {one['label']}"
        if not one["by_heart"]:
            what = f"reach {100 * one['accuracy']:g}% on the whole split during training"
        sound = len(one["seeds"]) - len(one["could_not"])
        fitted.append(f"{sound} of {len(one['seeds'])} seeds {what}")
    changes = [f"{signed(pair['gap']['mean'])} with {named(pair['label'])}" for pair in comparisons]
    same = comparisons[0]["minus"]
    warning = " Trust none of the following." if any(one["could_not"] for one in stages) else ""
    return (
        f"{in_words(fitted)}.{warning} The generalisation gap minus that of {named(same)} is, in "
        f"points, {in_words(changes)}. On the test set, {named(same)} is "
        f"{beside_others(same, comparisons)}."
    )


def overfitting(records: Records) -> str:
    """After which epoch the mean validation loss of each setting is lowest, and then rises."""
    found = []
    for label, group in records.items():
        losses = summarise_group(label, group)["mean"]["val_loss"]
        if losses[0] is None:
            continue  # all diverged
        epoch = overfits_after(losses)
        known = [one for run in group if (one := overfits_after(run["val_loss"]))]
        seeds = f" (single seeds: {min(known)} to {max(known)})" if epoch and known else ""
        found.append(f"{f'epoch {epoch}' if epoch else 'the last epoch'} for {named(label)}{seeds}")
    after = in_words(found) if found else "an unknown epoch, as all runs diverged"
    return f"Mean validation loss is lowest after {after}."
