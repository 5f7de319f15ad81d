"""The engine trains the runs of a sweep together on a GPU, and sees that the numbers are right.

lab/stacked.py takes the steps. Before the first one, prove() holds a few of them against the plain
network, and times both. Where something fails, the engine falls back by itself: from captured steps
to the same steps uncaptured, and from those to the plain loop. The user reads one line each time.
A run goes on the way its checkpoint began, and its record says which way that was.
"""

import dataclasses
import gc
import math
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor

from data import Dataset
from lab import provenance, records
from lab.records import Recorder
from lab.stacked import EVALUATION_BATCH, CaptureError, Together, restore
from lab.store import Store
from train import Run, UserError, use_full_precision

CAPTURED, UNCAPTURED, ALONE = WAYS = ("captured", "uncaptured", "alone")
INSTEAD = {UNCAPTURED: "training without CUDA graphs", ALONE: "training one run at a time"}
MOST_AT_ONCE = 256  # runs of the study: of twice as many, the largest tensors outgrow 32 bits
CHECKPOINT_SHARE = 0.02  # of the time, at most, that training waits for checkpoints
TIMED_STEPS = 5

# What the stacked steps may differ by from the plain network, for rounding alone. Rounding decides
# which of two equal activations a pool takes, and whether a ReLU is open at 0. That moves gradients
# by up to 1e-2, with batch normalisation by 5e-2, but seldom in a batch of 8: there 1e-5 was seen.
LOSS_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3
NORMALISED_TOLERANCE = 0.1  # with batch normalisation, in batches of more than FEW images
FEW = 8  # images
TRIES = 4  # batches of each size, of which one must agree: an error would be in all of them


class Mode(NamedTuple):
    """How a worker process trains: its way, and how many runs it takes together at most."""

    way: str = CAPTURED
    at_most: int = MOST_AT_ONCE


class Refused(Exception):
    """Runs cannot train together as they were to: the way in which they can, and the reason."""


class ReplaceWorker(Exception):
    """The state of this process cannot be trusted: a new one must go on, in the mode given."""

    def __init__(self, line: str, mode: Mode) -> None:
        super().__init__(line)
        self.mode = mode


def train(
    runs: Sequence[Run], datasets: dict[str, Dataset], store: Store, reporter: Any, mode: Mode
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
    groups: dict[tuple[Run, bool], list[Run]] = {}
    for run in runs:
        if begun.get(run, True):
            groups.setdefault((architecture(run), run in begun), []).append(run)
    alone = [run for run in runs if not begun.get(run, True)]
    waiting = [
        (part, mode.way, resumed)
        for (_, resumed), group in groups.items()
        for part in parts(group, min(mode.at_most, capacity(group[0])))
    ]
    while waiting:
        group, way, resumed = waiting.pop(0)
        if way == ALONE:
            alone += group
            continue
        dataset, size = datasets[group[0].dataset], len(group)
        device = provenance.device_name(str(dataset.images.device))
        place = f"{device}, torch {torch.__version__}"
        short = f"too little GPU memory for {size} runs at once: {size // 2} at once instead"
        try:
            train_together(group, dataset, store, reporter, way, resumed)
        except Refused as refused:
            way, reason = refused.args
            store.say(f"{place}: {reason}; {INSTEAD[way]} instead")
            waiting.insert(0, (group, way, resumed))
        except RuntimeError as error:
            captured = isinstance(error, CaptureError)
            if not is_out_of_memory(error):
                if not captured and not is_of_cuda(error):
                    raise
                way = WAYS[WAYS.index(way) + 1]
                line = f"{place}: {first_line(error)}; {INSTEAD[way]} instead"
                raise ReplaceWorker(line, Mode(way, mode.at_most)) from error
            if size == 1:
                line = "too little free GPU memory for one run; free some or use --device"
                raise UserError(line) from None
            if captured:
                raise ReplaceWorker(short, Mode(way, size // 2)) from error
            store.say(short)
            waiting[:0] = [
                (part, way, resumed) for part in (group[: size // 2], group[size // 2 :])
            ]
        # after the handlers, which keep alive what had been allocated
        gc.collect()
        torch.cuda.empty_cache()
    return alone


def architecture(run: Run) -> Run:
    """The run without what may differ between runs that take their steps together."""
    free = ("dropout_rate", "momentum", "weight_decay", "augmentation", "initialisation", "start")
    defaults = {field.name: field.default for field in dataclasses.fields(Run)}
    plain = {name: defaults[name] for name in (*free, "reinitialised")}
    return dataclasses.replace(run, seed=0, learning_rate=1.0, epochs=1, **plain)


def parts(group: list[Run], at_most: int) -> list[list[Run]]:
    """The group in as few parts as can be, none above at_most, all of about one size."""
    count = math.ceil(len(group) / at_most)
    return [group[len(group) * i // count : len(group) * (i + 1) // count] for i in range(count)]


def capacity(run: Run) -> int:
    """How many such runs train together at most: fewer in large batches and of wide networks."""
    images = max(run.batch_size, EVALUATION_BATCH)
    return max(1, MOST_AT_ONCE * EVALUATION_BATCH * 16 // (images * run.width))


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


def prove(together: Together, resumed: bool) -> None:
    """See that the engine is right and fast before the first step, by steps that are then undone.

    Uncaptured steps are held against the plain network, captured steps against uncaptured ones, bit
    by bit. Stacked steps must be faster than plain ones, run by run, unless the engine has begun
    the runs. The largest batch to evaluate comes first, so that memory runs out now or never.

    Raises Refused where the engine is wrong or slow, or cannot take the network.
    """
    batches, count = together.batches, len(together.runs)
    try:
        with warnings.catch_warnings():  # vmap warns of operations that it can only take run by run
            warnings.filterwarnings("error", message="There is a performance drop")
            together.evaluate(together.dataset.images[:EVALUATION_BATCH])
            together.begin_epoch()
            state = together.state()
            before = copies(state)
            for size in {*batches, min(FEW, *batches)}:
                starts = range(0, sum(batches) - size + 1, size)[:TRIES]
                found = [*takewhile(bool, (disagreement(together, size, at) for at in starts))]
                if len(found) == len(starts):
                    raise Refused(ALONE, f"the engine disagrees with the plain loop {found[-1]}")
            restore(state, before)
    except Exception as error:
        if isinstance(error, Refused) or is_out_of_memory(error) or is_of_cuda(error):
            raise
        reason = f"{together.runs[0].network} cannot train several runs in one step"
        raise Refused(ALONE, f"{reason} ({first_line(error)})") from error
    if together.captured:
        ends = []
        for step in (together.step_once, together.step):
            for size in batches[:2] + batches[2:][-1:]:
                step(size)
            ends.append(copies(state))
            restore(state, before)
        if not all(torch.allclose(*pair, 0, 0, equal_nan=True) for pair in zip(*ends, strict=True)):
            raise Refused(UNCAPTURED, "captured steps give other numbers than the same uncaptured")
    stacked = seconds_a_step(together, partial(together.step, batches[0]))
    alone = partial(together.plain_step, together.plain_network(0), 0, batches[0])
    plain = seconds_a_step(together, alone)
    restore(state, before)
    if stacked > plain * count and not resumed:
        times = f"{1e3 * stacked:.2f} ms, and a plain step {1e3 * plain:.2f} ms"
        raise Refused(ALONE, f"a step of {count} {together.runs[0].network} at once takes {times}")


def disagreement(together: Together, size: int, start: int) -> str | None:
    """In what, and by how much, a step of the first and last run differs from the plain network's.

    The batch is that of `size` images from place `start` of the epoch.
    """
    together.position.fill_(start)
    expected = {
        row: together.plain_step(together.plain_network(row), row, size)
        for row in (0, len(together.runs) - 1)
    }
    sums = together.loss_sums.clone()
    gradients = together.named(together.step_once(size))
    losses = (together.loss_sums - sums) / size
    normalised = any("running_mean" in name for name in together.fixed)
    tolerance = NORMALISED_TOLERANCE if normalised and size > FEW else GRADIENT_TOLERANCE
    for row, (loss, wanted) in expected.items():
        if not loss.isfinite() and not losses[row].isfinite():
            continue  # a run that diverges
        norm = torch.cat([gradient.flatten() for gradient in wanted]).norm()
        parts = [("the loss", losses[row], loss, LOSS_TOLERANCE, 1.0)]
        for (name, rows), gradient in zip(gradients.items(), wanted, strict=True):
            # a gradient that is nearly 0 is compared with a hundredth, or a tenth of all
            least = max(0.01, 0.1 * norm.item())
            parts.append((f"the gradient of {name}", rows[row], gradient, tolerance, least))
        for what, found, right, allowed, least in parts:
            error = ((found - right).norm() / right.norm().clamp(min=least)).item()
            if not error <= allowed:
                return f"in {what} by {error:.0e}"
    return None


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


def seconds_a_step(together: Together, step: Callable[[], Any]) -> float:
    """How long a step takes on the GPU; 0 on a CPU, where only tests train together."""
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
