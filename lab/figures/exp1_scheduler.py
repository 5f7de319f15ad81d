"""The figures of experiment 1.2: the schedules, and how they differ from the best fixed rate."""

from functools import partial

from matplotlib.figure import Figure

from lab.figures import sweep
from lab.figures.canvas import (
    PALETTE,
    TRAINING_COLOUR,
    Figures,
    Summary,
    canvas,
    epoch_ticks,
    legend_of,
    styles,
)
from lab.figures.results import differences

LINES = ("-", "--", ":", "-.")  # of the schedules that are not trained, in grey


def figures(summary: Summary) -> Figures:
    """The schedules, the differences from the best fixed rate, and what a sweep has."""
    return {
        "schedules": partial(schedules, summary),
        "differences": partial(differences, summary, summary["groups"]),
        **sweep.figures(summary),
    }


def schedules(summary: Summary) -> Figure:
    """Learning rate by epoch: the trained schedules in their colours, the others in grey."""
    figure, (axes,) = canvas(summary, "learning-rate schedules", height=4.4)
    look, drops, grey = styles(summary), {1}, 0
    for name, rates in summary["schedules"].items():
        style = {"drawstyle": "steps-mid", "linewidth": 2}
        if name in look:
            colour, marker, _ = look[name]
            style |= {"color": colour, "marker": marker, "markevery": 7, "markersize": 5}
            changes = {at for at in range(2, len(rates) + 1) if rates[at - 1] != rates[at - 2]}
            drops |= changes if len(changes) <= 10 else set()
        else:
            line = LINES[grey % len(LINES)]
            marker = PALETTE[grey % len(PALETTE)][1]
            style |= {"color": TRAINING_COLOUR, "linestyle": line, "linewidth": 1}
            style |= {"marker": marker, "markevery": (grey, 9), "markersize": 4}
            grey += 1
        label = f"{name} (trained)" if name in look else name
        axes.plot(range(1, len(rates) + 1), rates, label=label, **style)
    epochs = max(map(len, summary["schedules"].values()))
    axes.set_xticks(sorted(drops | {epochs}) if len(drops) > 1 else epoch_ticks(epochs))
    axes.set_xlabel("epoch (ticks: the first, those at which a trained schedule drops, the last)")
    axes.set_ylabel("learning rate")
    axes.set_yscale("log")
    legend_of(figure, axes)
    return figure
