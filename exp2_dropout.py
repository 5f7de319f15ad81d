"""Experiment 2.1: how does the dropout rate change training and generalisation?

DropoutNet, which drops activations of its first dense layer, is trained at five dropout rates, each
from the same five seeds, on one half of CIFAR-10's training images, and validated on the other
half. The trained weights are kept for experiment 2.2.

    python exp2_dropout.py            # the whole sweep; interrupt it at will
    python exp2_dropout.py --quick    # a rehearsal in under a minute, without CIFAR-10

It costs 25 runs of 50 epochs, like 1.1, but on 25,000 images where 1.1 has 45,000.
"""

import errors
from experiment import Constants, Experiment, Groups
from runs import Run
from summary import best

EPOCHS = 50
BATCH_SIZE = 64  # images; the last batch of an epoch is smaller
SEEDS = [1, 2, 3, 4, 5]  # initial weights, order and dropout noise follow from a run's seed
LEARNING_RATE = 0.05
DROPOUT_RATES = [0, 0.2, 0.4, 0.6, 0.8]  # the probability that an activation is dropped
SMOOTHING_WINDOW = 3  # epochs, for validation curves in the comparison


def constants() -> Constants:
    """What stands above, by name, to be checked and recorded."""
    return {
        "EPOCHS": EPOCHS,
        "BATCH_SIZE": BATCH_SIZE,
        "SEEDS": SEEDS,
        "LEARNING_RATE": LEARNING_RATE,
        "DROPOUT_RATES": DROPOUT_RATES,
        "SMOOTHING_WINDOW": SMOOTHING_WINDOW,
    }


def runs() -> Groups:
    """Every dropout rate from every seed."""
    return {
        f"dropout={rate:.12g}": [
            Run(
                network="DropoutNet",
                dropout_rate=rate,
                seed=seed,
                learning_rate=LEARNING_RATE,
                epochs=EPOCHS,
                batch_size=BATCH_SIZE,
                split="halves",
            )
            for seed in SEEDS
        ]
        for rate in DROPOUT_RATES
    }


def main() -> None:
    experiment = Experiment(__file__, __doc__, constants())
    records = experiment.train(runs())
    summary = experiment.summarise(records)
    with_dropout = [group for group in summary["groups"] if group["label"] != "dropout=0"]
    summary["best_with_dropout"] = best(with_dropout)
    experiment.report(summary)
    print(f"best with dropout: {summary['best_with_dropout']}")


if __name__ == "__main__":
    errors.run(main)
