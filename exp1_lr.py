"""Experiment 1.1: how does the learning rate change training and generalisation?

BaselineNet is trained by plain mini-batch SGD at five learning rates, each from the same five seeds
on the same seeded split of CIFAR-10: 45,000 images to train on, 5,000 to validate on. The best rate
is the one with the highest mean validation accuracy after the last epoch; the test set chooses
nothing.

    python exp1_lr.py            # the whole sweep; interrupt it at will, it goes on where it was
    python exp1_lr.py --quick    # a rehearsal in under a minute, without CIFAR-10

It costs 25 runs of 50 epochs on 45,000 images; README.md says how long that takes on what.
"""

import errors
from experiment import Constants, Experiment, Groups
from runs import Run

EPOCHS = 50
BATCH_SIZE = 64  # images; the last batch of an epoch is smaller
SEEDS = [1, 2, 3, 4, 5]  # initial weights and the order of every epoch follow from a run's seed
LEARNING_RATES = [0.1, 0.075, 0.05, 0.025, 0.01]
SMOOTHING_WINDOW = 5  # epochs, for validation curves in the comparison


def constants() -> Constants:
    """What stands above, by name, to be checked and recorded."""
    return {
        "EPOCHS": EPOCHS,
        "BATCH_SIZE": BATCH_SIZE,
        "SEEDS": SEEDS,
        "LEARNING_RATES": LEARNING_RATES,
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


def main() -> None:
    experiment = Experiment(__file__, __doc__, constants())
    summary = experiment.summarise(experiment.train(runs()))
    experiment.report(summary)


if __name__ == "__main__":
    errors.run(main)
