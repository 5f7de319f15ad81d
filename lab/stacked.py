"""Runs of one architecture as one network: a step of all of them in about the time of one.

A network of 90,000 parameters at a batch of 64 leaves a GPU idle: a plain loop pays for launching
kernels, not for arithmetic. Three ideas turn that around, and leave the networks as they are:

1. The weights of all runs are stacked, and torch.func.vmap makes of the ordinary network one that
   takes every run's images through that run's own weights. What differs between runs (weights,
   learning rate, order of the images, dropout rate and noise) is a tensor with one row a run.
2. A convolution becomes a matrix product over patches, because products batch over runs at full
   speed, and cuDNN's grouped convolutions with so few channels a group do not.
3. A step, from picking the images to the new weights, is captured once as a CUDA graph and then
   launched whole. It waits for nothing from the CPU, which draws the next epoch in the meantime.

No run sees another: the numbers are those of the plain loop, train.train(), up to the order in
which float32 sums are taken. The library that multiplies matrices may choose that order by how many
runs there are. So the last bit of a run can depend on the number of its companions, and on nothing
else of them. On a CPU everything here runs too, uncaptured; only the tests use that.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.modules.utils import _pair as pair
from torch.overrides import TorchFunctionMode

import data
from data import Dataset
from lab.gradients import moments
from lab.records import Recorder
from train import draw, measure, set_training

EVALUATION_BATCH = 125  # images a forward pass of all runs: it needs less memory than training
INNER = 1024  # rows that one matrix product adds up; see convolution()
WARM_UP_STEPS = 3  # before a capture, so that libraries have made their choices and allocations


class CaptureError(RuntimeError):
    """A step could not be captured as a CUDA graph; the process is of no more use."""


class Together:
    """Runs of one architecture as one network, whose every tensor has a row for each run.

    The trainable parameters of all runs lie in one tensor, flat (runs, numbers); so do their
    momentum buffers and gradients. So an update is three operations, not three for each parameter.
    The networks and momentum buffers of the trainings become views of those rows.
    """

    def __init__(
        self, recorders: Sequence[Recorder], dataset: Dataset, threads: Executor, captured: bool
    ) -> None:
        self.recorders, self.dataset, self.threads = recorders, dataset, threads
        self.captured, self.device = captured, dataset.images.device
        self.trainings = [recorder.training for recorder in recorders]
        self.runs = [training.run for training in self.trainings]
        self._stack()
        self.momentum = self._row_each([run.momentum for run in self.runs])
        self.weight_decay = self._row_each([run.weight_decay for run in self.runs])
        self.learning_rate = self._row_each([0.0] * len(self.runs))

        first = self.trainings[0]
        size, images = first.run.batch_size, first.images_per_epoch
        self.batches = [min(size, images - start) for start in range(0, images, size)]
        self.train_indices = first.train_indices
        self.val_images = dataset.images[first.val_indices]
        self.val_labels = dataset.labels[first.val_indices]
        # what an epoch is made of, (runs, images, ...), and how far into it the next step begins
        self.augmented = any(run.augmentation for run in self.runs)
        self.drawing = threads.submit(self._draw, [t.epoch for t in self.trainings])
        self.draws = [torch.empty_like(d, device=self.device) for d in self.drawing.result()]
        self.position = torch.zeros((), dtype=torch.int64, device=self.device)
        # what its steps add up
        self.correct = torch.zeros(len(self.runs), dtype=torch.int64, device=self.device)
        self.loss_sums = torch.zeros_like(self.correct, dtype=torch.float64)
        self.moments = self.loss_sums.new_zeros(2, len(self.runs), len(self.shapes))
        self.steps: dict[int, Callable[[], Tensor]] = {}  # by batch size: the last is short

    def _stack(self) -> None:
        """Stack the networks and momentum buffers, and make those of the trainings views."""
        networks = [training.network for training in self.trainings]
        self.network = networks[0]  # only its structure counts
        parameters, self.fixed = stack_module_state(networks)
        trainable = {name: p.detach() for name, p in parameters.items() if p.requires_grad}
        # frozen parameters, and what is no parameter
        self.fixed |= {name: parameters[name] for name in parameters.keys() - trainable.keys()}
        self.shapes = {name: rows.shape[1:] for name, rows in trainable.items()}
        pieces = [rows.flatten(1) for rows in trainable.values()]
        numbers = sum(piece.shape[1] for piece in pieces)
        pieces.append(pieces[0].new_zeros(len(networks), -numbers % 4))  # rows begin at 16 bytes
        self.sizes = [piece.shape[1] for piece in pieces]
        self.flat = torch.cat(pieces, 1)
        self.buffers = torch.zeros_like(self.flat)
        stacks = self.named(self.flat) | self.fixed
        momentum = self.named(self.buffers)
        for row, training in enumerate(self.trainings):
            for name, tensor in tensors_of(training.network):
                tensor.data = stacks[name][row]
            for name, buffer in training.momentum.items():
                training.momentum[name] = momentum[name][row].copy_(buffer)
        self.flat.requires_grad_()

    def _row_each(self, values: list[float]) -> Tensor:
        return torch.tensor(values, device=self.device)[:, None]

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """The parameters (runs, *shape) in a tensor like flat, by name, as views."""
        pieces = zip(self.shapes.items(), flat.split(self.sizes, 1), strict=False)
        return {name: piece.view(len(flat), *shape) for (name, shape), piece in pieces}

    def _draw(self, epochs: list[int]) -> list[Tensor]:
        """The draws of these epochs, one for each run, stacked, on the CPU.

        Only what some run uses: flips and shifts of 25 runs are 28 MB an epoch.
        """
        n, noise = len(self.train_indices), self.trainings[0].noise_features
        drawn = [draw(run, epoch, n, noise) for run, epoch in zip(self.runs, epochs, strict=True)]
        used = list(zip(*drawn, strict=True))[: 4 if self.augmented else 2]
        return [torch.stack(rows) for rows in used]

    def begin_epoch(self) -> None:
        """Lay out what the steps of every run's next epoch need; runs that are over have rate 0."""
        rates = [0.0 if t.is_over else t.run.learning_rate_at(t.epoch) for t in self.trainings]
        self.learning_rate.copy_(self._row_each(rates))
        for rows, drawn in zip(self.draws, self.drawing.result(), strict=True):
            rows.copy_(drawn)
        self.draws[0].copy_(self.train_indices[self.draws[0]])  # places in all images
        for total in (self.position, self.loss_sums, self.correct, self.moments):
            total.zero_()
        set_training(self.network, self.runs[0].frozen)

    def train_epoch(self) -> list[list[float]]:
        """Train every run for an epoch and validate it: the four numbers of CURVES for each.

        Those of runs that are over mean nothing.
        """
        self.begin_epoch()
        if any(t.epoch + 1 < t.run.epochs for t in self.trainings):
            next_epochs = [t.epoch + 1 for t in self.trainings]
            self.drawing = self.threads.submit(self._draw, next_epochs)  # while the GPU is busy
        watched = [
            (row, recorder.training, recorder.gradients)
            for row, recorder in enumerate(self.recorders)
            if recorder.gradients and not recorder.training.is_over
        ]
        for step, size in enumerate(self.batches):
            gradient = self.step(size)
            for row, training, statistics in watched:
                number = training.epoch * training.steps_per_epoch + step
                if statistics.windows_at(number):
                    of_run = [rows[row] for rows in self.named(gradient).values()]
                    statistics.observe(number, of_run)
        for row, _, statistics in watched:
            statistics.epoch_sums.copy_(self.moments[:, row])
        trained = torch.stack([self.loss_sums, self.correct.double()], 1) / sum(self.batches)
        validated = measure(self.evaluate(self.val_images), self.val_labels)
        return torch.cat([trained, validated], 1).tolist()

    @torch.no_grad()
    def evaluate(self, images: Tensor) -> Tensor:
        """The logits (runs, n, classes) of all networks for the images (n, 32, 32, 3), float64."""
        self.network.eval()
        weights = self.named(self.flat) | self.fixed
        forward = vmap(self._forward, in_dims=(0, None))
        batches = images.split(EVALUATION_BATCH)
        with WithoutCuDNN():
            logits = [forward(weights, data.normalise(batch)) for batch in batches]
        return torch.cat(logits, 1).double()

    def _forward(self, weights: dict[str, Tensor], *inputs: Tensor) -> Tensor:
        return functional_call(self.network, weights, inputs)

    def step(self, size: int) -> Tensor:
        """A step of every run on its next images; the gradients, like flat."""
        if size not in self.steps:
            step = partial(self.step_once, size)
            self.steps[size] = capture(step, self.state()) if self.captured else step
        return self.steps[size]()

    def state(self) -> list[Tensor]:
        """All that a step changes."""
        totals = [self.position, self.loss_sums, self.correct, self.moments]
        return [self.flat, self.buffers, *self.fixed.values(), *totals]

    def step_once(self, size: int) -> Tensor:
        """step(), uncaptured."""
        labels, *inputs = self._batch(size, slice(None))
        weights = self.named(self.flat) | self.fixed
        with WithoutCuDNN():
            logits = vmap(self._forward)(weights, *inputs)
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        losses = losses.view(labels.shape).mean(1)
        # a run's loss depends on its own weights alone, so the sum has every run's own gradients
        (gradient,) = torch.autograd.grad(losses.sum(), [self.flat])
        with torch.no_grad():
            if self.runs[0].gradient_statistics:
                self.moments += moments(list(self.named(gradient).values()))
            self._update(gradient)
            self.loss_sums += losses * size
            self.correct += (logits.argmax(-1) == labels).sum(1)
            self.position += size
        return gradient

    def _batch(self, size: int, runs: slice) -> list[Tensor]:
        """The next labels (runs, size) of some runs, and what their networks take.

        That is images (runs, size, 3, 32, 32), and noise where the networks take it.
        """
        columns = self.position + torch.arange(size, device=self.device)
        order, noise, *augmentation = (rows[runs, columns] for rows in self.draws)
        images = self.dataset.images[order.flatten()]
        if self.augmented:
            images = data.augment(images, *(part.flatten(0, 1) for part in augmentation))
        images = data.normalise(images).unflatten(0, order.shape)
        labels = self.dataset.labels[order]
        return [labels, images, noise] if self.trainings[0].takes_noise else [labels, images]

    def _update(self, gradient: Tensor) -> None:
        """Stochastic gradient descent as torch.optim.SGD does it, each run with its own settings.

        Without momentum and weight decay the terms vanish to the last bit, if weights are finite.
        """
        decayed = torch.addcmul(gradient, self.weight_decay, self.flat)
        self.buffers.mul_(self.momentum).add_(decayed)
        self.flat.addcmul_(self.learning_rate, self.buffers, value=-1)

    def plain_step(self, row: int, size: int) -> tuple[Tensor, list[Tensor]]:
        """One run's loss and gradients on its next images, by its own network and autograd.

        Nothing is updated but the running statistics of batch normalisation.
        """
        network = self.trainings[row].network
        set_training(network, self.runs[row].frozen)
        labels, *inputs = (rows[0] for rows in self._batch(size, slice(row, row + 1)))
        loss = F.cross_entropy(network(*inputs), labels)
        weights = [p for p in network.parameters() if p.requires_grad]
        return loss, list(torch.autograd.grad(loss, weights, materialize_grads=True))

    def state_dicts(self) -> list[dict[str, Any]]:
        """What Training.state_dict() gives, for every run, by one copy of each stacked tensor."""
        fixed = {name: tensor.cpu() for name, tensor in self.fixed.items()}
        network = self.named(self.flat.detach().cpu()) | fixed
        momentum = self.named(self.buffers.cpu())
        # by its own name in the stack; two layers may share a tensor
        own = {id(tensor): name for name, tensor in tensors_of(self.network)}
        kept = {name: own[id(t)] for name, t in self.network.state_dict(keep_vars=True).items()}
        return [
            {
                # .clone(), as saving a part of a larger tensor saves all of it
                "network": {name: network[kept[name]][row].clone() for name in kept},
                "momentum": {name: momentum[name][row].clone() for name in training.momentum},
                "curves": training.curves,
            }
            for row, training in enumerate(self.trainings)
        ]


def tensors_of(network: nn.Module) -> list[tuple[str, Tensor]]:
    """The parameters and buffers of a network by name."""
    return [*network.named_parameters(), *network.named_buffers()]


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


@torch.no_grad()
def restore(state: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for tensor, value in zip(state, values, strict=True):
        tensor.copy_(value)


class WithoutCuDNN(TorchFunctionMode):
    """Within this context, layers that cuDNN cannot take for many runs at once do without it.

    A convolution and batch normalisation become plain operations on rows of channels, which vmap
    batches over runs without a copy.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        instead = {F.conv2d: convolution, F.batch_norm: batch_norm, F.group_norm: group_norm}
        return instead.get(function, function)(*args, **(kwargs or {}))


def group_norm(input: Tensor, *others: Any, **more: Any) -> Tensor:
    """F.group_norm, which torch 2.10 cannot batch over runs where channels lie last."""
    return F.group_norm(input.contiguous(), *others, **more)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """F.batch_norm over rows of channels, (..., channels), as convolution() leaves them.

    Raises NotImplementedError without running statistics: then an evaluation depends on its batch.
    """
    if running_mean is None:
        raise NotImplementedError("batch normalisation without running statistics")
    rows = input.movedim(1, -1)
    weight = torch.ones_like(running_mean) if weight is None else weight
    bias = torch.zeros_like(weight) if bias is None else bias
    if not training:
        scale = weight * (running_var + eps).rsqrt()
        return torch.addcmul(bias - running_mean * scale, rows, scale).movedim(-1, 1)
    outputs, mean, var = Normalise.apply(rows, weight, bias, eps)
    count = rows.numel() / rows.shape[-1]
    # vmap forgets that the statistics carry no gradient, and they would keep every step's graph
    running_mean.mul_(1 - momentum).add_(mean.detach(), alpha=momentum)
    running_var.mul_(1 - momentum).add_(var.detach(), alpha=momentum * count / (count - 1))
    return outputs.movedim(-1, 1)


class Normalise(torch.autograd.Function):
    """Rows (..., channels) normalised over all places: outputs, and mean and variance by channel.

    Autograd would take the formula apart, and move half as much memory again.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
        var, mean = torch.var_mean(rows, tuple(range(rows.dim() - 1)), correction=0)
        scale = weight * (var + eps).rsqrt()
        return torch.addcmul(bias - mean * scale, rows, scale), mean, var

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        rows, weight, _, ctx.eps = inputs
        ctx.save_for_backward(rows, weight, *output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, mean, var = ctx.saved_tensors
        places, count = tuple(range(rows.dim() - 1)), rows.numel() / rows.shape[-1]
        deviation = (var + ctx.eps).rsqrt()  # its inverse
        of_bias = gradient.sum(places)
        of_weight = ((gradient * rows).sum(places) - mean * of_bias) * deviation
        scale = weight * deviation
        slope = -scale * deviation * of_weight / count
        shift = -scale * of_bias / count - slope * mean
        of_rows = torch.addcmul(torch.addcmul(shift, rows, slope), gradient, scale)
        return of_rows, of_weight, of_bias, None


def convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: str | int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> Tensor:
    """F.conv2d of images (batch, channels, height, width) as products of patches and weights.

    The batch is folded into several products, so that the gradient of the weights is a sum over
    about INNER rows in each. One product over all rows (65,536 in conv1) would have few results,
    and leave most of a GPU idle.

    Raises NotImplementedError for a convolution with dilation or groups.
    """
    if pair(dilation) != (1, 1) or groups != 1:
        raise NotImplementedError("a convolution with dilation or groups")
    filters, kernel, stride = len(weight), weight.shape[2:], pair(stride)
    if padding == "same":  # where a kernel's side is even, one more row of zeros after than before
        before, after = [(side - 1) // 2 for side in kernel], [side // 2 for side in kernel]
    else:
        before = after = (0, 0) if padding == "valid" else pair(padding)
    margins = (0, 0, before[1], after[1], before[0], after[0])
    padded = F.pad(input.permute(0, 2, 3, 1), margins)
    patches = padded.unfold(1, kernel[0], stride[0]).unfold(2, kernel[1], stride[1])
    # channels last within a patch: as they lie in memory, in runs of 3 · channels
    patches = patches.permute(0, 1, 2, 4, 5, 3)  # (batch, height, width, 3, 3, channels)
    batch, height, width = patches.shape[:3]
    columns = weight.permute(2, 3, 1, 0).reshape(-1, filters)
    if bias is not None and len(columns) % 4 == 3:
        # a column of ones takes the bias along, and makes conv1's 27 columns 28: 16 bytes · 7
        with_ones = patches.new_empty(batch, height, width, len(columns) + 1)
        with_ones[..., -1:].fill_(1)
        with_ones[..., :-1].unflatten(-1, patches.shape[3:]).copy_(patches)
        patches, columns, bias = with_ones, torch.cat([columns, bias[None]]), None
    least = math.ceil(batch * height * width / INNER)
    folds = next((n for n in range(least, batch) if batch % n == 0), batch)
    products = torch.bmm(patches.reshape(folds, -1, len(columns)), columns.expand(folds, -1, -1))
    outputs = products.view(batch, height, width, filters)
    return (outputs if bias is None else outputs + bias).permute(0, 3, 1, 2)


def capture(step: Callable[[], Tensor], state: Sequence[Tensor]) -> Callable[[], Tensor]:
    """The step as a CUDA graph: a function that launches it whole and returns the same tensor.

    state is all that the step changes; it is the same after as before. On a CPU, the step itself.

    Raises CaptureError where anything goes wrong, after which the process is of no more use.
    """
    if state[0].device.type != "cuda":
        return step
    before = copies(state)
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_STEPS):
            step()
            restore(state, before)
    torch.cuda.current_stream().wait_stream(stream)
    reason = None
    try:
        with torch.cuda.graph(graph, stream=stream):
            try:
                outputs = step()
            except Exception as error:
                reason = error  # ending such a capture raises an error of its own
                raise
    except Exception as error:
        raise CaptureError(f"a step cannot be captured: {reason or error}") from error

    def launch() -> Tensor:
        graph.replay()
        return outputs

    return launch
