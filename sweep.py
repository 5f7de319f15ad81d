"""Carrying out a sweep: every core or GPU trains runs until all are finished.

Each worker process walks the same list and claims the next run that nobody has finished or claimed,
so that the results folder is all that workers, and sweeps started side by side, need to share.
"""

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tqdm import tqdm

import download
from errors import Interrupted, UserError
from runs import Run
from store import HERE, Store, device_name

REPORT_SECONDS = 0.5  # between a worker's reports of progress
ESTIMATE_SECONDS = 3.0  # of training before the time is estimated
PLAIN_LINE_SECONDS = 30.0  # between lines where the output is not a terminal
BUSY_SECONDS = 2.0  # between looks at runs that another sweep is training
DATA_TITLES = {"cifar10": "CIFAR-10", "digits": "handwritten digits (a rehearsal)"}


def train(runs: Sequence[Run], store: Store, device: str | None = None) -> None:
    """Train every run that is not finished yet, on every core or GPU; the results go to store.

    device is "cpu", "cuda" (all GPUs), "cuda:N", or None for the GPUs if there are any.

    Raises UserError for what a user can mend, Interrupted on Ctrl-C or SIGTERM.
    """
    runs = list(dict.fromkeys(runs))
    todo = [run for run in runs if store.load_result(run) is None]
    print(f"runs     {len(runs)}, of which {len(runs) - len(todo)} are finished")
    if older := store.older_code(todo):
        print(
            f"         {older} of the others were trained before an edit of code that decides "
            "numbers: they stay on disk and are trained again"
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while todo:
            _train_once(todo, store, device)
            todo = [run for run in todo if store.load_result(run) is None]
            if todo:
                _wait_for_others(todo, store)
    except KeyboardInterrupt:
        left = sum(store.load_result(run) is None for run in runs)
        raise Interrupted(
            f"\nstopped: {len(runs) - left} of {len(runs)} runs are finished and kept, the others "
            "at their last checkpoint; the same command goes on from there"
        ) from None


def _wait_for_others(todo: list[Run], store: Store) -> None:
    """Sleep until a run that another process had claimed is finished or free again."""
    print(f"waiting for {len(todo)} runs that another process on this folder is training")
    while True:
        for run in todo:
            with store.claim(run) as free:
                if free or store.load_result(run) is not None:
                    return
        time.sleep(BUSY_SECONDS)


def worker_devices(device: str | None, runs: int) -> list[str]:
    """The device of each worker: all GPUs, or a thread for each core, as many as there are runs.

    Raises UserError for a device that is unknown or not there.
    """
    import torch

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if device is None:
        device = "cuda" if gpus else "cpu"
    if device == "cpu":
        affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        return ["cpu"] * min(cores, runs)
    if device == "cuda" and gpus:
        return gpus[:runs]
    if device in gpus:
        return [device]
    known = ", ".join(["cpu", *(["cuda", *gpus] if gpus else [])])
    raise UserError(f"--device {device}: torch {torch.__version__} finds only {known} here")


def _train_once(todo: list[Run], store: Store, device: str | None) -> None:
    """Start the workers and follow them until none has anything left to claim."""
    devices = worker_devices(device, len(todo))
    import data

    for run in todo:
        training_images = data.split_sizes(run.dataset, run.split)[0]
        if run.batch_size > training_images:
            raise UserError(
                f"BATCH_SIZE = {run.batch_size}: larger than the training split, "
                f"{training_images:,} images"
            )
    folder = download.cifar10(HERE / "data") if todo[0].dataset == "cifar10" else None
    print(f"device   {device_name(devices[0])}, runs trained at once: {len(devices)}")
    print(f"data     {DATA_TITLES[todo[0].dataset]}{f' in {folder}' if folder else ''}", flush=True)
    context = multiprocessing.get_context("spawn")
    processes: dict[Connection, Any] = {}
    # started with Ctrl-C ignored, and left so: the parent alone answers it and ends the workers
    answer = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for place in devices:
            receiver, sender = context.Pipe(duplex=False)
            worker = context.Process(
                target=_work,
                args=(todo, store.root, store.folder.name, store.code, folder, place, sender),
                daemon=True,
            )
            worker.start()
            sender.close()
            processes[receiver] = worker
    finally:
        signal.signal(signal.SIGINT, answer)
    progress = Progress(todo)
    try:
        _follow(processes, progress)
    finally:
        progress.close()
        for worker in processes.values():
            worker.kill()  # safe at any moment, as every file is written whole or not at all
            worker.join()


def _follow(processes: dict[Connection, Any], progress: "Progress") -> None:
    """Show what the workers report until the last one ends; say who died, once all have ended."""
    current: dict[Connection, Run] = {}
    died = []
    running = dict(processes)
    while running:
        for pipe in wait(list(running)):
            try:
                kind, *words = pipe.recv()
            except EOFError:
                worker = running.pop(pipe)
                worker.join()
                if worker.exitcode:
                    died.append(_obituary(worker, current.get(pipe)))
                continue
            if kind == "error":
                raise UserError(words[0])
            if kind == "say":
                progress.say(words[0])
            else:
                current[pipe] = words[0]
                progress.update(*words)
    if died:
        raise UserError(
            f"{'; '.join(died)}; the runs of the other processes are kept, and the same command "
            "goes on"
        )


def _obituary(worker: Any, run: Run | None) -> str:
    code = worker.exitcode
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    doing = f"while training {run.label}" if run else "before it trained anything"
    memory = " (often too little memory)" if code == -signal.SIGKILL else ""
    return f"worker process {worker.pid} died {doing}, {how}{memory}"


class Progress:
    """One bar for the sweep, or a plain line now and then where there is no terminal."""

    def __init__(self, runs: Sequence[Run]) -> None:
        import data

        self.done: dict[Run, float] = dict.fromkeys(runs, 0.0)  # epochs
        self.sizes = {run: data.split_sizes(run.dataset, run.split) for run in runs}
        self.started: set[Run] = set()
        self.images = 0.0
        self.estimated = False
        self.terminal = sys.stderr.isatty()
        self.bar: tqdm | None = None
        self.next_line = 0.0

    def update(self, run: Run, done: float, finished: bool) -> None:
        """Note that a run has now trained for so many epochs, and whether it goes no further."""
        now = time.monotonic()
        if self.bar is None:  # the clock starts with the first step, not with the start-up
            self.first_step = now
            self.bar = tqdm(
                total=sum(run.epochs for run in self.done),
                delay=0 if self.terminal else math.inf,
                bar_format="{percentage:3.0f}%|{bar:20}| {n:.1f}/{total:.0f} epochs "
                "[{elapsed}<{remaining}{postfix}]",
                smoothing=0,
                dynamic_ncols=True,
            )
        step = done - self.done[run]
        self.done[run] = done
        if run in self.started:
            self.images += step * self.sizes[run][0]
        else:  # what a checkpoint brings is no work of this sweep
            self.started.add(run)
            self.bar.initial += step
        if finished:  # a run that diverged leaves epochs out
            self.bar.total -= run.epochs - done
        rate = self.images / max(now - self.first_step, 1e-9)
        self.bar.set_postfix_str(
            f"{rate:,.0f} images/s, {run.label} epoch {max(1, math.ceil(done))}/{run.epochs}",
            refresh=False,
        )
        self.bar.n = min(sum(self.done.values()), self.bar.total)
        if self.terminal:
            self.bar.refresh()
        if not self.estimated and now - self.first_step >= ESTIMATE_SECONDS:
            self.estimated = True
            self.say(self.estimate(rate))
        elif not self.terminal and now >= self.next_line and self.estimated:
            self.next_line = now + PLAIN_LINE_SECONDS
            self.say(str(self.bar))

    def estimate(self, rate: float) -> str:
        """The time left, in words. Validation, a forward pass, costs a third of training."""
        images = 0.0
        for run, done in self.done.items():
            train, val = self.sizes[run]
            images += (run.epochs - done) * (train + val / 3)
        minutes = images / rate / 60
        time_left = f"{minutes / 60:.1f} hours" if minutes > 90 else f"{minutes:.1f} minutes"
        return (
            f"time     about {time_left}, at {rate:,.0f} images/s over the first steps; "
            "Ctrl-C keeps what is done"
        )

    def say(self, line: str) -> None:
        """A line of its own, above the bar."""
        tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _work(
    todo: list[Run],
    root: Path,
    experiment: str,
    code: str,
    folder: Path | None,
    device: str,
    pipe: Connection,
) -> None:
    """A worker process: train what can be claimed, and report through the pipe."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    import data
    import train as training

    try:
        store = Store(root, experiment, lambda line: pipe.send(("say", line)), code)
        dataset = data.load(todo[0].dataset, folder).to(device)
        reporter = _Reporter(pipe.send)
        for run in todo:
            with store.claim(run) as mine:
                if mine and store.load_result(run) is None:
                    training.train([run], dataset, store, reporter)
                    reporter.finish()
    except UserError as error:
        pipe.send(("error", str(error)))
    except torch.OutOfMemoryError:
        pipe.send(("error", f"{device} has too little free memory; free some or use --device"))


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


class _Reporter:
    """Passes on at most one of training's reports every REPORT_SECONDS, and those that count."""

    def __init__(self, send: Callable[[tuple], None]) -> None:
        self.send = send
        self.sent = 0.0
        self.last: tuple[Run, float] | None = None

    def __call__(self, run: Run, done: float) -> None:
        first = self.last is None or self.last[0] != run
        self.last = (run, done)
        if first or time.monotonic() - self.sent >= REPORT_SECONDS:
            self.sent = time.monotonic()
            self.send(("progress", run, done, False))

    def finish(self) -> None:
        if self.last is not None:
            self.send(("progress", *self.last, True))
