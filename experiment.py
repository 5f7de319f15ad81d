"""What every experiment script does around its own runs: options, checks, sweep and summary."""

import argparse
import dataclasses
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import distributed
import plots
import summary as summaries
import sweep
from errors import UserError
from page import write_page
from runs import Run, check
from store import HERE, Store, code_fingerprint
from summary import Record

QUICK_EPOCHS = 10
QUICK_STEPS = 250  # of a run on a few images, whose epoch is a step or so
QUICK_SEEDS = 2
QUICK_LIMITS = {  # of constants
    "EPOCHS": QUICK_EPOCHS,
    "PERFORMANCE_EPOCHS": QUICK_EPOCHS,
    "OVERFIT_STEPS": QUICK_STEPS,
    "GRID_SIDE": 2,
}

Groups = dict[str, list[Run]]  # {label: one run a seed}
Constants = dict[str, Any]  # {EPOCHS: its value, ...}


class Experiment:
    """One experiment from its constants to its summary.

    script is the script's path, description its docstring, and constants those at its top by name.

    Raises UserError where a constant makes no sense.
    """

    def __init__(self, script: str, description: str, constants: Constants) -> None:
        if distributed.rank() > 0:
            sys.stdout = io.StringIO()  # unheard: of several processes, the first one speaks
        self.script = Path(script).name
        self.name = Path(script).stem
        self.description = description
        self.options = parse_options(description)
        self.constants = distributed.on_all(lambda: check_constants(self.script, constants))
        self.code = code_fingerprint()  # taken once: an edit during a sweep is noticed
        self.root = HERE / "results"
        if self.options.quick:
            self.root /= "quick"
            for name, value in self.constants.items():
                if name.endswith("SEEDS"):
                    self.constants[name] = value[:QUICK_SEEDS]
                elif name in QUICK_LIMITS:
                    self.constants[name] = min(value, QUICK_LIMITS[name])
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
        store = Store(self.root, shared_with or self.name, code=self.code)
        if shared_with:
            print(f"needed   what {shared_with}.py trains, and shares with {self.script}")
        sweep.train(runs, store, self.options.device, fresh=self.options.fresh and not shared_with)
        return {label: sweep.load_results(group, store) for label, group in groups.items()}

    def train_shared(self, script: ModuleType) -> dict[str, list[Record]]:
        """Train what another experiment's script asks for, and share it."""
        check_constants(f"{script.__name__}.py", script.constants())
        return self.train(script.runs(), shared_with=script.__name__)

    def train_with(self, script: ModuleType, groups: Groups) -> dict[str, list[Record]]:
        """Train groups, those whose runs another experiment's script has too as that one's.

        An edit of a constant in either script leaves them less or nothing to share.
        """
        check_constants(f"{script.__name__}.py", script.constants())
        theirs = {run for group in script.runs().values() for run in group}
        shared = {label: group for label, group in groups.items() if theirs.issuperset(group)}
        own = {label: group for label, group in groups.items() if label not in shared}
        trained = self.train(shared, shared_with=script.__name__) if shared else {}
        trained |= self.train(own) if own else {}
        return {label: trained[label] for label in groups}

    def trainable_parameters(self, groups: Groups) -> dict[str, int]:
        """How many numbers training changes in a network of each group: {label: count}."""
        import train  # and torch with it, which takes seconds

        store = Store(self.root, self.name, code=self.code)
        counts = {}
        for label, group in groups.items():
            # where a run starts from makes no difference to which of its layers are frozen
            network = train.build(dataclasses.replace(group[0], start=None), store)
            counts[label] = sum(p.numel() for p in network.parameters() if p.requires_grad)
        return counts

    def summarise(
        self,
        groups: dict[str, list[Record]],
        candidates: Sequence[str] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """The content of summary.json, with whatever else this experiment has to say.

        candidates are the labels that the best is chosen from; by default all.
        """
        return more | summaries.summarise(
            self.name, self.description, self.constants, groups, candidates, self.options.quick
        )

    def report(self, summary: dict[str, Any]) -> None:
        """Keep the summary and the tables, draw the figures, and print the table and the paths.

        Of several processes that share the sweep, the first one does.
        """
        if distributed.rank() > 0:
            return
        paths = summaries.save(summary, self.folder)
        print(f"\n{summaries.table(summary, 'simple')}\n\n{summaries.notes(summary)}\n")
        print(
            f"best by validation accuracy: {summary['best'] or 'none, as too many runs diverged'}"
        )
        paths += plots.draw(summary, self.folder)
        page = write_page(self.root)
        names = ", ".join(path.name for path in paths)
        print(f"written to {self.folder}: {names}")
        print(f"the page of all experiments: {page}")


def check_constants(script: str, constants: Constants) -> Constants:
    """The constants of a script as plain values. Raises UserError, naming the one that is wrong."""
    try:
        return {name: check(name, value) for name, value in constants.items()}
    except UserError as error:
        raise UserError(f"{error} (edit it at the top of {script})") from None


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
    """The same groups on handwritten digits: few seeds, few epochs, schedules in fast motion.

    Runs on a few images keep more of their epochs, which are a step or so each.
    """

    def rehearse(run: Run) -> Run:
        epochs = min(run.epochs, QUICK_STEPS if run.overfit_images else QUICK_EPOCHS)
        rates = run.learning_rate
        return dataclasses.replace(
            run,
            dataset="digits",
            epochs=epochs,
            learning_rate=(
                tuple(rates[i * len(rates) // epochs] for i in range(epochs))
                if isinstance(rates, tuple)
                else rates
            ),
            start=run.start and rehearse(run.start),
        )

    return {
        label: [rehearse(run) for run in group[:QUICK_SEEDS]] for label, group in groups.items()
    }
