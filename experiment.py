"""What every experiment script does around its own runs: options, checks, sweep and summary."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import plots
import summary as summaries
import sweep
from errors import UserError
from page import write_page
from runs import Run, check
from store import HERE, Store
from summary import Record

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
        self.description = description
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
            for name, value in self.constants.items():
                if name.endswith("SEEDS"):
                    self.constants[name] = value[:QUICK_SEEDS]
                elif name in ("EPOCHS", "PERFORMANCE_EPOCHS"):
                    self.constants[name] = min(value, QUICK_EPOCHS)
            print("REHEARSAL on handwritten digits: everything runs, nothing is a finding")
        self.folder = self.root / self.name

    def train(self, groups: Groups, shared_with: str | None = None) -> dict[str, list[Record]]:
        """Train what is not finished yet; every group's records, in the order of its runs.

        shared_with names another experiment that these runs belong to: they are kept with its own,
        which then has no need to train them, and --fresh leaves them alone.
        """
        if self.options.quick:
            groups = rehearsal(groups)
        runs = [run for group in groups.values() for run in group]
        store = Store(self.root, shared_with or self.name)
        if shared_with:
            print(f"needed   what {shared_with}.py trains, and shares with {self.script}")
        sweep.train(runs, store, self.options.device, fresh=self.options.fresh and not shared_with)
        return {label: [store.load_result(run) for run in group] for label, group in groups.items()}

    def best(self, groups: dict[str, list[Record]]) -> str:
        """The label of the best group. Raises UserError where every run diverged."""
        found = summaries.best(
            [summaries.summarise_group(label, records) for label, records in groups.items()]
        )
        if found is None:
            raise UserError(f"every run of {', '.join(groups)} diverged: lower the learning rate")
        return found

    def summarise(self, groups: dict[str, list[Record]], **more: Any) -> dict[str, Any]:
        """The content of summary.json, with whatever else this experiment has to say."""
        return more | summaries.summarise(
            self.name, self.description, self.constants, groups, self.options.quick
        )

    def report(self, summary: dict[str, Any]) -> None:
        """Keep the summary and the tables, draw the figures, and print the table and the paths."""
        paths = summaries.save(summary, self.folder)
        print(f"\n{summaries.table(summary, 'simple')}\n\n{summaries.notes(summary)}\n")
        print(f"best by validation accuracy: {summary['best'] or 'none, as every run diverged'}")
        paths += plots.draw(summary, self.folder)
        page = write_page(self.root)
        names = ", ".join(path.name for path in paths)
        print(f"written to {self.folder}: {names}")
        print(f"the page of all experiments: {page}")


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


def rehearsal(groups: Groups) -> Groups:
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
        label: [rehearse(run) for run in group[:QUICK_SEEDS]] for label, group in groups.items()
    }
