"""Experiment 3, gradient flow: how do dropout and batch normalisation change the gradients?

BaselineNet, DropoutNet (at 0.6) and BatchNormNet are trained for 30 epochs from seeds 1984 to 1988.
The mean and the standard deviation of |gradient| are gathered for every parameter tensor: over the
first and last five steps, the first and last five epochs, and every epoch. Then BatchNormNet is
trained for 50 epochs from seeds 1 to 5, and compared with BaselineNet at the same learning rate
(3.4). These runs of BaselineNet are those of experiment 1.1.

    python exp3_gradients.py            # 15 runs of 30 epochs and 10 of 50; 1.1 shares 5 of these
    python exp3_gradients.py --quick    # a rehearsal without CIFAR-10, in under a minute
"""

from statistics import fmean
from typing import Any

import lab
from lab import Experiment, Groups, Record, Records, gradients
from lab.summary import compare_all, in_words
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


def sizes(group: list[Record], window: str) -> dict[str, float]:
    """Mean |gradient| of every weight tensor in a window, over the seeds that did not diverge."""
    seeds = [record["gradients"] for record in group if record["gradients"]]
    names = seeds[0]["parameters"] if seeds else []
    return {
        name: fmean(seed[window]["mean"][at] for seed in seeds)
        for at, name in enumerate(names)
        if name.endswith("weight")
    }


def multiples(records: Records) -> dict[str, dict[str, float]]:
    """Every weight tensor's mean |gradient| by network and window, divided by the first network's.

    What is unknown, as runs diverged, or divided by zero, is left out.
    """
    found, (first, *others) = {}, watched_runs()
    for label in others:
        for window in ("first_steps", "first_epochs", "last_epochs"):
            base, own = sizes(records[first], window), sizes(records[label], window)
            words = f"{label.split(',')[0]}, {window.replace('_', f' {gradients.WINDOW} ')}"
            found[words] = {n: own[n] / base[n] for n in base if base[n] and n in own}
    return {words: by_name for words, by_name in found.items() if by_name}


def main(experiment: Experiment) -> None:
    records = experiment.train(runs())
    found, first = multiples(records), next(iter(watched_runs())).split(",")[0]
    ends: dict[str, list[str]] = {}
    for words, by_name in found.items():
        network, window = words.split(", ")
        times = f"{min(by_name.values()):.3g} to {max(by_name.values()):.3g}"
        ends.setdefault(network, []).append(f"{times} in the {window}")
    told = [
        f"The mean |gradient| of {network}'s weights is, as a multiple of {first}'s and depending "
        f"on the layer, {in_words(times)}."
        for network, times in ends.items()
    ]
    means = "The gradients are means over the seeds that did not diverge. They were not tested."
    pairs = [("BatchNormNet", "BaselineNet")]
    rows = [
        {"network": words} | {name.split(".")[0]: f"{x:.3g}" for name, x in by_name.items()}
        for words, by_name in found.items()
    ]
    experiment.report(
        records,
        candidates=list(performance_runs()),
        comparisons=pairs,
        answer=" ".join([*told, *map(in_a_sentence, compare_all(records, pairs))]),
        findings=[means] if told else [],
        tables={f"Mean |gradient| of the weights, divided by {first}'s": rows},
    )


if __name__ == "__main__":
    lab.run(main, globals())
