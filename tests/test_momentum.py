"""Momentum, as trained alone and together, against sequences worked out without an optimizer."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import data
import engine
import train

IMAGES = 60  # in one batch, so that an epoch is one step
both = pytest.mark.parametrize("trainer", [train.train, engine.train])


@pytest.fixture
def full_batch(a_run):
    """A function that makes a run whose every epoch is one step on the same images."""
    return lambda **fields: a_run(
        **({"overfit_images": IMAGES, "batch_size": IMAGES, "momentum": 0.9, "epochs": 3} | fields)
    )


def biases_by_hand(labels, steps, learning_rate, momentum):
    """fc2's biases after every step of a network whose weights are zero.

    Its logits are these biases b, so that ∂L/∂b = softmax(b) − f, where f are the shares of the
    classes, and no other parameter has a gradient: v ← momentum · v + ∂L/∂b, b ← b − rate · v.
    """
    shares = np.bincount(labels, minlength=10) / len(labels)
    b, v, found = np.zeros(10), np.zeros(10), []
    for _ in range(steps):
        v = momentum * v + np.exp(b) / np.exp(b).sum() - shares
        b = b - learning_rate * v
        found.append(b)
    return shares, found


@both
@pytest.mark.parametrize("interrupted_after", [None, 1, 2])
def test_the_sequence_by_hand(trainer, interrupted_after, full_batch, digits, store):
    """Going on from a checkpoint, too, as the velocity is part of it."""
    run = full_batch(initialisation="zeros", learning_rate=0.5)
    few, _ = data.split_indices("standard", 1_500, IMAGES)
    shares, (first, *_, last) = biases_by_hand(digits.labels[few].numpy(), 3, 0.5, 0.9)
    assert first == pytest.approx(0.5 * (shares - 0.1))  # from rest: one step of plain SGD
    without = biases_by_hand(digits.labels[few].numpy(), 3, 0.5, 0.0)[1][-1]
    assert np.abs(last - without).max() > 0.05  # momentum makes a difference
    if interrupted_after:
        shorter = full_batch(initialisation="zeros", learning_rate=0.5, epochs=interrupted_after)
        trainer([shorter], digits, store)
        assert len(store.load_checkpoint(run)["curves"]["train_loss"]) == interrupted_after
    trainer([run], digits, store)
    weights = store.load_weights(run)
    assert weights.pop("fc2.bias").numpy() == pytest.approx(last, abs=1e-6)
    assert not any(tensor.any() for tensor in weights.values())


@both
def test_it_is_that_of_torch_and_of_the_formula(trainer, full_batch, digits, store):
    run = full_batch(initialisation="kaiming", learning_rate=0.02)
    trainer([run], digits, store)
    few, _ = data.split_indices("standard", 1_500, IMAGES)
    images, labels = data.normalise(digits.images[few]), digits.labels[few]
    of_torch, by_hand = train.build(run, store), train.build(run, store)
    optimizer = torch.optim.SGD(of_torch.parameters(), lr=0.02, momentum=0.9)
    velocities = [torch.zeros_like(parameter) for parameter in by_hand.parameters()]
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(of_torch(images), labels).backward()
        optimizer.step()
        loss = F.cross_entropy(by_hand(images), labels)
        gradients = torch.autograd.grad(loss, list(by_hand.parameters()))
        with torch.no_grad():
            for w, v, g in zip(by_hand.parameters(), velocities, gradients, strict=True):
                v.mul_(0.9).add_(g)
                w.sub_(0.02 * v)
    begun = train.build(run, store).state_dict()
    for name, weights in store.load_weights(run).items():
        moved = (weights - begun[name]).abs().max().item()
        assert moved > 1e-4, name
        for expected in (of_torch, by_hand):
            error = (weights - expected.state_dict()[name]).abs().max().item()
            assert error < 1e-3 * moved, name
