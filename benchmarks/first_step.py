"""Experiment 1.1 from its start to its first training step, for throughput.py to time.

    python benchmarks/first_step.py FOLDER DEVICE

Everything goes to FOLDER. As soon as a step has been taken, a file named first_step appears there,
and training ends.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import errors  # noqa: E402
import exp1_lr  # noqa: E402
import sweep  # noqa: E402
from errors import UserError  # noqa: E402
from store import Store  # noqa: E402


def announce(folder: Path) -> None:
    """Let this process end with its first step, by train.py or engine.py."""
    import torch

    import engine
    import train

    train_epoch, together_step = train.train_epoch, engine.Together._step

    def done() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        (folder / "first_step").touch()
        raise UserError("the first training step is taken")

    def epoch_of_one_step(training, optimizer, report):
        train_epoch(training, optimizer, lambda *_: done())

    def last_step(self, batch_size):
        together_step(self, batch_size)
        done()

    train.train_epoch, engine.Together._step = epoch_of_one_step, last_step


def main() -> None:
    runs = [run for group in exp1_lr.runs().values() for run in group]
    sweep.train(runs, Store(Path(sys.argv[1]), "exp1_lr"), sys.argv[2])


if __name__ == "__main__":
    errors.run(main)
elif __name__ == "__mp_main__":  # a worker process of the sweep
    announce(Path(sys.argv[1]))
