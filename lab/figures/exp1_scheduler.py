"""The figures of experiment 1.2: the schedules, and how they differ from the best fixed rate."""

from functools import partial

from matplotlib.figure import Figure

from lab.figures import canvas, sweep
from lab.figures.canvas import LINES, MARKERS, TRAINING_COLOUR, Figures, Summary


def figures(summary: Summary) -> Figures:
    """The schedules, and what a sweep has."""
    return {"schedules": partial(schedules, summary)} | sweep.figures(summary)


def schedules(summary: Summary) -> Figure:
    """Learning rate by epoch: the trained schedules in their colours, the others in grey."""
    rate = summary["settings"].get("DECAY_RATE")
    note = "Inverse time: the first rate / (1 + k · epoch), where epochs are counted from 0"
    note += f". The trained one has k = {rate:g}" if rate else ""
    note += ". Grey: not trained"
    figure, (axes,) = canvas.blank(summary, "learning rate by epoch", row=4, note=note)
    look = canvas.styles(summary)
    for at, (name, rates) in enumerate(summary["schedules"].items()):
        style = {"color": TRAINING_COLOUR, "linewidth": 1, "label": name}
        style |= {"linestyle": LINES[at % len(LINES)], "marker": MARKERS[at % len(MARKERS)]}
        if name in look:
            style |= {**look[name], "linewidth": 2, "label": f"{name} (trained)", "zorder": 3}
        # markers of two curves at one epoch would hide each other
        style |= {"drawstyle": "steps-mid", "markersize": 4, "markevery": (at, 9)}
        canvas.plot(axes, rates, "learning_rate", **style)
    epochs = max(map(len, summary["schedules"].values()))
    axes.set(xlabel="epoch", ylabel="learning rate", yscale="log", xlim=(0.5, epochs + 0.5))
    axes.set_xticks(canvas.epoch_ticks(epochs))
    return figure
