"""Training: from a run, which is a value, to its curves and test results.

Every random draw comes from the run's own seed, a purpose and the epoch, never from a shared
stream, so that a run's numbers depend neither on the runs beside it nor on where it was resumed.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import data
import models
from data import Dataset
from gradients import GradientStatistics
from runs import CURVES, Run
from store import Store

CHECKPOINT_SECONDS = 10.0  # at most this much work, and the epoch under way, is ever done twice
EVALUATION_BATCH = 500  # images a forward pass; without gradients it changes nothing but speed
PURPOSES = ("order", "dropout", "augmentation", "reinitialisation")

MISTAKES = 25  # how many test images a record names that were most confidently taken for others
UNTESTED = dict.fromkeys(
    ("test_loss", "test_accuracy", "report", "confusion_matrix", "most_confident_mistakes")
)

Report = Callable[[Run, float], None]  # a run, and how many epochs of it are done by now


def train(
    runs: Sequence[Run],
    dataset: Dataset,
    store: Store,
    report: Report = lambda run, epochs_done: None,
) -> None:
    """Train runs on the device that holds the dataset; their results and checkpoints go to store.

    On the CPU a run uses one thread: a step is too small to share, so several processes, one a
    core, do better, and the numbers do not depend on how many cores there are.
    """
    if dataset.images.device.type == "cpu":
        torch.set_num_threads(1)
    else:
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # as matmul's default: no TF32
        torch.backends.cudnn.deterministic = True
    for run in runs:
        train_run(run, dataset, store, report)


def train_run(run: Run, dataset: Dataset, store: Store, report: Report) -> None:
    """Train one run, from its checkpoint if there is one, and keep its result.

    Training and validation are measured at every epoch, the test set once, after the last.
    """
    device = dataset.images.device
    indices = data.split_indices(run.split, len(dataset.images))
    train_indices, val_indices = (part.to(device) for part in indices)
    network = build(run, store).to(device, memory_format=torch.channels_last)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        parameters,
        lr=run.learning_rate_at(0),
        momentum=run.momentum,
        weight_decay=run.weight_decay,
    )
    gradients = None
    if run.gradient_statistics:
        steps = math.ceil(len(train_indices) / run.batch_size)
        gradients = GradientStatistics(network, run.epochs, steps)
    curves: dict[str, list[float]] = {name: [] for name in CURVES}
    intervals: list[list[float]] = []  # [start, end] in Unix seconds, one for each time it trained
    if checkpoint := store.load_checkpoint(run):
        network.load_state_dict(checkpoint["network"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        curves, intervals = checkpoint["curves"], checkpoint["intervals"]
        if gradients:
            gradients.load_state_dict(checkpoint["gradients"])
    intervals.append([time.time(), time.time()])
    report(run, len(curves["train_loss"]))

    diverged_at = None
    for epoch in range(len(curves["train_loss"]), run.epochs):
        for group in optimizer.param_groups:
            group["lr"] = run.learning_rate_at(epoch)
        set_training(network, run.frozen)
        measured = train_epoch(
            run, epoch, network, optimizer, dataset, train_indices, gradients, report
        )
        measured += evaluate(network, dataset.images[val_indices], dataset.labels[val_indices])[:2]
        if not all(math.isfinite(value) for value in measured):
            diverged_at = epoch
            break
        for name, value in zip(CURVES, measured, strict=True):
            curves[name].append(value)
        now = time.time()
        if now - intervals[-1][1] >= CHECKPOINT_SECONDS or epoch == run.epochs - 1:
            intervals[-1][1] = now
            store.save_checkpoint(
                run,
                {
                    "network": network.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "curves": curves,
                    "intervals": intervals,
                    "gradients": gradients and gradients.state_dict(),
                },
            )
    test = UNTESTED
    if diverged_at is None:
        test = test_results(network, dataset)
        if not math.isfinite(test["test_loss"]):
            test, diverged_at = UNTESTED, run.epochs - 1
    intervals[-1][1] = time.time()
    sound = run.epochs if diverged_at is None else diverged_at
    missing = [None] * (run.epochs - sound)
    curves = {name: curve[:sound] + missing for name, curve in curves.items()}
    result = {"diverged_at_epoch": diverged_at, **curves, **test, "trained": intervals}
    if gradients:
        result["gradients"] = gradients.summary() if diverged_at is None else None
    store.save_result(run, result, device)


def build(run: Run, store: Store) -> nn.Module:
    """The run's network before its first step, on the CPU.

    Weights are PyTorch's default draws after torch.manual_seed(run.seed), or those of the run it
    starts from, with the reinitialised layers drawn from a stream of their own.
    """

    def fresh(seed: int) -> nn.Module:
        options = {"dropout_rate": run.dropout_rate} if run.network == "DropoutNet" else {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return getattr(models, run.network)(**options)

    network = fresh(run.seed)
    if run.start is not None:
        network.load_state_dict(store.load_weights(run.start))
        other = fresh(generator(run.seed, "reinitialisation", 0).initial_seed())
        for layer in run.reinitialised:
            network.get_submodule(layer).load_state_dict(other.get_submodule(layer).state_dict())
    for layer in run.frozen:
        network.get_submodule(layer).requires_grad_(False)
    return network


def set_training(network: nn.Module, frozen: Sequence[str]) -> None:
    """Training mode, but for frozen layers: their batch normalisation keeps its statistics too."""
    network.train()
    for layer in frozen:
        network.get_submodule(layer).eval()


def generator(seed: int, purpose: str, epoch: int) -> torch.Generator:
    """A CPU generator that belongs to one purpose in one epoch of the runs with one seed."""
    words = np.random.SeedSequence([seed, PURPOSES.index(purpose), epoch])
    return torch.Generator().manual_seed(int(words.generate_state(1, np.uint64)[0] >> 1))


class Draws(NamedTuple):
    """An epoch's random draws, a row for each training image in the order of the epoch."""

    order: Tensor  # (n,) int64, positions in the training split
    noise: Tensor  # (n, network.noise_features) float32, uniform on [0, 1)
    flip: Tensor  # (n,) bool
    shift: Tensor  # (n, 2) int64, pixels


def draw(run: Run, epoch: int, n: int, noise_features: int) -> Draws:
    """All that is random in a run's epoch, the same on every device."""
    augmentation = generator(run.seed, "augmentation", epoch)
    flip = torch.rand(n, generator=augmentation) < 0.5
    most = data.CROP_PADDING
    shift = torch.randint(-most, most + 1, (n, 2), generator=augmentation)
    return Draws(
        torch.randperm(n, generator=generator(run.seed, "order", epoch)),
        torch.rand(n, noise_features, generator=generator(run.seed, "dropout", epoch)),
        flip if "flip" in run.augmentation else torch.zeros_like(flip),
        shift if "crop" in run.augmentation else torch.zeros_like(shift),
    )


def train_epoch(
    run: Run,
    epoch: int,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    dataset: Dataset,
    indices: Tensor,
    gradients: GradientStatistics | None,
    report: Report,
) -> tuple[float, float]:
    """Train for one epoch; the mean loss (nats) and accuracy over its images.

    Each batch is measured as it is trained on, before its step, and weighs as many images as it
    has: the last one may be short.
    """
    device = dataset.images.device
    draws = draw(run, epoch, len(indices), network.noise_features)
    order = indices[draws.order.to(device)]
    noise, flip, shift = (draw.to(device) for draw in draws[1:])
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for start in range(0, len(order), run.batch_size):
        rows = slice(start, start + run.batch_size)
        batch = order[rows]
        images, labels = dataset.images[batch], dataset.labels[batch]
        if run.augmentation:
            images = data.augment(images, flip[rows], shift[rows])
        logits = network(data.normalise(images), noise[rows])
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        if gradients:
            gradients.observe()
        optimizer.step()
        loss_sum += loss.detach() * len(batch)
        correct += (logits.argmax(1) == labels).sum()
        report(run, epoch + (start + len(batch)) / len(order))
    if gradients:
        gradients.end_epoch()
    return (loss_sum / len(order)).item(), correct.item() / len(order)


@torch.no_grad()
def evaluate(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float, Tensor]:
    """Mean loss (nats) and accuracy over images (n, 32, 32, 3), and their logits (n, 10)."""
    network.eval()
    batches = images.split(EVALUATION_BATCH)
    logits = torch.cat([network(data.normalise(batch)) for batch in batches]).double()
    accuracy = (logits.argmax(1) == labels).double().mean()
    return F.cross_entropy(logits, labels).item(), accuracy.item(), logits


def test_results(network: nn.Module, dataset: Dataset) -> dict[str, Any]:
    """Loss, accuracy, per-class report, confusion matrix (true, predicted) and mistakes.

    The mistakes are the test images given the highest probability of a class that is not theirs.
    """
    from sklearn.metrics import classification_report, confusion_matrix  # a second at start-up

    loss, accuracy, logits = evaluate(network, dataset.test_images, dataset.test_labels)
    probabilities, predicted = logits.softmax(1).cpu().max(1)
    truth = dataset.test_labels.cpu()
    confidence = torch.where(predicted == truth, -1.0, probabilities)
    order = confidence.argsort(descending=True, stable=True)[:MISTAKES]
    classes = range(len(dataset.class_names))
    return {
        "test_loss": loss,
        "test_accuracy": accuracy,
        "report": classification_report(
            truth.numpy(),
            predicted.numpy(),
            labels=classes,
            target_names=dataset.class_names,
            output_dict=True,
            zero_division=0,
        ),
        "confusion_matrix": confusion_matrix(
            truth.numpy(), predicted.numpy(), labels=classes
        ).tolist(),
        "most_confident_mistakes": [
            {
                "image": image,
                "true": dataset.class_names[truth[image]],
                "predicted": dataset.class_names[predicted[image]],
                "probability": probabilities[image].item(),
            }
            for image in order.tolist()
            if predicted[image] != truth[image]
        ],
    }
