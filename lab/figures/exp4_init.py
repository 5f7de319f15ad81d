"""The figures of experiment 4.3: the first epochs, and the gradients of the first steps."""

import math
from collections.abc import Sequence
from functools import partial

from matplotlib.figure import Figure

from lab.figures import sweep
from lab.figures.canvas import (
    FAINT,
    GUESSING,
    Figures,
    Group,
    Summary,
    canvas,
    counted,
    label_axes,
    legend_of,
    mark_guessing,
    plot,
    styles,
    tell_cut,
)
from lab.figures.results import results

EARLY_LOSS = 4.0  # nats; a loss above this in the first epochs would flatten all others


def figures(summary: Summary) -> Figures:
    """The first epochs, the gradients of the first steps, and what a sweep has."""
    watched = [group for group in summary["groups"] if "gradients" in group]
    shown = {"early": partial(early, summary)}
    if watched:  # unless all of them diverged
        shown["gradients_first_steps"] = partial(first_gradients, summary, watched)
    return {
        **shown,
        **sweep.figures(summary),
        "test_accuracy": partial(results, summary, summary["groups"], guessing=True),
    }


def early(summary: Summary) -> Figure:
    """Training loss and accuracy in the first epochs: every seed and the mean of every setting."""
    groups = summary["groups"]
    last = min(summary["settings"]["EARLY_EPOCHS"], len(groups[0]["mean"]["train_loss"]))
    words = f"training in epochs 1 to {last}"
    figure, panels = canvas(summary, words, groups, columns=2, height=4.4, curves=True)
    look = styles(summary)
    for axes, (quantity, guessing) in zip(panels, GUESSING.items(), strict=True):
        name = f"train_{quantity}"
        for place, group in enumerate(groups):
            colour, marker, _ = look[group["label"]]
            for run in group["runs"]:
                plot(axes, run[name][:last], quantity, color=colour, **FAINT)
            plot(
                axes,
                group["mean"][name][:last],
                quantity,
                color=colour,
                marker=marker,
                markersize=4 + 0.8 * (len(groups) - place),  # smaller on larger: curves coincide
                label=f"{group['label']}, {counted(group)}",
            )
        mark_guessing(axes.axhline, guessing)
        label_axes(axes, quantity, last)
        axes.set_title(f"training {quantity}")
    highest = panels[0].dataLim.y1
    panels[0].set_ylim(0, min(EARLY_LOSS, 1.05 * highest))
    if highest > EARLY_LOSS:
        tell_cut(panels[0], f"up to {highest:,.0f} nats")
    panels[1].set_ylim(0, 100)
    legend_of(figure, panels[0])
    return figure


def first_gradients(summary: Summary, groups: Sequence[Group]) -> Figure:
    """Mean |gradient| by layer at each of the first steps, weights above biases, for every setting.

    The axis is logarithmic; gradients of exactly zero stand at its foot, below a line, marked "0".
    """
    lost = [group["label"] for group in summary["groups"] if group not in groups]
    note = '"0" is exactly zero; bars are the deviation over seeds'
    if lost:
        note += f"; without gradients, as every run diverged: {', '.join(lost)}"
    found = {group["label"]: group["gradients"]["by_step"] for group in groups}
    steps = min(len(by_step) for by_step in found.values())
    words = f"gradients of the first {steps} steps"
    size = {"height": 6.4, "width": 3 + 2.2 * steps}
    figure, panels = canvas(summary, words, groups, 2, steps, note=note, **size)
    everything = [mean for of in found.values() for step in of for mean in step["mean"]["mean"]]
    positive = [mean for mean in everything if mean > 0]
    lowest = math.floor(math.log10(min(positive, default=1)))
    highest = math.ceil(math.log10(max(positive, default=1)))
    foot = 10.0 ** (lowest - 1.5)
    decades = range(lowest, highest + 1, max(1, (highest - lowest) // 8))
    look = styles(summary)
    for number, axes in enumerate(panels):
        row, step = divmod(number, steps)
        kind = ("weight", "bias")[row]
        for place, group in enumerate(groups):
            names = group["gradients"]["parameters"]
            order = [i for i, name in enumerate(names) if name.endswith(kind)]
            over_seeds = found[group["label"]][step]["mean"]
            means, spreads = ([over_seeds[key][i] for i in order] for key in ("mean", "std"))
            colour, marker, _ = look[group["label"]]
            axes.errorbar(
                [x + 0.08 * (place - (len(groups) - 1) / 2) for x in range(len(order))],
                [mean or foot for mean in means],
                # a spread wider than its mean would reach below what the axis can show
                yerr=[
                    [min(s or 0, 0.9 * m) for s, m in zip(spreads, means, strict=True)],
                    [s or 0 for s in spreads],
                ],
                color=colour,
                marker=marker,
                markersize=5,
                linewidth=1,
                label=f"{group['label']}, {counted(group)}",
            )
        axes.set_yscale("log")
        ticks = {foot: "0"} | {10.0**power: f"$10^{{{power}}}$" for power in decades}
        axes.set_yticks(list(ticks), ticks.values())
        axes.minorticks_off()
        axes.set_ylim(foot / 3, 10.0**highest * 2)
        axes.axhline(10.0 ** (lowest - 0.75), color="black", linewidth=0.6)
        axes.tick_params(labelleft=step == 0)
        axes.set_xticks(range(len(order)), [names[i].split(".")[0] for i in order], rotation=45)
        if row == 0:
            axes.set_title(f"step {step + 1}")
        if step == 0:
            axes.set_ylabel(f"{('weights', 'biases')[row]}: mean of |∂L/∂w|")
    legend_of(figure, panels[0])
    return figure
