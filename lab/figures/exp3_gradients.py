"""The figures of experiment 3: gradients by layer, window and epoch, and 3.4's curves."""

import itertools
from collections.abc import Sequence
from functools import partial

from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from lab.figures import canvas, sweep
from lab.figures.canvas import Figures, Group, Summary

WINDOWS = {
    "first_steps": ("first 5 steps", "#9ECAE1"),
    "last_steps": ("last 5 steps", "#FDBE85"),
    "first_epochs": ("first 5 epochs", "#0072B2"),
    "last_epochs": ("last 5 epochs", "#D55E00"),
}
ON_BIASES = (
    "Batch normalisation subtracts the mean, so the biases of conv1 to conv3 and fc1 change "
    "nothing: their gradients are about zero"
)
ON_BARS = (
    "Mean and standard deviation (std) are over a tensor's elements and a window's steps. Lines on "
    "the bars: std over seeds. ×: std of each element over the 5 steps, averaged over elements. "
    "Where an epoch's last batch is short, the last of all steps has a noisier gradient"
)
ON_SHADES = (
    "White: the network has no such parameter. Values below the scale have the darkest shade"
)
STATISTICS = {"mean": "mean of |∂L/∂w|", "std": "std of |∂L/∂w|"}
LAYERS = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "fc1", "bn4", "fc2")  # forward
HEAT_MAP_RANGE = 1e2  # from the largest gradient to those in the darkest shade
BAR_RANGE = 1e4  # from the largest gradient to the foot of the axis


def figures(summary: Summary) -> Figures:
    """Gradients by network, side by side and over the epochs; then 3.4's curves and results."""
    watched = [group for group in summary["groups"] if "gradients" in group]
    performance = [g for g in summary["groups"] if not g["settings"]["gradient_statistics"]]
    shown = {}
    if watched:  # unless all of them diverged
        networks = {f"gradients_{group['settings']['network']}": [group] for group in watched}
        networks["gradients_compared"] = watched
        shown = {name: partial(gradients, summary, groups) for name, groups in networks.items()}
        shown["gradients_by_epoch"] = partial(gradients_by_epoch, summary, watched)
    return {**shown, **sweep.figures(summary, performance)}


def gradients(summary: Summary, groups: Sequence[Group]) -> Figure:
    """Mean and standard deviation of |gradient| by parameter, in the first and last windows.

    A network has a row, on one scale and with the same places for the same parameters.
    """
    words = f"size of gradients, {', '.join(g['settings']['network'] for g in groups)}"
    names, height = in_forward_order(groups), 2.4 + 1.8 / len(groups)
    figure, panels = canvas.blank(
        summary, words, groups, 2 * len(groups), 2, row=height, note=note(groups, ON_BARS)
    )
    for axes, (group, statistic) in zip(panels, itertools.product(groups, STATISTICS), strict=True):
        found, parameters = group["gradients"], group["gradients"]["parameters"]
        for at, (window, (words, colour)) in enumerate(WINDOWS.items()):
            places = [names.index(name) + 0.2 * (at - 1.5) for name in parameters]
            size = found[window][statistic]
            style = {"color": colour, "label": words, "error_kw": {"linewidth": 0.6}}
            axes.bar(places, size["mean"], 0.2, yerr=[s or 0 for s in size["std"]], **style)
            if statistic == "std" and (by_element := found[window].get("std_by_element")):
                style = {"markersize": 4, "label": "std over steps, by element"}
                axes.plot(places, by_element["mean"], "kx", **style)
        axes.set(yscale="log", ylabel=STATISTICS[statistic])
        axes.set_title(group["settings"]["network"] if len(groups) > 1 else "")
        axes.sharex(panels[0])
        axes.sharey(panels[0] if statistic == "mean" else panels[1])
        axes.autoscale(axis="y")
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, high / BAR_RANGE), high)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=canvas.SMALL)
        axes.tick_params(labelbottom=axes in panels[-2:])
    return figure


def gradients_by_epoch(summary: Summary, groups: Sequence[Group]) -> Figure:
    """A heat map for each network: mean |gradient| by parameter and epoch, on one colour scale."""
    names, words = in_forward_order(groups), "mean size of gradients by epoch"
    count = len(groups)
    below = note(groups, ON_SHADES)
    figure, panels = canvas.blank(summary, words, groups, count, count, row=4.8, note=below)
    means = [group["gradients"]["history"]["mean"] for group in groups]
    biggest = max(value for mean in means for epoch in mean for value in epoch)
    scale = LogNorm(vmin=biggest / HEAT_MAP_RANGE, vmax=biggest, clip=True)
    for axes, group, mean in zip(panels, groups, means, strict=True):
        found = dict(zip(group["gradients"]["parameters"], zip(*mean, strict=True), strict=True))
        rows = [found.get(name, [float("nan")] * len(mean)) for name in names]  # NaN stays white
        extent = (0.5, len(mean) + 0.5, len(names) - 0.5, -0.5)
        image = axes.imshow(rows, aspect="auto", cmap="cividis", norm=scale, extent=extent)
        axes.grid(False)
        axes.set_yticks(range(len(names)), names if axes is panels[0] else [])
        axes.set_xticks(canvas.epoch_ticks(len(mean)))
        axes.set(xlabel="epoch", title=group["settings"]["network"])
    figure.colorbar(image, ax=panels, label="mean of |∂L/∂w|")
    return figure


def in_forward_order(groups: Sequence[Group]) -> list[str]:
    """The names of all parameters, in the order in which an image meets their layers.

    Other layers than those known here follow, in the order in which they are registered.
    """
    names = dict.fromkeys(name for g in groups for name in g["gradients"]["parameters"])
    places = {layer: place for place, layer in enumerate(LAYERS)}
    return sorted(names, key=lambda name: places.get(name.split(".")[0], len(LAYERS)))


def note(groups: Sequence[Group], on_marks: str) -> str:
    """What the marks mean, and why some gradients with batch normalisation are about zero."""
    normalised = any(name.startswith("bn") for name in in_forward_order(groups))
    return f"{on_marks}\n{ON_BIASES}" if normalised else on_marks
