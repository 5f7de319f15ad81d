"""The experiments against the definition of the study."""

import pytest
import torch

import data
import exp1_explore
import exp1_lr
import exp1_scheduler
import exp2_dropout
import exp2_transfer
import exp3_gradients
import exp4_init
import exp4_overfit
import exp4_search
import experiment
from errors import UserError
from schedules import exponential_decay, inverse_time, step_decay

# what a random search, a grid and nobody found
THREE_SETTINGS = {
    name: {"learning_rate": rate, "momentum": 0.9}
    for name, rate in (("random", 0.003), ("grid", 0.01), ("untuned", 0.05))
}


def flat(groups):
    return [run for group in groups.values() for run in group]


# by hand: 0.1, 0.1 / 1.25, 0.1 / 1.5, and 0.1 / 13.25 in the last of 50 epochs
@pytest.mark.parametrize(("epoch", "rate"), [(0, 0.1), (1, 0.08), (2, 0.0667), (49, 0.00755)])
def test_inverse_time_by_hand(epoch, rate):
    assert inverse_time(0.1, 0.25, epoch) == pytest.approx(rate, abs=5e-5 if epoch < 49 else 5e-6)


def test_other_schedules_by_hand():
    halved = [step_decay(0.1, 0.5, 10, epoch) for epoch in (0, 9, 10, 19, 20, 49)]
    assert halved == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.00625])
    assert exponential_decay(0.1, 0.95, 0) == 0.1
    assert exponential_decay(0.1, 0.95, 2) == pytest.approx(0.09025)


def test_experiment_1_1():
    groups = exp1_lr.runs()
    assert list(groups) == ["lr=0.1", "lr=0.075", "lr=0.05", "lr=0.025", "lr=0.01"]
    for label, group in groups.items():
        assert [run.seed for run in group] == [1, 2, 3, 4, 5]
        for run in group:
            assert f"lr={run.learning_rate}" == label
            assert (run.network, run.split, run.dataset) == ("BaselineNet", "standard", "cifar10")
            assert (run.epochs, run.batch_size) == (50, 64)
            assert (run.momentum, run.weight_decay, run.augmentation) == (0, 0, ())


def test_experiment_1_2():
    groups = exp1_scheduler.runs()
    assert list(groups) == ["inverse time", "step"]
    smooth, steps = (group[0].learning_rate for group in groups.values())
    assert smooth[0] == steps[0] == 0.1
    assert smooth[-1] == pytest.approx(0.1 / 13.25)
    assert steps[-1] == pytest.approx(smooth[-1])
    assert len(set(steps)) == 5
    assert steps[:10] == (0.1,) * 10
    assert steps[10] == pytest.approx(steps[20] * steps[0] / steps[10])  # one factor for all drops
    for run in flat(groups):
        assert (run.network, run.split, run.epochs) == ("BaselineNet", "standard", 50)
        assert run.seed in [run.seed for run in flat(exp1_lr.runs())]
    candidates = exp1_scheduler.candidate_schedules()
    assert candidates["inverse time, k = 0.25 (trained)"] == list(smooth)
    assert candidates["step (trained)"] == list(steps)
    # in the last of 50 epochs: 0.1 / 5.9, 0.1 / 3.45, four halvings, two tenths, 0.95 to the 49th
    last = [rates[-1] for name, rates in candidates.items() if "trained" not in name]
    assert last == pytest.approx([0.016949, 0.028986, 0.00625, 0.001, 0.0080997], rel=1e-4)


def test_experiment_2_1():
    groups = exp2_dropout.runs()
    labels = ["dropout=0", "dropout=0.2", "dropout=0.4", "dropout=0.6", "dropout=0.8"]
    assert list(groups) == labels
    for run in flat(groups):
        assert (run.network, run.split, run.learning_rate) == ("DropoutNet", "halves", 0.05)
        assert (run.epochs, run.batch_size) == (50, 64)


def test_experiment_2_2():
    sources = exp2_dropout.runs()["dropout=0.4"]
    runs = exp2_transfer.runs(sources)
    assert [run.seed for run in runs] == [run.start.seed for run in runs] == [1, 2, 3, 4, 5]
    for run, source in zip(runs, sources, strict=True):
        assert run.start == source
        assert run.frozen == ("conv1", "conv2", "conv3")
        assert run.reinitialised == ("fc1", "fc2")
        assert (run.split, run.learning_rate, run.epochs) == ("swapped halves", 0.1, 50)
        assert run.dropout_rate == source.dropout_rate == 0.4


def test_experiment_2_2_freezes_more_or_fewer_layers():
    sources = exp2_dropout.runs()["dropout=0"]
    groups = exp2_transfer.finer_runs(sources)
    groups["retrained, dropout=0"] = exp2_transfer.runs(sources)  # the eighth of four by two
    layers = ("conv1", "conv2", "conv3")
    for frozen in range(4):
        for rate in (0.1, 0.01):
            full = (frozen, rate) == (3, 0.1)
            group = groups.pop("retrained, dropout=0" if full else f"frozen={frozen}, lr={rate}")
            assert [run.start for run in group] == sources
            for run in group:
                assert (run.frozen, run.learning_rate) == (layers[:frozen], rate)
                assert (run.reinitialised, run.split) == (("fc1", "fc2"), "swapped halves")
                assert (run.network, run.dropout_rate) == ("DropoutNet", 0)
    assert not groups


def test_transfer_starts_from_the_seeds_it_asks_for_that_did_not_diverge(monkeypatch):
    records = [{"seed": seed, "diverged_at_epoch": 7 if seed == 2 else None} for seed in (1, 2, 3)]
    monkeypatch.setattr(exp2_transfer, "SEEDS", [2, 3, 4])
    found = exp2_transfer.sources("dropout=0.4", records)
    assert [(run.seed, run.dropout_rate) for run in found] == [(3, 0.4), (4, 0.4)]
    monkeypatch.setattr(exp2_transfer, "SEEDS", [2])
    with pytest.raises(UserError, match=r"SEEDS = \[2\]: all runs of dropout=0.4 diverged"):
        exp2_transfer.sources("dropout=0.4", records)


@pytest.mark.parametrize(
    ("script", "runs", "images"),
    [
        (exp1_lr, lambda: flat(exp1_lr.runs()), 45_000),
        (exp1_scheduler, lambda: flat(exp1_scheduler.runs()), 45_000),
        (exp2_dropout, lambda: flat(exp2_dropout.runs()), 25_000),
        (
            exp2_transfer,
            lambda: [
                *exp2_transfer.runs(exp2_dropout.runs()["dropout=0"]),
                *exp2_transfer.runs(exp2_dropout.runs()["dropout=0.4"]),
                *flat(exp2_transfer.finer_runs(exp2_dropout.runs()["dropout=0"])),
            ],
            25_000,
        ),
        (exp3_gradients, lambda: flat(exp3_gradients.watched_runs()), 45_000),
        (exp1_explore, lambda: flat(exp1_explore.runs()), 45_000),
        (exp4_overfit, lambda: flat(exp4_overfit.runs()), 45_000),
        (exp4_init, lambda: flat(exp4_init.runs()), 45_000),
        (
            exp4_search,
            lambda: [
                *(run for walk in exp4_search.search_runs(4).values() for run in flat(walk)),
                *flat(exp4_search.final_runs(THREE_SETTINGS)),
            ],
            45_000,
        ),
    ],
)
def test_a_script_says_what_it_costs(script, runs, images):
    runs = set(runs())
    (epochs,) = {run.epochs for run in runs}
    text = " ".join(script.__doc__.split())
    assert f"It costs {len(runs)} runs of {epochs} epochs" in text
    assert f"{images:,} images" in text
    assert {data.split_sizes("cifar10", run.split)[0] for run in runs} == {images}


def test_experiment_3():
    watched, performance = exp3_gradients.watched_runs(), exp3_gradients.performance_runs()
    assert [group[0].network for group in watched.values()] == [
        "BaselineNet",
        "DropoutNet",
        "BatchNormNet",
    ]
    for run in flat(watched):
        assert run.gradient_statistics
        assert (run.learning_rate, run.epochs, run.split) == (0.05, 30, "standard")
        assert run.dropout_rate == (0.6 if run.network == "DropoutNet" else 0)
    seeds = [run.seed for run in watched["BaselineNet, gradients"]]
    assert seeds[0] == 1984
    assert len(set(seeds)) == 5
    for run in flat(performance):
        assert (run.learning_rate, run.epochs, run.seed in (1, 2, 3, 4, 5)) == (0.05, 50, True)
    # 3.4's BaselineNet is experiment 1.1's: the same runs, trained once
    assert performance["BaselineNet"] == exp1_lr.runs()["lr=0.05"]


def test_smoothing_windows_are_the_studys():
    windows = (5, 3, 3, 3, 5)
    scripts = (exp1_lr, exp1_scheduler, exp2_dropout, exp2_transfer, exp3_gradients)
    for script, window in zip(scripts, windows, strict=True):
        assert script.constants()["SMOOTHING_WINDOW"] == window


def test_a_rehearsal_goes_through_the_whole_schedule():
    (smooth, steps) = experiment.rehearsal(exp1_scheduler.runs()).values()
    assert len(smooth) == experiment.QUICK_SEEDS
    assert len(smooth[0].learning_rate) == smooth[0].epochs == experiment.QUICK_EPOCHS
    assert len(set(steps[0].learning_rate)) == 5
    sources = exp2_dropout.runs()
    retrained = experiment.rehearsal({"x": exp2_transfer.runs(sources["dropout=0"])})["x"]
    assert [run.start for run in retrained] == experiment.rehearsal(sources)["dropout=0"]


def test_no_image_is_both_trained_and_validated_on():
    runs = [
        *flat(exp1_lr.runs()),
        *flat(exp1_scheduler.runs()),
        *flat(exp2_dropout.runs()),
        *exp2_transfer.runs(exp2_dropout.runs()["dropout=0"]),
        *flat(exp3_gradients.watched_runs()),
        *flat(exp3_gradients.performance_runs()),
    ]
    for split in {run.split for run in runs}:
        train, val = data.split_indices(split, 50_000)
        assert not set(train.tolist()) & set(val.tolist())
    # what 2.2 retrains on is just what 2.1 never trained on
    assert torch.equal(
        data.split_indices("swapped halves", 50_000)[0], data.split_indices("halves", 50_000)[1]
    )
