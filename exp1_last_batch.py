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

import exp1_lr
import lab
from lab import Experiment, Groups
from lab.constants import runs_of
from lab.summary import best_label, roughness, spread
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


def main(experiment: Experiment) -> None:
    experiment.check(runs())  # before hours of training
    records = experiment.train(exp1_lr) | experiment.train(normalised() | runs())
    rates = list(exp1_lr.runs())
    rates_without = [f"{label}{WITHOUT}" for label in rates]
    best_with = best_label({label: records[label] for label in rates})
    best_without = best_label({label: records[label] for label in rates_without})
    rough = {label: spread(map(roughness, group)) for label, group in records.items()}
    cells = {label: plus_minus(found["mean"], found["std"]) for label, found in rough.items()}
    table = [
        {
            "setting": label,
            "with the last batch": cells[label],
            "without it": cells[f"{label}{WITHOUT}"],
        }
        for label in twins()
    ]
    experiment.report(
        records,
        candidates=rates_without,
        comparisons=[(f"{label}{WITHOUT}", label) for label in twins()],
        findings=[
            f"With the short last batch, {best_with} has the highest mean validation accuracy of "
            f"1.1's rates. Without it, {best_without.removesuffix(WITHOUT)} has."
        ],
        tables={"Roughness of validation accuracy, in percentage points": table},
        roughness=rough,
    )


if __name__ == "__main__":
    lab.run(main, globals())
