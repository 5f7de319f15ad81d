"""Experiment 3, gradient flow: how do dropout and batch normalisation change the gradients?

BaselineNet, DropoutNet and BatchNormNet are trained from the same five seeds. The mean and the
standard deviation of |gradient| are gathered for every parameter tensor: over the first and last
five steps, the first and last five epochs, and every epoch. Then BatchNormNet is trained for longer
(3.4) and compared with BaselineNet at the same rate, whose runs 1.1 shares.

    python exp3_gradients.py            # 15 runs of 30 epochs and 10 of 50; 1.1 shares 5 of these
    python exp3_gradients.py --quick    # a rehearsal without CIFAR-10, in under a minute
"""

import lab
from lab import Experiment, Groups

EPOCHS = 30  # of the runs whose gradients are watched
BATCH_SIZE = 64  # images; the last batch of an epoch is smaller
SEEDS = [1984, 1985, 1986, 1987, 1988]
LEARNING_RATE = 0.05
DROPOUT_RATE = 0.6
PERFORMANCE_EPOCHS = 50  # of 3.4, as in experiment 1.1
PERFORMANCE_SEEDS = [1, 2, 3, 4, 5]
SMOOTHING_WINDOW = 5  # epochs, for the validation curves in the comparison figure


def watched_runs() -> Groups:
    """Experiments 3.1 to 3.3: each network from every seed, its gradients watched."""
    rates = {"BaselineNet": 0.0, "DropoutNet": DROPOUT_RATE, "BatchNormNet": 0.0}
    return {
        f"{network}, gradients": lab.from_seeds(
            SEEDS,
            network=network,
            dropout_rate=dropout_rate,
            learning_rate=LEARNING_RATE,
            epochs=EPOCHS,
            batch_size=BATCH_SIZE,
            split="standard",
            gradient_statistics=True,
        )
        for network, dropout_rate in rates.items()
    }


def performance_runs() -> Groups:
    """Experiment 3.4: with and without batch normalisation, at full length."""
    return {
        network: lab.from_seeds(
            PERFORMANCE_SEEDS,
            network=network,
            learning_rate=LEARNING_RATE,
            epochs=PERFORMANCE_EPOCHS,
            batch_size=BATCH_SIZE,
            split="standard",
        )
        for network in ("BaselineNet", "BatchNormNet")
    }


def runs() -> Groups:
    """All of experiment 3."""
    return watched_runs() | performance_runs()


def main(experiment: Experiment) -> None:
    experiment.report(
        experiment.train(runs()),
        candidates=list(performance_runs()),
        comparisons=[("BatchNormNet", "BaselineNet")],
    )


if __name__ == "__main__":
    lab.run(main, globals())
