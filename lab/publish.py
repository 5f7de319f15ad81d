"""Publishing an experiment: `python -m lab.publish exp2_dropout` writes results/published.

It runs the script's main() over published runs and your own finished ones, which it copies there,
and trains nothing. The weights of the experiment's best run go to results/published/weights/.
"""

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from lab import experiment
from lab.checks import UserError
from lab.constants import Constants, check_constants
from lab.experiment import Experiment, Groups, Record, Records, forgive_stdout, runs_in
from lab.page import elsewhere, how_sure, twice_trained
from lab.provenance import HERE
from lab.records import FINAL_RESULTS, run_of
from lab.store import Store, label, write
from lab.summary import best, by_number, load_summary
from lab.tables import headline
from lab.trained import is_present
from train import CURVES, Run


class Publication(Experiment):
    """An experiment that reads its runs from results/published and, where missing, your results."""

    def __init__(self, script: Path, description: str, constants: Constants) -> None:
        options = argparse.Namespace(quick=False, device=None, fresh=False)
        super().__init__(script, description, constants, options)
        self.own = self.store
        self.root, self.store = experiment.PUBLISHED, Store(experiment.PUBLISHED, any_code=True)
        self.new: set[Path] = set()  # your own records that are to be published

    def check(self, groups: Groups) -> None:
        """Nothing, as these runs were trained."""

    def carry_out(self, groups: Groups, fresh: bool) -> Records:
        """The records of these runs. Raises UserError where one is not finished, or a rehearsal."""
        runs = set(runs_in(groups))
        if any(run.dataset == "digits" for run in runs):
            raise UserError(f"{self.script}: a rehearsal is not published")
        found: dict[Run, tuple[Path, Record]] = {}
        missing, differ = [], []
        for run in runs:
            mine, theirs = self.own.find_record(run), self.store.find_record(run)
            if not (mine or theirs):
                missing.append(run)
                continue
            found[run] = theirs or mine
            if not theirs:
                self.new.add(mine[0])
            elif mine and results_of(mine[1])[1:] != results_of(theirs[1])[1:]:  # but the device
                differ.append(label(run))
        if missing:
            raise UserError(
                f"{self.script}: {len(missing)} of {len(runs)} runs are not finished, so nothing "
                f"is published: run python {self.script} first"
            )
        if differ:
            print(
                f"{len(differ)} runs have other results in {self.own.root} than the published "
                f"ones, which stay. To publish yours, first move those out of {self.store.runs}: "
                f"{', '.join(differ)}"
            )
        return {label: [found[run][1] for run in group] for label, group in groups.items()}

    def report(self, records: Records, **contents: Any) -> None:
        """Publish the records and the weights of the best run, and write the report."""
        for path in self.new:
            copy(path, self.store.runs)
        winner = best({label: records[label] for label in contents.get("candidates", records)})
        sound = [r for r in records.get(winner, []) if r["diverged_at_epoch"] is None]
        if sound:
            run = run_of(max(sound, key=lambda record: record["val_accuracy"][-1])["run"])
            self.publish_weights(run)
        records = {  # read again, as that may have replaced one
            label: [self.store.load_record(run_of(record["run"])) for record in group]
            for label, group in records.items()
        }
        self.write(records, self.root, **contents)

    def publish_weights(self, run: Run) -> None:
        """See that a run's weights are published, or say why they are not.

        They come with the record that names their hash. So your own run, which has weights,
        replaces one that was published without, if both have the same results to the last bit.
        """
        if self.store.load_weights(run) is not None:
            return
        if self.own.load_weights(run) is None:
            print(f"weights  of {label(run)} are not kept: train it again, and publish again")
            return
        (old, published), (new, retrained) = self.store.find_record(run), self.own.find_record(run)
        if results_of(published) != results_of(retrained):
            print(f"weights  of {label(run)} are not published: the retrained run differs")
            return
        copy(new.with_suffix(".pt"), self.store.weights)
        copy(new, self.store.runs)
        if old.name != new.name:
            old.unlink()


def copy(path: Path, folder: Path) -> None:
    """Copy a file into a folder under its own name, whole or not at all."""
    write(folder / path.name, path.read_bytes())


def results_of(record: Record) -> list[Any]:
    """All that must be equal for one record to stand for another: results, and their device."""
    names = (*CURVES, *FINAL_RESULTS, "gradients")
    return [record["environment"]["device"], *(record.get(name) for name in names)]


def write_findings(readme: Path) -> None:
    """Write what the published summaries answer, and how sure it is, between README's markers.

    Raises UserError where a summary is damaged.
    """
    root = experiment.PUBLISHED
    both = twice_trained(root)
    summaries = sorted(map(load_summary, root.glob("*/summary.json")), key=by_number)
    parts = {
        "findings": [
            " ".join([f"**{s['title']}: {s['question']}**", headline(s), *elsewhere(s, both)])
            for s in summaries
        ],
        "how sure": ["\n".join(f"- {s}" for s in how_sure(summaries, both))],
    }
    text = readme.read_text(encoding="utf-8")
    for name, paragraphs in parts.items():
        start, end = f"<!-- {name}: written by python -m lab.publish -->", f"<!-- end of {name} -->"
        if [text.count(start), text.count(end)] != [1, 1]:
            raise UserError(f"{readme} must hold the lines {start} and {end} once")
        before, rest = text.split(start)
        text = "\n\n".join([before + start, *paragraphs, end]) + rest.split(end)[1]
    write(readme, text.encode())


def load_script(name: str) -> ModuleType:
    """The script of an experiment. Raises UserError where there is none of this name."""
    if not name.isidentifier() or importlib.util.find_spec(name) is None:
        raise UserError(f"there is no {name}.py here")
    script = importlib.import_module(name)
    if not (hasattr(script, "runs") and hasattr(script, "main")):
        raise UserError(f"{name}.py is no experiment: it has no runs() and main()")
    return script


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="the experiment to publish: exp1_lr")
    forgive_stdout()
    try:
        script = load_script(Path(parser.parse_args().name).stem)
        path = Path(script.__file__)
        constants = check_constants(path.name, vars(script))
        script.main(Publication(path, script.__doc__ or path.stem, constants))
        write_findings(HERE / "README.md")
        paths = list((experiment.PUBLISHED / "runs").glob("*.json"))
        older = len(paths) - sum(map(is_present, paths))
        if older:
            print(f"{older} of {len(paths)} published records were made by older code")
    except (UserError, ImportError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
