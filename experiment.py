"""What every experiment script does around its own runs: options, checks, sweep and summary."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import summary as summaries
import sweep
from errors import UserError
from runs import Run, check
from store import HERE, Store

QUICK_EPOCHS = 10
QUICK_SEEDS = 2

Groups = dict[str, list[Run]]  # {label: one run a seed}


class Experiment:
    """One experiment from its constants to its summary.

    script is the script's path, description its docstring, and constants are those that stand at
    its top, by their names.

    Raises UserError where a constant makes no sense.
    """

    def __init__(self, script: str, description: str, **constants: Any) -> None:
        self.script = Path(script).name
        self.name = Path(script).stem
        self.options = parse_options(description)
        self.constants = {}
        for name, value in constants.items():
            try:
                self.constants[name] = check(name, value)
            except UserError as error:
                raise UserError(f"{error} (edit it at the top of {self.script})") from None
        self.root = HERE / "results"
        if self.options.quick:
            self.root /= "quick"
            for name, value in (
                ("EPOCHS", min(self.constants["EPOCHS"], QUICK_EPOCHS)),
                ("SEEDS", self.constants["SEEDS"][:QUICK_SEEDS]),
            ):
                self.constants[name] = value
        self.store = Store(self.root, self.name)
        self.folder = self.store.folder

    def train(self, make_groups: Callable[[], Groups]) -> dict[str, Any]:
        """Train what is not finished yet, and summarise exactly what the constants ask for."""
        groups = make_groups()
        if self.options.quick:
            groups = rehearsal(groups, self.constants["SEEDS"])
            print("REHEARSAL on handwritten digits: everything runs, nothing is a finding")
        runs = [run for group in groups.values() for run in group]
        if self.options.fresh:
            self.store.replace(runs)
        sweep.train(runs, self.store, self.options.device)
        records = {
            label: [self.store.load_result(run) for run in group] for label, group in groups.items()
        }
        return summaries.summarise(self.name, self.constants, records, self.options.quick)

    def report(self, summary: dict[str, Any], figures: list[Path]) -> None:
        """Keep the summary and the tables, and print the table, the best setting and the paths."""
        paths = summaries.save(summary, self.folder) + figures
        print(f"\n{summaries.table(summary, 'simple')}\n\n{summaries.notes(summary)}\n")
        print(f"best by validation accuracy: {summary['best']}")
        names = ", ".join(path.name for path in paths)
        print(f"written to {self.folder}: {names}")


def parse_options(description: str) -> argparse.Namespace:
    """The options that every script has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="rehearse the whole script in under a minute on handwritten digits, without CIFAR-10",
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: all GPUs, else all cores)")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="train again what is finished; the old files are moved to replaced/",
    )
    return parser.parse_args()


def rehearsal(groups: Groups, seeds: list[int]) -> Groups:
    """The same groups on handwritten digits, with few seeds and epochs."""

    def rehearse(run: Run) -> Run:
        epochs = min(run.epochs, QUICK_EPOCHS)
        rates = run.learning_rate
        return dataclasses.replace(
            run,
            dataset="digits",
            epochs=epochs,
            learning_rate=rates[:epochs] if isinstance(rates, tuple) else rates,
            start=run.start and rehearse(run.start),
        )

    return {
        label: [rehearse(run) for run in group if run.seed in seeds]
        for label, group in groups.items()
    }
