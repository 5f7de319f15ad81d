"""Experiment 2.1, dropout: how does the dropout rate change training and generalisation?

DropoutNet drops activations of its first dense layer. It is trained at five dropout rates, each
from the same five seeds, on one half of CIFAR-10's training images, and validated on the other
half. The last batch of an epoch has 40 images, not 8 as in experiment 1.1.

    python exp2_dropout.py            # 25 runs of 50 epochs, on 25,000 images
    python exp2_dropout.py --quick    # a rehearsal without CIFAR-10, in under a minute
"""

import lab
from lab import Experiment, Groups
from lab.summary import best

EPOCHS = 50
BATCH_SIZE = 64  # images; the last batch of an epoch is smaller
SEEDS = [1, 2, 3, 4, 5]  # a seed fixes a run's initial weights, order of batches and dropout noise
LEARNING_RATE = 0.05
DROPOUT_RATES = [0, 0.2, 0.4, 0.6, 0.8]  # the probability that an activation is dropped
SMOOTHING_WINDOW = 3  # epochs, for the validation curves in the comparison figure


def runs() -> Groups:
    """Every dropout rate from every seed."""
    return {
        f"dropout={rate:.12g}": lab.from_seeds(
            SEEDS,
            network="DropoutNet",
            dropout_rate=rate,
            learning_rate=LEARNING_RATE,
            epochs=EPOCHS,
            batch_size=BATCH_SIZE,
            split="halves",
        )
        for rate in DROPOUT_RATES
    }


def main(experiment: Experiment) -> None:
    records = experiment.train(runs())
    winner = best({label: group for label, group in records.items() if label != "dropout=0"})
    finding = (
        f"Of the rates above zero, {winner} has the highest mean validation accuracy. Experiment "
        "2.2 uses it."
    )
    experiment.report(records, findings=[finding] if winner else [])


if __name__ == "__main__":
    lab.run(main, globals())
