"""Experiment 2.2: do features learned with dropout transfer better to new images?

The convolutions that experiment 2.1 trained, without dropout and at its best dropout rate, are
frozen; the dense layers are drawn anew and retrained on the half of the images that 2.1 validated
on. They are compared with 2.1's models, in which all layers trained together, and with experiment
1.1's best, which is used as it is. Only the test set is the same for all: the retrained models are
validated on the half that their convolutions were trained on. Nor is what they trained on: 1.1's
saw 45,000 images, 2.1's 25,000, the retrained ones 25,000 for the convolutions and the other 25,000
for the dense layers.

    python exp2_transfer.py            # trains what is missing of 1.1 and 2.1, too
    python exp2_transfer.py --quick    # a rehearsal in under a minute, without CIFAR-10
"""

import dataclasses

import errors
import exp1_lr
import exp2_dropout
from errors import UserError
from experiment import Constants, Experiment
from runs import Run
from summary import best_label, compare

EPOCHS = 50
BATCH_SIZE = 64  # images; the last batch of an epoch is smaller
SEEDS = [1, 2, 3, 4, 5]  # seed s retrains what experiment 2.1 trained from seed s
LEARNING_RATE = 0.1
SMOOTHING_WINDOW = 3  # epochs, for validation curves in the comparison


def constants() -> Constants:
    """What stands above, by name, to be checked and recorded."""
    return {
        "EPOCHS": EPOCHS,
        "BATCH_SIZE": BATCH_SIZE,
        "SEEDS": SEEDS,
        "LEARNING_RATE": LEARNING_RATE,
        "SMOOTHING_WINDOW": SMOOTHING_WINDOW,
    }


def runs(sources: list[Run]) -> list[Run]:
    """Each source retrained on the images that it was validated on."""
    return [
        dataclasses.replace(
            source,
            start=source,
            frozen=("conv1", "conv2", "conv3"),
            reinitialised=("fc1", "fc2"),
            learning_rate=LEARNING_RATE,
            epochs=EPOCHS,
            batch_size=BATCH_SIZE,
            split="swapped halves",
        )
        for source in sources
        if source.seed in SEEDS
    ]


def main() -> None:
    experiment = Experiment(__file__, __doc__, constants())
    if 0 not in exp2_dropout.DROPOUT_RATES or len(exp2_dropout.DROPOUT_RATES) == 1:
        raise UserError("DROPOUT_RATES in exp2_dropout.py: must hold 0 and at least one other rate")
    if not set(SEEDS) <= set(exp2_dropout.SEEDS):
        raise UserError(f"SEEDS = {SEEDS}: must all be among those of exp2_dropout.py")
    fixed = experiment.train_shared(exp1_lr)
    untouched = best_label(fixed)
    whole = experiment.train_shared(exp2_dropout)
    plain = "dropout=0"
    best_label({plain: whole[plain]})  # at least one of its runs must have got to the end
    dropped = best_label({label: whole[label] for label in whole if label != plain})
    sound = {
        label: {run["seed"] for run in whole[label] if run["diverged_at_epoch"] is None}
        for label in (plain, dropped)
    }
    retrained = experiment.train(
        {
            f"retrained, {label}": runs(
                [run for run in exp2_dropout.runs()[label] if run.seed in seeds]
            )
            for label, seeds in sound.items()
        }
    )
    records = {
        f"untouched, {untouched}": fixed[untouched],
        plain: whole[plain],
        dropped: whole[dropped],
        **retrained,
    }
    pairs = [
        (f"retrained, {dropped}", f"retrained, {plain}"),
        (f"retrained, {plain}", plain),
        (f"retrained, {dropped}", dropped),
        (f"retrained, {dropped}", f"untouched, {untouched}"),
        (dropped, plain),
    ]
    summary = experiment.summarise(
        records,
        candidates=list(retrained),
        comparisons=[compare(one, records[one], other, records[other]) for one, other in pairs],
    )
    experiment.report(summary)


if __name__ == "__main__":
    errors.run(main)
