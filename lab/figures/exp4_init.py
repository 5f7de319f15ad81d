"""The figures of experiment 4.3: the first epochs, and the gradients of the first steps."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import product

import numpy as np
from matplotlib.figure import Figure

from lab.figures import canvas, sweep
from lab.figures.canvas import Figures, Group, Summary


def figures(summary: Summary) -> Figures:
    """The first epochs, the gradients of the first steps, and what a sweep has."""
    groups, last = summary["groups"], summary["settings"]["EARLY_EPOCHS"]
    watched = [group for group in groups if "gradients" in group]
    shown: Figures = {"early": partial(sweep.comparison, summary, groups, last)}
    if watched:  # unless all of them diverged
        shown["gradients_first_steps"] = partial(first_gradients, summary, watched)
    return {**shown, **sweep.figures(summary)}


def first_gradients(summary: Summary, groups: Sequence[Group]) -> Figure:
    """Mean |gradient| by layer at each of the first steps, weights above biases, for every setting.

    The axis is logarithmic down to the smallest gradient, and linear from there to zero.
    """
    lost = [group["label"] for group in summary["groups"] if group not in groups]
    note = "Bars: standard deviation over seeds. 0 is exactly zero"
    note += f". Without gradients, as every run diverged: {', '.join(lost)}" if lost else ""
    found = [group["gradients"]["by_step"] for group in groups]
    steps, look = min(map(len, found)), canvas.styles(summary)
    words = f"gradients of the first {steps} steps"
    figure, panels = canvas.blank(summary, words, groups, 2 * steps, steps, row=3, note=note)
    sizes = [size for by_step in found for step in by_step for size in step["mean"]["mean"] if size]
    smallest = 10.0 ** math.floor(math.log10(min(sizes, default=1)))
    for axes, (kind, at) in zip(panels, product(("weight", "bias"), range(steps)), strict=True):
        for place, group in enumerate(groups):
            parameters = group["gradients"]["parameters"]
            size = group["gradients"]["by_step"][at]["mean"]
            shown = [i for i, name in enumerate(parameters) if name.endswith(kind)]
            means = np.array(size["mean"], dtype=float)[shown]
            deviations = np.array(size["std"], dtype=float)[shown]  # of one seed NaN: no bar
            places = [x + 0.08 * (place - (len(groups) - 1) / 2) for x in range(len(shown))]
            style = look[group["label"]] | {"linewidth": 1, "markersize": 5}
            label = f"{group['label']}, {canvas.counted(group)}"
            axes.errorbar(places, means, yerr=deviations, label=label, **style)
        axes.set_yscale("symlog", linthresh=smallest, linscale=0.5)
        axes.yaxis.get_major_locator().set_params(numticks=7)
        layers = [parameters[i].split(".")[0] for i in shown]
        axes.set_xticks(range(len(shown)), layers, rotation=60, fontsize=canvas.SMALL)
        axes.set_ylim(-0.3 * smallest, 3 * max(sizes, default=1))
        axes.set_ylabel(f"{kind}: mean of |∂L/∂w|")
        axes.set_title(f"step {at + 1}" if kind == "weight" else "")
        axes.label_outer()
    return figure
