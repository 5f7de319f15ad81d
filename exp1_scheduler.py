"""Experiment 1.2: does lowering the learning rate during training beat the best fixed rate?

BaselineNet is trained with two schedules that fall from the same first to the same last rate, one
smoothly (inverse time), one in steps, set at the start of every epoch. They are compared, seed by
seed, with the best fixed rate of experiment 1.1, whose finished runs are read, not trained again.

    python exp1_scheduler.py            # trains what is missing of 1.1, too
    python exp1_scheduler.py --quick    # a rehearsal in under a minute, without CIFAR-10

It costs 10 runs of 50 epochs on 45,000 images, two fifths of the 25 runs of 1.1.
"""

import errors
import exp1_lr
from errors import UserError
from experiment import Constants, Experiment, Groups
from runs import Run
from schedules import exponential_decay, inverse_time, step_decay
from summary import best_label, compare

EPOCHS = 50
BATCH_SIZE = 64  # images; the last batch of an epoch is smaller
SEEDS = [1, 2, 3, 4, 5]  # as in experiment 1.1, for a comparison seed by seed
INITIAL_LEARNING_RATE = 0.1
DECAY_RATE = 0.25  # of inverse time, an epoch: the last of 50 runs at about 0.0075
STEP_EPOCHS = 10  # between the drops of the step decay
SMOOTHING_WINDOW = 3  # epochs, for validation curves in the comparison


def constants() -> Constants:
    """What stands above, by name, to be checked and recorded."""
    return {
        "EPOCHS": EPOCHS,
        "BATCH_SIZE": BATCH_SIZE,
        "SEEDS": SEEDS,
        "INITIAL_LEARNING_RATE": INITIAL_LEARNING_RATE,
        "DECAY_RATE": DECAY_RATE,
        "STEP_EPOCHS": STEP_EPOCHS,
        "SMOOTHING_WINDOW": SMOOTHING_WINDOW,
    }


def trained_schedules() -> dict[str, list[float]]:
    """The two schedules that are trained: {label: [the rate of each epoch]}."""
    smooth = [inverse_time(INITIAL_LEARNING_RATE, DECAY_RATE, epoch) for epoch in range(EPOCHS)]
    drops = (EPOCHS - 1) // STEP_EPOCHS
    factor = (smooth[-1] / smooth[0]) ** (1 / drops)  # so that both end at the same rate
    steps = [step_decay(smooth[0], factor, STEP_EPOCHS, epoch) for epoch in range(EPOCHS)]
    return {"inverse time": smooth, "step": steps}


def candidate_schedules() -> dict[str, list[float]]:
    """The schedules that were considered, and the two that are trained, for the figure."""
    first = INITIAL_LEARNING_RATE
    candidates = {
        "inverse time, k = 0.1": lambda epoch: inverse_time(first, 0.1, epoch),
        "inverse time, k = 0.05": lambda epoch: inverse_time(first, 0.05, epoch),
        "halved every 10 epochs": lambda epoch: step_decay(first, 0.5, 10, epoch),
        "a tenth every 20 epochs": lambda epoch: step_decay(first, 0.1, 20, epoch),
        "exponential, 5% an epoch": lambda epoch: exponential_decay(first, 0.95, epoch),
    }
    smooth, steps = trained_schedules().values()
    return {
        f"inverse time, k = {DECAY_RATE:g} (trained)": smooth,
        "step (trained)": steps,
        **{name: [rate(epoch) for epoch in range(EPOCHS)] for name, rate in candidates.items()},
    }


def runs() -> Groups:
    """Both schedules from every seed."""
    return {
        label: [
            Run(
                network="BaselineNet",
                seed=seed,
                learning_rate=rates,
                epochs=EPOCHS,
                batch_size=BATCH_SIZE,
                split="standard",
            )
            for seed in SEEDS
        ]
        for label, rates in trained_schedules().items()
    }


def main() -> None:
    experiment = Experiment(__file__, __doc__, constants())
    if STEP_EPOCHS >= EPOCHS:
        raise UserError(f"STEP_EPOCHS = {STEP_EPOCHS}: must be below EPOCHS = {EPOCHS}")
    fixed = experiment.train_shared(exp1_lr)
    fixed_best = best_label(fixed)
    records = {fixed_best: fixed[fixed_best]} | experiment.train(runs())
    summary = experiment.summarise(
        records,
        schedules=candidate_schedules(),
        comparisons=[
            compare(label, records[label], fixed_best, records[fixed_best])
            for label in trained_schedules()
        ],
    )
    experiment.report(summary)


if __name__ == "__main__":
    errors.run(main)
