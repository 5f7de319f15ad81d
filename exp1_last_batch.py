"""Experiment 1.3, the last batch: how does the short last batch of an epoch change 1.1's results?

45,000 images are 703 batches of 64 and one of 8. The gradient of that last batch has eight times
the variance, but it is used with the same learning rate, and everything is measured right after it.
1.1's learning rates and 3.4's BatchNormNet are trained again from the same seeds without the short
batch ("drop last"). Each is compared with the same setting with that batch, seed by seed. Then the
comparisons of 1.1 and 3.4 are made again, between settings without it. Roughness is the mean
absolute change of validation accuracy from one epoch to the next over the second half of training.

    python exp1_last_batch.py            # 30 runs of 50 epochs, and those of 1.1 and 3.4 if missing
    python exp1_last_batch.py --quick    # a rehearsal without CIFAR-10, in under a minute
"""

import dataclasses
from typing import Any

import exp1_lr
import exp3_gradients
import lab
from lab import Experiment, Groups
from lab.constants import runs_of
from lab.roughness import compare_roughness, is_smoother
from lab.summary import best_label, compare_all, spread
from lab.tables import interval, named, plus_minus, relation, signed, span

SMOOTHING_WINDOW = 1  # epochs: the roughness is what is to be seen
NORMALISED = "BatchNormNet"
WITHOUT = ", drop last"  # after the label of a setting that is trained without the short batch


def with_last_batch() -> Groups:
    """1.1's rates, and BatchNormNet as in 3.4."""
    return runs_of(exp1_lr) | {NORMALISED: runs_of(exp3_gradients)[NORMALISED]}


def runs() -> Groups:
    """Every setting without the short last batch."""
    return {
        f"{label}{WITHOUT}": [dataclasses.replace(run, drop_last=True) for run in group]
        for label, group in with_last_batch().items()
    }


def in_short(compared: list[dict[str, Any]], rough: list[dict[str, Any]], best: str) -> str:
    """What leaving out the last batch changes; best is the best of 1.1's rates without it."""
    twins, rates = compared[: len(rough)], list(exp1_lr.runs())
    gains = [gain for pair in twins for gain in pair["differences"]]
    changes = {pair["minus"]: pair["test_accuracy"]["mean"] for pair in twins}
    judged = [relation(pair, pair["label"]) for pair in twins if pair["verdict"]]
    told = sum(is_it in ("better", "worse") for is_it in judged)
    others = [pair for pair in compared[len(rough) :] if pair["label"] == best and pair["verdict"]]
    beaten = sum(relation(pair, best) == "better" for pair in others)
    known = [found for found in rough if found["difference"]["ci95"] is not None]
    after, before = (
        span(found[side]["mean"] for found in rough if found["minus"] in rates)
        for side in ("of_label", "of_minus")
    )
    parts = [
        "Without the last batch, validation accuracy changes from one epoch to the next by "
        f"{after} points instead of {before}, at 1.1's rates.",
        f"The 95% interval of this difference is below 0 in {sum(map(is_smoother, known))} of "
        f"{len(known)} settings."
        if known
        else "",
        f"Test accuracy is higher in {sum(gain > 0 for gain in gains)} of {len(gains)} pairs of "
        f"runs. Its mean changes by {span(map(changes.get, rates), '+.2f')} points at 1.1's rates, "
        f"and by {signed(changes[NORMALISED])} for {NORMALISED}.",
        f"More than noise are {told} of {len(judged)} changes of the mean." if judged else "",
        "Seeds that diverged are left out." if any(pair["left_out"] for pair in twins) else "",
        f"Of 1.1's rates without the last batch, {named(best)} has the highest mean validation "
        "accuracy.",
        f"On the test set it is better than {beaten} of the {len(others)} others."
        if others
        else "",
    ]
    return " ".join(filter(None, parts))


def main(experiment: Experiment) -> None:
    experiment.check(runs())  # before hours of training
    fixed, both = experiment.train(exp1_lr), with_last_batch()
    records = fixed | experiment.train({NORMALISED: both[NORMALISED]} | runs())
    twins = [(label + WITHOUT, label) for label in both]
    without = {rate + WITHOUT: records[rate + WITHOUT] for rate in fixed}
    best = best_label(without)
    pairs = [*twins, *((best, other) for other in without if other != best)]
    run = both[NORMALISED][0]
    alike = {"network": run.network, "seed": run.seed}
    plain = [rate for rate in fixed if dataclasses.replace(both[rate][0], **alike) == run]
    pairs += [(NORMALISED + WITHOUT, rate + WITHOUT) for rate in plain]
    rough = compare_roughness(records, twins)
    stds = [
        span(spread(run["test_accuracy"] for run in group)["std"] for group in side.values())
        for side in (fixed, without)
    ]
    rows = [
        {
            "setting": found["minus"],
            "with the last batch": plus_minus(found["of_minus"]["mean"], found["of_minus"]["std"]),
            "without it": plus_minus(found["of_label"]["mean"], found["of_label"]["std"]),
            "difference": signed(found["difference"]["mean"]),
            "95% CI": interval(found["difference"]),
        }
        for found in rough
    ]
    experiment.report(
        records,
        comparisons=pairs,
        answer=in_short(compare_all(records, pairs), rough, best),
        findings=[
            "The standard deviation of test accuracy over the seeds is, at 1.1's rates, "
            f"{stds[0]} points with the last batch and {stds[1]} without it."
        ],
        tables={"Roughness of validation accuracy, in percentage points": rows},
        roughness=rough,
    )


if __name__ == "__main__":
    lab.run(main, globals())
