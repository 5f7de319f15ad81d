"""Publishing an experiment: `python -m lab.publish exp2_dropout` writes results/published.

It runs the script's main() over published runs and your own finished ones, which it copies there,
and trains nothing. The weights of the experiment's best run go to results/published/weights/.
"""

import argparse
import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

from lab import experiment
from lab.constants import Constants, check_constants
from lab.experiment import Experiment, Groups, Records, results_root
from lab.page import how_sure
from lab.provenance import HERE
from lab.records import run_of
from lab.store import Store, label
from lab.summary import load_summaries
from lab.tables import answer
from train import Run, UserError


class Publication(Experiment):
    """An experiment that reads its runs from results/published and, where missing, your results."""

    def __init__(self, script: Path, description: str, constants: Constants) -> None:
        options = argparse.Namespace(quick=False, device=None, fresh=False)
        super().__init__(script, description, constants, options)
        self.own = Store(results_root())
        self.root, self.store = experiment.PUBLISHED, Store(experiment.PUBLISHED, any_code=True)

    def records(self, groups: Groups, fresh: bool) -> Records:
        """The records of these runs. Raises UserError where one is not finished, or a rehearsal."""
        runs = list(dict.fromkeys(run for group in groups.values() for run in group))
        if any(run.dataset == "digits" for run in runs):
            raise UserError(f"{self.script}: a rehearsal is not published")
        missing = [run for run in runs if not self.publish_run(run)]
        if missing:
            raise UserError(
                f"{self.script}: {len(missing)} of {len(runs)} runs are not finished, so nothing "
                f"is published: run python {self.script} first"
            )
        return {
            label: [self.store.load_record(run) for run in group] for label, group in groups.items()
        }

    def publish_run(self, run: Run) -> bool:
        """See that a run's record is published; whether it is."""
        if self.store.load_record(run):
            return True
        if found := self.own.find_record(run):
            copy(found[0], self.store.runs)
        return found is not None

    def write(self, records: Records, root: Path, **contents: Any) -> dict[str, Any]:
        """Write the report, and the weights of the best run beside it."""
        summary = super().write(records, root, **contents)
        sound = [r for r in records.get(summary["best"], []) if r["diverged_at_epoch"] is None]
        best = max(sound, key=lambda record: record["val_accuracy"][-1], default=None)
        if best and self.publish_weights(run_of(best["run"])):
            new = {
                label: [self.store.load_record(run_of(record["run"])) for record in group]
                for label, group in records.items()
            }
            summary = super().write(new, root, **contents)
        return summary

    def publish_weights(self, run: Run) -> bool:
        """See that a run's weights are published; whether its record was replaced for that.

        They come with the record that names their hash: one that was published without weights is
        replaced by your own of the same run.
        """
        if self.store.load_weights(run) is not None:
            return False
        if self.own.load_weights(run) is None:
            print(f"weights  of {label(run)} are not kept: train it again, and publish again")
            return False
        old, (new, _) = self.store.find_record(run), self.own.find_record(run)
        if old:
            old[0].unlink()
        copy(new, self.store.runs)
        copy(new.with_suffix(".pt"), self.store.weights)
        return True


def copy(path: Path, folder: Path) -> None:
    """Copy a file into a folder under its own name."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, folder / path.name)


def write_findings(readme: Path) -> None:
    """Write what the published summaries say, and how sure it is, between README's markers."""
    summaries = load_summaries(experiment.PUBLISHED)
    glance = "![every setting of every experiment](results/published/at_a_glance.png)"
    parts = {
        "findings": [*(f"**{each['title']}.** {answer(each)}" for each in summaries), glance],
        "how sure": ["\n".join(f"- {sentence}" for sentence in how_sure(summaries))],
    }
    text = readme.read_text(encoding="utf-8")
    for name, paragraphs in parts.items():
        start, end = f"<!-- {name}: written by python -m lab.publish -->", f"<!-- end of {name} -->"
        before, rest = text.split(start)
        text = "\n\n".join([before + start, *paragraphs, end]) + rest.split(end)[1]
    readme.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="the experiment to publish: exp1_lr")
    name = Path(parser.parse_args().name).stem
    try:
        script = importlib.import_module(name)
        constants = check_constants(f"{name}.py", vars(script))
        script.main(Publication(Path(script.__file__), script.__doc__, constants))
        write_findings(HERE / "README.md")
    except ModuleNotFoundError:
        print(f"there is no {name}.py here", file=sys.stderr)
        sys.exit(2)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
