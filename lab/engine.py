"""The whole sweep at once: one GPU takes a step of every run in the time of one.

A network of 90,000 parameters at a batch of 64 leaves a GPU idle: a plain loop pays for launching
kernels, not for arithmetic. Three ideas turn that around, and leave the networks as they are:

1. The weights of all runs are stacked, and torch.func.vmap makes of the ordinary network one that
   takes every run's images through that run's own weights. What differs between runs (weights,
   learning rate, order of the images, dropout rate and noise) is a tensor with one row a run.
2. A convolution becomes a matrix product over patches, because products batch over runs at full
   speed, and cuDNN's grouped convolutions with so few channels a group do not.
3. A step, from picking the images to the new weights, is captured once as a CUDA graph and then
   launched whole. It waits for nothing from the CPU, which draws the next epoch in the meantime.

No run sees another: the numbers are those of train.train_run(), up to the order in which float32
sums are taken. The library that multiplies matrices may choose that order by how many runs there
are, so that the last bit of a run can depend on the number of its companions, on nothing else of
them. On a CPU everything here runs too, uncaptured; only the tests use that.
"""

import dataclasses
import gc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, vmap
from torch.overrides import TorchFunctionMode

import data
from data import Dataset
from lab import provenance
from lab.gradients import moments
from lab.records import Recorder
from lab.store import Store
from train import Draws, Run, UserError, draw, measure, set_training, use_full_precision

EVALUATION_BATCH = 250  # images a forward pass of all runs; more takes more memory than training
WARM_UP_STEPS = 3  # before a capture, so that libraries have made their choices and allocations


def train(
    runs: Sequence[Run],
    datasets: dict[str, Dataset],
    store: Store,
    reporter: Any,
) -> None:
    """Train runs on the device that holds the datasets, all of one architecture together.

    Where memory is short, half of them at once, and so on. What they produce goes to store.

    Raises UserError where there is too little memory for a single one.
    """
    use_full_precision()
    groups: dict[Run, list[Run]] = {}
    for run in runs:
        groups.setdefault(architecture(run), []).append(run)
    waiting = list(groups.values())
    while waiting:
        group = waiting.pop(0)
        try:
            train_together(group, datasets[group[0].dataset], store, reporter)
            continue
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        if len(group) == 1:
            raise UserError("too little free GPU memory for one run; free some or use --device")
        # outside the handler, which keeps alive what had been allocated
        gc.collect()
        torch.cuda.empty_cache()
        half = len(group) // 2
        store.say(f"too little GPU memory for {len(group)} runs at once: {half} at once instead")
        waiting[:0] = [group[:half], group[half:]]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether memory was short: PyTorch's own error, or what CUDA's libraries say of it."""
    said = f"{error} {error.__context__}"
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in said for words in ("out of memory", "ALLOC_FAILED")
    )


def architecture(run: Run) -> Run:
    """The run without what may differ between runs that take their steps together."""
    return dataclasses.replace(
        run,
        seed=0,
        learning_rate=1.0,
        epochs=1,
        dropout_rate=0.0,
        momentum=0.0,
        weight_decay=0.0,
        augmentation=(),
        initialisation="default",
        start=None,
        reinitialised=(),
    )


def train_together(runs: Sequence[Run], dataset: Dataset, store: Store, reporter: Any) -> None:
    """Train runs of one architecture, each from its own checkpoint if it has one.

    A run that has ended, by its last epoch or by divergence, keeps its row until all have, so that
    the others' last bits do not depend on when it ended.
    """
    engine = provenance.engine_fingerprint()
    recorders = [Recorder(run, dataset, store, engine) for run in runs]
    for recorder in recorders:
        reporter.progress(recorder.training, recorder.training.epoch)
    together = Together(recorders, dataset)
    ended: set[Recorder] = set()
    while True:
        if ending := {each for each in recorders if each.training.is_over} - ended:
            sound = {each for each in ending if each.training.diverged_at is None}
            final = [dataset.images[together.train_indices], dataset.test_images] if sound else []
            logits = [together.evaluate(images) for images in final]
            for row, recorder in enumerate(recorders):
                if recorder in ending:
                    of_run = tuple(rows[row] for rows in logits) if recorder in sound else None
                    reporter.finished(recorder.run, recorder.finish(of_run))
            ended |= ending
        if len(ended) == len(recorders):
            return
        for recorder, measured in zip(recorders, together.train_epoch(), strict=True):
            training = recorder.training
            if not training.is_over:
                training.end_epoch(measured)
                recorder.epoch_ended(training)
                reporter.progress(training, training.epoch + (training.diverged_at is not None))


class Together:
    """Runs of one architecture as one network, whose every tensor has a row for each run.

    The networks and momentum buffers of the trainings become views of those rows.
    """

    def __init__(self, recorders: Sequence[Recorder], dataset: Dataset) -> None:
        self.recorders, self.dataset = recorders, dataset
        self.trainings = trainings = [recorder.training for recorder in recorders]
        self.runs = [training.run for training in trainings]
        self.device = dataset.images.device
        networks = [training.network for training in trainings]
        self.network = networks[0]  # only its structure counts: the weights come from the rows
        self.weights = {
            name: as_rows([dict(tensors_of(network))[name] for network in networks])
            for name, _ in tensors_of(self.network)
        }
        names = [name for name, p in self.network.named_parameters() if p.requires_grad]
        self.trainable = [self.weights[name].requires_grad_() for name in names]
        self.momentum_buffers = [
            as_rows([t.momentum.get(name, torch.zeros_like(rows[0])) for t in trainings])
            for name, rows in zip(names, self.trainable, strict=True)
        ]
        self.momentum = self._row_each([run.momentum for run in self.runs])
        self.weight_decay = self._row_each([run.weight_decay for run in self.runs])
        self.learning_rate = self._row_each([0.0] * len(self.runs))

        self.train_indices = trainings[0].train_indices
        self.val_images, self.val_labels = (
            of[trainings[0].val_indices] for of in (dataset.images, dataset.labels)
        )
        # what an epoch is made of, (runs, images, ...), and how far into it the next step begins
        self.drawn = self._draw(0)
        self.draws = Draws(*(torch.empty_like(rows, device=self.device) for rows in self.drawn))
        self.augmented = any(run.augmentation for run in self.runs)
        self.position = torch.zeros((), dtype=torch.int64, device=self.device)
        # what its steps add up
        self.loss_sums = torch.zeros(len(self.runs), dtype=torch.float64, device=self.device)
        self.correct = torch.zeros(len(self.runs), dtype=torch.int64, device=self.device)
        self.moments = torch.zeros(
            2, len(self.runs), len(names), dtype=torch.float64, device=self.device
        )
        self.steps: dict[int, Callable[[], list[Tensor]]] = {}  # by batch size: the last is short

    def _row_each(self, values: list[float]) -> Tensor:
        return torch.tensor(values, device=self.device)

    def _draw(self, ahead: int) -> Draws:
        """Every run's draws, stacked, for so many epochs after its next, on the CPU."""
        drawn = [
            draw(t.run, t.epoch + ahead, len(self.train_indices), t.noise_features)
            for t in self.trainings
        ]
        return Draws(*(torch.stack(rows) for rows in zip(*drawn, strict=True)))

    def begin_epoch(self) -> None:
        """Lay out what the steps of every run's next epoch need; runs that are over have rate 0."""
        rates = [0.0 if t.is_over else t.run.learning_rate_at(t.epoch) for t in self.trainings]
        self.learning_rate.copy_(self._row_each(rates))
        for rows, drawn in zip(self.draws, self.drawn, strict=True):
            rows.copy_(drawn)
        self.draws.order.copy_(self.train_indices[self.draws.order])  # places in all images
        for total in (self.position, self.loss_sums, self.correct, self.moments):
            total.zero_()
        set_training(self.network, self.runs[0].frozen)

    def train_epoch(self) -> list[list[float]]:
        """Train every run for an epoch and validate it: the four numbers of CURVES for each.

        Those of runs that are over mean nothing.
        """
        self.begin_epoch()
        images, batch_size = self.trainings[0].images_per_epoch, self.runs[0].batch_size
        for step, first in enumerate(range(0, images, batch_size)):
            gradients = self._step(min(batch_size, images - first))
            for row, recorder in enumerate(self.recorders):
                t, statistics = recorder.training, recorder.gradients
                of_run = t.epoch * t.steps_per_epoch + step
                if statistics and not t.is_over and statistics.windows_at(of_run):
                    statistics.observe(of_run, [rows[row] for rows in gradients])
        if any(t.epoch + 1 < t.run.epochs for t in self.trainings):
            self.drawn = self._draw(1)  # while the GPU is busy with this epoch's steps
        trained = torch.stack([self.loss_sums, self.correct.double()], 1) / images
        validated = measure(self.evaluate(self.val_images), self.val_labels)
        for row, recorder in enumerate(self.recorders):
            if recorder.gradients and not recorder.training.is_over:
                recorder.gradients.epoch_sums.copy_(self.moments[:, row])
        return torch.cat([trained, validated], 1).tolist()

    @torch.no_grad()
    def evaluate(self, images: Tensor) -> Tensor:
        """The logits (runs, n, 10) of every network for the same images (n, 32, 32, 3), float64."""
        self.network.eval()
        forward = vmap(self._forward_one, in_dims=(0, None, None))
        batches = images.split(EVALUATION_BATCH)
        with WithoutCuDNN():
            logits = [forward(self.weights, data.normalise(batch), None) for batch in batches]
        return torch.cat(logits, 1).double()

    def _forward_one(
        self, weights: dict[str, Tensor], images: Tensor, noise: Tensor | None
    ) -> Tensor:
        noise = (noise,) if self.trainings[0].takes_noise else ()
        return functional_call(self.network, weights, (images, *noise))

    def _step(self, batch_size: int) -> list[Tensor]:
        """A step of every run on its next images; the gradients, (runs, *shape) each."""
        if batch_size not in self.steps:
            step = partial(self._step_once, batch_size)
            self.steps[batch_size] = (
                capture(step, self._state()) if self.device.type == "cuda" else step
            )
        return self.steps[batch_size]()

    def _state(self) -> list[Tensor]:
        """All that a step changes."""
        totals = [self.position, self.loss_sums, self.correct, self.moments]
        return [*self.weights.values(), *self.momentum_buffers, *totals]

    def _step_once(self, batch_size: int) -> list[Tensor]:
        columns = self.position + torch.arange(batch_size, device=self.device)
        order, noise, flip, shift = (rows[:, columns] for rows in self.draws)
        images, labels = self.dataset.images[order.flatten()], self.dataset.labels[order.flatten()]
        if self.augmented:
            images = data.augment(images, flip.flatten(), shift.flatten(0, 1))
        images = data.normalise(images).unflatten(0, order.shape)  # (runs, batch, 3, 32, 32)
        with WithoutCuDNN():
            logits = vmap(self._forward_one)(self.weights, images, noise).flatten(0, 1)
        losses = F.cross_entropy(logits, labels, reduction="none").view(order.shape).mean(1)
        # a run's loss depends on its own weights alone, so the sum has every run's own gradients
        gradients = list(torch.autograd.grad(losses.sum(), self.trainable))
        with torch.no_grad():
            if self.runs[0].gradient_statistics:
                self.moments += moments(gradients)
            self._update(gradients)
            self.loss_sums += losses * batch_size
            self.correct += (logits.argmax(1) == labels).view(order.shape).sum(1)
            self.position += batch_size
        return gradients

    def _update(self, gradients: list[Tensor]) -> None:
        """Stochastic gradient descent as torch.optim.SGD does it, each run with its own settings.

        Without momentum and weight decay the terms vanish to the last bit, if weights are finite.
        """
        for weights, buffer, gradient in zip(
            self.trainable, self.momentum_buffers, gradients, strict=True
        ):
            rate, momentum, decay = (
                setting.view(-1, *[1] * (weights.dim() - 1))
                for setting in (self.learning_rate, self.momentum, self.weight_decay)
            )
            buffer.mul_(momentum).add_(torch.addcmul(gradient, decay, weights))
            weights.addcmul_(rate, buffer, value=-1)


class WithoutCuDNN(TorchFunctionMode):
    """Within this context, layers that cuDNN cannot take for many runs at once do without it.

    A convolution is one matrix product of patches and weights: the same sums in another order. vmap
    makes one batched product of it for all runs, and of cuDNN's convolution a grouped one, which is
    slow. Batch normalisation is PyTorch's own, as cuDNN's would ask a tensor of vmap's for its
    layout in memory, which that cannot say.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        instead = {F.conv2d: convolution_as_product, F.batch_norm: batch_norm_without_cudnn}
        return instead.get(function, function)(*args, **(kwargs or {}))


def batch_norm_without_cudnn(
    images: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """F.batch_norm, with PyTorch's own kernels."""
    statistics = (weight, bias, running_mean, running_var)
    return torch.native_batch_norm(images, *statistics, training, momentum, eps)[0]


def convolution_as_product(
    images: Tensor,
    weight: Tensor,
    bias: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """F.conv2d of images (batch, channels, height, width), undilated and with one group."""
    if dilation != (1, 1) or groups != 1:
        raise NotImplementedError("a convolution with dilation or groups")
    filters, *kernel = weight.shape[0], *weight.shape[2:]
    margins = (0, 0, padding[1], padding[1], padding[0], padding[0])
    padded = F.pad(images.permute(0, 2, 3, 1), margins)
    patches = padded.unfold(1, kernel[0], stride[0]).unfold(2, kernel[1], stride[1])
    # channels last within a patch: as they lie in memory, in runs of 3 · channels
    patches = patches.permute(0, 1, 2, 4, 5, 3)  # (batch, height, width, 3, 3, channels)
    batch, height, width = patches.shape[:3]
    rows = patches.reshape(batch * height * width, -1)
    columns = weight.permute(2, 3, 1, 0).reshape(-1, filters)
    return (rows @ columns + bias).view(batch, height, width, filters).permute(0, 3, 1, 2)


def tensors_of(network: torch.nn.Module) -> list[tuple[str, Tensor]]:
    """The parameters and buffers of a network by name."""
    return [*network.named_parameters(), *network.named_buffers()]


def as_rows(tensors: Sequence[Tensor]) -> Tensor:
    """One tensor (runs, *shape) with the given ones as its rows, and views of it from now on."""
    rows = torch.stack([tensor.detach() for tensor in tensors])
    for tensor, row in zip(tensors, rows, strict=True):
        tensor.data = row
    return rows


def capture(
    step: Callable[[], list[Tensor]], state: Sequence[Tensor]
) -> Callable[[], list[Tensor]]:
    """The step as a CUDA graph: a function that launches it whole and returns the same tensors.

    state is all that the step changes; it is the same after as before.
    """
    before = [tensor.detach().clone() for tensor in state]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_STEPS):
            step()
            with torch.no_grad():
                for tensor, value in zip(state, before, strict=True):
                    tensor.copy_(value)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        outputs = step()

    def launch() -> list[Tensor]:
        graph.replay()
        return outputs

    return launch
