"""Gradient statistics against a slow oracle that keeps every gradient."""

import dataclasses

import numpy as np
import pytest
import torch
from test_train import Reports, Stop, train_and_load

import lab.records
import train
from lab import gradients
from lab.store import Store


def keep_every_gradient(run, dataset):
    """Train like the plain loop, keeping |g|: {parameter: (steps, elements)}."""
    run = dataclasses.replace(run, gradient_statistics=False)
    training = train.Training(run, dataset)
    network = training.network.to(memory_format=torch.channels_last)
    kept = {name: [] for name, _ in network.named_parameters()}

    class Keeper(torch.optim.SGD):
        def step(self):
            for name, parameter in network.named_parameters():
                kept[name].append(parameter.grad.abs().flatten().double().numpy().copy())
            super().step()

    optimizer = Keeper(network.parameters(), lr=run.learning_rate)
    for _ in range(run.epochs):
        network.train()
        trained = train.train_epoch(training, optimizer, None, lambda done: None)
        training.end_epoch((*trained, 0.0, 0.0))
    return {name: np.array(values) for name, values in kept.items()}


@pytest.mark.parametrize("network", ["BaselineNet", "BatchNormNet"])
def test_statistics_equal_those_of_every_gradient_kept(network, a_run, digits, store):
    few = {"overfit_images": 90, "batch_size": 20}
    run = a_run(network=network, epochs=7, gradient_statistics=True, **few)
    steps = 5  # of 90 images in batches of 20
    found = train_and_load(run, digits, store)["gradients"]
    kept = keep_every_gradient(run, digits)

    assert found["parameters"] == list(kept)
    assert len(found["by_step"]) == 5
    for at, values in enumerate(kept.values()):
        windows = {
            "first_steps": values[:5],
            "last_steps": values[-5:],
            "first_epochs": values[: 5 * steps],
            "last_epochs": values[-5 * steps :],
        }
        for name, window in windows.items():
            assert found[name]["mean"][at] == pytest.approx(window.mean(), rel=1e-9)
            assert found[name]["std"][at] == pytest.approx(window.std(ddof=1), rel=1e-9)
        for name in ("first_steps", "last_steps"):
            by_element = windows[name].std(axis=0, ddof=1).mean()
            assert found[name]["std_by_element"][at] == pytest.approx(by_element, rel=1e-9)
        for step in range(5):
            for statistic, value in (
                ("mean", values[step].mean()),
                ("std", values[step].std(ddof=1)),
            ):
                assert found["by_step"][step][statistic][at] == pytest.approx(value, rel=1e-9)
        for epoch in range(run.epochs):
            window = values[epoch * steps : (epoch + 1) * steps]
            assert found["history"]["mean"][epoch][at] == pytest.approx(window.mean(), rel=1e-9)
            assert found["history"]["std"][epoch][at] == pytest.approx(window.std(ddof=1), rel=1e-9)


@pytest.mark.slow
def test_watching_gradients_changes_no_number(a_run, digits, store):
    plain, watched = (a_run(epochs=1, gradient_statistics=watched) for watched in (False, True))
    one, other = (train_and_load(run, digits, store) for run in (plain, watched))
    for name in ("train_loss", "val_loss", "test_loss", "confusion_matrix", "weights_sha256"):
        assert one[name] == other[name]
    assert "gradients" not in one


def test_every_step_of_every_epoch_is_counted_with_drop_last_too(a_run, digits, store):
    """70 images in batches of 20: three steps an epoch, or four with the short last batch."""
    for drop_last, steps in ((True, 3), (False, 4)):
        few = {"overfit_images": 70, "batch_size": 20}
        run = a_run(epochs=2, gradient_statistics=True, drop_last=drop_last, **few)
        found = train_and_load(run, digits, store)["gradients"]
        kept = keep_every_gradient(run, digits)
        for at, values in enumerate(kept.values()):
            assert len(values) == 2 * steps
            last = values[-5:]
            assert found["last_steps"]["mean"][at] == pytest.approx(last.mean(), rel=1e-9)
            second = values[steps:]
            assert found["history"]["mean"][1][at] == pytest.approx(second.mean(), rel=1e-9)
            assert found["first_epochs"]["mean"][at] == pytest.approx(values.mean(), rel=1e-9)


def test_only_trainable_parameters_are_watched(a_run, digits, store):
    source = a_run(epochs=1, overfit_images=64)
    train_and_load(source, digits, store)
    run = a_run(
        epochs=1, overfit_images=64, start=source, frozen=("conv1",), gradient_statistics=True
    )
    found = train_and_load(run, digits, store)["gradients"]
    assert found["parameters"] == [
        f"{layer}.{part}"
        for layer in ("conv2", "conv3", "fc1", "fc2")
        for part in ("weight", "bias")
    ]
    assert len(found["history"]["mean"][0]) == 8


def test_a_parameter_that_the_loss_does_not_use_has_zeros():
    statistics = gradients.GradientStatistics(torch.nn.Linear(3, 1), 1, 1)
    statistics.watch(0, [torch.tensor([[1.0, -2.0, 3.0]]), None])
    statistics.end_epoch()
    assert statistics.summary()["first_steps"]["mean"] == [2.0, 0.0]


def test_statistics_go_on_from_a_checkpoint(a_run, digits, store, tmp_path, monkeypatch):
    """A window of epochs or steps that an interruption cuts is the same as one without it."""
    monkeypatch.setattr(lab.records, "CHECKPOINT_SECONDS", 0.0)
    run = a_run(epochs=4, overfit_images=120, gradient_statistics=True)  # two steps an epoch
    whole = train_and_load(run, digits, store)["gradients"]
    for stop_at in (1.5, 2.5, 3.5):
        resumed = Store(tmp_path / str(stop_at))
        with pytest.raises(Stop):
            train_and_load(run, digits, resumed, Reports(stop_at))
        assert train_and_load(run, digits, resumed)["gradients"] == whole


def test_deviation_of_known_numbers():
    # 1, 2, 4: mean 7/3, squared differences 16/9 + 1/9 + 25/9 = 42/9, over 2 = 7/3
    total, squares = torch.tensor(7.0).double(), torch.tensor(21.0).double()
    assert gradients.deviation(total, squares, 3).item() == pytest.approx((7 / 3) ** 0.5)
    assert gradients.deviation(total, total**2, 1).item() == 0
