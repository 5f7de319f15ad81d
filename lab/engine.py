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
from typing import Any, NamedTuple

import torch
from torch import Tensor

from data import Dataset
from lab import provenance, records
from lab.checks import UserError, first_line
from lab.records import Recorder
from lab.stacked import EVALUATION_BATCH, CaptureError, Together, copies, restore
from lab.store import Store
from train import Run, evaluate, use_full_precision

CAPTURED, UNCAPTURED, ALONE = WAYS = ("captured", "uncaptured", "alone")
INSTEAD = {UNCAPTURED: "training without CUDA graphs", ALONE: "training one run at a time"}
MOST_AT_ONCE = 256  # runs of the study: of twice as many, the largest tensors outgrow 32 bits
CHECKPOINT_SHARE = 0.02  # of the time, at most, that training waits for checkpoints
TIMED_STEPS = 5

# What the stacked steps may differ by from the plain network, for rounding alone. Rounding decides
# which of two equal activations a pool takes, and whether a ReLU is open at 0. That moves gradients
# by up to 1e-2, with batch normalisation by 5e-2, but seldom in a batch of 8: there 1e-5 was seen.
LOSS_TOLERANCE = 1e-4  # of logits, too
LOSS = "the loss"
GRADIENT_TOLERANCE = 1e-3
LARGE_TOLERANCE, NORMALISED_TOLERANCE = 0.01, 0.1  # in batches of more than FEW images
FEW = 8  # images
TRIES = 4  # batches of each size; a run must agree in one of them: an error would be in all
MOST = 0.3  # by which a gradient may differ in any of them: far more than rounding moves it


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
    alone: list[Run] = []
    groups: dict[Run, list[Run]] = {}
    for run in runs:
        checkpoint = store.load_checkpoint(run)
        if checkpoint and checkpoint["engine"] is None:
            alone.append(run)
        else:
            groups.setdefault(architecture(run), []).append(run)
    if alone:
        store.say(f"runs that the plain loop began, and trains one at a time: {len(alone)}")
    waiting = [
        (part, mode.way)
        for group in groups.values()
        for part in parts(group, min(mode.at_most, capacity(group[0])))
    ]
    while waiting:
        group, way = waiting.pop(0)
        if way == ALONE:
            alone += group
            continue
        dataset, size = datasets[group[0].dataset], len(group)
        device = provenance.device_name(str(dataset.images.device))
        place = f"{device}, torch {torch.__version__}"
        try:
            train_together(group, dataset, store, reporter, way)
        except Refused as refused:
            way, reason = refused.args
            store.say(f"{place}: {reason}; {INSTEAD[way]} instead")
            waiting.insert(0, (group, way))
        except RuntimeError as error:
            if "no kernel image" in str(error):
                remedy = "install a torch that was built for it, or use --device cpu"
                raise UserError(f"{place}: this torch cannot use this GPU: {remedy}") from None
            captured = isinstance(error, CaptureError)
            if is_out_of_memory(error):
                if size == 1:
                    line = "too little free GPU memory for one run; free some or use --device"
                    raise UserError(line) from None
                half = math.ceil(size / 2)
                line = f"too little GPU memory for {size} runs at once: {half} at once instead"
                if captured:
                    raise ReplaceWorker(line, Mode(way, half)) from error
                store.say(line)
                waiting[:0] = [(part, way) for part in parts(group, half)]
            elif captured or is_of_cuda(error):
                way = WAYS[WAYS.index(way) + 1]
                line = f"{place}: {first_line(error)}; {INSTEAD[way]} instead"
                raise ReplaceWorker(line, Mode(way, mode.at_most)) from error
            else:
                raise
        # after the handlers, which keep alive what had been allocated
        gc.collect()
        torch.cuda.empty_cache()
    return alone


def architecture(run: Run) -> Run:
    """The run without what may differ between runs that take their steps together."""
    free = ("dropout_rate", "momentum", "weight_decay", "augmentation", "initialisation")
    plain = {name: getattr(Run, name) for name in (*free, "start", "reinitialised")}
    return dataclasses.replace(run, seed=0, learning_rate=1.0, epochs=1, **plain)


def parts(group: list[Run], at_most: int) -> list[list[Run]]:
    """The group in as few parts as can be, none above at_most, all of about one size."""
    count = math.ceil(len(group) / at_most)
    return [group[len(group) * i // count : len(group) * (i + 1) // count] for i in range(count)]


def capacity(run: Run) -> int:
    """How many such runs train together at most: fewer in large batches and of wide networks."""
    images = max(run.batch_size, EVALUATION_BATCH)
    return max(1, MOST_AT_ONCE * EVALUATION_BATCH * 16 // (images * run.width))


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
    runs: Sequence[Run], dataset: Dataset, store: Store, reporter: Any, way: str
) -> None:
    """Train runs of one architecture, each from its own checkpoint if it has one.

    A run that has ended, by its last epoch or by divergence, keeps its row until all have, so that
    the others' last bits do not depend on when it ended.

    Raises Refused where prove() does.
    """
    engine = provenance.engine_fingerprint()
    recorders = [Recorder(run, dataset, store, engine) for run in runs]
    with ThreadPoolExecutor(2) as threads:
        together = Together(recorders, dataset, threads, way == CAPTURED)
        checkpoints = Checkpoints(together, threads)
        if not all(recorder.training.is_over for recorder in recorders):
            prove(together)
        for recorder in recorders:
            reporter.progress(recorder.training, recorder.training.epoch)
        going = list(range(len(runs)))  # rows
        while going:
            if over := [row for row in going if recorders[row].training.is_over]:
                finish(together, over, reporter)
                going = [row for row in going if row not in over]
                continue
            measured = together.train_epoch()
            for row in going:
                recorders[row].training.end_epoch(measured[row])
                recorders[row].close_epoch()
            checkpoints.epoch_ended(going)
            for row in going:
                training = recorders[row].training
                reporter.progress(training, training.epoch + (training.diverged_at is not None))
        checkpoints.wait()


def finish(together: Together, rows: Sequence[int], reporter: Any) -> None:
    """Evaluate the final weights of the runs in these rows, and keep their records."""
    dataset = together.dataset
    sound = [row for row in rows if together.trainings[row].diverged_at is None]
    images = (dataset.images[together.train_indices], dataset.test_images) if sound else ()
    logits = [together.evaluate(part) for part in images]
    for row in rows:
        recorder = together.recorders[row]
        of_run = (logits[0][row], logits[1][row]) if row in sound else None
        reporter.finished(recorder.run, recorder.finish(of_run))


def prove(together: Together) -> None:
    """See that the engine is right and fast before the first step, by steps that are then undone.

    An evaluation and uncaptured steps are held against the plain network, captured steps against
    uncaptured ones, bit by bit. Stacked steps must be faster than plain ones, run by run, unless
    the engine has begun some of the runs. The largest batch to evaluate comes first, and again once
    all steps have their memory: so it runs out now, and not after an epoch.

    Raises Refused where the engine is wrong or slow, or cannot take the network.
    """
    batches, count, name = together.batches, len(together.runs), together.runs[0].network
    images, cudnn = together.dataset.images[:EVALUATION_BATCH], torch.backends.cudnn.enabled
    try:
        # some of its convolutions round more than the engine may differ by
        torch.backends.cudnn.enabled = False
        with warnings.catch_warnings():  # vmap warns of operations that it can only take run by run
            warnings.filterwarnings("error", message="There is a performance drop")
            if wrong := evaluated_otherwise(together, images):
                raise Refused(ALONE, f"the engine disagrees with the plain loop {wrong}")
            together.begin_epoch()
            state = together.state()
            before = copies(state)
            for size in {*batches, min(FEW, *batches)}:
                if wrong := disagreement(together, size):
                    raise Refused(ALONE, f"the engine disagrees with the plain loop {wrong}")
            restore(state, before)
    except Exception as error:
        if isinstance(error, Refused) or is_out_of_memory(error) or is_of_cuda(error):
            raise
        reason = f"{name} cannot train several runs in one step ({first_line(error)})"
        raise Refused(ALONE, reason) from error
    finally:
        torch.backends.cudnn.enabled = cudnn
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
    plain = seconds_a_step(together, partial(together.plain_step, 0, batches[0]))
    restore(state, before)
    together.evaluate(images)
    begun = any(training.epoch > 0 for training in together.trainings)
    if stacked > plain * count and not begun:
        times = f"{1e3 * stacked:.2f} ms, and a plain step {1e3 * plain:.2f} ms"
        raise Refused(ALONE, f"a step of {count} {name} at once takes {times}")


def compared_rows(together: Together) -> list[int]:
    """The rows that are held against plain networks: the first of each dropout rate, and the last.

    A network that keeps the rate as a number, not as a tensor, would use the first run's for all.
    """
    rates = [run.dropout_rate for run in together.runs]
    return sorted({*map(rates.index, rates), len(rates) - 1})


def evaluated_otherwise(together: Together, images: Tensor) -> str | None:
    """By how much the logits of some runs differ from the plain network's."""
    logits = together.evaluate(images)
    for row in compared_rows(together):
        right = evaluate(together.trainings[row].network, images)
        error = relative(logits[row], right, 0.01)
        if right.isfinite().all() and not error <= LOSS_TOLERANCE:
            return f"in an evaluation by {error:.0e}"
    return None


def disagreement(together: Together, size: int) -> str | None:
    """In what, and by how much, steps of a run on so many images differ from the plain network's.

    Each run has several batches. It must agree in one of them, and nearly agree in all.
    """
    normalised = any("running_mean" in name for name in together.fixed)
    tolerance = GRADIENT_TOLERANCE
    if size > FEW:
        tolerance = NORMALISED_TOLERANCE if normalised else LARGE_TOLERANCE
    rows = compared_rows(together)
    wrong = dict.fromkeys(rows, "")
    for start in range(0, sum(together.batches) - size + 1, size)[:TRIES]:
        together.position.fill_(start)
        plain = {row: together.plain_step(row, size) for row in rows}
        sums = together.loss_sums.clone()
        stacked = together.named(together.step_once(size))
        losses = (together.loss_sums - sums) / size
        errors = {}
        for row, right in plain.items():
            own = {name: of_all[row] for name, of_all in stacked.items()}
            errors[row] = errors_of(losses[row], own, *right)
            if words := too_much(errors[row], MOST):
                return words
        wrong = {row: words for row in wrong if (words := too_much(errors[row], tolerance))}
    return next(iter(wrong.values()), None)


def errors_of(
    loss: Tensor, gradients: dict[str, Tensor], right_loss: Tensor, right: Sequence[Tensor]
) -> dict[str, float]:
    """By how much a run's loss and its gradients are not right, by name."""
    if not loss.isfinite() and not right_loss.isfinite():
        return {}  # a run that diverges
    # a gradient that is nearly 0 is compared with a hundredth, or a tenth of all
    least = max(0.01, 0.1 * torch.cat([one.flatten() for one in right]).norm())
    found = {LOSS: relative(loss, right_loss, 1.0)}
    for (name, one), other in zip(gradients.items(), right, strict=True):
        found[f"the gradient of {name}"] = relative(one, other, least)
    return found


def relative(found: Tensor, right: Tensor, least: float) -> float:
    """The norm of a difference, divided by that of what is right, or by the least where smaller."""
    return ((found - right).norm() / right.norm().clamp(min=least)).item()


def too_much(errors: dict[str, float], tolerance: float) -> str | None:
    """The first error that is not allowed, in words; tolerance is that of gradients."""
    for what, error in errors.items():
        if not error <= (LOSS_TOLERANCE if what == LOSS else tolerance):
            return f"in {what} by {error:.0e}"
    return None


def seconds_a_step(together: Together, step: Callable[[], Any]) -> float:
    """How long a step takes on the GPU; 0 on a CPU, where only tests train together."""
    if together.device.type != "cuda":
        return 0.0
    step()  # the first one may load a library
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
        trainings = self.together.trainings
        sound = [row for row in rows if trainings[row].diverged_at is None]
        chosen = [row for row in sound if due or trainings[row].is_over]
        if not chosen:
            return
        self.wait()
        states, recorders = self.together.state_dicts(), self.together.recorders
        complete = [(recorders[row], recorders[row].snapshot(states[row])) for row in chosen]
        self.writing = self.threads.submit(self._write, complete)
        if due:
            self.kept_at = time.monotonic()
            self.cost = self.kept_at - started

    def _write(self, states: list[tuple[Recorder, dict[str, Any]]]) -> None:
        for recorder, state in states:
            recorder.store.save_checkpoint(recorder.run, state, recorder.engine)

    def wait(self) -> None:
        """Wait until all is written. Raises UserError where it cannot be."""
        if self.writing:
            self.writing.result()
