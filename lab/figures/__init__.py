"""Every figure, drawn from the summaries (and the test images, for what is mistaken) alone.

An experiment has the figures of the module of its own name here, or else those of any sweep.
"""

import importlib.util
import io
import re
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

from lab.figures import canvas, mistakes, results, sweep
from lab.figures.canvas import STYLE, Figures, Summary
from lab.store import write
from lab.summary import load_summaries, summarise


def figures(summary: Summary) -> Figures:
    """The figures of an experiment by name, in their order, each a function that draws it."""
    name = f"lab.figures.{summary['experiment']}"
    # half-way, what an experiment's own figures need beyond its groups is not there yet
    own = summary["experiment"].isidentifier() and importlib.util.find_spec(name)
    module = importlib.import_module(name) if own and not summary["finished"] else sweep
    return getattr(module, "figures", sweep.figures)(summary)


def file_name(figure: str) -> str:
    """The name of a figure's file, which every system accepts."""
    return re.sub(r"[^\w=+.-]", "-", figure.replace(", ", "_").replace(" ", "_")) + ".png"


def save(found: Figures, folder: Path) -> list[Path]:
    """Write figures into a folder as PNG; the paths of those that could be drawn."""
    paths = []
    with matplotlib.rc_context(STYLE):
        for name, make in found.items():
            if figure := make():
                canvas.legend(figure)
                content = io.BytesIO()
                figure.savefig(content, format="png")
                paths.append(folder / file_name(name))
                write(paths[-1], content.getvalue())
    return paths


def draw_at_a_glance(root: Path) -> list[Path]:
    """Draw the whole study into a results folder, from all its summaries; the path."""
    summaries = load_summaries(root)
    return save({"at_a_glance": partial(results.at_a_glance, summaries)} if summaries else {}, root)


def draw_errors(record: dict[str, Any], name: str, folder: Path) -> list[Path]:
    """Draw the confusion matrix and the mistakes of one run into a folder; the paths.

    record is a finished run's, and name that of its file, without the ending.
    """
    label = name.split("_seed=")[0].replace("_", ", ")
    rehearsal = record["run"].get("dataset") == "digits"
    summary = summarise("errors", "errors: one run", {}, {label: [record]}, rehearsal=rehearsal)
    by_class, wrong = mistakes.figures(summary).values()
    return save({f"{name}_confusion": by_class, f"{name}_mistakes": wrong}, folder)
