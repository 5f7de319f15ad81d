"""The engine trains a whole sweep at once: one GPU takes a step of every run in the time of one.

A network of 90,000 parameters at a batch of 64 leaves a GPU idle: a plain loop pays for launching
kernels, not for arithmetic. Three ideas turn that around, and leave the networks as they are:

1. The weights of all runs are stacked, and torch.func.vmap makes of the ordinary network one that
   takes every run's images through that run's own weights. What differs between runs (weights,
   learning rate, order of the images, dropout rate and noise) is a tensor with one row a run.
2. A convolution becomes a matrix product over patches, because products batch over runs at full
   speed, and cuDNN's grouped convolutions with so few channels a group do not.
3. A step, from picking the images to the new weights, is captured once as a CUDA graph and then
   launched whole. It waits for nothing from the CPU, which draws the next epoch in the meantime.

Before the first step of an architecture, prove() holds a few steps against the plain network, and
times both. The engine falls back where it must: from captured steps to the same steps uncaptured,
and from those to the plain loop. The user reads one line each time.

No run sees another: the numbers are those of the plain loop, train.train(), up to the order in
which float32 sums are taken. The library that multiplies matrices may choose that order by how many
runs there are. So the last bit of a run can depend on the number of its companions, and on nothing
else of them. On a CPU everything here runs too, uncaptured; only the tests use that.
"""

import copy
import dataclasses
import gc
import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.utils import _pair as pair
from torch.overrides import TorchFunctionMode

import data
from data import Dataset
from lab import provenance, records
from lab.gradients import moments
from lab.records import Recorder
from lab.store import Store
from train import Run, UserError, draw, measure, set_training, use_full_precision

EVALUATION_BATCH = 125  # images a forward pass of all runs: it needs less memory than training
MOST_AT_ONCE = 256  # runs; beyond 520, positions in the largest tensors no longer fit 32 bits
INNER = 1024  # rows that one matrix product adds up; see convolution()
WARM_UP_STEPS = 3  # before a capture, so that libraries have made their choices and allocations
TIMED_STEPS = 5
CHECKPOINT_SHARE = 0.02  # of the time, at most, that training waits for checkpoints
LOSS_TOLERANCE = 1e-4
GRADIENT_TOLERANCE, NORMALISED_TOLERANCE = 1e-3, 1e-2  # the latter with batch normalisation
SMALL = 0.01  # gradients below this norm are compared as if they had it: rounding rules there

CAPTURED, UNCAPTURED, ALONE = WAYS = ("captured", "uncaptured", "alone")
INSTEAD = {UNCAPTURED: "training without CUDA graphs", ALONE: "training one run at a time"}


class Mode(NamedTuple):
    """How a worker process trains: its way, and how many runs it takes together at most."""

    way: str = CAPTURED
    at_most: int = MOST_AT_ONCE


class Refused(Exception):
    """Runs cannot train together in the way asked for: holds the way that they can, and why."""


class CaptureError(RuntimeError):
    """A step could not be captured as a CUDA graph."""


class ReplaceWorker(Exception):
    """The state of this process cannot be trusted: a new one must go on, in the mode given."""

    def __init__(self, line: str, mode: Mode) -> None:
        super().__init__(line)
        self.mode = mode


def train(
    runs: Sequence[Run],
    datasets: dict[str, Dataset],
    store: Store,
    reporter: Any,
    mode: Mode = Mode(),  # noqa: B008
) -> list[Run]:
    """Train runs on the device that holds the datasets, all of one architecture together.

    Returns the runs that the plain loop must train: those that it began, and those that the engine
    cannot take or would only slow down. Where memory is short, half of the runs train at once, and
    so on. reporter has progress(training, epochs_done) and finished(run, record).

    Raises UserError where there is too little memory for a single run, ReplaceWorker after an error
    of CUDA or of a capture.
    """
    use_full_precision()
    checkpoints = {run: store.load_checkpoint(run) for run in runs}
    begun = {run: state["engine"] is not None for run, state in checkpoints.items() if state}
    alone = [run for run in runs if begun.get(run) is False]
    groups: dict[tuple[Run, bool], list[Run]] = {}
    for run in runs:
        if run not in alone:
            groups.setdefault((architecture(run), run in begun), []).append(run)
    waiting = [
        (part, mode.way, resumed)
        for (_, resumed), group in groups.items()
        for part in parts(group, mode.at_most)
    ]
    while waiting:
        group, way, resumed = waiting.pop(0)
        if way == ALONE:
            alone += group
            continue
        dataset = datasets[group[0].dataset]
        fewer = max(1, len(group) // 2)
        short = f"too little GPU memory for {len(group)} runs at once: {fewer} at once instead"
        try:
            train_together(group, dataset, store, reporter, way, resumed)
        except Refused as refused:
            way, reason = refused.args
            store.say(f"{where(dataset)}: {reason}; {INSTEAD[way]} instead")
            waiting.insert(0, (group, way, resumed))
        except RuntimeError as error:
            captured = isinstance(error, CaptureError)
            if not is_out_of_memory(error):
                if not captured and not is_of_cuda(error):
                    raise
                way = WAYS[WAYS.index(way) + 1]
                line = f"{where(dataset)}: {first_line(error)}; {INSTEAD[way]} instead"
                raise ReplaceWorker(line, Mode(way, mode.at_most)) from error
            if captured and len(group) > 1:
                raise ReplaceWorker(short, Mode(way, fewer)) from error
            if len(group) == 1:
                line = "too little free GPU memory for one run; free some or use --device"
                raise UserError(line) from None
            waiting[:0] = [(part, way, resumed) for part in parts(group, fewer)]
            store.say(short)
        # out of the handlers, which keep alive what had been allocated
        gc.collect()
        torch.cuda.empty_cache()
    return alone


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


def parts(group: list[Run], at_most: int) -> list[list[Run]]:
    """The group in as few parts as can be, none above at_most, all of about one size."""
    count = math.ceil(len(group) / at_most)
    return [group[len(group) * i // count : len(group) * (i + 1) // count] for i in range(count)]


def where(dataset: Dataset) -> str:
    """The device and the version of PyTorch, for a line to the user."""
    return f"{provenance.device_name(str(dataset.images.device))}, torch {torch.__version__}"


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory was short: PyTorch's own error, or what CUDA's libraries say of it."""
    words = ("out of memory", "ALLOC_FAILED")
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_of_cuda(error: Exception) -> bool:
    """Whether CUDA or one of its libraries failed, after which the process is of no more use."""
    words = ("CUDA error", "CUDA driver error", "CUBLAS_STATUS", "CUDNN_STATUS", "cuDNN error")
    return isinstance(error, torch.AcceleratorError) or any(word in str(error) for word in words)


def train_together(
    runs: Sequence[Run], dataset: Dataset, store: Store, reporter: Any, way: str, resumed: bool
) -> None:
    """Train runs of one architecture, each from its own checkpoint if it has one.

    Runs that were begun by the engine are resumed by it, whatever the timing says. A run that has
    ended, by its last epoch or by divergence, keeps its row until all have, so that the others'
    last bits do not depend on when it ended.

    Raises Refused where prove() does.
    """
    engine = provenance.engine_fingerprint()
    recorders = [Recorder(run, dataset, store, engine) for run in runs]
    trainings = [recorder.training for recorder in recorders]
    ended: set[Recorder] = set()
    with ThreadPoolExecutor(2) as threads:
        together = Together(recorders, dataset, threads, way == CAPTURED)
        checkpoints = Checkpoints(together, threads)
        if not all(training.is_over for training in trainings):
            prove(together, resumed)
        for training in trainings:
            reporter.progress(training, training.epoch)
        while True:
            if ending := {each for each in recorders if each.training.is_over} - ended:
                sound = {each for each in ending if each.training.diverged_at is None}
                images = [dataset.images[together.train_indices], dataset.test_images]
                logits = [together.evaluate(part) for part in images] if sound else []
                for row, recorder in enumerate(recorders):
                    if recorder in ending:
                        of_run = tuple(rows[row] for rows in logits) if recorder in sound else None
                        reporter.finished(recorder.run, recorder.finish(of_run))
                ended |= ending
            if len(ended) == len(recorders):
                return checkpoints.wait()
            measured = together.train_epoch()
            going = [row for row, recorder in enumerate(recorders) if recorder not in ended]
            for row in going:
                trainings[row].end_epoch(measured[row])
                recorders[row].close_epoch()
            checkpoints.epoch_ended(going)
            for training in (trainings[row] for row in going):
                reporter.progress(training, training.epoch + (training.diverged_at is not None))


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
        self.captured = captured
        self.trainings = [recorder.training for recorder in recorders]
        self.runs = [training.run for training in self.trainings]
        self.device = dataset.images.device
        self.network = self.trainings[0].network  # only its structure counts
        parameters = dict(self.network.named_parameters())
        self.shapes = {name: p.shape for name, p in parameters.items() if p.requires_grad}
        self.sizes = [shape.numel() for shape in self.shapes.values()]
        self.sizes.append(-sum(self.sizes) % 4)  # so that every run's row begins at 16 bytes
        self.flat = self.dataset.images.new_zeros(
            len(self.runs), sum(self.sizes), dtype=next(iter(parameters.values())).dtype
        )
        self.buffers = torch.zeros_like(self.flat)
        self.fixed: dict[str, Tensor] = {}  # frozen parameters, and what is no parameter
        for name, _ in tensors_of(self.network):
            own = [dict(tensors_of(t.network))[name] for t in self.trainings]
            stacked = torch.stack([tensor.detach() for tensor in own])
            if name in self.shapes:
                stacked = self.named(self.flat)[name].copy_(stacked)
            else:
                self.fixed[name] = stacked
            for tensor, row in zip(own, stacked, strict=True):
                tensor.data = row
        for name, rows in self.named(self.buffers).items():
            for training, row in zip(self.trainings, rows, strict=True):
                if name in training.momentum:
                    training.momentum[name] = row.copy_(training.momentum[name])
        self.flat.requires_grad_()
        self.momentum = self._row_each([run.momentum for run in self.runs])
        self.weight_decay = self._row_each([run.weight_decay for run in self.runs])
        self.learning_rate = self._row_each([0.0] * len(self.runs))

        self.train_indices = self.trainings[0].train_indices
        self.val_images, self.val_labels = (
            of[self.trainings[0].val_indices] for of in (dataset.images, dataset.labels)
        )
        size, images = self.runs[0].batch_size, self.trainings[0].images_per_epoch
        self.batches = [min(size, images - first) for first in range(0, images, size)]
        # what an epoch is made of, (runs, images, ...), and how far into it the next step begins
        self.augmented = any(run.augmentation for run in self.runs)
        self.drawing = threads.submit(self._draw, 0)
        drawn = self.drawing.result()
        self.draws = [torch.empty_like(rows, device=self.device) for rows in drawn]
        self.position = torch.zeros((), dtype=torch.int64, device=self.device)
        # what its steps add up
        self.loss_sums = torch.zeros(len(self.runs), dtype=torch.float64, device=self.device)
        self.correct = torch.zeros(len(self.runs), dtype=torch.int64, device=self.device)
        self.moments = torch.zeros(
            2, len(self.runs), len(self.shapes), dtype=torch.float64, device=self.device
        )
        self.steps: dict[int, Callable[[], Tensor]] = {}  # by batch size: the last is short

    def _row_each(self, values: list[float]) -> Tensor:
        return torch.tensor(values, device=self.device)[:, None]

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """The parameters (runs, *shape) in a tensor like flat, by name, as views."""
        pieces = zip(self.shapes.items(), flat.split(self.sizes, 1), strict=False)
        return {name: piece.view(len(flat), *shape) for (name, shape), piece in pieces}

    def _draw(self, ahead: int) -> list[Tensor]:
        """Every run's draws, stacked, for so many epochs after its next, on the CPU.

        Only what some run uses: flips and shifts of 25 runs are 28 MB an epoch.
        """
        n = len(self.train_indices)
        drawn = [draw(t.run, t.epoch + ahead, n, t.noise_features) for t in self.trainings]
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
            self.drawing = self.threads.submit(self._draw, 1)  # while the steps are launched
        for step, size in enumerate(self.batches):
            gradient = self.step(size)
            for row, recorder in enumerate(self.recorders):
                t, statistics = recorder.training, recorder.gradients
                number = t.epoch * t.steps_per_epoch + step
                if statistics and not t.is_over and statistics.windows_at(number):
                    rows = self.named(gradient).values()
                    statistics.observe(number, [of_all[row] for of_all in rows])
        trained = torch.stack([self.loss_sums, self.correct.double()], 1) / sum(self.batches)
        validated = measure(self.evaluate(self.val_images), self.val_labels)
        for row, recorder in enumerate(self.recorders):
            if recorder.gradients and not recorder.training.is_over:
                recorder.gradients.epoch_sums.copy_(self.moments[:, row])
        return torch.cat([trained, validated], 1).tolist()

    @torch.no_grad()
    def evaluate(self, images: Tensor) -> Tensor:
        """The logits (runs, n, classes) of all networks for the images (n, 32, 32, 3), float64."""
        self.network.eval()
        weights = self.named(self.flat) | self.fixed
        forward = vmap(self._forward, in_dims=(0, None, None))
        batches = images.split(EVALUATION_BATCH)
        with WithoutCuDNN():
            logits = [forward(weights, data.normalise(batch), None) for batch in batches]
        return torch.cat(logits, 1).double()

    def _forward(self, weights: dict[str, Tensor], images: Tensor, noise: Tensor | None) -> Tensor:
        noise = (noise,) if self.trainings[0].takes_noise else ()
        return functional_call(self.network, weights, (images, *noise))

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
        images, labels, noise = self._batch(size, slice(None))
        weights = self.named(self.flat) | self.fixed
        with WithoutCuDNN():
            logits = vmap(self._forward)(weights, images, noise)
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

    def _batch(self, size: int, runs: slice) -> tuple[Tensor, Tensor, Tensor]:
        """The next images (runs, size, 3, 32, 32), labels (runs, size) and noise of some runs."""
        columns = self.position + torch.arange(size, device=self.device)
        order, noise, *augmentation = (rows[runs, columns] for rows in self.draws)
        images, labels = self.dataset.images[order.flatten()], self.dataset.labels[order]
        if self.augmented:
            images = data.augment(images, *(part.flatten(0, 1) for part in augmentation))
        return data.normalise(images).unflatten(0, order.shape), labels, noise

    def _update(self, gradient: Tensor) -> None:
        """Stochastic gradient descent as torch.optim.SGD does it, each run with its own settings.

        Without momentum and weight decay the terms vanish to the last bit, if weights are finite.
        """
        decayed = torch.addcmul(gradient, self.weight_decay, self.flat)
        self.buffers.mul_(self.momentum).add_(decayed)
        self.flat.addcmul_(self.learning_rate, self.buffers, value=-1)

    def plain_step(self, network: nn.Module, row: int, size: int) -> tuple[Tensor, list[Tensor]]:
        """One run's loss and gradients on its next images, by the ordinary network and autograd."""
        images, labels, noise = self._batch(size, slice(row, row + 1))
        inputs = (images[0], noise[0]) if self.trainings[0].takes_noise else (images[0],)
        loss = F.cross_entropy(network(*inputs), labels[0])
        weights = [p for p in network.parameters() if p.requires_grad]
        return loss, list(torch.autograd.grad(loss, weights, materialize_grads=True))

    def plain_network(self, row: int) -> nn.Module:
        """A copy of one run's network, ready to train as the plain loop trains it."""
        network = copy.deepcopy(self.trainings[row].network).to(memory_format=torch.channels_last)
        set_training(network, self.runs[row].frozen)
        return network

    def state_dicts(self, rows: Iterable[int]) -> dict[int, dict[str, Any]]:
        """What Training.state_dict() gives for these runs, by one copy of each stacked tensor."""
        fixed = {name: tensor.cpu() for name, tensor in self.fixed.items()}
        network = self.named(self.flat.detach().cpu()) | fixed
        momentum = self.named(self.buffers.cpu())
        kept = self.network.state_dict().keys()
        return {
            row: {
                # .clone(), as saving a part of a larger tensor saves all of it
                "network": {name: network[name][row].clone() for name in kept},
                "momentum": {name: momentum[name][row].clone() for name in t.momentum},
                "curves": t.curves,
            }
            for row, t in enumerate(self.trainings)
            if row in rows
        }


def prove(together: Together, resumed: bool) -> None:
    """See that the engine is right and fast before the first step, by a few steps that are undone.

    Two full steps and the short last one, captured, must give the bits of the same steps uncaptured.
    Those must give the first and the last run the loss and gradients of the plain network. Steps of
    all runs must be faster than plain steps one by one, unless the runs were begun by the engine.
    The largest batch to evaluate is run once, so that memory runs out now or not at all.

    Raises Refused where the engine is wrong or slow, or cannot take the network.
    """
    together.begin_epoch()
    state = together.state()
    before = [tensor.detach().clone() for tensor in state]
    last = len(together.runs) - 1
    sizes = together.batches[:2] + together.batches[2:][-1:]
    for size in sizes:
        expected = {}
        for row in sorted({0, last}):
            expected[row] = together.plain_step(together.plain_network(row), row, size)
        sums = together.loss_sums.clone()
        try:
            gradients = together.named(together.step_once(size))
        except Exception as error:
            if is_out_of_memory(error) or is_of_cuda(error):
                raise
            network = together.runs[0].network
            reason = f"{network} cannot take a step of several runs at once ({first_line(error)})"
            raise Refused(ALONE, reason) from error
        losses = (together.loss_sums - sums) / size
        for row, (loss, wanted) in expected.items():
            agree("the loss", losses[row], loss, LOSS_TOLERANCE, 1.0)
            normalised = any("running_mean" in name for name in together.fixed)
            tolerance = NORMALISED_TOLERANCE if normalised else GRADIENT_TOLERANCE
            for (name, rows), gradient in zip(gradients.items(), wanted, strict=True):
                agree(f"the gradient of {name}", rows[row], gradient, tolerance, SMALL)
    uncaptured = [tensor.detach().clone() for tensor in state]
    restore(state, before)
    together.evaluate(together.dataset.images[:EVALUATION_BATCH])
    set_training(together.network, together.runs[0].frozen)
    for size in sizes if together.captured else []:
        together.step(size)
    if together.captured:
        equal = partial(torch.allclose, rtol=0, atol=0, equal_nan=True)
        if not all(map(equal, state, uncaptured)):
            raise Refused(UNCAPTURED, "captured steps give other numbers than the same uncaptured")
        restore(state, before)
    network = together.plain_network(0)
    stacked = seconds_a_step(together, partial(together.step, sizes[0]))
    plain = seconds_a_step(together, partial(together.plain_step, network, 0, sizes[0]))
    restore(state, before)
    if stacked > plain * len(together.runs) and not resumed:
        times = f"{1e3 * stacked:.2f} ms, and {1e3 * plain:.2f} ms for one by the plain loop"
        raise Refused(ALONE, f"a step of {len(together.runs)} runs at once takes {times}")


def agree(what: str, found: Tensor, expected: Tensor, tolerance: float, small: float) -> None:
    """Raise Refused where a tensor is not the expected one, up to rounding.

    tolerance is relative to its norm, but at least to `small`. Two that are not finite agree.
    """
    norm = expected.double().norm()
    error = ((found.double() - expected.double()).norm() / norm.clamp(min=small)).item()
    if not error <= tolerance and (norm.isfinite() or found.isfinite().all()):
        reason = f"the engine disagrees with the plain loop in {what} by {error:.0e}"
        raise Refused(ALONE, reason)


@torch.no_grad()
def restore(state: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for tensor, value in zip(state, values, strict=True):
        tensor.copy_(value)


def seconds_a_step(together: Together, step: Callable[[], Any]) -> float:
    """How long a step takes on the GPU. On a CPU, where only tests train together, 0."""
    if together.device.type != "cuda":
        return 0.0
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(TIMED_STEPS):
        together.position.zero_()
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / TIMED_STEPS


class Checkpoints:
    """Keeps the checkpoints of runs that train together; a thread writes them.

    Training waits only for their copy from the GPU. The interval follows from how long that takes.
    """

    def __init__(self, together: Together, threads: Executor) -> None:
        self.together, self.threads = together, threads
        self.writing: Future | None = None
        self.kept_at, self.cost = time.monotonic(), 0.0  # seconds

    def epoch_ended(self, rows: Sequence[int]) -> None:
        """Keep checkpoints of the runs in these rows now and then, and after their last epoch."""
        started = time.monotonic()
        interval = max(records.CHECKPOINT_SECONDS, self.cost / CHECKPOINT_SHARE)
        due = started - self.kept_at >= interval
        recorders = self.together.recorders
        trainings = {row: recorders[row].training for row in rows}
        sound = [row for row, training in trainings.items() if training.diverged_at is None]
        chosen = [row for row in sound if due or trainings[row].is_over]
        if not chosen:
            return
        self.wait()
        states = self.together.state_dicts(chosen)
        complete = {recorders[row]: recorders[row].snapshot(states[row]) for row in chosen}
        self.writing = self.threads.submit(self._write, complete)
        if due:
            self.kept_at = time.monotonic()
            self.cost = self.kept_at - started

    def _write(self, states: dict[Recorder, dict[str, Any]]) -> None:
        for recorder, state in states.items():
            recorder.store.save_checkpoint(recorder.run, state, recorder.engine)

    def wait(self) -> None:
        """Wait until all is written. Raises UserError where it cannot be."""
        if self.writing:
            self.writing.result()


class WithoutCuDNN(TorchFunctionMode):
    """Within this context, layers that cuDNN cannot take for many runs at once do without it.

    Both become plain operations on rows of channels, which vmap batches over runs without a copy.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        instead = {F.conv2d: convolution, F.batch_norm: batch_norm}
        return instead.get(function, function)(*args, **(kwargs or {}))


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
    """F.batch_norm over rows of channels (..., channels), as convolution() leaves them in memory."""
    rows = input.movedim(1, -1)
    mean, var = running_mean, running_var
    if training:
        var, mean = torch.var_mean(rows, tuple(range(rows.dim() - 1)), correction=0)
        if running_mean is not None:
            count = rows.numel() / rows.shape[-1]
            with torch.no_grad():
                running_mean.lerp_(mean, momentum)
                running_var.lerp_(var * (count / (count - 1)), momentum)
    scale = (var + eps).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - mean * scale
    return torch.addcmul(shift, rows, scale).movedim(-1, 1)


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
        with_ones = patches.new_ones(batch, height, width, len(columns) + 1)
        with_ones[..., :-1].unflatten(-1, patches.shape[3:]).copy_(patches)
        patches, columns, bias = with_ones, torch.cat([columns, bias[None]]), None
    least = math.ceil(batch * height * width / INNER)
    folds = next((n for n in range(least, batch) if batch % n == 0), batch)
    products = torch.bmm(patches.reshape(folds, -1, len(columns)), columns.expand(folds, -1, -1))
    outputs = products.view(batch, height, width, filters)
    return (outputs if bias is None else outputs + bias).permute(0, 3, 1, 2)


def tensors_of(network: nn.Module) -> list[tuple[str, Tensor]]:
    """The parameters and buffers of a network by name."""
    return [*network.named_parameters(), *network.named_buffers()]


def capture(step: Callable[[], Tensor], state: Sequence[Tensor]) -> Callable[[], Tensor]:
    """The step as a CUDA graph: a function that launches it whole and returns the same tensor.

    state is all that the step changes; it is the same after as before. On a CPU, the step itself.

    Raises CaptureError where anything goes wrong, after which the process is of no more use.
    """
    if state[0].device.type != "cuda":
        return step
    before = [tensor.detach().clone() for tensor in state]
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_STEPS):
            step()
            restore(state, before)
    torch.cuda.current_stream().wait_stream(stream)
    try:
        with torch.cuda.graph(graph, stream=stream):
            outputs = step()
    except Exception as error:
        raise CaptureError(f"a step cannot be captured ({first_line(error)})") from error

    def launch() -> Tensor:
        graph.replay()
        return outputs

    return launch
