"""Every figure and the page, redrawn from the summaries alone, with no training.

    python plots.py                    # redraws what is yours, in results/
    python plots.py results/published  # redraws that folder
    python plots.py --errors NAME      # draws what one finished run gets wrong

Colour says which setting, the same in every figure of an experiment; grey is training where a
figure has both. Single seeds are faint, their mean is strong. The colours are Okabe and Ito's
(2008), which colour-blind readers can tell apart, and markers tell curves apart in black and white.
"""

import argparse
import sys
from pathlib import Path

from lab import experiment, figures, page, trained
from lab.checks import UserError
from lab.experiment import results_root
from lab.summary import DAMAGE, load_summary


def redraw(root: Path) -> None:
    """Redraw the figures of every experiment in a results folder, and its page.

    Raises UserError where there is no summary, or after all others are drawn, where one is damaged.
    """
    paths = sorted(root.glob("*/summary.json"))
    if not paths:
        raise UserError(f"there is no summary.json in {root}/*/ yet: run an experiment first")
    damaged = []
    for path in paths:
        try:
            drawn = figures.save(figures.figures(load_summary(path)), path.parent)
            print(f"{path.parent}: {', '.join(figure.name for figure in drawn)}")
        except UserError as error:
            damaged.append(str(error))
        except DAMAGE as error:
            damaged.append(f"{path} cannot be drawn ({error!r}): run its script again")
    figures.draw_at_a_glance(root)
    print(f"the page of all experiments: {page.write_page(root)}")
    if damaged:
        raise UserError("; ".join(damaged))


def draw_errors(name: str) -> None:
    """Draw what one finished run gets wrong on the test set, into errors/ of its results folder.

    The figures of a published run go to your own folder.

    Raises UserError where the name is not that of one run, or the run has no test results.
    """
    path = trained.find_run(name)
    record = trained.load(path)
    if record["diverged_at_epoch"] is not None:
        raise UserError(f"{path} holds a run that diverged: it has no test results")
    root = path.parent.parent
    root = results_root() if root == experiment.PUBLISHED else root
    for figure in figures.draw_errors(record, path.stem, root / "errors"):
        print(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, help="a results folder (default: yours)")
    parser.add_argument(
        "--errors",
        metavar="NAME",
        help="draw only the confusion matrix and the misclassified test images of one finished "
        "run: its file under results/runs, or any part of the path that no other has",
    )
    options = parser.parse_args()
    try:
        if options.errors is not None:
            draw_errors(options.errors)
        else:
            redraw(options.folder or results_root())
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
