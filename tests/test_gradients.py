"""Gradient statistics against a slow oracle that keeps every gradient."""

import dataclasses

import numpy as np
import pytest
import torch

import gradients
import train


def keep_every_gradient(run, dataset, store):
    """Train like train_run, keeping |g|: {parameter: (steps, elements)}."""
    run = dataclasses.replace(run, gradient_statistics=False)
    training = train.Training(run, dataset, store)
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
        training.end_epoch((*train.train_epoch(training, optimizer, lambda *_: None), 0.0, 0.0))
    return {name: np.array(values) for name, values in kept.items()}


@pytest.mark.parametrize("network", ["BaselineNet", "BatchNormNet"])
def test_statistics_equal_those_of_every_gradient_kept(network, a_run, digits, store):
    run = a_run(network=network, epochs=7, batch_size=300, gradient_statistics=True)
    steps = 5  # 1,350 images in batches of 300
    train.train([run], digits, store)
    found = store.load_result(run)["gradients"]
    kept = keep_every_gradient(run, digits, store)

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


def test_watching_gradients_changes_no_number(a_run, digits, store):
    plain, watched = a_run(), a_run(gradient_statistics=True)
    train.train([plain, watched], digits, store)
    one, other = store.load_result(plain), store.load_result(watched)
    for name in ("train_loss", "val_loss", "test_loss", "confusion_matrix"):
        assert one[name] == other[name]
    assert "gradients" not in one


def test_deviation_of_known_numbers():
    # 1, 2, 4: mean 7/3, squared differences 16/9 + 1/9 + 25/9 = 42/9, over 2 = 7/3
    total, squares = torch.tensor(7.0).double(), torch.tensor(21.0).double()
    assert gradients.deviation(total, squares, 3).item() == pytest.approx((7 / 3) ** 0.5)
    assert gradients.deviation(total, total**2, 1).item() == 0
