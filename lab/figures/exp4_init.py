"""The figures of experiment 4.3: the first epochs, and the gradients of the first steps."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import chain, product

from matplotlib.figure import Figure

from lab.figures import canvas, sweep
from lab.figures.canvas import AXIS_LABELS, Figures, Group, Summary

KINDS = {"weight": "weights", "bias": "biases"}


def figures(summary: Summary) -> Figures:
    """The first epochs, the gradients of the first steps, and what a sweep has."""
    watched = [group for group in summary["groups"] if "gradients" in group]
    shown = {"early": partial(early, summary)}
    if watched:  # unless all of them diverged
        shown["gradients_first_steps"] = partial(first_gradients, summary, watched)
    return {**shown, **sweep.figures(summary)}


def early(summary: Summary) -> Figure:
    """Training loss and accuracy in the first epochs: every seed and the mean of every setting."""
    groups, look = summary["groups"], canvas.styles(summary)
    last = min(summary["settings"]["EARLY_EPOCHS"], len(groups[0]["mean"]["train_loss"]))
    words = f"training in epochs 1 to {last}"
    figure, panels = canvas.blank(summary, words, groups, 2, 2, row=4, curves=True)
    for axes, quantity in zip(panels, AXIS_LABELS, strict=True):
        name = f"train_{quantity}"
        for place, group in enumerate(groups):
            style = sweep.mean_style(look[group["label"]], range(last))
            style["markersize"] = 4 + 0.8 * (len(groups) - place)  # some coincide: smaller on top
            style["label"] = f"{group['label']}, {canvas.counted(group)}"
            canvas.seeds_and_mean(axes, group, name, last, **style)
        canvas.label_epochs(axes, quantity, groups, last)
        curves = [run[name][:last] for group in groups for run in group["runs"]]
        canvas.share_scale([axes], quantity, chain(*curves))
        canvas.mark_guessing(axes.axhline, quantity)
    canvas.legend(figure, panels[0], canvas.entry("one seed"))
    return figure


def first_gradients(summary: Summary, groups: Sequence[Group]) -> Figure:
    """Mean |gradient| by layer at each of the first steps, weights above biases, for every setting.

    The axis is logarithmic down to the smallest gradient, and linear from there to zero. A bar ends
    above zero where it is longer than its mean.
    """
    lost = [group["label"] for group in summary["groups"] if group not in groups]
    note = "Bars: standard deviation over seeds. 0 is exactly zero"
    note += f". Without gradients, as every run diverged: {', '.join(lost)}" if lost else ""
    found = [group["gradients"]["by_step"] for group in groups]
    steps = min(map(len, found))
    shape = {"panels": 2 * steps, "columns": steps, "row": 3, "note": note}
    figure, panels = canvas.blank(summary, f"gradients of the first {steps} steps", groups, **shape)
    sizes = [size for by_step in found for step in by_step for size in step["mean"]["mean"] if size]
    smallest = 10.0 ** math.floor(math.log10(min(sizes, default=1)))
    look = canvas.styles(summary)
    for axes, (kind, at) in zip(panels, product(KINDS, range(steps)), strict=True):
        for place, group in enumerate(groups):
            names = group["gradients"]["parameters"]
            shown = [i for i, name in enumerate(names) if name.endswith(kind)]
            step = group["gradients"]["by_step"][at]["mean"]
            means, deviations = (
                [step["mean"][i] for i in shown],
                [step["std"][i] or 0 for i in shown],
            )
            below = [min(s, 0.9 * mean) for s, mean in zip(deviations, means, strict=True)]
            places = [x + 0.08 * (place - (len(groups) - 1) / 2) for x in range(len(shown))]
            colour, marker, line = look[group["label"]]
            style = {"color": colour, "marker": marker, "linestyle": line, "linewidth": 1}
            style |= {"markersize": 5, "label": f"{group['label']}, {canvas.counted(group)}"}
            axes.errorbar(places, means, yerr=[below, deviations], **style)
        axes.set_yscale("symlog", linthresh=smallest, linscale=0.5)
        axes.yaxis.get_major_locator().set_params(numticks=7)
        layers = [names[i].split(".")[0] for i in shown]
        axes.set_xticks(range(len(shown)), layers, rotation=60, fontsize=canvas.SMALL)
        axes.set(ylim=(-0.3 * smallest, 3 * max(sizes, default=1)))
        axes.set(title=f"step {at + 1}", ylabel=f"{KINDS[kind]}: mean of |∂L/∂w|")
        if kind == "bias":
            axes.set_title("")
        axes.label_outer()
    canvas.legend(figure, panels[0])
    return figure
