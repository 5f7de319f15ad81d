"""The figures of experiment 1.2: the schedules, and how they differ from the best fixed rate."""

from functools import partial

from matplotlib.figure import Figure

from lab.figures import canvas, results, sweep
from lab.figures.canvas import LINES, PALETTE, TRAINING_COLOUR, Figures, Summary


def figures(summary: Summary) -> Figures:
    """The schedules, the differences from the best fixed rate, and what a sweep has."""
    return {
        "schedules": partial(schedules, summary),
        "differences": partial(results.differences, summary, summary["groups"]),
        **sweep.figures(summary),
    }


def schedules(summary: Summary) -> Figure:
    """Learning rate by epoch: the trained schedules in their colours, the others in grey."""
    figure, (axes,) = canvas.blank(summary, "learning rate by epoch", row=4)
    look, falls, grey = canvas.styles(summary), set(), 0
    for name, rates in summary["schedules"].items():
        if name in look:
            colour, marker, _ = look[name]
            style = {"linewidth": 2, "markersize": 5, "markevery": 7, "zorder": 3}
            style |= {"color": colour, "marker": marker, "label": f"{name} (trained)"}
            falls |= set(canvas.drops(rates))
        else:
            style = {"linestyle": LINES[grey % len(LINES)], "linewidth": 1, "markersize": 4}
            style |= {"marker": PALETTE[grey % len(PALETTE)][1], "markevery": (grey, 9)}
            style |= {"color": TRAINING_COLOUR, "label": name}
            grey += 1
        axes.plot(range(1, len(rates) + 1), rates, drawstyle="steps-mid", **style)
    epochs = max(map(len, summary["schedules"].values()))
    axes.set_xticks(canvas.epoch_ticks(epochs, falls))
    axes.set_xlabel("epoch (ticks: where a trained schedule drops)" if falls else "epoch")
    axes.set(ylabel="learning rate", yscale="log", xlim=(0.5, epochs + 0.5))
    canvas.legend(figure, axes)
    return figure
