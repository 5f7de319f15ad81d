"""Experiment 3: how do dropout and batch normalisation change the flow of gradients?

BaselineNet, DropoutNet and BatchNormNet are trained from the same five seeds, and the mean and the
standard deviation of |gradient| are gathered for every parameter tensor: over the first and last
five steps, the first and last five epochs, and every epoch. BatchNormNet is then trained for longer
(3.4) and compared with BaselineNet at the same rate, whose runs experiment 1.1 shares.

    python exp3_gradients.py            # the whole sweep; interrupt it at will
    python exp3_gradients.py --quick    # a rehearsal in under a minute, without CIFAR-10

It costs 15 runs of 30 epochs and 5 of 50 on 45,000 images, a little over half of 1.1's 25 runs of
50, and 5 more of 50 where 1.1 has not trained them yet.
"""

import errors
import exp1_lr
from experiment import Constants, Experiment, Groups
from runs import Run
from summary import compare

EPOCHS = 30  # of the runs whose gradients are watched
BATCH_SIZE = 64  # images; the last batch of an epoch is smaller
SEEDS = [1984, 1985, 1986, 1987, 1988]
LEARNING_RATE = 0.05
DROPOUT_RATE = 0.6
PERFORMANCE_EPOCHS = 50  # of 3.4, as in experiment 1.1
PERFORMANCE_SEEDS = [1, 2, 3, 4, 5]
SMOOTHING_WINDOW = 5  # epochs, for validation curves in the comparison


def constants() -> Constants:
    """What stands above, by name, to be checked and recorded."""
    return {
        "EPOCHS": EPOCHS,
        "BATCH_SIZE": BATCH_SIZE,
        "SEEDS": SEEDS,
        "LEARNING_RATE": LEARNING_RATE,
        "DROPOUT_RATE": DROPOUT_RATE,
        "PERFORMANCE_EPOCHS": PERFORMANCE_EPOCHS,
        "PERFORMANCE_SEEDS": PERFORMANCE_SEEDS,
        "SMOOTHING_WINDOW": SMOOTHING_WINDOW,
    }


def watched_runs() -> Groups:
    """Experiments 3.1 to 3.3: each network from every seed, its gradients watched."""
    rates = {"BaselineNet": 0.0, "DropoutNet": DROPOUT_RATE, "BatchNormNet": 0.0}
    return {
        f"{network}, gradients": [
            Run(
                network=network,
                dropout_rate=dropout_rate,
                seed=seed,
                learning_rate=LEARNING_RATE,
                epochs=EPOCHS,
                batch_size=BATCH_SIZE,
                split="standard",
                gradient_statistics=True,
            )
            for seed in SEEDS
        ]
        for network, dropout_rate in rates.items()
    }


def performance_runs() -> Groups:
    """Experiment 3.4: with and without batch normalisation, at full length."""
    return {
        network: [
            Run(
                network=network,
                seed=seed,
                learning_rate=LEARNING_RATE,
                epochs=PERFORMANCE_EPOCHS,
                batch_size=BATCH_SIZE,
                split="standard",
            )
            for seed in PERFORMANCE_SEEDS
        ]
        for network in ("BaselineNet", "BatchNormNet")
    }


def main() -> None:
    experiment = Experiment(__file__, __doc__, constants())
    watched = experiment.train(watched_runs())
    records = watched | experiment.train_with(exp1_lr, performance_runs())
    summary = experiment.summarise(
        records,
        candidates=["BaselineNet", "BatchNormNet"],
        comparisons=[
            compare("BatchNormNet", records["BatchNormNet"], "BaselineNet", records["BaselineNet"])
        ],
    )
    experiment.report(summary)


if __name__ == "__main__":
    errors.run(main)
