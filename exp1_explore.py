"""Experiment 1.0: which learning rates are worth a closer look?

Before 1.1, BaselineNet is trained from five seeds at rates over five powers of ten, from those that
break training to those that hardly train, on the same split of CIFAR-10; 1.1 shares the runs at the
rates that both have. Of the rates at which most runs do not diverge, the suggested range is the
unbroken row around the best whose mean validation accuracy after the last epoch is within
RANGE_MARGIN of the best's.

    python exp1_explore.py            # the whole sweep; interrupt it at will
    python exp1_explore.py --quick    # a rehearsal in under a minute, without CIFAR-10

It costs 35 runs of 50 epochs on 45,000 images, 10 of which are among the 25 runs of 1.1.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import errors
import exp1_lr
from experiment import Constants, Experiment, Groups
from page import suggested
from runs import Run
from summary import Record, best

EPOCHS = 50
BATCH_SIZE = 64  # images; the last batch of an epoch is smaller
SEEDS = [1, 2, 3, 4, 5]  # initial weights and the order of every epoch follow from a run's seed
LEARNING_RATES = [0.2, 0.15, 0.1, 0.01, 0.001, 0.0001, 0.00001]
RANGE_MARGIN = 0.05  # of accuracy: a rate that is 5 percentage points below the best is worth a try
SMOOTHING_WINDOW = 5  # epochs, for validation curves in the comparison


def constants() -> Constants:
    """What stands above, by name, to be checked and recorded."""
    return {
        "EPOCHS": EPOCHS,
        "BATCH_SIZE": BATCH_SIZE,
        "SEEDS": SEEDS,
        "LEARNING_RATES": LEARNING_RATES,
        "RANGE_MARGIN": RANGE_MARGIN,
        "SMOOTHING_WINDOW": SMOOTHING_WINDOW,
    }


def runs() -> Groups:
    """Every learning rate from every seed."""
    return {
        f"lr={rate:.12g}": [
            Run(
                network="BaselineNet",
                seed=seed,
                learning_rate=rate,
                epochs=EPOCHS,
                batch_size=BATCH_SIZE,
                split="standard",
            )
            for seed in SEEDS
        ]
        for rate in LEARNING_RATES
    }


def mostly_sound(trained: dict[str, list[Record]]) -> list[str]:
    """The labels of the rates at which most runs did not diverge."""
    return [
        label
        for label, records in trained.items()
        if 2 * sum(record["diverged_at_epoch"] is not None for record in records) < len(records)
    ]


def suggested_range(
    groups: Sequence[dict[str, Any]], candidates: Sequence[str], margin: float
) -> list[float] | None:
    """The lowest and the highest rate of the range that the groups of a summary suggest.

    It lies among the candidates, which are labels. margin is a fraction of accuracy. None where
    there is no candidate.
    """
    sound = [group for group in groups if group["label"] in candidates]
    reached = {group["label"]: group["mean"]["val_accuracy"][-1] for group in sound}
    least = max(reached.values(), default=0.0) - margin
    by_rate = sorted(groups, key=lambda group: group["settings"]["learning_rate"])
    for _, row in groupby(by_rate, key=lambda group: reached.get(group["label"], -1.0) >= least):
        rates = {group["label"]: group["settings"]["learning_rate"] for group in row}
        if best(sound) in rates:
            return [min(rates.values()), max(rates.values())]
    return None


def main() -> None:
    experiment = Experiment(__file__, __doc__, constants())
    trained = experiment.train_with(exp1_lr, runs())
    sound = mostly_sound(trained)
    summary = experiment.summarise(trained, candidates=sound)
    summary["suggested_range"] = suggested_range(summary["groups"], sound, RANGE_MARGIN)
    experiment.report(summary)
    print(*suggested(summary))


if __name__ == "__main__":
    errors.run(main)
