"""Every figure of the study, drawn from the summaries alone: `python plots.py` redraws them all.

`python plots.py --errors NAME` draws what one finished run gets wrong.

Colour says which setting, in every figure the same; grey is training where a figure has both.
Single seeds are faint, their mean is strong. The colours are Okabe and Ito's (2008), which colour-
blind readers can tell apart, and markers tell the curves apart in black and white.
"""

import argparse
import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

import download
import errors
from canvas import STYLE, Summary
from errors import UserError
from figures import Figures, by_class, figures, file_name, mistakes
from page import write_page
from runs import all_settings
from store import HERE, code_fingerprint, write
from summary import summarise

CHOICES = 10  # how many files are listed where a name fits several


def draw(summary: Summary, folder: Path) -> list[Path]:
    """Draw all figures of one experiment into its folder as PNG; their paths."""
    return save(figures(summary), folder)


def save(figures: Figures, folder: Path) -> list[Path]:
    """Write figures into a folder as PNG; the paths of those that could be drawn."""
    paths = []
    with matplotlib.rc_context(STYLE):
        for name, make in figures.items():
            if figure := make():
                content = io.BytesIO()
                figure.savefig(content, format="png")
                path = folder / file_name(name)
                write(path, content.getvalue())
                paths.append(path)
    return paths


def draw_errors(name: str) -> None:
    """Draw what one finished run gets wrong on the test set, beside the runs of its experiment.

    Raises UserError where the name is not that of one run, or the run has no test results.
    """
    path = find_run(name)
    try:
        record = json.loads(path.read_text())
        if record["diverged_at_epoch"] is not None:
            raise UserError(f"{path} holds a run that diverged: it has no test results")
        figures = error_figures(record, path)
        drawn = save(figures, path.parent.parent / "errors")
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path} is damaged ({error}): run its script again") from None
    for figure in drawn:
        print(figure)
    if not record["most_confident_mistakes"]:
        print("it takes no test image for another: there are no mistakes to show")
    elif len(drawn) < len(figures):
        root = download.root(HERE / "data")
        print(
            f"its mistakes are not drawn, as that needs the images: {root}: "
            f"{download.find_faults(root)[0]}; set CIFAR10_DIR to the folder that holds "
            f"{download.FOLDER}/"
        )


def error_figures(record: dict[str, Any], path: Path) -> Figures:
    """The confusion matrix and the mistakes of a run, from its record and the file it stands in."""
    settings = all_settings(record["run"])
    label = path.stem.split("_seed=")[0].replace("_", ", ")
    rehearsal = settings["dataset"] == "digits"
    summary = summarise(path.parts[-3], "", {}, {label: [record]}, rehearsal=rehearsal)
    (group,) = summary["groups"]
    (run,) = group["runs"]
    return {
        f"{path.stem}_confusion": partial(by_class, summary, group, run, "Confusion matrix"),
        f"{path.stem}_mistakes": partial(mistakes, summary, group, run),
    }


def find_run(name: str) -> Path:
    """The file of the one finished run that a path, or a part of it, names.

    Raises UserError, with the paths to choose from, where there is none or more than one.
    """
    paths = sorted(HERE.glob("results/*/runs/*.json"))
    paths += sorted(HERE.glob("results/quick/*/runs/*.json"))
    known = {path.relative_to(HERE).as_posix(): path for path in paths}
    if not known:
        raise UserError("there is no results/*/runs/*.json yet: run python exp1_lr.py first")
    exact = Path(name).resolve()
    matching = [words for words, path in known.items() if name in words or path.resolve() == exact]
    if len(matching) > 1:  # what earlier versions of the code trained is not what is asked for
        present = f"_code={code_fingerprint()}"
        matching = [words for words in matching if present in words] or matching
    if len(matching) == 1:
        return known[matching[0]]
    choice = matching or list(known)
    more = f" and {len(choice) - CHOICES} more" if len(choice) > CHOICES else ""
    found = f"{len(matching)} finished runs have" if matching else "no finished run has"
    raise UserError(
        f"--errors: {found} {name!r} in the path: choose one of {', '.join(choice[:CHOICES])}{more}"
    )


def redraw() -> None:
    """Redraw the figures of every experiment that has a summary, and the pages that show them."""
    paths = sorted(HERE.glob("results/*/summary.json"))
    paths += sorted(HERE.glob("results/quick/*/summary.json"))
    if not paths:
        raise UserError("there is no results/*/summary.json yet: run python exp1_lr.py first")
    damaged = []
    for path in paths:
        try:
            drawn = draw(json.loads(path.read_text()), path.parent)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            damaged.append(f"{path} is damaged ({error})")
            continue
        print(f"{path.parent}: {', '.join(figure.name for figure in drawn)}")
    for root in dict.fromkeys(path.parent.parent for path in paths):
        print(f"the page of all experiments: {write_page(root)}")
    if damaged:
        raise UserError(f"{'; '.join(damaged)}: run its script again, which trains nothing twice")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--errors",
        metavar="NAME",
        help="draw only the confusion matrix and the misclassified test images of one finished "
        "run: its file under results/*/runs, or any part of the path that no other has",
    )
    options = parser.parse_args()
    if options.errors is None:
        redraw()
    else:
        draw_errors(options.errors)


if __name__ == "__main__":
    errors.run(main)
