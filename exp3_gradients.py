"""Experiment 3, gradient flow: how do dropout and batch normalisation change the gradients?

BaselineNet, DropoutNet (at 0.6) and BatchNormNet are trained for 30 epochs from seeds 1984 to 1988.
The mean and the standard deviation of |gradient| are gathered for every parameter tensor: over the
first and last five steps, the first and last five epochs, and every epoch. Then BatchNormNet is
trained for 50 epochs from seeds 1 to 5, and compared with BaselineNet at the same learning rate
(3.4). These runs of BaselineNet are those of experiment 1.1.

    python exp3_gradients.py            # 15 runs of 30 epochs and 10 of 50; 1.1 shares 5 of these
    python exp3_gradients.py --quick    # a rehearsal without CIFAR-10, in under a minute
"""

from typing import Any

import lab
from lab import Experiment, Groups
from lab.gradient_sizes import MEANING, in_short, multiples, table
from lab.summary import compare_all
from lab.tables import in_a_sentence
from train import Run

EPOCHS = 30  # of the runs whose gradients are watched
BATCH_SIZE = 64  # images; the last batch of an epoch is smaller
SEEDS = [1984, 1985, 1986, 1987, 1988]
LEARNING_RATE = 0.05
DROPOUT_RATE = 0.6
PERFORMANCE_EPOCHS = 50  # of 3.4, as in experiment 1.1
PERFORMANCE_SEEDS = [1, 2, 3, 4, 5]
SMOOTHING_WINDOW = 5  # epochs, for the validation curves in the comparison figure


def from_seeds(seeds: list[int], network: str, epochs: int, **fields: Any) -> list[Run]:
    """A network from every seed, as all of experiment 3 trains it."""
    fields |= {"learning_rate": LEARNING_RATE, "batch_size": BATCH_SIZE, "split": "standard"}
    return lab.from_seeds(seeds, network=network, epochs=epochs, **fields)


def watched_runs() -> Groups:
    """Experiments 3.1 to 3.3: each network from every seed, its gradients watched."""
    rates = {"BaselineNet": 0.0, "DropoutNet": DROPOUT_RATE, "BatchNormNet": 0.0}
    return {
        f"{network}, gradients": from_seeds(
            SEEDS, network, EPOCHS, dropout_rate=dropout_rate, gradient_statistics=True
        )
        for network, dropout_rate in rates.items()
    }


def performance_runs() -> Groups:
    """Experiment 3.4: with and without batch normalisation, at full length."""
    return {
        network: from_seeds(PERFORMANCE_SEEDS, network, PERFORMANCE_EPOCHS)
        for network in ("BaselineNet", "BatchNormNet")
    }


def runs() -> Groups:
    """All of experiment 3."""
    return watched_runs() | performance_runs()


def main(experiment: Experiment) -> None:
    records = experiment.train(runs())
    watched = {group[0].network: records[label] for label, group in watched_runs().items()}
    pairs, found = [("BatchNormNet", "BaselineNet")], multiples(watched)
    compared = map(in_a_sentence, compare_all(records, pairs))
    experiment.report(
        records,
        candidates=list(performance_runs()),
        comparisons=pairs,
        answer=" ".join([*map(in_short, found), *compared]),
        findings=[MEANING] if found else [],
        tables={"Mean |gradient| of the weights, divided by BaselineNet's": table(found)},
    )


if __name__ == "__main__":
    lab.run(main, globals())
