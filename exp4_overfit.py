"""Experiment 4.1, overfitting: can the network fit its images, and what reduces the gap?

BaselineNet must first fit one image, then one batch: reach a loss near zero and 100% accuracy on
the images that it trains on. Then it is trained on the whole training split, where it overfits:
this is the baseline. Dropout, weight decay, augmentation (random mirroring and shifts), fewer
channels, and the first three combined are compared with it, seed by seed: do they reduce the gap
between training and validation accuracy? The baseline has seeds of its own, not those of 1.1: all
runs of a seed should be trained on one machine, as machines round differently.

    python exp4_overfit.py            # 40 runs of 50 epochs and 10 of 600 steps
    python exp4_overfit.py --quick    # a rehearsal without CIFAR-10, in under a minute
"""

from typing import Any

import lab
from lab import Experiment, Groups
from lab.checks import SHARE, check, rules
from lab.overfitting import in_short, learned, overfitting, stage
from lab.summary import compare_all
from train import Run

EPOCHS = 50
BATCH_SIZE = 64  # images; the last batch of an epoch is smaller
SEEDS = [6, 7, 8, 9, 10]  # a seed fixes initial weights, order, dropout noise and augmentation
LEARNING_RATE = 0.05
OVERFIT_STEPS = 600  # on one image or one batch, where an epoch is one step
NEAR_ZERO_LOSS = 0.01  # nats, by which one image and one batch count as learned
WHOLE_SPLIT_ACCURACY = 0.9  # the training accuracy by which the whole split counts as learned
DROPOUT_RATE = 0.4
WEIGHT_DECAYS = [0.0001, 0.001, 0.01]
COMBINED_WEIGHT_DECAY = 0.001  # with dropout and augmentation
WIDTH = 8  # channels of the first convolution, on which all others depend; the baseline's are 16
SMOOTHING_WINDOW = 5  # epochs, for the validation curves in the comparison figure


def from_seeds(**changes: Any) -> list[Run]:
    """The baseline from every seed, except for these fields."""
    baseline = {"network": "BaselineNet", "learning_rate": LEARNING_RATE, "epochs": EPOCHS}
    baseline |= {"batch_size": BATCH_SIZE, "split": "standard"}
    return lab.from_seeds(SEEDS, **(baseline | changes))


def first_runs() -> Groups:
    """What must be memorised before anything else is tried."""
    return {
        label: from_seeds(overfit_images=images, batch_size=images, epochs=OVERFIT_STEPS)
        for label, images in {"one image": 1, "one batch": BATCH_SIZE}.items()
    }


def runs() -> Groups:
    """The baseline, what is tried against its overfitting, and three of those together."""
    dropout = {"network": "DropoutNet", "dropout_rate": DROPOUT_RATE}
    augmentation = {"augmentation": ("flip", "crop")}
    decays = {f"weight decay={d:.12g}": from_seeds(weight_decay=d) for d in WEIGHT_DECAYS}
    return {
        "baseline": from_seeds(),
        f"dropout={DROPOUT_RATE:.12g}": from_seeds(**dropout),
        **decays,
        "augmentation": from_seeds(**augmentation),
        f"width={WIDTH}": from_seeds(width=WIDTH),
        "combined": from_seeds(**dropout, **augmentation, weight_decay=COMBINED_WEIGHT_DECAY),
    }


def main(experiment: Experiment) -> None:
    known = rules()
    check(OVERFIT_STEPS, known["epochs"], f"{OVERFIT_STEPS = }:")
    check(NEAR_ZERO_LOSS, known["learning_rate"], f"{NEAR_ZERO_LOSS = }:")
    check(WHOLE_SPLIT_ACCURACY, SHARE, f"{WHOLE_SPLIT_ACCURACY = }:")
    by_heart = experiment.train(first_runs())
    stages = [stage(name, group, 1.0, loss=NEAR_ZERO_LOSS) for name, group in by_heart.items()]
    print(*map(learned, stages), sep="\n")  # before hours of training
    tried = experiment.train(runs())
    steps = experiment.steps_per_epoch(tried["baseline"][0])
    stages.append(stage("baseline", tried["baseline"], WHOLE_SPLIT_ACCURACY, steps_per_epoch=steps))
    records = by_heart | tried
    pairs = [(label, "baseline") for label in tried if label != "baseline"]
    experiment.report(
        records,
        candidates=list(tried),
        comparisons=pairs,
        answer=in_short(stages, compare_all(records, pairs)),
        findings=[*map(learned, stages), overfitting(tried)],
        learning=stages,
        trainable_parameters=experiment.trainable_parameters(records),
    )


if __name__ == "__main__":
    lab.run(main, globals())
