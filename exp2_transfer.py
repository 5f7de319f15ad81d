"""Experiment 2.2, transfer: do convolutions trained with dropout transfer better?

The convolutions that experiment 2.1 trained, without dropout and at its best dropout rate, are
frozen. The dense layers are drawn anew and trained with the same dropout rate, at a learning rate
of 0.1, on the half of the images that 2.1 validated on ("retrained"). The two retrained settings
are compared with each other, and each with 2.1's own, in which all layers trained together. The one
with dropout is also compared with experiment 1.1's best setting as it is ("untouched"), which
trained on 45,000 images. The best is chosen from the two retrained ones only. Then, without
dropout, fewer convolutions are frozen, at learning rates of 0.1 and 0.01: the first 0, 1 or 2
("frozen=0" to "frozen=2"). The others start from 2.1's weights and are trained further. Each
setting is compared with all 3 frozen at the same rate: "retrained, dropout=0" at 0.1, "frozen=3" at
0.01.

    python exp2_transfer.py            # 45 runs of 50 epochs, and those of 1.1 and 2.1 if missing
    python exp2_transfer.py --quick    # a rehearsal without CIFAR-10, in under a minute
"""

import dataclasses
from collections.abc import Sequence

import exp1_lr
import exp2_dropout
import lab
from lab import Experiment, Groups, Record, UserError
from lab.constants import runs_of
from lab.summary import best_label, compare_all, in_words
from lab.tables import beside_others, in_a_sentence, named, seeds_in_words
from train import Run

EPOCHS = 50
BATCH_SIZE = 64  # images; the last batch of an epoch is smaller
SEEDS = [1, 2, 3, 4, 5]  # seed s retrains the model that experiment 2.1 trained from seed s
LEARNING_RATE = 0.1
FINE_TUNING_LEARNING_RATE = 0.01  # changes less of what is not frozen
SMOOTHING_WINDOW = 3  # epochs, for the validation curves in the comparison figure
CONVOLUTIONS = ["conv1", "conv2", "conv3"]  # in the order in which they are frozen

PLAIN = "dropout=0"


def retrained(sources: Sequence[Run], frozen: Sequence[str], learning_rate: float) -> list[Run]:
    """Each source retrained, except its frozen layers, on the images that it was validated on."""
    changes = {"frozen": frozen, "reinitialised": ("fc1", "fc2"), "split": "swapped halves"}
    changes |= {"learning_rate": learning_rate, "epochs": EPOCHS, "batch_size": BATCH_SIZE}
    return [dataclasses.replace(source, start=source, **changes) for source in sources]


def runs_from(sources: dict[str, list[Run]]) -> Groups:
    """Each setting of 2.1 retrained with all convolutions frozen, then the plain one with fewer.

    At the lower rate the plain one is retrained with all frozen, too.
    """
    groups = {
        f"retrained, {label}": retrained(group, CONVOLUTIONS, LEARNING_RATE)
        for label, group in sources.items()
    }
    most = len(CONVOLUTIONS)
    for rate, counts in (
        (LEARNING_RATE, range(most)),
        (FINE_TUNING_LEARNING_RATE, range(most + 1)),
    ):
        for n in counts:
            label = f"frozen={n}, lr={rate:.12g}"
            groups[label] = retrained(sources[PLAIN], CONVOLUTIONS[:n], rate)
    return groups


def runs() -> Groups:
    """The retrained models without dropout, which are known beforehand.

    Raises UserError where the constants of 2.1 leave nothing to compare.
    """
    whole = runs_of(exp2_dropout)
    if PLAIN not in whole or len(whole) == 1:
        raise UserError("DROPOUT_RATES in exp2_dropout.py: must hold 0 and at least one other rate")
    if not set(SEEDS) <= set(exp2_dropout.SEEDS):
        raise UserError(f"SEEDS = {SEEDS}: must all be among those of exp2_dropout.py")
    if FINE_TUNING_LEARNING_RATE >= LEARNING_RATE:
        raise UserError(f"{FINE_TUNING_LEARNING_RATE = }: must be below LEARNING_RATE")
    return runs_from({PLAIN: [run for run in whole[PLAIN] if run.seed in SEEDS]})


def sources(label: str, records: Sequence[Record]) -> list[Run]:
    """The runs of 2.1 to start from: those of this setting and our seeds that did not diverge."""
    lost = {record["seed"] for record in records if record["diverged_at_epoch"] is not None}
    found = [run for run in exp2_dropout.runs()[label] if run.seed in set(SEEDS) - lost]
    if not found:
        raise UserError(f"SEEDS = {SEEDS}: all runs of {label} diverged: lower their learning rate")
    return found


def main(experiment: Experiment) -> None:
    experiment.check(runs())  # before hours of training
    fixed, whole = experiment.train(exp1_lr), experiment.train(exp2_dropout)
    best = best_label(fixed)
    dropped = best_label({label: group for label, group in whole.items() if label != PLAIN})
    starts = {label: sources(label, whole[label]) for label in (PLAIN, dropped)}
    groups = runs_from(starts)
    untouched, (from_plain, from_dropped, *finer) = f"untouched, {best}", groups
    most = len(CONVOLUTIONS)
    fast, slow = [*finer[:most], from_plain], finer[most:]  # from none frozen to all
    shared = {untouched: fixed[best], PLAIN: whole[PLAIN], dropped: whole[dropped]}
    records = shared | experiment.train(groups)
    pairs = [(from_dropped, from_plain), (from_plain, PLAIN), (from_dropped, dropped)]
    pairs += [(from_dropped, untouched), (dropped, PLAIN), (slow[-1], from_plain)]
    by_frozen = [(label, labels[-1]) for labels in (fast, slow) for label in labels[:-1]]
    compared = compare_all(records, pairs + by_frozen)
    told = [
        f"At lr={rate:.12g}, freezing all ({named(label)}) is "
        f"{beside_others(label, compared[len(pairs) :])}."
        for rate, label in ((LEARNING_RATE, fast[-1]), (FINE_TUNING_LEARNING_RATE, slow[-1]))
    ]
    experiment.report(
        records,
        candidates=[from_plain, from_dropped],
        comparisons=pairs + by_frozen,
        answer=(
            f"{in_a_sentence(compared[0])} The first used dropout in both trainings, the second in "
            "neither. So a difference can come from the convolutions or from the retraining. "
            f"Without dropout, {in_words(CONVOLUTIONS)} are frozen, or only the first n of them "
            f"(“frozen=n”). {' '.join(told)}"
        ),
        findings=[
            "The retrained and frozen models are validated on images that their sources were "
            "trained on. So their validation accuracy is too high and their gap too small: compare "
            "test accuracy only.",
            *(
                f"{label} diverged from {seeds_in_words(lost)}: no run starts from it."
                for label, group in starts.items()
                if (lost := sorted(set(SEEDS) - {run.seed for run in group}))
            ),
        ],
        trainable_parameters=experiment.trainable_parameters(records),
        twins={from_plain: PLAIN, from_dropped: dropped} | dict(zip(slow, fast, strict=True)),
    )


if __name__ == "__main__":
    lab.run(main, globals())
