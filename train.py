"""Training: from a run, which is a value, to its curves and the logits of its final weights.

Every random draw comes from the run's own seed, a purpose and the epoch, never from a shared
stream. So a run's numbers depend neither on the runs beside it nor on where it was resumed.

This is the plain loop, one run at a time. It reads and writes no files: it is given the weights or
the checkpoint to start from, and functions to call when there is something to keep or to report.
lab/stacked.py takes the same steps for all runs of a sweep at once, and is tested against it.
"""

import inspect
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import data
import models
from data import Dataset

CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")  # one number an epoch each
PURPOSES = ("order", "dropout", "augmentation", "reinitialisation", "network")
EVALUATION_BATCH = 500  # images a forward pass


@dataclass(frozen=True, kw_only=True)
class Run:
    """One network trained once from one seed: everything that its numbers depend on.

    learning_rate is one number, or one for each epoch. start names the run whose trained weights
    this one starts from; the layers in reinitialised are then drawn anew, and those in frozen are
    never updated. width is the number of channels of the first convolution, which all other layers
    follow. With overfit_images the run trains on only the first so many images of its split, and
    validates on the same: can it learn at all? drop_last leaves out an epoch's short last batch.

    A field at its default is not part of a run's name, so that fields can be added: a new one needs
    a default that changes nothing, and no default may ever be edited.
    """

    network: str
    seed: int
    learning_rate: float | tuple[float, ...]
    epochs: int
    batch_size: int
    split: str
    dataset: str = "cifar10"
    dropout_rate: float = 0.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    augmentation: tuple[str, ...] = ()
    start: "Run | None" = None
    reinitialised: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    gradient_statistics: bool = False
    width: int = 16
    initialisation: str = "default"
    overfit_images: int = 0
    drop_last: bool = False

    def __post_init__(self) -> None:
        # one value has one form, so that equal runs are equal and have one name
        for field in fields(self):
            value = plain(getattr(self, field.name), as_float="float" in str(field.type))
            object.__setattr__(self, field.name, value)

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        rates = self.learning_rate
        return rates[epoch] if isinstance(rates, tuple) else rates


def plain(value: Any, as_float: bool) -> Any:
    """The value without NumPy's types, lists and whole numbers in place of floats."""
    value = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
    if isinstance(value, list | tuple):
        return tuple(plain(item, as_float) for item in value)
    whole = as_float and type(value) is int and abs(value) <= sys.float_info.max
    return float(value) if whole else value


def defined_in(module: ModuleType, is_kind: Callable[[Any], bool]) -> dict[str, Any]:
    """The classes or functions by name that a module defines itself, without those it imports."""
    found = {name: value for name, value in vars(module).items() if is_kind(value)}
    return {name: value for name, value in found.items() if value.__module__ == module.__name__}


def networks() -> dict[str, type[nn.Module]]:
    """Every network by the name of its class in models.py."""
    return defined_in(models, inspect.isclass)


def initialisations() -> dict[str, Callable[[Tensor], None] | None]:
    """Every initialisation by name; the default is None, as it leaves PyTorch's own draws."""
    functions = defined_in(models, inspect.isfunction)
    return {"default": None} | {name.replace("_", " "): f for name, f in functions.items()}


def takes(function: Callable[..., Any]) -> set[str]:
    """The names of the parameters that a class or a function takes."""
    return set(inspect.signature(function).parameters)


def build(run: Run, classes: int = 10, start: dict[str, Tensor] | None = None) -> nn.Module:
    """The run's network before its first step, on the CPU.

    Its weights are drawn after torch.manual_seed(run.seed). Where start, a state dictionary, is
    given, they are those, and only the reinitialised layers are drawn, from a stream of their own.
    """
    kind = networks()[run.network]
    options = {"width": run.width, "dropout_rate": run.dropout_rate, "classes": classes}

    def fresh(seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = kind(**{name: options[name] for name in options.keys() & takes(kind)})
            if draw_weights := initialisations()[run.initialisation]:
                for layer in network.modules():
                    if isinstance(layer, nn.Conv2d | nn.Linear):
                        draw_weights(layer.weight)
                        if layer.bias is not None:
                            nn.init.zeros_(layer.bias)
            return network

    network = fresh(run.seed)
    if start is not None:
        network.load_state_dict(start)
        other = fresh(generator(run.seed, "reinitialisation", 0).initial_seed())
        for layer in run.reinitialised:
            network.get_submodule(layer).load_state_dict(other.get_submodule(layer).state_dict())
    for layer in run.frozen:
        network.get_submodule(layer).requires_grad_(False)
    return network


def generator(seed: int, purpose: str, epoch: int) -> torch.Generator:
    """A CPU generator that belongs to one purpose in one epoch of the runs with one seed."""
    words = np.random.SeedSequence([seed, PURPOSES.index(purpose), epoch])
    return torch.Generator().manual_seed(int(words.generate_state(1, np.uint64)[0] >> 1))


class Draws(NamedTuple):
    """An epoch's random draws, a row for each training image in the order of the epoch."""

    order: Tensor  # (n,) int64, positions in the training split
    noise: Tensor  # (n, noise_features) float32, uniform on [0, 1)
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


class Training:
    """A run under way: its network, its momentum and what was measured of it, epoch by epoch.

    start is the state dictionary of the run that this one starts from. checkpoint is what
    state_dict() gave, to go on from. The trainer changes network and momentum (a buffer for each
    trainable parameter, by name; empty where the run has none) in place, and calls end_epoch().
    """

    def __init__(
        self,
        run: Run,
        dataset: Dataset,
        start: dict[str, Tensor] | None = None,
        checkpoint: dict[str, Any] | None = None,
    ) -> None:
        self.run, self.dataset = run, dataset
        self.device = dataset.images.device
        indices = data.split_indices(run.split, len(dataset.images), run.overfit_images)
        self.train_indices, self.val_indices = (part.to(self.device) for part in indices)
        self.network = build(run, len(dataset.class_names), start).to(self.device)
        self.takes_noise = "noise" in takes(self.network.forward)
        self.noise_features = self.network.noise_features if self.takes_noise else 0
        trainable = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        self.momentum = {
            name: torch.zeros_like(p, requires_grad=False)
            for name, p in trainable.items()
            if run.momentum
        }
        n, size = len(self.train_indices), run.batch_size
        self.steps_per_epoch = n // size if run.drop_last else math.ceil(n / size)
        self.images_per_epoch = min(n, self.steps_per_epoch * size)
        self.curves: dict[str, list[float]] = {name: [] for name in CURVES}
        self.diverged_at: int | None = None
        if checkpoint:
            self.network.load_state_dict(checkpoint["network"])
            for name, buffer in self.momentum.items():
                buffer.copy_(checkpoint["momentum"][name])
            self.curves = checkpoint["curves"]

    @property
    def epoch(self) -> int:
        """How many epochs are done, and so the number, from 0, of the next one."""
        return len(self.curves["train_loss"])

    @property
    def is_over(self) -> bool:
        return self.diverged_at is not None or self.epoch == self.run.epochs

    def end_epoch(self, measured: Sequence[float]) -> None:
        """Note an epoch's four numbers, in the order of CURVES, or that the run has diverged."""
        if not all(math.isfinite(value) for value in measured):
            self.diverged_at = self.epoch
            return
        for name, value in zip(CURVES, measured, strict=True):
            self.curves[name].append(value)

    def state_dict(self) -> dict[str, Any]:
        """Copies, on the CPU, of all that the run needs to go on from the end of an epoch."""

        def copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            # .clone(), as saving a part of a larger tensor saves all of it
            return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}

        network, momentum = copies(self.network.state_dict()), copies(self.momentum)
        return {"network": network, "momentum": momentum, "curves": self.curves}


def train(
    training: Training,
    watch: Callable[[int, list[Tensor]], None] | None = None,
    epoch_ended: Callable[[Training], None] = lambda training: None,
    report: Callable[[float], None] = lambda epochs_done: None,
) -> tuple[Tensor, Tensor] | None:
    """Train a run to its end, with plain mini-batch SGD.

    After the last epoch the final weights are evaluated once on the training images, without
    dropout and augmentation, and on the test set: returns both logits, (n_train, classes) and
    (n_test, classes) float64; None where the run diverged. watch is called with each step's number,
    from 0 over the whole training, and its gradients, one for each trainable parameter.

    On the CPU a run uses one thread: a step is too small to share, so several processes, one for
    each core, do better, and the numbers do not depend on how many cores there are.
    """
    use_full_precision()
    run, dataset, device = training.run, training.dataset, training.device
    if device.type == "cpu":
        torch.set_num_threads(1)
    network = training.network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        [p for p in network.parameters() if p.requires_grad],
        lr=run.learning_rate_at(0),
        momentum=run.momentum,
        weight_decay=run.weight_decay,
    )
    for name, buffer in training.momentum.items():
        optimizer.state[network.get_parameter(name)]["momentum_buffer"] = buffer
    report(training.epoch)
    val_images, val_labels = (of[training.val_indices] for of in (dataset.images, dataset.labels))
    while not training.is_over:
        for group in optimizer.param_groups:
            group["lr"] = run.learning_rate_at(training.epoch)
        set_training(network, run.frozen)
        trained = train_epoch(training, optimizer, watch, report)
        validated = measure(evaluate(network, val_images), val_labels).tolist()
        training.end_epoch((*trained, *validated))
        epoch_ended(training)
    if training.diverged_at is not None:
        return None
    train_images = dataset.images[training.train_indices]
    return evaluate(network, train_images), evaluate(network, dataset.test_images)


def train_epoch(
    training: Training,
    optimizer: torch.optim.Optimizer,
    watch: Callable[[int, list[Tensor]], None] | None,
    report: Callable[[float], None],
) -> tuple[float, float]:
    """Train for one epoch; the mean loss (nats) and accuracy over its images.

    Each batch is measured as it is trained on, before its step, and weighs as many images as it
    has: the last one may be short.
    """
    run, epoch, dataset, network = training.run, training.epoch, training.dataset, training.network
    device, indices = training.device, training.train_indices
    images_per_epoch = training.images_per_epoch
    # a network may draw random numbers itself, as nn.Dropout does: from torch's own generators
    torch.manual_seed(generator(run.seed, "network", epoch).initial_seed())
    draws = draw(run, epoch, len(indices), training.noise_features)
    order = indices[draws.order.to(device)][:images_per_epoch]
    noise, flip, shift = (draw.to(device) for draw in draws[1:])
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for step, start in enumerate(range(0, images_per_epoch, run.batch_size)):
        rows = slice(start, min(start + run.batch_size, images_per_epoch))
        batch = order[rows]
        images, labels = dataset.images[batch], dataset.labels[batch]
        if run.augmentation:
            images = data.augment(images, flip[rows], shift[rows])
        images = data.normalise(images)
        logits = network(images, noise[rows]) if training.takes_noise else network(images)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        if watch:
            gradients = [p.grad for p in network.parameters() if p.requires_grad]
            watch(epoch * training.steps_per_epoch + step, gradients)
        optimizer.step()
        loss_sum += loss.detach() * len(batch)
        correct += (logits.argmax(1) == labels).sum()
        report(epoch + rows.stop / images_per_epoch)
    return (loss_sum / images_per_epoch).item(), correct.item() / images_per_epoch


def set_training(network: nn.Module, frozen: Sequence[str]) -> None:
    """Training mode, but for frozen layers: their batch normalisation keeps its statistics too."""
    network.train()
    for layer in frozen:
        network.get_submodule(layer).eval()


@torch.no_grad()
def evaluate(network: nn.Module, images: Tensor) -> Tensor:
    """The network's logits (n, classes) for images (n, 32, 32, 3), in float64."""
    network.eval()
    batches = images.split(EVALUATION_BATCH)
    return torch.cat([network(data.normalise(batch)) for batch in batches]).double()


def measure(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean loss (nats) and accuracy, (..., 2), of logits (..., n, classes) for labels (n,)."""
    labels = labels.expand(logits.shape[:-1])
    losses = -logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0]
    hits = logits.argmax(-1) == labels
    return torch.stack([losses.mean(-1), hits.to(losses.dtype).mean(-1)], -1)


def use_full_precision() -> None:
    """Let a GPU calculate in float32 as a CPU does, not in TF32, and in the same order every time.

    PyTorch's own defaults are TF32 for convolutions and float32 for matrix products.
    """
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    torch.backends.cudnn.deterministic = True
