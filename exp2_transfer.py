"""Experiment 2.2: do features learned with dropout transfer better, and how many should be frozen?

The convolutions that experiment 2.1 trained, without dropout and at its best dropout rate, are
frozen; the dense layers are drawn anew and retrained on the half of the images that 2.1 validated
on. They are compared with 2.1's models, in which all layers trained together, and with experiment
1.1's best, which is used as it is. Then, without dropout, all three, the first two, the first or
none of the convolutions are frozen, at the full learning rate and at a tenth of it. Only the test
set is the same for all: 1.1's trained on 45,000 images, 2.1's on 25,000, the retrained ones on
25,000 before and the other 25,000 after. These are validated on the half that they come from, which
favours those that keep more of it, so the best is chosen only from the two that freeze the same.

    python exp2_transfer.py            # trains what is missing of 1.1 and 2.1, too
    python exp2_transfer.py --quick    # a rehearsal in under a minute, without CIFAR-10

It costs 45 runs of 50 epochs on 25,000 images, as many images in all as the 25 runs of 1.1 on
45,000; in 35 of the 45 some layers are frozen and need no gradients.
"""

import dataclasses
from collections.abc import Sequence

import errors
import exp1_lr
import exp2_dropout
from errors import UserError
from experiment import Constants, Experiment, Groups, check_constants
from runs import Run
from summary import Record, best_label, compare

EPOCHS = 50
BATCH_SIZE = 64  # images; the last batch of an epoch is smaller
SEEDS = [1, 2, 3, 4, 5]  # seed s retrains what experiment 2.1 trained from seed s
LEARNING_RATE = 0.1
FINE_TUNING_DIVISOR = 10  # of the learning rate, to change less of what is not frozen
SMOOTHING_WINDOW = 3  # epochs, for validation curves in the comparison

CONVOLUTIONS = ("conv1", "conv2", "conv3")  # in the order in which they are frozen


def constants() -> Constants:
    """What stands above, by name, to be checked and recorded."""
    return {
        "EPOCHS": EPOCHS,
        "BATCH_SIZE": BATCH_SIZE,
        "SEEDS": SEEDS,
        "LEARNING_RATE": LEARNING_RATE,
        "FINE_TUNING_DIVISOR": FINE_TUNING_DIVISOR,
        "SMOOTHING_WINDOW": SMOOTHING_WINDOW,
    }


def sources(label: str, records: Sequence[Record]) -> list[Run]:
    """The runs of 2.1 to start from: those of this setting and our seeds that did not diverge."""
    diverged = [record["seed"] for record in records if record["diverged_at_epoch"] is not None]
    found = [run for run in exp2_dropout.runs()[label] if run.seed in set(SEEDS) - set(diverged)]
    if not found:
        raise UserError(f"SEEDS = {SEEDS}: all runs of {label} diverged: lower their learning rate")
    return found


def runs(
    sources: Sequence[Run],
    frozen: Sequence[str] = CONVOLUTIONS,
    learning_rate: float = LEARNING_RATE,
) -> list[Run]:
    """Each source retrained, but for its frozen layers, on the images that it was validated on."""
    return [
        dataclasses.replace(
            source,
            start=source,
            frozen=tuple(frozen),
            reinitialised=("fc1", "fc2"),
            learning_rate=learning_rate,
            epochs=EPOCHS,
            batch_size=BATCH_SIZE,
            split="swapped halves",
        )
        for source in sources
    ]


def finer_runs(sources: Sequence[Run]) -> Groups:
    """From no to all convolutions frozen, at both rates; all at the full rate are runs() as is."""
    return {
        f"frozen={frozen}, lr={rate:.12g}": runs(sources, CONVOLUTIONS[:frozen], rate)
        for frozen in range(len(CONVOLUTIONS) + 1)
        for rate in (LEARNING_RATE, LEARNING_RATE / FINE_TUNING_DIVISOR)
        if (frozen, rate) != (len(CONVOLUTIONS), LEARNING_RATE)
    }


def main() -> None:
    experiment = Experiment(__file__, __doc__, constants())
    theirs = check_constants("exp2_dropout.py", exp2_dropout.constants())
    if 0 not in theirs["DROPOUT_RATES"] or len(theirs["DROPOUT_RATES"]) == 1:
        raise UserError("DROPOUT_RATES in exp2_dropout.py: must hold 0 and at least one other rate")
    if not set(SEEDS) <= set(theirs["SEEDS"]):
        raise UserError(f"SEEDS = {SEEDS}: must all be among those of exp2_dropout.py")
    fixed = experiment.train_shared(exp1_lr)
    untouched = best_label(fixed)
    whole = experiment.train_shared(exp2_dropout)
    plain = "dropout=0"
    dropped = best_label({label: whole[label] for label in whole if label != plain})
    starts = {label: sources(label, whole[label]) for label in (plain, dropped)}
    retraining = {f"retrained, {label}": runs(starts[label]) for label in starts}
    finer = finer_runs(starts[plain])
    retrained = experiment.train(retraining | finer)
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
        *((label, f"retrained, {plain}") for label in finer),
    ]
    compared = {f"retrained, {plain}": retraining[f"retrained, {plain}"]} | finer
    summary = experiment.summarise(
        records,
        candidates=list(retraining),
        comparisons=[compare(one, records[one], other, records[other]) for one, other in pairs],
        trainable_parameters=experiment.trainable_parameters(compared),
    )
    experiment.report(summary)


if __name__ == "__main__":
    errors.run(main)
