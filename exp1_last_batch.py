"""Experiment 1.3, the last batch: how does the short last batch of an epoch change 1.1's results?

45,000 images are 703 batches of 64 and one of 8. The gradient of that last batch has eight times
the variance, but it is used with the same learning rate, and everything is measured right after it.
1.1's learning rates and the BatchNormNet of experiment 3.4 are trained again from the same seeds
without the short batch ("drop last"). Each is compared with the same setting with that batch, seed
by seed. Then the comparisons of 1.1 and 3.4 are made again, between settings without it. Roughness
is the mean absolute change of validation accuracy from one epoch to the next over the second half
of training.

    python exp1_last_batch.py            # 30 runs of 50 epochs, and those of 1.1 and 3.4 if missing
    python exp1_last_batch.py --quick    # a rehearsal without CIFAR-10, in under a minute
"""

import dataclasses
from typing import Any

import exp1_lr
import exp3_gradients
import lab
from lab import Experiment, Groups, Records
from lab.constants import runs_of
from lab.roughness import compare_roughness, table
from lab.summary import best_label, compare_all, spread, summarise_group
from lab.tables import highest, named, relation, signed, span

Comparisons = list[dict[str, Any]]

SMOOTHING_WINDOW = 1  # epochs: the roughness is what is to be seen
NORMALISED = "BatchNormNet"
WITHOUT = ", drop last"  # after the label of a setting that is trained without the short batch


def with_last_batch() -> Groups:
    """1.1's rates, and BatchNormNet as in 3.4."""
    return runs_of(exp1_lr) | {NORMALISED: runs_of(exp3_gradients)[NORMALISED]}


def without_last_batch(groups: Groups) -> Groups:
    """The same settings without the short last batch."""
    return {
        f"{label}{WITHOUT}": [dataclasses.replace(run, drop_last=True) for run in group]
        for label, group in groups.items()
    }


def runs() -> Groups:
    """Every setting without the short last batch."""
    return without_last_batch(with_last_batch())


def in_short(compared: Comparisons, rough: Comparisons, best: str) -> str:
    """What leaving out the last batch changes; best is the best of 1.1's rates without it."""
    rates, twins = list(exp1_lr.runs()), compared[: len(rough)]
    changes = {pair["minus"]: pair["test_accuracy"]["mean"] for pair in twins}
    judged = [relation(pair, pair["label"]) for pair in twins if pair["verdict"]]
    more_than_noise = sum(is_it in ("better", "worse") for is_it in judged)
    gains = [gain for pair in twins for gain in pair["differences"]]
    lost = " (without seeds that diverged)" if any(pair["left_out"] for pair in twins) else ""
    others = [pair for pair in compared[len(rough) :] if pair["label"] == best and pair["verdict"]]
    beaten = sum(relation(pair, best) == "better" for pair in others)
    after, before = (
        span(found[side]["mean"] for found in rough if found["minus"] in rates)
        for side in ("of_label", "of_minus")
    )
    noise = f"; {more_than_noise or 'none'} of these {len(judged)} changes are more than noise"
    whom = "all" if beaten == len(others) else f"{beaten} of the {len(others)}"
    ahead = f"; on the test set it is better than {whom} others"
    return (
        "Without the last batch, validation accuracy changes from one epoch to the next by "
        f"{after} points instead of {before}, at 1.1's rates and in the second half of training. "
        f"Test accuracy is higher in {sum(gain > 0 for gain in gains)} of {len(gains)} pairs of "
        f"runs{lost}. Its mean changes by {span(map(changes.get, rates), '+.2f')} points at these "
        "rates, and by "
        f"{signed(changes[NORMALISED])} for {NORMALISED}{noise if judged else ''}. Of 1.1's rates "
        f"without the last batch, {named(best)} has the highest mean validation accuracy"
        f"{ahead if others else ''}."
    )


def findings(records: Records) -> list[str]:
    """How seeds spread, and what rates reach in their best epochs."""
    rates = list(exp1_lr.runs())
    sides = [[records[rate + ending] for rate in rates] for ending in ("", WITHOUT)]
    spreads = [span(spread(r["test_accuracy"] for r in g)["std"] for g in side) for side in sides]
    curves = [summarise_group("", group)["mean"]["val_accuracy"] for group in sides[1]]
    peaks, ends = span(p[0] for c in curves if (p := highest(c))), span(c[-1] for c in curves)
    return [
        "The standard deviation of test accuracy over the seeds is, at 1.1's rates, "
        f"{spreads[0]} points with the last batch and {spreads[1]} without it.",
        "Without the last batch, the mean validation accuracy of 1.1's rates is "
        f"{peaks}% in the best epoch of each, and {ends}% after the last epoch.",
    ]


def main(experiment: Experiment) -> None:
    experiment.check(runs())  # before hours of training
    fixed, both = experiment.train(exp1_lr), with_last_batch()
    records = fixed | experiment.train({NORMALISED: both[NORMALISED]}, fresh=False)
    records |= experiment.train(runs())
    twins = {label + WITHOUT: label for label in both}
    without = {rate + WITHOUT: records[rate + WITHOUT] for rate in fixed}
    best = best_label(without)
    pairs = [*twins.items(), *((best, other) for other in without if other != best)]
    run = both[NORMALISED][0]
    alike = {"network": run.network, "seed": run.seed}
    same = [rate for rate in fixed if dataclasses.replace(both[rate][0], **alike) == run]
    pairs += [(NORMALISED + WITHOUT, rate + WITHOUT) for rate in same]
    rough, compared = compare_roughness(records, twins.items()), compare_all(records, pairs)
    experiment.report(
        records,
        comparisons=pairs,
        answer=in_short(compared, rough, best),
        findings=findings(records),
        tables={"Roughness of validation accuracy, in percentage points": table(rough)},
        roughness=rough,
        twins=twins,
    )


if __name__ == "__main__":
    lab.run(main, globals())
