"""Training against a plain PyTorch loop written out here, and what a run's numbers depend on."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import precision_recall_fscore_support

import data
import models
import train
from runs import CURVES


def train_and_load(runs, dataset, store, report=lambda *_: None):
    train.train(runs, dataset, store, report)
    return [store.load_result(run) for run in runs]


def numbers(result: dict) -> dict:
    """A record without what differs between two trainings of the same run: when and where."""
    return {key: value for key, value in result.items() if key not in ("trained", "environment")}


def plain_loop(run, dataset, network):
    """What a textbook does, image by image where it measures: {curve: one number an epoch}."""
    train_indices, val_indices = data.split_indices(run.split, len(dataset.images))
    optimizer = torch.optim.SGD(
        network.parameters(), 0.0, momentum=run.momentum, weight_decay=run.weight_decay
    )
    curves = {name: [] for name in CURVES}
    for epoch in range(run.epochs):
        draws = train.draw(run, epoch, len(train_indices), network.noise_features)
        losses, hits = [], []
        network.train()
        for group in optimizer.param_groups:
            group["lr"] = run.learning_rate_at(epoch)
        for first in range(0, len(train_indices), run.batch_size):
            rows = slice(first, first + run.batch_size)
            batch = train_indices[draws.order[rows]]
            images = data.augment(dataset.images[batch], draws.flip[rows], draws.shift[rows])
            optimizer.zero_grad()
            logits = network(data.normalise(images), draws.noise[rows])
            F.cross_entropy(logits, dataset.labels[batch]).backward()
            optimizer.step()
            for row, label in zip(logits.detach(), dataset.labels[batch], strict=True):
                losses.append(-math.log(row.double().softmax(0)[label]))
                hits.append(int(row.argmax() == label))
        curves["train_loss"].append(np.mean(losses))
        curves["train_accuracy"].append(np.mean(hits))
        network.eval()
        losses, hits = [], []
        for index in val_indices:
            with torch.no_grad():
                row = network(data.normalise(dataset.images[index : index + 1]))[0]
            losses.append(-math.log(row.double().softmax(0)[dataset.labels[index]]))
            hits.append(int(row.argmax() == dataset.labels[index]))
        curves["val_loss"].append(np.mean(losses))
        curves["val_accuracy"].append(np.mean(hits))
    return curves


def initial(run):
    torch.manual_seed(run.seed)
    if run.network == "DropoutNet":
        return models.DropoutNet(run.dropout_rate)
    return getattr(models, run.network)()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"batch_size": 100, "learning_rate": (0.1, 0.02)},
        {"momentum": 0.9, "weight_decay": 0.01},
        {"network": "DropoutNet", "dropout_rate": 0.6, "split": "halves"},
        {"network": "BatchNormNet", "split": "swapped halves"},
        {"augmentation": ("flip", "crop")},
    ],
)
def test_a_run_is_the_plain_loop(fields, a_run, digits, store):
    run = a_run(**fields)
    (result,) = train_and_load([run], digits, store)
    network = initial(run)
    expected = plain_loop(run, digits, network)
    for name in CURVES:
        assert result[name] == pytest.approx(expected[name], rel=1e-4), name
    for name, weights in store.load_weights(run).items():
        assert torch.allclose(weights, network.state_dict()[name], atol=1e-4), name


def test_one_step_is_plain_sgd_to_the_last_bit(a_run, digits, store):
    run = a_run(epochs=1, batch_size=1_350)  # the whole training split is one batch
    train_and_load([run], digits, store)
    network = initial(run).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), run.learning_rate)
    train_indices, _ = data.split_indices("standard", 1_500)
    batch = train_indices[train.draw(run, 0, 1_350, 0).order]
    F.cross_entropy(network(data.normalise(digits.images[batch])), digits.labels[batch]).backward()
    optimizer.step()
    for name, weights in store.load_weights(run).items():
        assert torch.equal(weights, network.state_dict()[name]), name


def test_on_real_images_too(a_run, cifar10, store):
    """One step on CIFAR-10's own split, against a plain step."""
    run = a_run(dataset="cifar10", epochs=1, batch_size=64)
    training, plain = train.Training(run, cifar10, store), train.build(run, store)
    network = training.network
    first = train.draw(run, 0, 45_000, 0).order[:64]
    small = training.train_indices = training.train_indices[first]
    optimizers = [torch.optim.SGD(net.parameters(), 0.05) for net in (network, plain)]
    loss, _ = train.train_epoch(training, optimizers[0], lambda *_: None)
    images = cifar10.images[small].permute(0, 3, 1, 2).float() / 127.5 - 1
    expected = F.cross_entropy(plain(images), cifar10.labels[small])
    expected.backward()
    optimizers[1].step()
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    for mine, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_final_training_results_are_measured_as_validation_is(a_run, digits, store):
    """By the final weights, without dropout, on the images as they are."""
    changes = {"network": "DropoutNet", "dropout_rate": 0.6, "augmentation": ("flip", "crop")}
    run = a_run(epochs=2, learning_rate=0.1, **changes)
    (result,) = train_and_load([run], digits, store)
    network = models.DropoutNet(0.6).eval()
    network.load_state_dict(store.load_weights(run))
    for name, indices in zip(("train", "val"), data.split_indices(run.split, 1_500), strict=True):
        with torch.no_grad():
            logits = network(data.normalise(digits.images[indices])).double()
        truth = digits.labels[indices]
        accuracy = np.mean(logits.argmax(1).numpy() == truth.numpy())
        loss = F.cross_entropy(logits, truth).item()
        if name == "train":
            found = result["final_train_accuracy"], result["final_train_loss"]
        else:
            found = result["val_accuracy"][-1], result["val_loss"][-1]
        assert found == (pytest.approx(accuracy), pytest.approx(loss, rel=1e-5))
    assert result["train_accuracy"][-1] != pytest.approx(result["final_train_accuracy"], abs=0.01)


def test_test_results_are_those_of_the_trained_weights(a_run, digits, store):
    run = a_run(epochs=4, learning_rate=0.1)
    (result,) = train_and_load([run], digits, store)
    network = models.BaselineNet()
    network.load_state_dict(store.load_weights(run))
    with torch.no_grad():
        logits = network(data.normalise(digits.test_images)).double()
    truth, predicted = digits.test_labels.numpy(), logits.argmax(1).numpy()
    assert result["test_accuracy"] == np.mean(truth == predicted)
    assert result["test_loss"] == pytest.approx(
        -logits.log_softmax(1)[range(297), truth].mean().item(), rel=1e-5
    )
    confusion = np.zeros((10, 10), int)
    for true, guess in zip(truth, predicted, strict=True):
        confusion[true, guess] += 1
    assert result["confusion_matrix"] == confusion.tolist()
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, predicted, labels=range(10), zero_division=0
    )
    for i, name in enumerate(digits.class_names):
        expected = (precision[i], recall[i], f1[i], support[i])
        assert tuple(result["report"][name].values()) == pytest.approx(expected)
    mistakes = result["most_confident_mistakes"]
    wrong = np.flatnonzero(truth != predicted)
    confidence = logits.softmax(1).max(1).values
    surest = sorted(wrong, key=lambda image: -confidence[image])[: train.MISTAKES]
    assert [mistake["image"] for mistake in mistakes] == surest
    assert mistakes[0]["true"] == str(truth[surest[0]])
    assert mistakes[0]["predicted"] == str(predicted[surest[0]])
    assert mistakes[0]["probability"] == pytest.approx(confidence[surest[0]].item(), rel=1e-5)


def test_companions_change_nothing(a_run, digits, store, tmp_path):
    runs = [
        a_run(network="DropoutNet", dropout_rate=0.5, seed=1, augmentation=("crop",)),
        a_run(seed=2, learning_rate=0.1),
        a_run(network="BatchNormNet", seed=1),
    ]
    together = train_and_load(runs, digits, store)
    other = type(store)(tmp_path / "alone", "exp")
    torch.manual_seed(99)  # nobody may draw from the global generator
    for run, result in reversed(list(zip(runs, together, strict=True))):
        (alone,) = train_and_load([run], digits, other)
        assert numbers(alone) == numbers(result)


def test_seeds_and_epochs_draw_differently(a_run):
    def order(seed, epoch):
        return tuple(train.draw(a_run(seed=seed), epoch, 50, 2).order.tolist())

    assert len({order(seed, epoch) for seed in (1, 2) for epoch in (0, 1)}) == 4
    draws = train.draw(a_run(augmentation=("flip", "crop")), 0, 4_000, 64)
    assert sorted(draws.order.tolist()) == list(range(4_000))
    assert draws.noise.mean().item() == pytest.approx(0.5, abs=0.01)
    assert draws.flip.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert sorted(set(draws.shift.flatten().tolist())) == list(range(-4, 5))
    later = train.draw(a_run(augmentation=("flip", "crop")), 1, 4_000, 64)
    for first, second in zip(draws, later, strict=True):
        assert not torch.equal(first, second)
    plain = train.draw(a_run(), 0, 4_000, 0)
    assert torch.equal(plain.order, draws.order)  # augmentation leaves the order alone
    assert not plain.flip.any()
    assert not plain.shift.any()


class Stop(Exception):
    pass


@pytest.mark.parametrize("network", ["DropoutNet", "BatchNormNet"])
@pytest.mark.parametrize("stop_at", [0.5, 1.0, 2.7])
def test_resuming_changes_no_bit(network, stop_at, a_run, digits, store, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", 0.0)
    dropout = 0.4 if network == "DropoutNet" else 0.0
    run = a_run(
        network=network, dropout_rate=dropout, epochs=3, momentum=0.9, gradient_statistics=True
    )
    (whole,) = train_and_load([run], digits, type(store)(tmp_path / "whole", "exp"))

    def stop(_, epochs_done):
        if epochs_done >= stop_at:
            raise Stop

    with pytest.raises(Stop):
        train_and_load([run], digits, store, stop)
    assert store.load_result(run) is None
    resumed_at = []
    (resumed,) = train_and_load([run], digits, store, lambda _, done: resumed_at.append(done))
    assert resumed_at[0] == math.floor(stop_at) - (stop_at == 1.0)  # 1.0 is before its checkpoint
    assert numbers(resumed) == numbers(whole)


def test_more_epochs_go_on_from_fewer(a_run, digits, store, tmp_path):
    short, long = a_run(epochs=2), a_run(epochs=4)
    (first,) = train_and_load([short], digits, store)
    started = []
    (extended,) = train_and_load([long], digits, store, lambda _, done: started.append(done))
    assert started[0] == 2
    (whole,) = train_and_load([long], digits, type(store)(tmp_path / "whole", "exp"))
    assert numbers(extended) == numbers(whole)
    assert extended["val_loss"][:2] == first["val_loss"]
    assert store.load_result(short) == first
    started.clear()
    train.train([a_run(epochs=5)], digits, store, lambda _, done: started.append(done))
    assert started[0] == 4  # of the two that it could go on from, the one that got further
    (shorter,) = train_and_load([a_run(epochs=1)], digits, store)  # none is short enough for it
    (alone,) = train_and_load([a_run(epochs=1)], digits, type(store)(tmp_path / "alone", "exp"))
    assert numbers(shorter) == numbers(alone)


def test_a_run_that_diverges_says_when_and_ends(a_run, digits, store):
    sound, wild = a_run(seed=2), a_run(epochs=5, learning_rate=(0.05, 0.05, 1e20, 0.05, 0.05))
    seen = []
    after, result = train_and_load([sound, wild], digits, store, lambda *at: seen.append(at))
    assert result["diverged_at_epoch"] == 2
    for name in CURVES:
        assert all(math.isfinite(value) for value in result[name][:2])
        assert result[name][2:] == [None] * 3
    for name in ("test_accuracy", "report", "final_train_loss", "final_train_accuracy"):
        assert result[name] is None
    assert max(done for run, done in seen if run == wild) == 3.0
    assert after["diverged_at_epoch"] is None


def test_transfer_freezes_and_draws_anew(a_run, digits, store):
    source = a_run(network="BatchNormNet", split="halves", epochs=1)
    run = a_run(
        network="BatchNormNet",
        split="swapped halves",
        epochs=1,
        start=source,
        frozen=("conv1", "bn1", "conv2", "conv3"),
        reinitialised=("fc1", "fc2"),
        weight_decay=0.1,
    )
    train_and_load([source], digits, store)
    trained, fresh = store.load_weights(source), initial(run).state_dict()
    before = train.build(run, store).state_dict()
    train_and_load([run], digits, store)
    after = store.load_weights(run)
    for name in trained:
        layer = name.split(".")[0]
        if layer in run.reinitialised:
            assert not torch.equal(before[name], trained[name]), name
            assert not torch.equal(before[name], fresh[name]), name  # nor what the source began as
        else:
            assert torch.equal(before[name], trained[name]), name
        if layer in run.frozen:
            assert torch.equal(after[name], trained[name]), name
        else:
            assert not torch.equal(after[name], before[name]), name


@pytest.mark.parametrize(
    "frozen", [(), ("conv1",), ("conv1", "conv2"), ("conv1", "conv2", "conv3")]
)
def test_what_is_frozen_keeps_every_bit_and_all_else_learns(frozen, a_run, digits, store):
    source = a_run(network="DropoutNet", split="halves", epochs=1)
    run = a_run(
        network="DropoutNet",
        split="swapped halves",
        epochs=1,
        learning_rate=0.01,
        start=source,
        frozen=frozen,
        reinitialised=("fc1", "fc2"),
    )
    train_and_load([source], digits, store)
    trained, before = store.load_weights(source), train.build(run, store).state_dict()
    train_and_load([run], digits, store)
    for name, weights in store.load_weights(run).items():
        layer = name.split(".")[0]
        assert torch.equal(before[name], trained[name]) == (layer not in ("fc1", "fc2")), name
        assert torch.equal(weights, before[name]) == (layer in frozen), name


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("network", ["BaselineNet", "DropoutNet", "BatchNormNet"])
def test_cuda_agrees_with_the_cpu(network, a_run, digits, store, tmp_path):
    run = a_run(network=network, epochs=1)
    (cpu,) = train_and_load([run], digits, store)
    (gpu,) = train_and_load([run], digits.to("cuda"), type(store)(tmp_path / "gpu", "exp"))
    for name in ("train_loss", "val_loss"):
        assert gpu[name] == pytest.approx(cpu[name], rel=1e-3)
