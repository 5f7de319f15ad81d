"""Experiment 1.2, schedules: does lowering the learning rate beat the best fixed rate?

BaselineNet is trained with two schedules, which set the learning rate at the start of every epoch.
Both fall from 0.1 to about 0.0075: inverse time, 0.1 / (1 + 0.25 · epoch), where epochs are counted
from 0, and step, which divides the rate by the same number every 10 epochs. Each is compared, seed
by seed, with the best fixed rate of experiment 1.1. The runs at this rate are those of 1.1.

    python exp1_scheduler.py            # 10 runs of 50 epochs, and those of 1.1 if missing
    python exp1_scheduler.py --quick    # a rehearsal without CIFAR-10, in under a minute
"""

from collections.abc import Callable

import exp1_lr
import lab
from lab import Experiment, Groups, UserError
from lab.summary import best_label, compare_all
from lab.tables import beside_others, named

EPOCHS = 50
BATCH_SIZE = 64  # images; the last batch of an epoch is smaller
SEEDS = [1, 2, 3, 4, 5]  # as in experiment 1.1, for a comparison seed by seed
INITIAL_LEARNING_RATE = 0.1
DECAY_RATE = 0.25  # of inverse time, an epoch: the last of 50 epochs trains at about 0.0075
STEP_EPOCHS = 10  # between the drops of the step decay
SMOOTHING_WINDOW = 3  # epochs, for the validation curves in the comparison figure

Schedule = Callable[[int], float]  # the learning rate of an epoch, counted from 0


def inverse_time(first: float, decay_rate: float) -> Schedule:
    """first / (1 + decay_rate · epoch)."""
    return lambda epoch: first / (1 + decay_rate * epoch)


def step_decay(first: float, factor: float, every: int) -> Schedule:
    """first, multiplied by factor after each block of `every` epochs."""
    return lambda epoch: first * factor ** (epoch // every)


def trained_schedules() -> dict[str, Schedule]:
    """The schedules that are trained, by label. One more entry is one more schedule.

    Raises UserError where STEP_EPOCHS makes no sense.
    """
    if STEP_EPOCHS >= EPOCHS:
        raise UserError(
            f"STEP_EPOCHS = {STEP_EPOCHS}: must be below EPOCHS = {EPOCHS} in exp1_scheduler.py"
        )
    first = INITIAL_LEARNING_RATE
    smooth = inverse_time(first, DECAY_RATE)
    drops = (EPOCHS - 1) // STEP_EPOCHS
    factor = (smooth(EPOCHS - 1) / smooth(0)) ** (1 / drops)  # so that both end at the same rate
    return {"inverse time": smooth, "step": step_decay(first, factor, STEP_EPOCHS)}


def other_schedules() -> dict[str, Schedule]:
    """The schedules that were considered and are not trained, for the figure."""
    first = INITIAL_LEARNING_RATE
    return {
        "inverse time, k = 0.1": inverse_time(first, 0.1),
        "inverse time, k = 0.05": inverse_time(first, 0.05),
        "halved every 10 epochs": step_decay(first, 0.5, 10),
        "divided by 10 every 20 epochs": step_decay(first, 0.1, 20),
        "exponential, −5% each epoch": step_decay(first, 0.95, 1),
    }


def by_epoch(schedule: Schedule) -> list[float]:
    """The learning rate of every epoch."""
    return [schedule(epoch) for epoch in range(EPOCHS)]


def runs() -> Groups:
    """Every schedule from every seed."""
    return {
        label: lab.from_seeds(
            SEEDS,
            network="BaselineNet",
            learning_rate=by_epoch(schedule),
            epochs=EPOCHS,
            batch_size=BATCH_SIZE,
            split="standard",
        )
        for label, schedule in trained_schedules().items()
    }


def main(experiment: Experiment) -> None:
    experiment.check(runs())  # before hours of training
    fixed = experiment.train(exp1_lr)
    best = best_label(fixed)
    trained = experiment.train(runs())
    records, pairs = {best: fixed[best]} | trained, [(label, best) for label in trained]
    told = beside_others(best, compare_all(records, pairs))
    schedules = trained_schedules() | other_schedules()
    experiment.report(
        records,
        comparisons=pairs,
        answer=f"On the test set, the best fixed rate, {named(best)}, is {told}.",
        schedules={label: by_epoch(schedule) for label, schedule in schedules.items()},
    )


if __name__ == "__main__":
    lab.run(main, globals())
