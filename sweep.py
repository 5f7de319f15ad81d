"""Carrying out a sweep: every core or GPU trains runs until all are finished.

Each worker process walks the same list and claims the runs that nobody has finished or claimed, so
that the results folder is all that workers, and sweeps started side by side, need to share. A core
takes one run at a time; a GPU takes an equal share of all and trains it together (engine.py).
"""

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tqdm import tqdm

import distributed
import download
from errors import Interrupted, UserError
from runs import Run
from store import HERE, Store, code_fingerprint, device_name, environment

REPORT_SECONDS = 0.5  # between a worker's reports of progress
ESTIMATE_SECONDS = 3.0  # of training before the time is estimated
PLAIN_LINE_SECONDS = 30.0  # between lines where the output is not a terminal
BUSY_SECONDS = 2.0  # between looks at runs that another sweep is training
DATA_TITLES = {"cifar10": "CIFAR-10", "digits": "handwritten digits (a rehearsal)"}


def train(
    runs: Sequence[Run],
    store: Store,
    device: str | None = None,
    fresh: bool = False,
    weights: bool = False,
) -> None:
    """Train every run that is not finished yet, on every core or GPU; the results go to store.

    device is "cpu", "cuda" (all GPUs), "cuda:N", or None for the GPUs if there are any. With fresh,
    what is finished is moved out of the way and trained again. With weights, a run is finished only
    if its trained weights are there, too; runs that others start from are seen to first.

    Raises UserError for what a user can mend, Interrupted on Ctrl-C or SIGTERM.
    """
    runs = list(dict.fromkeys(runs))
    todo = runs if fresh else unfinished(runs, store, weights)
    share = distributed.share(todo)
    if device is not None or todo:
        devices = distributed.on_all(lambda: worker_devices(device, len(share)))
    folder = distributed.on_all(lambda: check_data(todo))
    sources = list(dict.fromkeys(run.start for run in todo if run.start))
    if missing := unfinished(sources, store, weights=True):
        print(f"needed   trained networks to start from: {len(missing)} are not there")
        train(missing, store, device, weights=True)
    for run, record in zip(sources, load_results(sources, store), strict=True):
        if record["diverged_at_epoch"] is not None:
            raise UserError(f"{run.label} diverged, so that no run can start from it")
    if fresh:
        distributed.on_first(lambda: store.replace(runs))
    print(f"runs     {len(runs)}, of which {len(runs) - len(todo)} are finished")
    if older := store.older_code(todo):
        print(
            f"         {older} of the others were trained before an edit of code that decides "
            "numbers: they stay on disk and are trained again"
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while todo:
            distributed.on_all(partial(_train_once, share, store, devices, folder, weights))
            todo = unfinished(todo, store, weights)
            share = distributed.share(todo)
            if todo:
                distributed.on_first(partial(_wait_for_others, todo, store, weights))
    except KeyboardInterrupt:
        left = sum(not store.is_finished(run, weights) for run in runs)
        if distributed.rank() > 0:
            raise Interrupted("") from None
        raise Interrupted(
            f"\nstopped: {len(runs) - left} of {len(runs)} runs are finished and kept, the others "
            f"at their last checkpoint; the same command{' without --fresh' * fresh} goes on there"
        ) from None


def unfinished(runs: Sequence[Run], store: Store, weights: bool) -> list[Run]:
    """The runs that are still to be trained, the same on every process of a sweep."""
    finished = distributed.on_all(lambda: [store.is_finished(run, weights) or None for run in runs])
    known = zip(runs, distributed.known_to_any(finished), strict=True)
    return [run for run, is_finished in known if not is_finished]


def load_results(runs: Sequence[Run], store: Store) -> list[dict[str, Any]]:
    """The records of finished runs, the same on every process of a sweep."""
    return distributed.known_to_any([store.load_result(run) for run in runs])


def _wait_for_others(todo: list[Run], store: Store, weights: bool) -> None:
    """Sleep until all runs are finished, or one that another process had claimed is free again."""
    print(f"waiting for {len(todo)} runs that another process on this folder is training")
    while todo := [run for run in todo if not store.is_finished(run, weights)]:
        for run in todo:
            with store.claim(run) as free:
                if free and not store.is_finished(run, weights):
                    return
        time.sleep(BUSY_SECONDS)


def worker_devices(device: str | None, runs: int) -> list[str]:
    """The device of each worker: all GPUs, or a thread for each core, as many as there are runs.

    Of several processes that torchrun started each has one worker, on the GPU of its number.

    Raises UserError for a device that is unknown or not there.
    """
    import torch

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if device is None:
        device = "cuda" if gpus else "cpu"
    local_rank = distributed.local_rank()
    if device == "cpu" and local_rank is not None:
        return ["cpu"]
    if device == "cpu":
        affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        return ["cpu"] * min(cores, runs)
    if device == "cuda" and gpus and local_rank is not None:
        if local_rank >= len(gpus):
            raise UserError(f"torchrun: use --nproc-per-node={len(gpus)}, a process for each GPU")
        return [gpus[local_rank]]
    if device == "cuda" and gpus:
        return gpus[:runs]
    if device in gpus:
        return [device]
    known = ", ".join(["cpu", *(["cuda", *gpus] if gpus else [])])
    raise UserError(f"--device {device}: torch {torch.__version__} finds only {known} here")


def check_data(runs: Sequence[Run]) -> Path | None:
    """The folder of CIFAR-10's batches where runs need it, found or downloaded and checked.

    Raises UserError where it is not to be had, or a batch is larger than a training split.
    """
    if not runs:
        return None
    import data

    for run in runs:
        training_images = data.split_sizes(run.dataset, run.split, run.overfit_images)[0]
        if run.batch_size > training_images:
            raise UserError(
                f"BATCH_SIZE = {run.batch_size}: must be at most the {training_images:,} images of "
                "the training split (edit it at the top of the script)"
            )
        if run.network == "BatchNormNet" and 1 in (
            run.batch_size,
            training_images % run.batch_size,
        ):
            raise UserError(
                f"BATCH_SIZE = {run.batch_size}: leaves a last batch of one image, which batch "
                "normalisation cannot train on (edit it at the top of the script)"
            )
    return download.cifar10(HERE / "data") if runs[0].dataset == "cifar10" else None


def _train_once(
    todo: list[Run], store: Store, devices: list[str], folder: Path | None, weights: bool
) -> None:
    """Start the workers and follow them until none has anything left to claim."""
    if not todo:
        return
    places = len(devices) * distributed.size()
    at_once = places if devices[0] == "cpu" else f"all that fit on {places} GPUs"
    print(f"device   {device_name(devices[0])}, runs trained at once: {at_once}")
    print(f"data     {DATA_TITLES[todo[0].dataset]}{f' in {folder}' if folder else ''}", flush=True)
    context = multiprocessing.get_context("spawn")
    processes: dict[Connection, Any] = {}
    # started with Ctrl-C ignored, and left so: the parent alone answers it and ends the workers
    answer = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for number, place in enumerate(devices):
            receiver, sender = context.Pipe(duplex=False)
            if place == "cpu":
                batches = [[run] for run in todo]
            else:  # a share of its own, then those of workers that did not get to theirs
                shares = [todo[first :: len(devices)] for first in range(len(devices))]
                batches = shares[number:] + shares[:number]
            worker = context.Process(
                target=_work,
                args=(batches, weights, store, folder, place, sender),
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
    current: dict[Connection, set[Run]] = {pipe: set() for pipe in processes}
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
                    died.append(_how_it_died(worker, current[pipe]))
                continue
            if kind == "error":
                raise UserError(words[0])
            if kind == "say":
                progress.say(words[0])
            else:
                run, _, finished = words
                (current[pipe].discard if finished else current[pipe].add)(run)
                if distributed.rank() == 0:  # of the first process's share, for all
                    progress.update(*words)
    if died:
        raise UserError(
            f"{'; '.join(died)}; the runs of the other processes are kept: start again, without "
            "--fresh, to go on"
        )


def _how_it_died(worker: Any, runs: set[Run]) -> str:
    code = worker.exitcode
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    labels = [run.label for run in runs] or ["nothing"]
    doing = f"while training {labels[0] if len(labels) == 1 else f'{len(labels)} runs'}"
    memory = " (often too little memory)" if how == "signal SIGKILL" else ""
    return f"worker process {worker.pid} died {doing}, {how}{memory}"


class Progress:
    """One bar for the sweep, or a plain line now and then where there is no terminal."""

    def __init__(self, runs: Sequence[Run]) -> None:
        import data

        self.done: dict[Run, float] = dict.fromkeys(runs, 0.0)  # epochs
        self.sizes = {
            run: data.split_sizes(run.dataset, run.split, run.overfit_images) for run in runs
        }
        self.started: set[Run] = set()
        self.running: set[Run] = set()
        self.images = 0.0  # trained on by this sweep
        self.steps = 0.0  # likewise
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
            self.steps += step * self.sizes[run][0] / run.batch_size
        else:  # what a checkpoint brings is no work of this sweep
            self.started.add(run)
            self.bar.initial += step
        self.running.add(run)
        if finished:  # a run that diverged leaves epochs out
            self.bar.total -= run.epochs - done
            self.running.remove(run)
        rate = self.images / max(now - self.first_step, 1e-9)
        self.bar.set_postfix_str(
            f"{rate:,.0f} images/s, {max(1, len(self.running))} at once, "
            f"epoch {max(1, math.ceil(done))}/{run.epochs} of {run.label}",
            refresh=False,
        )
        self.bar.n = min(sum(self.done.values()), self.bar.total)
        if self.terminal:
            self.bar.refresh()
        if not self.estimated and self.images and now - self.first_step >= ESTIMATE_SECONDS:
            self.estimated = True
            self.say(self.estimate(now - self.first_step))
        elif not self.terminal and now >= self.next_line and self.estimated:
            self.next_line = now + PLAIN_LINE_SECONDS
            self.say(str(self.bar))

    def estimate(self, seconds: float) -> str:
        """The time left, in words, from what the first seconds brought.

        It is counted in steps, as a small one hardly costs less than a large one. Validation, a
        forward pass, costs a third of training.
        """
        steps = 0.0
        for run, done in self.done.items():
            train, val = self.sizes[run]
            steps += (run.epochs - done) * (train + val / 3) / run.batch_size
        minutes = steps / self.steps * seconds / 60
        if minutes < 2:
            time_left = f"about {60 * minutes:.0f} seconds"
        elif minutes < 90:
            time_left = f"about {minutes:.0f} minutes"
        else:
            time_left = f"about {minutes / 60:.1f} hours"
        return (
            f"time     {time_left}, at {self.images / seconds:,.0f} images/s over the first steps; "
            "Ctrl-C keeps what is done"
        )

    def say(self, line: str) -> None:
        """A line of its own, above the bar where there is one."""
        if self.terminal:
            tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.bar is None:
            return
        if not self.terminal:
            self.say(str(self.bar))
        self.bar.close()


def _work(
    batches: list[list[Run]],
    weights: bool,
    store: Store,
    folder: Path | None,
    device: str,
    pipe: Connection,
) -> None:
    """A worker process: train what can be claimed of each batch, and report through the pipe."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    import data

    if device == "cpu":
        import train as training
    else:
        import engine as training

        torch.cuda.set_device(device)
    try:
        if code_fingerprint() != store.code:
            raise UserError("the code was edited while the sweep started: start it again")
        store.say = lambda line: pipe.send(("say", line))
        environment(device)  # asks git now, as the code is that of now
        dataset = data.load(batches[0][0].dataset, folder).to(device)
        reporter = _Reporter(pipe.send)
        for batch in batches:
            with ExitStack() as claims:
                claimed = [run for run in batch if claims.enter_context(store.claim(run))]
                training.train(
                    [run for run in claimed if not store.is_finished(run, weights)],
                    dataset,
                    store,
                    reporter,
                )
                reporter.finish()
    except UserError as error:
        pipe.send(("error", str(error)))


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


class _Reporter:
    """Passes on at most one report on a run every REPORT_SECONDS, and the first and last."""

    def __init__(self, send: Callable[[tuple], None]) -> None:
        self.send = send
        self.sent: dict[Run, float] = {}  # when
        self.last: dict[Run, float] = {}  # how many epochs were done

    def __call__(self, run: Run, done: float) -> None:
        self.last[run] = done
        if time.monotonic() - self.sent.get(run, -math.inf) >= REPORT_SECONDS:
            self.sent[run] = time.monotonic()
            self.send(("progress", run, done, False))

    def finish(self) -> None:
        for run, done in self.last.items():
            self.send(("progress", run, done, True))
        self.sent, self.last = {}, {}
