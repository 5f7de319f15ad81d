"""How fast is training? Plain loops and this project side by side, in one run, on real CIFAR-10.

    python benchmarks/throughput.py                 # on the GPU if there is one, else on all cores
    python benchmarks/throughput.py --device cpu    # about ten minutes, if it is idle

Counts the images of training steps, without validation, checkpoints and start-up: BaselineNet in
batches of 64 at a learning rate of 0.05. Every contestant trains in fresh processes of its own, is
timed after a warm-up, and they take turns, as what disturbs a machine comes and goes. Writes
throughput_<cpu|cuda>.json and .png beside this file, and prints what the README says of them.
"""

import argparse
import datetime
import io
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import matplotlib
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tabulate import tabulate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import canvas  # noqa: E402
import data  # noqa: E402
import download  # noqa: E402
import engine  # noqa: E402
import errors  # noqa: E402
import models  # noqa: E402
import sweep  # noqa: E402
import train  # noqa: E402
from errors import Interrupted, UserError  # noqa: E402
from runs import Run  # noqa: E402
from store import Store, environment, write  # noqa: E402

SECONDS = 20.0  # that a contestant is timed for in each turn
TURNS = 3
BATCH_SIZE = 64  # images
LEARNING_RATE = 0.05
PLAIN_LOOPS = 5  # at once: one a seed
LOADING_WORKERS = {"cpu": 2, "cuda": 4}
TOGETHER = (1, 5, 25, 100, 250)  # runs at once on a GPU
MATRIX_SIDE, CHANNELS = 8192, 256  # of what only multiplies and adds; larger ones are no faster
STEPS_BETWEEN_LOOKS = 20  # at the clock, which a GPU must come to rest for; also the warm-up
BUSY_SHARE = 0.5  # of all cores at work before the start: then others disturb what is measured
PATIENCE_SECONDS = 300.0  # for what should take seconds: loading, warm-up, start-up

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
        self.bytes_before = 0  # of GPU memory that do not grow with the number of runs

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
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def plain_loop(stopwatch: Stopwatch, folder: Path, workers: int) -> None:
    """What a textbook does, with PyTorch's own settings throughout."""
    from torchvision import transforms
    from torchvision.datasets import CIFAR10

    device = stopwatch.device
    steps = [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
    loader = torch.utils.data.DataLoader(
        CIFAR10(folder.parent, transform=transforms.Compose(steps)),
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


def begin(stopwatch: Stopwatch, folder: Path, runs: int) -> list[train.Training]:
    """Runs before their first step, on images that rest on the device."""
    train.use_full_precision()
    dataset = data.load("cifar10", folder).to(stopwatch.device)
    stopwatch.bytes_before = torch.cuda.memory_allocated()
    store = Store(ROOT / "benchmarks", "none")  # holds no checkpoint, and no epoch is closed
    settings = {"learning_rate": LEARNING_RATE, "batch_size": BATCH_SIZE, "split": "standard"}
    return [
        train.Training(Run(network="BaselineNet", seed=seed, epochs=1, **settings), dataset, store)
        for seed in range(1, 1 + runs)
    ]


def one_run(stopwatch: Stopwatch, folder: Path) -> None:
    """train.py's loop, as train.train_run() sets it up."""
    if stopwatch.device.type == "cpu":
        torch.set_num_threads(1)
    (training,) = begin(stopwatch, folder, 1)
    network = training.network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    done = 0.0  # epochs

    def count(run: Run, epochs_done: float) -> None:
        nonlocal done
        images = round((epochs_done - done) * len(training.train_indices))
        done = epochs_done % 1
        stopwatch.done(images)

    while True:
        train.train_epoch(training, optimizer, count)


def runs_together(stopwatch: Stopwatch, folder: Path, runs: int) -> None:
    """engine.py's steps. They go over the first draws again and again, which costs the same."""
    trainings = begin(stopwatch, folder, runs)
    together = engine.Together(trainings, trainings[0].dataset)
    together.begin_epoch()
    while True:
        together.position.zero_()
        for _ in range(len(trainings[0].train_indices) // BATCH_SIZE):
            together._step(BATCH_SIZE)
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


@dataclass(frozen=True)
class Contestant:
    label: str
    loop: Loop
    processes: int = 1
    runs: int = 1  # that take their steps together, in each process


def contestants(device: torch.device) -> list[Contestant]:
    """All that take turns; the first is what the others are compared with."""
    plain, workers = partial(plain_loop, workers=0), LOADING_WORKERS[device.type]
    entered = [
        Contestant(FIRST_PLAIN, plain),
        Contestant(
            f"plain loop, {workers} loading processes", partial(plain_loop, workers=workers)
        ),
        Contestant(f"{PLAIN_LOOPS} plain loops at once", plain, processes=PLAIN_LOOPS),
        Contestant("train.py, 1 run", one_run),
    ]
    if device.type == "cpu":  # what sweep.py does there
        cores = len(sweep.worker_devices("cpu", sys.maxsize))
        label = f"train.py, {cores} runs on {cores} cores"
        entered.append(Contestant(label, one_run, processes=cores))
    else:
        entered += [
            Contestant(f"engine.py, {n} run{'s' * (n > 1)}", partial(runs_together, runs=n), runs=n)
            for n in TOGETHER
        ]
    return [*entered, Contestant(LARGE_PRODUCTS, large_products)]


def race(
    contestant: Contestant,
    device: torch.device,
    seconds: float,
    folder: Path,
    patience: float = PATIENCE_SECONDS,
) -> tuple[float, int] | None:
    """One turn: images (or FLOP) a second of all its processes, and GPU bytes for each run.

    None where the GPU has too little memory. Raises UserError where a process fails or hangs.
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(contestant.processes)
    waiting: dict[Connection, Any] = {}
    workers, answers = [], []
    deadline = time.monotonic() + patience + 2 * seconds
    try:
        for _ in range(contestant.processes):
            receiver, sender = context.Pipe(duplex=False)
            worker = context.Process(
                target=_work, args=(contestant.loop, device, seconds, folder, barrier, sender)
            )
            worker.start()
            workers.append(worker)
            sender.close()
            waiting[receiver] = worker
        while waiting:
            ready = wait(list(waiting), max(0.0, deadline - time.monotonic()))
            if not ready:
                raise UserError(f"{contestant.label}: nothing heard for {patience:.0f} s")
            for pipe in ready:
                try:
                    answer = pipe.recv()
                except EOFError:
                    raise UserError(f"{contestant.label}: one of its processes failed") from None
                if answer is None:
                    return None
                answers.append(answer)
                del waiting[pipe]
        for worker in workers:
            worker.join(patience)  # its loading processes end with it
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    rates, peaks = zip(*answers, strict=True)
    return sum(rates), max(peaks) // contestant.runs


def _work(
    loop: Loop,
    device: torch.device,
    seconds: float,
    folder: Path,
    barrier: Barrier,
    pipe: Connection,
) -> None:
    """A process of a contestant."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C
    stopwatch = Stopwatch(device, seconds, barrier)
    try:
        loop(stopwatch, folder)
    except TimeIsUp:
        used = torch.cuda.max_memory_allocated() - stopwatch.bytes_before
        pipe.send((stopwatch.rate, max(0, used)))
    except torch.OutOfMemoryError:
        pipe.send(None)


def start_up_seconds(device: torch.device) -> float:
    """From the command of experiment 1.1 to the end of its first training step."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        command = [sys.executable, str(ROOT / "benchmarks" / "first_step.py"), name, device.type]
        with (folder / "output").open("wb") as output:
            started = time.perf_counter()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                while True:
                    over = process.poll() is not None  # asked first, as it ends with the step
                    seconds = time.perf_counter() - started
                    if (folder / "first_step").exists():
                        return seconds
                    if over or seconds > PATIENCE_SECONDS:
                        said = (folder / "output").read_text().strip().splitlines() or ["nothing"]
                        raise UserError(f"no first step after {seconds:.0f} s: {said[-1]}")
                    time.sleep(0.005)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # its workers, too
                process.wait()


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


def measure(device: torch.device, seconds: float, turns: int) -> Result:
    """Everything, by turns."""
    folder = download.cifar10(ROOT / "data")
    load_average = os.getloadavg()[0]  # of the minute before
    start_up = [start_up_seconds(device) for _ in range(turns)]
    print(f"start-up: first training step after {statistics.median(start_up):.1f} s")
    entered = contestants(device)
    rates: dict[str, list[float]] = {}
    memory: dict[str, int] = {}
    for turn in range(1, 1 + turns):
        for contestant in entered:
            label = contestant.label
            outcome = race(contestant, device, seconds, folder)
            if outcome is None:
                print(f"turn {turn} of {turns}: {label}: too little GPU memory")
                continue
            rates.setdefault(label, []).append(outcome[0])
            memory[label] = outcome[1]
            unit = "FLOP" if label == LARGE_PRODUCTS else "images"
            print(f"turn {turn} of {turns}: {label}: {outcome[0]:,.0f} {unit}/s", flush=True)
    about = environment(device.type) | {
        "type": device.type,
        "cores": len(sweep.worker_devices("cpu", sys.maxsize)),
        "load_average_before": load_average,
        "date": datetime.date.today().isoformat(),
        "seconds": seconds,
        "turns": turns,
    }
    return about | summarise(entered, rates, memory if device.type == "cuda" else {}, start_up)


def summarise(
    entered: Sequence[Contestant],
    rates: dict[str, list[float]],
    memory: dict[str, int],
    start_up: list[float],
) -> Result:
    """What was measured, and what follows from it; a contestant without rates is left out."""
    flop, product = flop_an_image(), spread(rates[LARGE_PRODUCTS])
    plain = statistics.median(rates[FIRST_PLAIN])
    rows = []
    for contestant in entered:
        if contestant.label == LARGE_PRODUCTS or contestant.label not in rates:
            continue
        images = spread(rates[contestant.label])
        step = contestant.processes * contestant.runs * BATCH_SIZE  # images of a step of all
        row = {
            "label": contestant.label,
            "processes": contestant.processes,
            "runs_together": contestant.runs,
            "images_a_second": images,
            "times_the_plain_loop": images["median"] / plain,
            "fraction_of_large_products": images["median"] * flop / product["median"],
            "seconds_a_step": step / images["median"],
        }
        if contestant.label in memory:
            row["bytes_a_run"] = memory[contestant.label]
        rows.append(row)
    return {
        "flop_an_image": flop,
        "large_products_flop_a_second": product,
        "start_up_seconds": spread(start_up),
        "contestants": rows,
    }


def spread(values: list[float]) -> dict[str, Any]:
    """The median of all turns, their range, and themselves."""
    return {
        "median": statistics.median(values),
        "lowest": min(values),
        "highest": max(values),
        "turns": values,
    }


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
        if "bytes_a_run" in row:
            cells["ms a step"] = f"{1e3 * row['seconds_a_step']:.2f}"
            cells["MiB a run"] = f"{row['bytes_a_run'] / 2**20:.1f}"
        rows.append(cells)
    table = tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
    load, cores = result["load_average_before"], result["cores"]
    busy = "The machine was busy with other work, so that these numbers mean little. "
    return (
        f"{table}\n\n{busy * (load > BUSY_SHARE * cores)}"
        "Training steps alone, without validation and start-up: BaselineNet, batches of "
        f"{BATCH_SIZE}, real CIFAR-10. Medians of {result['turns']} turns of "
        f"{result['seconds']:g} s. {result['device']}, {cores} cores, load average {load:.1f} "
        f"before, torch {result['torch']}, {result['date']}. An image takes "
        f"{result['flop_an_image'] / 1e6:.1f} MFLOP forward and backward; in large float32 "
        "products the device does "
        f"{in_words(result['large_products_flop_a_second'], 1e9, 'GFLOP/s')}. Experiment 1.1 has "
        "taken its first training step "
        f"{in_words(result['start_up_seconds'], 1.0, 's')} after its command."
    )


def in_words(values: dict[str, Any], unit: float, symbol: str) -> str:
    """A median with its range: "5.2 s (4.9–5.5)"."""
    digits = 1 if values["median"] < 100 * unit else 0
    median, lowest, highest = (
        f"{values[key] / unit:,.{digits}f}" for key in ("median", "lowest", "highest")
    )
    return f"{median} {symbol} ({lowest}–{highest})"


def figure(result: Result) -> Figure:
    """Images a second of every contestant; on a GPU also what more runs at once bring and cost."""
    together = [row for row in result["contestants"] if row["label"].startswith("engine.py")]
    drawing = Figure(figsize=(12 if together else 7, 4), layout="constrained")
    drawing.suptitle(
        f"Training steps on {result['device']}, {result['cores']} cores, torch {result['torch']}"
    )
    grid = drawing.add_gridspec(2, 2 if together else 1)
    bars(drawing.add_subplot(grid[:, 0]), result)
    if together:
        runs = [row["runs_together"] for row in together]
        for place, (label, values) in enumerate(
            {
                "million images/s": [row["images_a_second"]["median"] / 1e6 for row in together],
                "ms a step of all runs": [1e3 * row["seconds_a_step"] for row in together],
            }.items()
        ):
            axes = drawing.add_subplot(grid[place, 1])
            colour, marker = canvas.PALETTE[1]
            axes.loglog(runs, values, color=colour, marker=marker)
            for at in zip(runs, values, strict=True):
                axes.annotate(f"{at[1]:.2f}", at, (0, 6), textcoords="offset points", ha="center")
            axes.margins(0.1, 0.3)
            axes.set_xticks(runs, [str(n) for n in runs])
            axes.set_xticks([], minor=True)
            axes.set_ylabel(label)
        axes.set_xlabel("runs trained at once by engine.py")
    return drawing


def bars(axes: Axes, result: Result) -> None:
    """The median of every contestant as a bar, its turns as dots, grey for plain loops."""
    rows = result["contestants"]
    for place, row in enumerate(rows):
        images, label = row["images_a_second"], row["label"]
        colour = canvas.PALETTE[label.startswith("engine.py")][0]
        colour = canvas.TRAINING_COLOUR if FIRST_PLAIN in label else colour
        axes.barh(place, images["median"], color=colour, alpha=0.8)
        axes.plot(images["turns"], [place] * len(images["turns"]), "k.", markersize=4)
        axes.annotate(
            f"{images['median']:,.0f}  ({row['times_the_plain_loop']:.1f}×)",
            (images["highest"], place),
            (6, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_xscale("log")
    lowest = min(row["images_a_second"]["lowest"] for row in rows)
    highest = max(row["images_a_second"]["highest"] for row in rows)
    # bars that start somewhere on the left, and room for what is written on the right
    axes.set_xlim(lowest / 3, highest * (highest / lowest) ** 0.6 * 3)
    axes.set_yticks(range(len(rows)), [row["label"] for row in rows])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("images/s, logarithmic: median, every turn (dots), ratio to the plain loop")


def save(result: Result, folder: Path) -> list[Path]:
    """Write the JSON and the figure; their paths."""
    path = folder / f"throughput_{result['type']}.json"
    write(path, json.dumps(result, indent=1).encode())
    content = io.BytesIO()
    with matplotlib.rc_context(canvas.STYLE):
        figure(result).savefig(content, format="png")
    write(path.with_suffix(".png"), content.getvalue())
    return [path, path.with_suffix(".png")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if it is there")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"of every turn (default: {SECONDS:g})"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        device = torch.device(sweep.worker_devices(options.device, 1)[0])
        result = measure(device, options.seconds, TURNS)
    except KeyboardInterrupt:
        raise Interrupted("stopped: nothing is written") from None
    print(f"\n{report(result)}\n")
    for path in save(result, ROOT / "benchmarks"):
        print(f"written  {path}")


if __name__ == "__main__":
    errors.run(main)
