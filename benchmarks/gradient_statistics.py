"""What do gradient statistics cost, as a share of the training time?

    python benchmarks/gradient_statistics.py    # writes benchmarks/gradient_statistics.json

Trains each network with and without them, by turns, on the same images, and compares the fastest
epoch of each: what disturbs a measurement only ever makes it longer. On the CPU, where training has
one thread, processor time is compared, which other work on the machine disturbs least.
"""

import json
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import data  # noqa: E402
import train  # noqa: E402
from runs import NETWORKS, Run  # noqa: E402
from store import Store, device_name  # noqa: E402

IMAGES = 6_400  # 90 steps an epoch, as a tenth validates; their content does not matter for time
WARM_UP_IMAGES = 640
TURNS = 7


def seconds_an_epoch(network: str, watched: bool, dataset: data.Dataset) -> float:
    """The time of one epoch, after a short one that warms up."""
    run = Run(
        network=network,
        seed=1,
        learning_rate=0.05,
        epochs=2,
        batch_size=64,
        split="standard",
        gradient_statistics=watched,
    )
    # no checkpoint lies there, and none is written, as no epoch is closed
    training = train.Training(run, dataset, Store(ROOT / "benchmarks", "none"))
    model = training.network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), run.learning_rate)
    clock = time.process_time if training.device.type == "cpu" else time.perf_counter
    indices = training.train_indices
    for images in (WARM_UP_IMAGES, IMAGES):
        training.train_indices = indices[:images]
        started = clock()
        train.train_epoch(training, optimizer, lambda *_: None)
        seconds = clock() - started  # an epoch ends with a transfer, so it is complete
    return seconds


def main() -> None:
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = torch.randint(0, 256, (IMAGES, 32, 32, 3), dtype=torch.uint8)
    labels = torch.randint(0, 10, (IMAGES,))
    dataset = data.Dataset(images, labels, images[:1], labels[:1], ()).to(device)
    result = {"device": device_name(device), "torch": torch.__version__, "ratio": {}}
    for network in NETWORKS:
        plain, watched = (
            min(times)
            for times in zip(
                *(
                    [seconds_an_epoch(network, watched, dataset) for watched in (False, True)]
                    for _ in range(TURNS)
                ),
                strict=True,
            )
        )
        result["ratio"][network] = watched / plain
        print(f"{network}: {100 * (watched / plain - 1):.1f}% more time with gradient statistics")
    path = ROOT / "benchmarks" / "gradient_statistics.json"
    path.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
