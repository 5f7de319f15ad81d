"""Experiment 4.1: can the network learn at all, and what then closes the generalisation gap?

BaselineNet must first learn one image, then one batch, by heart: a loss near zero and 100% accuracy
on the very images that it trains on. On the whole training split it is the baseline, and overfits.
Dropout, weight decay, augmentation (random mirroring and shifts), fewer channels, and the first
three combined are compared with it, seed by seed. The baseline's runs are those of experiment 1.1.

    python exp4_overfit.py            # the whole sweep; interrupt it at will
    python exp4_overfit.py --quick    # a rehearsal in under a minute, without CIFAR-10

It costs 40 runs of 50 epochs on 45,000 images, 5 of which are among the 25 runs of 1.1, and 10 of
600 steps.
"""

from typing import Any

import errors
import exp1_lr
from experiment import Constants, Experiment, Groups
from page import learned
from runs import Run
from summary import compare, stage

EPOCHS = 50
BATCH_SIZE = 64  # images; the last batch of an epoch is smaller
SEEDS = [1, 2, 3, 4, 5]  # initial weights, order, dropout noise and augmentation follow from it
LEARNING_RATE = 0.05
OVERFIT_STEPS = 600  # on one image or one batch, where an epoch is one step
NEAR_ZERO_LOSS = 0.01  # nats, by which one image and one batch count as learned
MOST_OF_THE_SPLIT = 0.9  # the training accuracy by which the whole split counts as learned
DROPOUT_RATE = 0.4
WEIGHT_DECAYS = [0.0001, 0.001, 0.01]
COMBINED_WEIGHT_DECAY = 0.001  # with dropout and augmentation
WIDTH = 8  # channels of the first convolution, on which all others depend; the baseline's are 16
SMOOTHING_WINDOW = 5  # epochs, for validation curves in the comparison


def constants() -> Constants:
    """What stands above, by name, to be checked and recorded."""
    return {
        "EPOCHS": EPOCHS,
        "BATCH_SIZE": BATCH_SIZE,
        "SEEDS": SEEDS,
        "LEARNING_RATE": LEARNING_RATE,
        "OVERFIT_STEPS": OVERFIT_STEPS,
        "NEAR_ZERO_LOSS": NEAR_ZERO_LOSS,
        "MOST_OF_THE_SPLIT": MOST_OF_THE_SPLIT,
        "DROPOUT_RATE": DROPOUT_RATE,
        "WEIGHT_DECAYS": WEIGHT_DECAYS,
        "COMBINED_WEIGHT_DECAY": COMBINED_WEIGHT_DECAY,
        "WIDTH": WIDTH,
        "SMOOTHING_WINDOW": SMOOTHING_WINDOW,
    }


def from_every_seed(**fields: Any) -> list[Run]:
    """The baseline from every seed, but for the given fields."""
    baseline = {
        "network": "BaselineNet",
        "learning_rate": LEARNING_RATE,
        "epochs": EPOCHS,
        "batch_size": BATCH_SIZE,
        "split": "standard",
    }
    return [Run(**(baseline | fields), seed=seed) for seed in SEEDS]


def first_runs() -> Groups:
    """What must be learned by heart before anything else is worth a try."""
    return {
        label: from_every_seed(overfit_images=images, batch_size=images, epochs=OVERFIT_STEPS)
        for label, images in {"one image": 1, "one batch": BATCH_SIZE}.items()
    }


def runs() -> Groups:
    """The baseline, what is tried against its overfitting, and three of those together."""
    dropout = {"network": "DropoutNet", "dropout_rate": DROPOUT_RATE}
    augmentation = {"augmentation": ("flip", "crop")}
    return {
        "baseline": from_every_seed(),
        f"dropout={DROPOUT_RATE:.12g}": from_every_seed(**dropout),
        **{
            f"weight decay={decay:.12g}": from_every_seed(weight_decay=decay)
            for decay in WEIGHT_DECAYS
        },
        "augmentation": from_every_seed(**augmentation),
        f"width={WIDTH}": from_every_seed(width=WIDTH),
        "combined": from_every_seed(**dropout, **augmentation, weight_decay=COMBINED_WEIGHT_DECAY),
    }


def main() -> None:
    experiment = Experiment(__file__, __doc__, constants())
    first, strategies = first_runs(), runs()
    by_heart = experiment.train(first)
    stages = [stage(label, by_heart[label], 1.0, NEAR_ZERO_LOSS) for label in by_heart]
    print(*map(learned, stages), sep="\n")  # before hours of training
    records = experiment.train_with(exp1_lr, strategies)
    stages.append(stage("baseline", records["baseline"], MOST_OF_THE_SPLIT))
    counts = experiment.trainable_parameters(first | strategies)
    summary = experiment.summarise(
        by_heart | records,
        candidates=list(records),
        learning=stages,
        comparisons=[
            compare(label, records[label], "baseline", records["baseline"])
            for label in strategies
            if label != "baseline"
        ],
    )
    for group in summary["groups"]:
        group["parameters"] = counts[group["label"]]
    experiment.report(summary)
    print(*map(learned, stages), sep="\n")


if __name__ == "__main__":
    errors.run(main)
