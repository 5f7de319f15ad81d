"""How fast is training? Plain loops and this project side by side, in one run, on real CIFAR-10.

    python -m benchmarks.throughput                 # on the GPU if there is one, else on all cores
    python -m benchmarks.throughput --device cpu    # about ten minutes, on an idle machine

Counts the images of training steps, without validation, checkpoints and start-up: BaselineNet in
batches of 64 at a learning rate of 0.05. Every contestant trains in fresh processes of its own and
is timed after a warm-up. They take turns, because other work on a machine comes and goes. Writes
throughput_<cpu|cuda>.json and .png beside this file, and prints what the README says of them.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from tabulate import tabulate
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import data
import models
import train
from data import Dataset
from lab import download, engine, figures, provenance, sweep
from lab.checks import UserError
from lab.figures import canvas
from lab.records import Recorder
from lab.stacked import Together, capture
from lab.store import Store, write
from train import Run, Training

SECONDS = 20.0  # that a contestant is timed for in each turn
TURNS = 3
BATCH_SIZE = 64  # images
LEARNING_RATE = 0.05
PLAIN_LOOPS = 5  # at once: one for each seed
LOADING_WORKERS = {"cpu": 2, "cuda": 4}
TOGETHER = (1, 5, 25, 100, 250)  # runs at once on a GPU
STREAMS = 8  # that work on the runs of one graph
MATRIX_SIDE, CHANNELS = 8192, 256  # of what only multiplies and adds; larger ones are no faster
STEPS_BETWEEN_LOOKS = 20  # at the clock, which a GPU must come to rest for; also the warm-up
BUSY_SHARE = 0.5  # of all cores at work before the start: then others disturb what is measured
PATIENCE_SECONDS = 300.0  # for what should take seconds: loading, warm-up

FIRST_PLAIN = "plain loop"  # what all others are compared with
LARGE_PRODUCTS = "large products"

Result = dict[str, Any]  # the content of throughput_<device>.json


class TimeIsUp(Exception):
    """A contestant has trained for as long as it should."""


class Stopwatch:
    """Adds up a loop's work from the end of its warm-up until its time is up.

    The loop calls done() after every step and never ends by itself. All that share a barrier start
    their clocks at once.
    """

    def __init__(self, device: torch.device, seconds: float, barrier: Barrier) -> None:
        self.device, self.seconds, self.barrier = device, seconds, barrier
        self.steps = 0
        self.work = 0
        self.started: float | None = None
        self.rate = 0.0  # work a second

    def done(self, work: int) -> None:
        """Note a step's work, in images or FLOP. Raises TimeIsUp."""
        self.steps += 1
        self.work += work
        if self.steps % STEPS_BETWEEN_LOOKS:
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        if self.started is None:
            self.barrier.wait(PATIENCE_SECONDS)
            self.work, self.started = 0, time.perf_counter()
            return
        elapsed = time.perf_counter() - self.started
        self.rate = self.work / elapsed
        if elapsed >= self.seconds:
            raise TimeIsUp


Loop = Callable[[Stopwatch, Path], None]  # trains on the images in a folder until TimeIsUp


def plain_network() -> nn.Module:
    """BaselineNet as a textbook writes it."""
    layers: list[nn.Module] = []
    for channels, filters in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 10))


def plain_loop(stopwatch: Stopwatch, folder: Path, workers: int, threads: int = 0) -> None:
    """What a textbook does, in PyTorch's own settings, or with so many threads."""
    if threads:
        torch.set_num_threads(threads)
    from torchvision import transforms  # takes two seconds, which the other contestants need not
    from torchvision.datasets import CIFAR10

    device = stopwatch.device
    steps = [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
    loader = torch.utils.data.DataLoader(
        CIFAR10(folder, transform=transforms.Compose(steps)),
        batch_size=BATCH_SIZE,
        shuffle=True,
        num_workers=workers,
        pin_memory=workers > 0 and device.type == "cuda",
    )
    network = plain_network().to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    running_loss = 0.0
    while True:
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = criterion(network(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            stopwatch.done(len(images))


def a_run(seed: int) -> Run:
    settings = {"learning_rate": LEARNING_RATE, "batch_size": BATCH_SIZE, "split": "standard"}
    return Run(network="BaselineNet", seed=seed, epochs=1, **settings)


def resident(stopwatch: Stopwatch, folder: Path) -> Dataset:
    """The images, on the device that trains."""
    train.use_full_precision()
    return data.cifar10(folder).to(stopwatch.device)


def one_run(stopwatch: Stopwatch, folder: Path) -> None:
    """train.py's loop, as train.train() sets it up."""
    if stopwatch.device.type == "cpu":
        torch.set_num_threads(1)
    training = Training(a_run(1), resident(stopwatch, folder))
    network = training.network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    done = 0.0  # epochs

    def count(epochs_done: float) -> None:
        nonlocal done
        images = round((epochs_done - done) * training.images_per_epoch)
        done = epochs_done % 1
        stopwatch.done(images)

    while True:
        train.train_epoch(training, optimizer, None, count)


def runs_together(stopwatch: Stopwatch, folder: Path, runs: int) -> None:
    """The engine's steps. They go over the first draws again and again, which costs the same."""
    dataset = resident(stopwatch, folder)
    store = Store(folder / "none")  # holds no checkpoint, and no epoch is closed
    recorders = [Recorder(a_run(seed), dataset, store) for seed in range(1, 1 + runs)]
    with ThreadPoolExecutor(1) as threads:
        together = Together(recorders, dataset, threads, captured=True)
        together.begin_epoch()
    step, steps = partial(together.step, BATCH_SIZE), together.batches.count(BATCH_SIZE)
    repeat(stopwatch, together.position, step, steps, runs)


def one_graph(stopwatch: Stopwatch, folder: Path, runs: int) -> None:
    """The simplest engine there could be: one CUDA graph of the ordinary steps of all runs.

    The steps are forked over several streams, so that a GPU works on several runs at a time.
    """
    dataset = resident(stopwatch, folder)
    trainings = [Training(a_run(seed), dataset) for seed in range(1, 1 + runs)]
    position = torch.zeros((), dtype=torch.int64, device=dataset.images.device)
    streams = [torch.cuda.Stream() for _ in range(STREAMS)]

    def steps() -> Tensor:
        now = torch.cuda.current_stream()
        for number, training in enumerate(trainings):
            stream = streams[number % STREAMS]
            stream.wait_stream(now)
            with torch.cuda.stream(stream):
                ordinary_step(training, position)
        for stream in streams[:runs]:
            now.wait_stream(stream)
        return position.add_(BATCH_SIZE)

    weights = [p for training in trainings for p in training.network.parameters()]
    step = capture(steps, [position, *weights])
    repeat(stopwatch, position, step, trainings[0].images_per_epoch // BATCH_SIZE, runs)


def ordinary_step(training: Training, position: Tensor) -> None:
    """A step of one run on its next images, which waits for nothing."""
    network, dataset = training.network, training.dataset
    # images of the split in their own order, as the order costs nothing
    batch = training.train_indices[position + torch.arange(BATCH_SIZE, device=position.device)]
    loss = F.cross_entropy(network(data.normalise(dataset.images[batch])), dataset.labels[batch])
    weights = list(network.parameters())
    gradients = torch.autograd.grad(loss, weights)
    with torch.no_grad():
        torch._foreach_add_(weights, gradients, alpha=-LEARNING_RATE)


def repeat(
    stopwatch: Stopwatch, position: Tensor, step: Callable[[], Tensor], steps: int, runs: int
) -> None:
    """Take a step over and over, each on the next images of an epoch of so many steps."""
    while True:
        position.zero_()
        for _ in range(steps):
            step()
            stopwatch.done(runs * BATCH_SIZE)


def large_products(stopwatch: Stopwatch, folder: Path) -> None:
    """What the device can do in float32, on a CPU with all cores: it only multiplies and adds.

    On a GPU it multiplies matrices. On a CPU it convolves, which is the same arithmetic, as MKL
    leaves half of the vector width of AMD's processors unused and oneDNN does not.
    """
    device = stopwatch.device
    train.use_full_precision()
    if device.type == "cuda":
        a, b = torch.randn(2, MATRIX_SIDE, MATRIX_SIDE, device=device)
        product, flop = partial(torch.mm, a, b), 2 * MATRIX_SIDE**3
    else:
        images = torch.randn(16, CHANNELS, 32, 32).to(memory_format=torch.channels_last)
        weight = torch.randn(CHANNELS, CHANNELS, 3, 3).to(memory_format=torch.channels_last)
        product = partial(F.conv2d, images, weight, padding=1)
        flop = 2 * 16 * 32**2 * CHANNELS**2 * 9
    while True:
        product()
        stopwatch.done(flop)


class Contestant(NamedTuple):
    """What takes turns with the others: a loop that trains, in each of so many processes."""

    label: str
    loop: Loop
    processes: int = 1


def contestants(device: torch.device) -> list[Contestant]:
    """All that take turns; the first is what the others are compared with."""
    plain, workers = partial(plain_loop, workers=0), LOADING_WORKERS[device.type]
    loading = partial(plain_loop, workers=workers)
    entered = [
        Contestant(FIRST_PLAIN, plain),
        Contestant(f"plain loop, {workers} loading processes", loading),
        Contestant(f"{PLAIN_LOOPS} plain loops at once", plain, PLAIN_LOOPS),
        Contestant("train.py, 1 run", one_run),
    ]
    if device.type == "cpu":
        cores = len(sweep.worker_devices("cpu", sys.maxsize))
        each = partial(plain, threads=1)  # the best that several plain loops can do
        entered.insert(3, Contestant(f"{cores} plain loops, one thread each", each, cores))
        # what a sweep does there
        entered.append(Contestant(f"train.py, {cores} runs on {cores} cores", one_run, cores))
    else:
        for label, loop in (("engine", runs_together), ("one graph", one_graph)):
            for n in TOGETHER:
                name = f"{label}, {n} run{'s' if n > 1 else ''}"
                entered.append(Contestant(name, partial(loop, runs=n)))
    return [*entered, Contestant(LARGE_PRODUCTS, large_products)]


def race(
    contestant: Contestant, device: torch.device, seconds: float, folder: Path
) -> float | None:
    """One turn: images (or FLOP) a second of all its processes; None where memory is too short.

    Raises UserError where a process fails or hangs.
    """
    context, count = multiprocessing.get_context("spawn"), contestant.processes
    pool = ProcessPoolExecutor(count, context)
    try:
        stopwatch = Stopwatch(device, seconds, context.Manager().Barrier(count))
        futures = [pool.submit(_work, contestant.loop, stopwatch, folder) for _ in range(count)]
        done, waiting = wait(futures, PATIENCE_SECONDS + 2 * seconds, FIRST_EXCEPTION)
    finally:
        for process in multiprocessing.active_children():
            process.kill()
        pool.shutdown()
    if failed := [error for future in done if (error := future.exception())]:
        raise UserError(f"{contestant.label}: one of its processes failed: {failed[0]}")
    if waiting:
        raise UserError(f"{contestant.label}: nothing heard for {PATIENCE_SECONDS:g} s")
    rates = [future.result() for future in futures]
    return None if None in rates else sum(rates)


def _work(loop: Loop, stopwatch: Stopwatch, folder: Path) -> float | None:
    """A process of a contestant: its rate, or None where there is too little memory."""
    try:
        loop(stopwatch, folder)
    except TimeIsUp:
        return stopwatch.rate
    except RuntimeError as error:
        if not engine.is_out_of_memory(error):
            raise
        return None


def flop_an_image() -> int:
    """Floating-point operations of a step for each image, forward and backward.

    A multiplication and an addition for each weight and place: twice
    32²·16·27 + 16²·32·144 + 8²·64·288 + 1024·64 + 64·10 forward. Backward costs the same for the
    gradients of the weights and again for those of the activations, which conv1 needs none of.
    """
    network = models.BaselineNet()
    with FlopCounterMode(display=False) as counter:
        logits = network(torch.zeros(1, 3, 32, 32))
        F.cross_entropy(logits, torch.zeros(1, dtype=torch.int64)).backward()
    return counter.get_total_flops()


def measure(device: torch.device, seconds: float) -> Result:
    """Everything, by turns."""
    folder = download.cifar10()
    load_average = os.getloadavg()[0]  # of the minute before
    rates: dict[str, list[float]] = {}
    for turn in range(1, 1 + TURNS):
        for contestant in contestants(device):
            label = contestant.label
            rate = race(contestant, device, seconds, folder)
            if rate is None:
                said = "too little GPU memory"
            else:
                rates.setdefault(label, []).append(rate)
                said = f"{rate:,.0f} {'FLOP' if label == LARGE_PRODUCTS else 'images'}/s"
            print(f"turn {turn} of {TURNS}: {label}: {said}", flush=True)
    about = {
        "type": device.type,
        "cores": len(sweep.worker_devices("cpu", sys.maxsize)),
        "load_average_before": load_average,
        "date": datetime.date.today().isoformat(),
        "seconds": seconds,
        "turns": TURNS,
    }
    return provenance.environment(device.type) | about | summarise(rates)


def summarise(rates: dict[str, list[float]]) -> Result:
    """The median of every contestant's turns, their range, and what follows from them."""
    spreads = {
        label: {
            "median": statistics.median(turns),
            "lowest": min(turns),
            "highest": max(turns),
            "turns": turns,
        }
        for label, turns in rates.items()
    }
    flop, product = flop_an_image(), spreads.pop(LARGE_PRODUCTS)
    rows = [
        {
            "label": label,
            "images_a_second": images,
            "times_the_plain_loop": images["median"] / spreads[FIRST_PLAIN]["median"],
            "fraction_of_large_products": images["median"] * flop / product["median"],
        }
        for label, images in spreads.items()
    ]
    return {"flop_an_image": flop, "large_products_flop_a_second": product, "contestants": rows}


def report(result: Result) -> str:
    """The table and what a reader must know beside it, as they stand in the README."""
    rows = []
    for row in result["contestants"]:
        images = row["images_a_second"]
        cells = {
            "what trains": row["label"],
            "images/s": f"{images['median']:,.0f}",
            "lowest–highest": f"{images['lowest']:,.0f}–{images['highest']:,.0f}",
            "× plain loop": f"{row['times_the_plain_loop']:.1f}",
            "% of large products": f"{100 * row['fraction_of_large_products']:.1f}",
        }
        rows.append(cells)
    table = tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
    load, cores = result["load_average_before"], result["cores"]
    megaflop = result["flop_an_image"] / 1e6
    gigaflop = result["large_products_flop_a_second"]["median"] / 1e9
    words = [
        "Training steps alone, without validation and start-up: BaselineNet, batches of "
        f"{BATCH_SIZE}, real CIFAR-10.",
        f"Medians of {result['turns']} measurements of {result['seconds']:g} s each.",
        f"{result['device']}, {cores} cores, load average {load:.1f} before, torch "
        f"{result['torch']}, {result['date']}.",
        f"An image takes {megaflop:.1f} MFLOP forward and backward; in large "
        f"float32 products the device does {gigaflop:,.0f} GFLOP/s. Where several loops train at "
        "once, the number is their sum.",
    ]
    if load > BUSY_SHARE * cores:
        words.insert(0, "The machine was busy with other work: these numbers mean little.")
    return f"{table}\n\n{' '.join(words)}"


def figure(result: Result) -> Figure:
    """Images a second of every contestant: the median as a bar, its turns as dots."""
    rows = result["contestants"]
    drawing = Figure(figsize=(8, 1 + 0.45 * len(rows)), layout="constrained")
    drawing.suptitle(
        f"Training steps on {result['device']}, {result['cores']} cores, torch {result['torch']}"
    )
    axes = drawing.subplots()
    for place, row in enumerate(rows):
        images, plain = row["images_a_second"], FIRST_PLAIN in row["label"]
        colour = canvas.TRAINING_COLOUR if plain else canvas.COLOURS[0]
        axes.barh(place, images["median"], color=colour, alpha=0.8)
        axes.plot(images["turns"], [place] * len(images["turns"]), "k.", markersize=4)
        words = f"  {images['median']:,.0f}  ({row['times_the_plain_loop']:.1f}×)"
        axes.text(images["highest"], place, words, va="center")
    axes.set_xlim(0, 1.45 * axes.dataLim.x1)  # room for the words
    axes.set_yticks(range(len(rows)), [row["label"] for row in rows])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("images/s: median (each dot is one measurement; × plain loop)")
    return drawing


def save(result: Result, folder: Path) -> list[Path]:
    """Write the JSON and the figure; their paths."""
    name = f"throughput_{result['type']}"
    path = folder / f"{name}.json"
    write(path, json.dumps(result, indent=1).encode())
    return [path, *figures.save({name: partial(figure, result)}, folder)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if it is there")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"of every turn (default: {SECONDS:g})"
    )
    options = parser.parse_args()
    try:
        device = torch.device(sweep.worker_devices(options.device, 1)[0])
        result = measure(device, options.seconds)
    except UserError as error:
        sys.exit(str(error))
    print(f"\n{report(result)}\n")
    for path in save(result, Path(__file__).parent):
        print(f"written  {path}")


if __name__ == "__main__":
    main()
