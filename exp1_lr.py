"""Experiment 1.1, learning rates: how does the learning rate change training and generalisation?

BaselineNet is trained with plain mini-batch SGD at five learning rates. Every rate starts from the
same five seeds and uses the same split of CIFAR-10: 45,000 images to train on, 5,000 to validate
on. The best rate has the highest mean validation accuracy after the last epoch.

    python exp1_lr.py            # 25 runs of 50 epochs; stop it at any time, it resumes
    python exp1_lr.py --quick    # a rehearsal without CIFAR-10, in under a minute
"""

import lab
from lab import Experiment, Groups

EPOCHS = 50
BATCH_SIZE = 64  # images; the last batch of an epoch is smaller
SEEDS = [1, 2, 3, 4, 5]  # a seed fixes a run's initial weights and the order of its batches
LEARNING_RATES = [0.1, 0.075, 0.05, 0.025, 0.01]
SMOOTHING_WINDOW = 5  # epochs, for the validation curves in the comparison figure


def runs() -> Groups:
    """Every learning rate from every seed."""
    return {
        f"lr={rate:.12g}": lab.from_seeds(
            SEEDS,
            network="BaselineNet",
            learning_rate=rate,
            epochs=EPOCHS,
            batch_size=BATCH_SIZE,
            split="standard",
        )
        for rate in LEARNING_RATES
    }


def main(experiment: Experiment) -> None:
    records = experiment.train(runs())
    experiment.report(records)


if __name__ == "__main__":
    lab.run(main, globals())  # checks the constants above and reads the options
