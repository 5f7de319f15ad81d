"""Experiment 1.0, exploration: which learning rates should be compared in detail?

BaselineNet is trained at learning rates from 0.00001 to 0.2. At the highest, training can diverge.
At the lowest, it hardly learns. The seeds and the split are those of 1.1. Two of the rates use the
runs of 1.1. The suggested range goes from the best rate down and up, as far as the mean validation
accuracy after the last epoch stays within a margin of the best. Rates at which half of the runs or
more diverge are left out.

    python exp1_explore.py            # 35 runs of 50 epochs, 10 of which are among those of 1.1
    python exp1_explore.py --quick    # a rehearsal without CIFAR-10, in under a minute
"""

import lab
from lab import Experiment, Groups, Records
from lab.checks import SHARE, check
from lab.summary import best_label, final_accuracy

EPOCHS = 50
BATCH_SIZE = 64  # images; the last batch of an epoch is smaller
SEEDS = [1, 2, 3, 4, 5]  # a seed fixes a run's initial weights and the order of its batches
LEARNING_RATES = [0.2, 0.15, 0.1, 0.01, 0.001, 0.0001, 0.00001]
RANGE_MARGIN = 0.05  # of accuracy: a rate that is 5 percentage points below the best is worth a try
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


def mostly_sound(records: Records) -> Records:
    """The rates at which most runs did not diverge."""
    return {
        label: group
        for label, group in records.items()
        if 2 * sum(record["diverged_at_epoch"] is not None for record in group) < len(group)
    }


def suggested_range(records: Records, margin: float) -> list[float] | None:
    """The lowest and the highest rate of the suggested range; None where no rate is mostly sound.

    margin is a fraction of accuracy.
    """
    sound = mostly_sound(records)
    if not sound:
        return None
    rates = {label: group[0]["run"]["learning_rate"] for label, group in records.items()}
    reached = {label: final_accuracy(group) for label, group in sound.items()}
    least = max(reached.values()) - margin
    good = {label for label, mean in reached.items() if mean >= least}
    order = sorted(rates, key=rates.get)
    lowest = highest = order.index(best_label(sound))
    while lowest > 0 and order[lowest - 1] in good:
        lowest -= 1
    while highest + 1 < len(order) and order[highest + 1] in good:
        highest += 1
    return [rates[order[lowest]], rates[order[highest]]]


def main(experiment: Experiment) -> None:
    check(RANGE_MARGIN, SHARE, f"{RANGE_MARGIN = }:")
    records = experiment.train(runs())
    suggested = suggested_range(records, RANGE_MARGIN)
    answer = "None: at every rate, half of the runs or more diverged."
    if suggested:
        lowest, highest = suggested
        inside = sum(lowest <= rate <= highest for rate in LEARNING_RATES)
        answer = (
            f"{lowest:.12g} to {highest:.12g}. Rates tried in this range: {inside} of "
            f"{len(LEARNING_RATES)}. The mean validation accuracy of each is within "
            f"{100 * RANGE_MARGIN:g} percentage points of the best's."
        )
    experiment.report(
        records, candidates=list(mostly_sound(records)), answer=answer, suggested_range=suggested
    )


if __name__ == "__main__":
    lab.run(main, globals())
