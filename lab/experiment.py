"""What every experiment script does around its own runs: options, checks, sweep and report."""

import argparse
import dataclasses
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from lab import distributed, figures, page, provenance, summary, sweep, tables
from lab.checks import UserError, checked
from lab.constants import Constants, check_constants, runs_of
from lab.records import all_settings, run_of, settings_of
from lab.store import Store
from lab.summary import Record, Records
from train import Run, Training, build

QUICK_EPOCHS = 10
QUICK_STEPS = 250  # of a run on a few images, whose epoch is a step or so
QUICK_SEEDS = 2
QUICK_BATCH = 512  # images

Groups = dict[str, list[Run]]  # {label: one run for each seed}
RESULTS = provenance.HERE / "results"
PUBLISHED = RESULTS / "published"


def results_root() -> Path:
    """The folder of your results: RESULTS_DIR where that is set, else results/."""
    return Path(os.environ.get("RESULTS_DIR") or RESULTS)


class Experiment:
    """One experiment from its runs to its report.

    constants are those at the top of the script, and say what a rehearsal shortens.
    """

    def __init__(
        self, script: Path, description: str, constants: Constants, options: argparse.Namespace
    ) -> None:
        self.script, self.name = script.name, script.stem
        self.description, self.constants, self.options = description, constants, options
        self.root = results_root() / "quick" if options.quick else results_root()
        self.store = Store(self.root)

    def train(self, groups: Groups | ModuleType, fresh: bool = True) -> Records:
        """Train what is not finished yet; the records of every group, in the order of its runs.

        Instead of groups, another experiment's script can be given: its runs() are trained, errors
        name its file, and --fresh leaves its runs alone, as it does where fresh is False.

        Raises UserError for what a user can mend.
        """
        fresh = fresh and self.options.fresh
        if isinstance(groups, ModuleType):
            name, fresh = Path(groups.__file__).name, False
            groups = runs_of(groups)
            print(f"first    the runs of {name}, which {self.script} needs")
        return self.carry_out(self.shortened(groups), fresh)

    def check(self, groups: Groups) -> None:
        """Raise UserError where what is left of these runs cannot be trained."""
        runs = runs_in(self.shortened(groups))
        sweep.check(sweep.unfinished(runs, self.store, weights=False))

    def shortened(self, groups: Groups) -> Groups:
        """The groups as they are trained: in a rehearsal, shortened ones."""
        return rehearsal(groups) if self.options.quick else groups

    def carry_out(self, groups: Groups, fresh: bool) -> Records:
        """Train what is not finished; fresh trains again what is. The records of every group."""
        records = iter(sweep.train(runs_in(groups), self.store, self.options.device, fresh))
        return {label: list(islice(records, len(group))) for label, group in groups.items()}

    def report(self, records: Records, **contents: Any) -> None:
        """Write and print what the records say: summary, tables, figures and page.

        The contents are all optional. candidates are the labels that the best is chosen from; by
        default all. comparisons are pairs of labels, the first minus the second; by default the
        best minus every other candidate. besides are further records that the report rests on.
        answer is the script's own, in a sentence or two; by default, how the best compares.
        findings are further sentences, and tables {title: rows}, for the page. twins {label:
        another} are settings that are drawn in another's colour. Whatever else is given stands in
        the summary for the script's own figures. Only rank 0 does this.
        """
        if distributed.rank() > 0:
            return
        self.write(records, self.root, **contents)
        if not self.options.quick:
            compare_with_published(self.name, self.constants, records)

    def write(self, records: Records, root: Path, **contents: Any) -> None:
        """Write a report into a results folder, and print its table and paths."""
        contents["rehearsal"] = self.options.quick
        found = summary.summarise(self.name, self.description, self.constants, records, **contents)
        folder = root / self.name
        paths = tables.save(found, records, folder)
        print(f"\n{tables.table(found, 'simple')}\n\n{tables.facts(found)}\n\n{tables.GLOSSARY}\n")
        print(*tables.conclusions(found), sep="\n")
        paths += figures.save(figures.figures(found), folder)
        print(f"written to {folder}: {', '.join(path.name for path in paths)}")
        figures.draw_at_a_glance(root)
        print(f"the page of all experiments: {page.write_page(root)}")

    def steps_per_epoch(self, record: Record) -> int:
        """How many steps a run takes in an epoch, from its record."""
        run = run_of(record["run"])
        return Training(run, sweep.load_data(run.dataset)).steps_per_epoch

    def trainable_parameters(self, records: Records) -> dict[str, int]:
        """How many numbers training changes in a network of each group: {label: count}."""
        counts = {}
        for label, group in records.items():
            network = build(run_of(group[0]["run"]), summary.class_count(group))
            counts[label] = sum(p.numel() for p in network.parameters() if p.requires_grad)
        return counts


def compare_with_published(name: str, constants: Constants, records: Records) -> None:
    """Print how far a sweep with the published constants agrees with the published results."""
    path = PUBLISHED / name / "summary.json"
    try:
        if not path.exists() or summary.load_summary(path)["settings"] != constants:
            return
    except UserError as error:  # what was trained is reported by now
        print(error)
        return
    store = Store(PUBLISHED, any_code=True)
    theirs = {
        label: [record for mine in group if (record := store.load_record(run_of(mine["run"])))]
        for label, group in records.items()
    }
    print(tables.against_published(records, theirs))


def show_published(name: str) -> None:
    """Print the published table of an experiment and where its figures are. Changes nothing."""
    folder = PUBLISHED / name
    if not (folder / "table.md").exists():
        raise UserError(f"{folder}: nothing is published of {name} yet")
    lines = [(folder / "table.md").read_text(encoding="utf-8"), *map(str, sorted(folder.iterdir()))]
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:  # the reader has seen enough, as "| head" has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show_so_far(experiment: Experiment, groups: Groups) -> None:
    """Report the finished ones of these runs into so-far/, while a sweep may go on. Trains nothing.

    Raises UserError where no run is finished, or settings have other fields from seed to seed.
    """
    runs = runs_in(groups)
    found = {
        label: [record for run in group if (record := experiment.store.load_record(run))]
        for label, group in groups.items()
    }
    if not any(found.values()):
        raise UserError(f"none of the {len(runs)} runs of {experiment.script} is finished yet")
    finished = {"runs": sum(map(len, found.values())), "of": len(runs)}
    for group in groups.values():
        if len({str(summary.without_seed(all_settings(settings_of(run)))) for run in group}) > 1:
            raise UserError(
                f"{finished['runs']} of {len(runs)} runs are finished; {experiment.script} has no "
                "half-way report, as its settings differ from seed to seed"
            )
    experiment.write(found, experiment.root / "so-far", finished=finished)


def run(
    main: Callable[[Experiment], None],
    script: dict[str, Any],
    quick: Mapping[str, Any] | None = None,
) -> None:
    """Run an experiment script, and end the process as the user expects.

    script is the script's globals(): its docstring is the description, its UPPER_CASE names are the
    constants, which are checked and recorded. quick says which constants a rehearsal shortens, and
    to what; all others stay, as a rehearsal shortens the runs.

    A mistake that the user can correct is one line and exit status 2; Ctrl-C is exit status 130.
    """
    try:
        forgive_stdout()
        if distributed.rank() > 0:
            sys.stdout = io.StringIO()  # only rank 0 prints
        path = Path(script["__file__"])
        description = script["__doc__"] or path.stem
        options = parse_options(description)
        if distributed.rank() > 0 and (options.published or options.so_far):
            return None
        if options.published:
            return show_published(path.stem)
        if options.fresh and distributed.size() > 1:
            raise UserError(
                "--fresh does not work with torchrun: start the script once without torchrun and "
                "with --fresh, stop it with Ctrl-C, and then use torchrun without --fresh"
            )
        constants = check_constants(path.name, script)
        for name in provenance.SOURCES:
            provenance.text_of(name)  # read once: an edit during a sweep is noticed
        if options.quick:
            print("REHEARSAL on handwritten digits: everything runs, nothing is a finding")
            for name, most in (quick or {}).items():
                if isinstance(constants[name], int) and constants[name] > most:
                    constants[name] = script[name] = most
        experiment = Experiment(path, description, constants, options)
        if options.so_far:
            if "runs" not in script:
                raise UserError(f"--so-far needs a function runs() in {path.name}")
            return show_so_far(experiment, experiment.shortened(script["runs"]()))
        page.check_place(experiment.root)
        main(experiment)
    except UserError as error:
        # the processes of a machine meet the same mistakes, and one of them says so
        if distributed.local_rank() == 0 or isinstance(error, sweep.SweepFailed):
            print(error, file=sys.stderr)
        sys.exit(130 if isinstance(error, sweep.Interrupted) else 2)
    except KeyboardInterrupt:
        command = "the same command" + (" without --fresh" if "--fresh" in sys.argv else "")
        print(f"stopped; what is finished is kept, {command} goes on", file=sys.stderr)
        sys.exit(130)


def forgive_stdout() -> None:
    """Print a question mark where a terminal or a file knows no minus sign."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")


def parse_options(description: str) -> argparse.Namespace:
    """The options that every script has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags = {
        "--quick": "rehearse the whole script in under a minute on handwritten digits",
        "--fresh": "train again what is finished; the old files are moved to replaced/",
        "--so-far": "report the runs that are finished by now into so-far/; train nothing",
        "--published": "print the table that this study has published, and its figures' paths",
    }
    for flag, help in flags.items():
        parser.add_argument(flag, action="store_true", help=help)
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: all GPUs, else all cores)")
    return parser.parse_args()


def from_seeds(seeds: Sequence[int], **fields: Any) -> list[Run]:
    """One run for each seed, alike in all other fields. Raises UserError where one is wrong."""
    return [checked(Run(seed=seed, **fields)) for seed in seeds]


def runs_in(groups: Groups) -> list[Run]:
    """The runs of all groups, in their order. Raises UserError where a field is wrong."""
    return [checked(run) for group in groups.values() for run in group]


def rehearsal(groups: Groups) -> Groups:
    """The same groups on handwritten digits: few seeds, few epochs, schedules in fast motion.

    Runs on a few images keep more of their epochs, which are a step or so each. The digits are too
    few for a very large batch.

    Raises UserError where a field of the whole runs is wrong.
    """
    runs_in(groups)

    def rehearse(run: Run) -> Run:
        epochs = min(run.epochs, QUICK_STEPS if run.overfit_images else QUICK_EPOCHS)
        rates = run.learning_rate
        if isinstance(rates, tuple):
            rates = tuple(rates[i * len(rates) // epochs] for i in range(epochs))
        start = run.start and rehearse(run.start)
        changes = {"dataset": "digits", "epochs": epochs, "learning_rate": rates, "start": start}
        changes["batch_size"] = min(run.batch_size, QUICK_BATCH)
        return dataclasses.replace(run, **changes)

    return {
        label: [rehearse(run) for run in group[:QUICK_SEEDS]] for label, group in groups.items()
    }
