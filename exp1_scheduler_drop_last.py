"""Experiment 1.4, schedules again: without the last batch, do they still beat the best fixed rate?

The comparison of experiment 1.2 is made again, but every run leaves out the short last batch of an
epoch ("drop last"). The fixed rate is the best of 1.1's rates without that batch: in experiment 1.3
it has the highest mean validation accuracy. This experiment was planned when the results of 1.2 and
1.3 were known. So all of its runs start from new seeds: the fixed rate, too, is trained again, and
is not compared by the runs that chose it.

    python exp1_scheduler_drop_last.py            # 15 runs of 50 epochs, and 25 of 1.3 if missing
    python exp1_scheduler_drop_last.py --quick    # a rehearsal without CIFAR-10, in under a minute
"""

import dataclasses
from collections.abc import Sequence

import exp1_lr
import exp1_scheduler
import lab
from exp1_last_batch import without_last_batch
from lab import Experiment, Groups, UserError
from lab.constants import runs_of
from lab.summary import best_label, compare_all
from lab.tables import beside_others, named
from train import Run

# all else is set in exp1_lr.py (the fixed rates) and in exp1_scheduler.py
SEEDS = [6, 7, 8, 9, 10]  # none of those that 1.3 chose the fixed rate with
SMOOTHING_WINDOW = 3  # epochs, for the validation curves in the comparison figure


def fixed_rates() -> Groups:
    """1.1's rates without the last batch, from its own seeds, as experiment 1.3 trains them."""
    return without_last_batch(runs_of(exp1_lr))


def from_new_seeds(group: Sequence[Run]) -> list[Run]:
    """A setting from every new seed."""
    return [dataclasses.replace(group[0], seed=seed) for seed in SEEDS]


def runs() -> Groups:
    """Both schedules; --so-far reports these alone. The results of 1.3 choose the fixed rate.

    Raises UserError where seeds are not new.
    """
    schedules = without_last_batch(runs_of(exp1_scheduler))
    if not {run.seed for group in fixed_rates().values() for run in group}.isdisjoint(SEEDS):
        raise UserError(f"SEEDS = {SEEDS}: must hold none of those of exp1_lr.py")
    return {label: from_new_seeds(group) for label, group in schedules.items()}


def main(experiment: Experiment) -> None:
    schedules, rates = runs(), fixed_rates()
    experiment.check(schedules)  # before hours of training
    print("first    the fixed rates without the last batch, one of which is compared")
    best = best_label(experiment.train(rates, fresh=False))
    records = experiment.train({best: from_new_seeds(rates[best])} | schedules)
    pairs = [(label, best) for label in schedules]
    told = beside_others(best, compare_all(records, pairs))
    answer = f"On the test set, the best of 1.1's fixed rates, {named(best)}, is {told}."
    experiment.report(records, comparisons=pairs, answer=answer)


if __name__ == "__main__":
    lab.run(main, globals())
