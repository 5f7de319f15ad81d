"""Experiment 1.3, the last batch: how does the short last batch of an epoch change 1.1's results?

45,000 images are 703 batches of 64 and one of 8. The gradient of that last batch has eight times
the variance, but it is used with the same learning rate, and everything is measured right after it.
1.1's learning rates and BatchNormNet are trained again from the same seeds without the short batch
("drop last"). Each is compared with the same setting with that batch, seed by seed.
Roughness is the mean absolute change of validation accuracy from one epoch to the next over the
second half of training.

    python exp1_last_batch.py            # 30 runs of 50 epochs, and what is missing of the others
    python exp1_last_batch.py --quick    # a rehearsal without CIFAR-10, in under a minute
"""

import dataclasses
from collections.abc import Iterable

import exp1_lr
import lab
from lab import Experiment, Groups
from lab.constants import runs_of
from lab.summary import best_label, compare, judge, roughness, spread
from lab.tables import plus_minus

EPOCHS = 50
BATCH_SIZE = 64  # images
SEEDS = [1, 2, 3, 4, 5]  # as in experiment 1.1, for a comparison seed by seed
LEARNING_RATE = 0.05  # of BatchNormNet, as in experiment 3.4
SMOOTHING_WINDOW = 1  # epochs: the roughness is what is to be seen

WITHOUT = ", drop last"


def normalised() -> Groups:
    """BatchNormNet with the short last batch, which 3.4 shares."""
    return {
        "BatchNormNet": lab.from_seeds(
            SEEDS,
            network="BatchNormNet",
            learning_rate=LEARNING_RATE,
            epochs=EPOCHS,
            batch_size=BATCH_SIZE,
            split="standard",
        )
    }


def twins() -> Groups:
    """All runs with the short last batch: 1.1's and BatchNormNet's."""
    return runs_of(exp1_lr) | normalised()


def runs() -> Groups:
    """Every twin without the short last batch."""
    return {
        f"{label}{WITHOUT}": [dataclasses.replace(run, drop_last=True) for run in group]
        for label, group in twins().items()
    }


def span(values: Iterable[float | None], form: str = ".2f") -> str:
    """The lowest and the highest of some fractions, as percentage points."""
    known = [100 * value for value in values if value is not None]
    ends = f"{min(known):{form}} to {max(known):{form}}" if known else "unknown"
    return ends.replace("-", "−")


def main(experiment: Experiment) -> None:
    experiment.check(runs())  # before hours of training
    records = experiment.train(exp1_lr) | experiment.train(normalised() | runs())
    rates, settings = list(exp1_lr.runs()), list(twins())
    pairs = [(label + WITHOUT, label) for label in settings]
    compared = judge([compare(a, records[a], b, records[b]) for a, b in pairs])
    changed = span((pair["test_accuracy"]["mean"] for pair in compared), "+.2f")
    told = sum(pair["verdict"] not in (None, "within noise") for pair in compared)
    rough = {label: spread(map(roughness, group)) for label, group in records.items()}
    without_it, with_it = (
        span(rough[n]["mean"] for n in side) for side in zip(*pairs, strict=True)
    )
    found, table = [], [{"setting": label} for label in settings]
    for words, ending in (("With the last batch", ""), ("Without it", WITHOUT)):
        labels = [label + ending for label in settings]
        for row, label in zip(table, labels, strict=True):
            row[words.lower()] = plus_minus(rough[label]["mean"], rough[label]["std"])
        best = best_label({label: records[label + ending] for label in rates})
        tested = [spread(r["test_accuracy"] for r in records[label])["std"] for label in labels]
        found.append(
            f"{words}, the standard deviation of a setting's test accuracy over the seeds is "
            f"{span(tested)} points, and {best} has the highest mean validation accuracy of 1.1's "
            "rates."
        )
    experiment.report(
        records,
        comparisons=pairs,
        answer=(
            f"Without the last batch, the mean test accuracy of a setting changes by {changed} "
            f"points, paired by seed ({told} of {len(pairs)} changes are more than noise), and its "
            f"mean roughness is {without_it} points instead of {with_it}."
        ),
        findings=found,
        tables={"Roughness of validation accuracy, in percentage points": table},
        roughness=rough,
    )


if __name__ == "__main__":
    lab.run(main, globals())
