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
from lab.summary import best_label, compare_all, roughness, spread
from lab.tables import named, plus_minus, signed

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
    pairs = [(label + WITHOUT, label) for label in twins()]
    compared = compare_all(records, pairs)
    changes = {pair["minus"]: pair["test_accuracy"]["mean"] for pair in compared}
    verdicts = [pair["verdict"] for pair in compared if pair["verdict"]]
    told = sum(verdict != "within noise" for verdict in verdicts)
    rough = {label: spread(map(roughness, group)) for label, group in records.items()}
    rates, (other,) = list(exp1_lr.runs()), normalised()
    rows, ends = [{"setting": label} for label in twins()], {}
    for words, ending in (("with the last batch", ""), ("without it", WITHOUT)):
        for row in rows:
            found = rough[row["setting"] + ending]
            row[words] = plus_minus(found["mean"], found["std"])
        labels = [rate + ending for rate in rates]
        tested = [spread(run["test_accuracy"] for run in records[label]) for label in labels]
        ends[words] = {
            "rough": span(rough[label]["mean"] for label in labels),
            "std": span(one["std"] for one in tested),
            "best": best_label({label: records[label] for label in labels}),
        }
    with_it, without = ends.values()
    lost = any(pair["left_out"] for pair in compared)
    experiment.report(
        records,
        comparisons=pairs,
        answer=(
            "Without the last batch, the mean test accuracy of 1.1's rates changes by "
            f"{span(map(changes.get, rates), '+.2f')} points, that of {other} by "
            f"{signed(changes[other])}. More than noise: {told} of {len(verdicts)} changes. "
            f"{'Seeds that diverged are left out. ' if lost else ''}From one epoch to the next, "
            f"validation accuracy changes by {without['rough']} points instead of "
            f"{with_it['rough']}, on average over the second half of training at 1.1's rates "
            "(not tested)."
        ),
        findings=[
            f"The standard deviation of test accuracy over the seeds is, for 1.1's rates, "
            f"{with_it['std']} points with the last batch and {without['std']} without it. The "
            f"highest mean validation accuracy of 1.1's rates is that of {with_it['best']} with "
            f"it, and that of {named(without['best'])} without it."
        ],
        tables={"Roughness of validation accuracy, in percentage points": rows},
        roughness=rough,
    )


if __name__ == "__main__":
    lab.run(main, globals())
