"""Carrying out a sweep: every core or GPU trains runs until all are finished.

Each worker process claims runs that nobody has finished or claimed: first those of its own share,
then what is left. So the results folder is all that workers, and sweeps started side by side, need
to share. A core takes one run at a time; a GPU trains its share together (engine.py).
"""

import dataclasses
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from tqdm import tqdm

import train as training
from data import Dataset
from lab import distributed, download, engine, provenance
from lab.checks import UserError, check_data, check_fit, data_sets, first_line
from lab.records import Recorder
from lab.store import Store, label
from train import Run, Training

REPORT_SECONDS = 0.5  # between a worker's reports of progress
FIRST_LINE_SECONDS = 3.0  # of training before the time left is told where there is no terminal
PLAIN_LINE_SECONDS = 30.0  # between such lines
# how workers on the CPU start: by a server whose import of torch they share, where processes can
# fork (not on Windows); workers on a GPU never do, as a process that has used CUDA must not fork
SERVER = "forkserver"
ON_CPU = SERVER if SERVER in multiprocessing.get_all_start_methods() else "spawn"
# what a worker imports that takes long; nothing of this project, which the server may not find
PRELOADED = ["torch._dynamo", "sklearn.metrics"]
BUSY_SECONDS = 2.0  # between looks at runs that another sweep is training


class Interrupted(UserError):
    """The user stopped the sweep (Ctrl-C or SIGTERM); the text says what is kept."""


class SweepFailed(UserError):
    """Runs could not be trained, which perhaps only this process of several knows."""


def load_data(name: str) -> Dataset:
    """The data set of this name, on the CPU; CIFAR-10 is found or downloaded, and checked.

    Raises UserError where its tensors are not what the training loop takes.
    """
    folder = download.cifar10() if name == "cifar10" else download.data_folder()
    dataset = data_sets()[name](folder)
    check_data(name, dataset)
    return dataset


def train(
    runs: Sequence[Run],
    store: Store,
    device: str | None = None,
    fresh: bool = False,
    weights: bool = False,
) -> list[dict[str, Any]]:
    """Train every run that is not finished yet, on every core or GPU; the records of all.

    device is "cpu", "cuda" (all GPUs), "cuda:N", or None for the GPUs if there are any. With fresh,
    what is finished is moved out of the way and trained again. With weights, a run is finished only
    if its trained weights are there, too; runs that others start from are trained first.

    Raises UserError for what a user can mend, Interrupted on Ctrl-C or SIGTERM.
    """
    every = list(dict.fromkeys(runs))  # each once
    todo = every if fresh else unfinished(every, store, weights)
    devices = worker_devices(device, len(todo))
    if todo and devices[0] == "cpu" and ON_CPU == SERVER:
        forkserver.set_forkserver_preload(PRELOADED)
        with without_ctrl_c():  # its import of torch takes seconds; the data are checked meanwhile
            forkserver.ensure_running()
    check(todo)
    if fresh:
        store.replace(todo)
    train_sources(todo, store, device)
    print(f"runs     {len(every)}, of which {len(every) - len(todo)} are finished")
    if others := store.by_other_code(todo):
        print(
            f"         {others} of the others have results of an older version of the code: they "
            "stay on disk, and the runs are trained again"
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while todo:
            train_once(todo, store, devices, weights)
            todo = wait_for_others(todo, store, weights)
    except KeyboardInterrupt:
        done = len(every) - len(unfinished(every, store, weights))
        raise Interrupted(
            f"\nstopped: {done} of {len(every)} runs are finished and kept, the others at their "
            f"last checkpoint; the same command{' without --fresh' if fresh else ''} goes on there"
        ) from None
    except UserError as error:
        raise SweepFailed(f"{distributed.place()}{error}") from None
    return load_records(runs, store)


def unfinished(runs: Sequence[Run], store: Store, weights: bool) -> list[Run]:
    """The runs that are still to be trained."""
    return [run for run in runs if not store.is_finished(run, weights)]


def load_records(runs: Sequence[Run], store: Store) -> list[dict[str, Any]]:
    """The records of runs that were just finished. Raises UserError where one is gone by now."""
    records = [store.load_record(run) for run in runs]
    if None in records:
        raise UserError(f"records in {store.root} were moved or damaged meanwhile: start again")
    return records


def train_sources(runs: Sequence[Run], store: Store, device: str | None) -> None:
    """See that the trained networks that runs start from are there. Raises UserError as train()."""
    sources = list(dict.fromkeys(run.start for run in runs if run.start))
    if missing := unfinished(sources, store, weights=True):
        print(f"first    {len(missing)} trained networks that runs start from")
        train(missing, store, device, weights=True)
    for run, record in zip(sources, load_records(sources, store), strict=True):
        if record["diverged_at_epoch"] is not None:
            raise UserError(f"{label(run)} diverged, so that no run can start from it")


def wait_for_others(todo: Sequence[Run], store: Store, weights: bool) -> list[Run]:
    """Wait until all runs are finished, or one that another process had claimed is free again.

    Returns the runs that are still to be trained.
    """
    if todo := unfinished(todo, store, weights):
        print(f"waiting for {len(todo)} runs that another process on this folder is training")
    while todo:
        for run in todo:
            with store.claim(run) as free:
                if free and not store.is_finished(run, weights):
                    return todo
        time.sleep(BUSY_SECONDS)
        todo = unfinished(todo, store, weights)
    return todo


def worker_devices(device: str | None, runs: int) -> list[str]:
    """The device of each worker: all GPUs, or "cpu" for each core, at most one for each run.

    Of several processes that torchrun started each has one worker, on the GPU of its number.

    Raises UserError for a device that is unknown, not there or of no use.
    """
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if gpus and device != "cpu" and not torch.cuda.is_available():  # a driver that is too old
        raise UserError(
            f"torch {torch.__version__} cannot use the GPU: update its driver, install a torch "
            "that fits the driver, or use --device cpu"
        )
    if device is None:
        device = "cuda" if gpus else "cpu"
    alone = distributed.size() == 1
    if device == "cpu":
        affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        return ["cpu"] * (min(cores, runs) if alone else 1)
    if device == "cuda" and gpus:
        if distributed.local_size() > len(gpus):
            raise UserError(f"torchrun: use --nproc-per-node={len(gpus)}, a process for each GPU")
        return gpus[:runs] if alone else [gpus[distributed.local_rank()]]
    if device in gpus:
        if not alone:
            raise UserError(f"--device {device}: torchrun gives every process a GPU of its own")
        return [device]
    if device == "mps":
        raise UserError("--device mps: on a Mac the study trains on the CPU: use --device cpu")
    known = ", ".join(["cpu", *(["cuda", *gpus] if gpus else [])])
    raise UserError(f"--device {device}: torch {torch.__version__} finds only {known} here")


def check(runs: Sequence[Run]) -> None:
    """Raise UserError where data are missing, or where a run does not fit them."""
    # one run of each kind is enough
    kinds = {dataclasses.replace(run, seed=0, learning_rate=1.0, momentum=0.0) for run in runs}
    names = {run.dataset for kind in kinds for run in (kind, kind.start) if run}
    found = {name: load_data(name) for name in names}
    for run in kinds:
        check_fit(run, found[run.dataset], run.start and found[run.start.dataset])


def train_once(todo: Sequence[Run], store: Store, devices: list[str], weights: bool) -> None:
    """Start the workers and follow them until none has anything left to claim."""
    places = len(devices) * distributed.size()
    gpus = f"all that fit on {places} GPU{'s' if places > 1 else ''}"
    at_once = places if devices[0] == "cpu" else gpus
    print(f"device   {provenance.device_name(devices[0])}, runs trained at once: {at_once}")
    print(f"data     {todo[0].dataset}")
    print("stop     at any time with Ctrl-C: what is done is kept", flush=True)
    method = ON_CPU if devices[0] == "cpu" else "spawn"
    context = multiprocessing.get_context(method)
    processes: dict[Connection, Any] = {}
    first = distributed.rank() * len(devices)

    def start(number: int, mode: engine.Mode) -> None:
        batches = shares(todo, first + number, places)
        at_once = 1 if devices[number] == "cpu" else engine.MOST_AT_ONCE
        batches = [part for share in batches for part in engine.parts(share, at_once)]
        receiver, sender = context.Pipe(duplex=False)
        code = provenance.fingerprints(todo, devices[number])
        arguments = (batches, weights, store, devices[number], code, mode, sender)
        worker = context.Process(target=work, args=arguments, name=str(number), daemon=True)
        # the server ignores Ctrl-C: while it is waited for, this process must not
        with nullcontext() if method == SERVER else without_ctrl_c():
            worker.start()
        sender.close()
        processes[receiver] = worker

    own = range(first, first + len(devices))
    progress = Progress([run for at, run in enumerate(todo) if at % places in own])
    try:
        for number in range(len(devices)):
            start(number, engine.Mode())
        follow(processes, progress, start)
    finally:
        progress.close()
        for worker in processes.values():
            worker.kill()  # safe at any moment, as every file is written whole or not at all
            worker.join()


def shares(todo: Sequence[Run], place: int, places: int) -> list[list[Run]]:
    """What falls to each of so many workers, in the order of the one at this place.

    It begins with its own share, and takes what is left of the others'.
    """
    found = [list(todo[first::places]) for first in range(places)]
    return [share for share in found[place:] + found[:place] if share]


@contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Processes started here ignore Ctrl-C: this one alone answers it, and ends them."""
    answer = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, answer)


def follow(
    processes: dict[Connection, Any],
    progress: "Progress",
    start: Callable[[int, engine.Mode], None],
) -> None:
    """Show what the workers report until the last one ends; say who died, once all have ended.

    start(number, mode) puts another worker among the processes, in place of one that asks for it.
    """
    current: dict[Connection, set[Run]] = defaultdict(set)
    died = []
    while processes:
        for pipe in wait(list(processes)):
            try:
                kind, *words = pipe.recv()
            except EOFError:
                worker, runs = processes.pop(pipe), current.pop(pipe, set())
                worker.join()
                progress.running -= runs
                if worker.exitcode:
                    died.append(how_it_died(worker, runs))
                continue
            if kind == "error":
                raise UserError(words[0])
            if kind == "say":
                progress.say(words[0])
            elif kind == "replace":
                worker = processes.pop(pipe)
                worker.kill()
                worker.join()  # its claims are free now
                progress.running -= current.pop(pipe, set())
                progress.say(words[0])
                start(int(worker.name), words[1])
            else:
                run, finished = words[0], kind == "finished"
                (current[pipe].discard if finished else current[pipe].add)(run)
                if distributed.rank() == 0:  # which shows its own share, for all
                    getattr(progress, kind)(*words)
    if died:
        raise UserError(
            f"{'; '.join(died)}; what the other processes finish is kept: start again, without "
            "--fresh, to go on"
        )


def how_it_died(worker: Any, runs: set[Run]) -> str:
    """What is known of a worker process that ended before its work did."""
    code = worker.exitcode
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    what = label(*runs) if len(runs) == 1 else f"{len(runs)} runs"
    doing = f"while training {what}" if runs else "between two runs"
    memory = " (often too little memory)" if how == "signal SIGKILL" else ""
    return f"worker process {worker.pid} died {doing}, {how}{memory}"


class Progress:
    """One bar for the epochs of the sweep, or a plain line now and then where no terminal is.

    It counts what this sweep trains: not what a checkpoint has brought to a run that has begun, nor
    what another process has finished.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.left = {run: float(run.epochs) for run in runs}  # epochs
        self.images = 0.0  # trained on by this sweep
        self.running: set[Run] = set()
        self.terminal = sys.stderr.isatty()
        self.bar: tqdm | None = None
        self.next_line = FIRST_LINE_SECONDS

    def progress(self, run: Run, done: float, images: int, accuracy: float | None) -> None:
        """Note that a run has now trained for so many epochs of so many images.

        accuracy is that of validation after the last whole epoch.
        """
        if self.bar is None:  # the clock starts with the first step, not with the start-up
            self.bar = tqdm(
                total=0,
                delay=0 if self.terminal else math.inf,
                bar_format="{percentage:3.0f}%|{bar:20}| {n:.1f}/{total:.1f} epochs "
                "[{elapsed}<{remaining}{postfix}]",
                smoothing=0,
                dynamic_ncols=True,
            )
        left = run.epochs - done
        if run in self.running:
            self.bar.n += self.left[run] - left
            self.images += (self.left[run] - left) * images
        self.left[run] = left
        self.running.add(run)
        elapsed = self.bar.format_dict["elapsed"]
        learned = "" if accuracy is None else f", validation {100 * accuracy:.1f}%"
        self.bar.set_postfix_str(
            f"{self.images / max(elapsed, 1e-9):,.0f} images/s, {len(self.running)} at once, "
            f"epoch {max(1, math.ceil(done))}/{run.epochs} of {label(run)}{learned}",
            refresh=False,
        )
        self.count()
        if self.terminal:
            self.bar.refresh()
        elif elapsed >= self.next_line:
            self.next_line = elapsed + PLAIN_LINE_SECONDS
            self.say(str(self.bar))

    def finished(self, run: Run, record: dict[str, Any] | None) -> None:
        """Say what a run has come to. record is None where another process has finished it."""
        self.left.pop(run, None)  # some of its epochs are left, where it diverged
        self.running.discard(run)
        self.count()
        if record is None:
            return
        if record["diverged_at_epoch"] is not None:
            self.say(f"diverged {label(run)} in epoch {record['diverged_at_epoch'] + 1}")
        else:
            validation, test = record["val_accuracy"][-1], record["test_accuracy"]
            self.say(
                f"finished {label(run)}: validation {100 * validation:.2f}%, test {100 * test:.2f}%"
            )

    def count(self) -> None:
        """Bring the bar to where the sweep is."""
        if self.bar is not None:
            self.bar.total = self.bar.n + sum(self.left.values())

    def say(self, line: str) -> None:
        """A line of its own, above the bar where there is one."""
        if self.terminal:
            tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            if not self.terminal:
                self.say(str(self.bar))
            self.bar.close()


def work(
    batches: list[list[Run]],
    weights: bool,
    store: Store,
    device: str,
    code: set[str],
    mode: engine.Mode,
    pipe: Connection,
) -> None:
    """A worker process: train what can be claimed of each batch, and report through the pipe."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if code != provenance.fingerprints([run for batch in batches for run in batch], device):
            raise UserError("the code that decides numbers was edited meanwhile: start again")
        if device != "cpu":
            torch.cuda.set_device(device)
        store.say = lambda line: pipe.send(("say", line))
        provenance.environment(device)  # asks git now, as the code is that of now
        names = {run.dataset for batch in batches for run in batch}
        datasets = {name: load_data(name).to(device) for name in names}
        for batch in batches:
            with ExitStack() as claims:
                claimed = [run for run in batch if claims.enter_context(store.claim(run))]
                todo = [run for run in claimed if not store.is_finished(run, weights)]
                for run in set(claimed) - set(todo):  # which another process has finished
                    pipe.send(("finished", run, None))

                reporter = Reporter(pipe.send)
                if device != "cpu":
                    todo = engine.train(todo, datasets, store, reporter, mode)
                for run in todo:
                    train_alone(run, datasets[run.dataset], store, reporter)
    except UserError as error:
        pipe.send(("error", str(error)))
    except engine.ReplaceWorker as broken:
        pipe.send(("replace", str(broken), broken.mode))
    except RuntimeError as error:
        if not engine.is_out_of_memory(error):
            raise
        pipe.send(("say", f"{device}: {first_line(error)}: free some, or use --device cpu"))
        sys.exit(1)


def train_alone(run: Run, dataset: Dataset, store: Store, reporter: "Reporter") -> None:
    """Train one run by the plain loop and keep its record."""
    recorder = Recorder(run, dataset, store)
    watch = recorder.gradients and recorder.gradients.watch
    report = partial(reporter.progress, recorder.training)
    logits = training.train(recorder.training, watch, recorder.epoch_ended, report)
    reporter.finished(run, recorder.finish(logits))


def end_with_parent() -> None:
    """End this process when the one that started it has ended, however that did."""
    multiprocessing.parent_process().join()
    os._exit(1)


class Reporter:
    """Passes on at most one report on a run every REPORT_SECONDS, and the first and last."""

    def __init__(self, send: Callable[[tuple], None]) -> None:
        self.send = send
        self.sent: dict[Run, float] = {}  # when

    def progress(self, of: Training, done: float) -> None:
        """Report that a run has trained for so many epochs."""
        now, last = time.monotonic(), self.sent.get(of.run, -math.inf)
        if now - last >= REPORT_SECONDS or done == of.run.epochs:
            self.sent[of.run] = now
            accuracies = of.curves["val_accuracy"]
            accuracy = accuracies[-1] if accuracies else None
            self.send(("progress", of.run, done, of.images_per_epoch, accuracy))

    def finished(self, run: Run, record: dict[str, Any]) -> None:
        """Report what a run has come to."""
        self.send(("finished", run, record))
