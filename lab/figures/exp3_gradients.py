"""The figures of experiment 3: gradients by layer, window and epoch, and 3.4's curves."""

from collections.abc import Sequence
from functools import partial

from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from lab.figures import sweep
from lab.figures.canvas import Figures, Group, Summary, canvas, epoch_ticks, legend
from lab.figures.mistakes import best_model_figures
from lab.figures.results import differences, results

WINDOWS = {
    "first_steps": ("first 5 steps", "#9ECAE1"),
    "last_steps": ("last 5 steps", "#FDBE85"),
    "first_epochs": ("first 5 epochs", "#0072B2"),
    "last_epochs": ("last 5 epochs", "#D55E00"),
}
LAYERS = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "fc1", "bn4", "fc2")  # forward
HEAT_MAP_RANGE = 1e3  # from the largest gradient to those in the darkest shade


def figures(summary: Summary) -> Figures:
    """Gradients by network, side by side and over the epochs; then 3.4's curves and results."""
    watched = [group for group in summary["groups"] if "gradients" in group]
    performance = [g for g in summary["groups"] if not g["settings"]["gradient_statistics"]]
    shown = {f"gradients_{name(group)}": partial(gradients, summary, [group]) for group in watched}
    if watched:  # unless all of them diverged
        shown["gradients_compared"] = partial(gradients, summary, watched)
        shown["gradients_by_epoch"] = partial(gradients_by_epoch, summary, watched)
    return {
        **shown,
        "test_accuracy": partial(results, summary, performance),
        "comparison": partial(sweep.comparison, summary, performance),
        **sweep.each(summary, performance),
        "differences": partial(differences, summary, summary["groups"]),
        **best_model_figures(summary),
    }


def name(group: Group) -> str:
    return group["settings"]["network"]


def gradients(summary: Summary, groups: Sequence[Group]) -> Figure:
    """Mean and standard deviation of |gradient| by parameter, in the first and last windows."""
    rows, columns = (1, 2) if len(groups) == 1 else (2, len(groups))
    words = f"size of gradients, {', '.join(map(name, groups))}"
    size = {"height": 4.4 * rows, "width": max(10.0, 5.2 * columns)}
    figure, panels = canvas(summary, words, groups, rows, columns, note=on_biases(groups), **size)
    for at, axes in enumerate(panels):
        statistic = ("mean", "std")[at if len(groups) == 1 else at // columns]
        group = groups[0 if len(groups) == 1 else at % columns]
        found = group["gradients"]
        order = forward_order(found["parameters"])
        for place, (window, (words, colour)) in enumerate(WINDOWS.items()):
            means, spreads = (
                [found[window][statistic][key][i] for i in order] for key in ("mean", "std")
            )
            places = [i + 0.2 * (place - 1.5) for i in range(len(order))]
            style = {"color": colour, "label": words, "error_kw": {"linewidth": 0.6}}
            axes.bar(places, means, 0.2, yerr=[spread or 0 for spread in spreads], **style)
            if statistic == "std" and "std_by_element" in found[window]:
                by_element = [found[window]["std_by_element"]["mean"][i] for i in order]
                axes.plot(places, by_element, "kx", markersize=4, label="over steps, by element")
        axes.set_yscale("log")
        names = [found["parameters"][i] for i in order]
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
        axes.set_ylabel({"mean": "mean", "std": "standard deviation"}[statistic] + " of |∂L/∂w|")
        axes.set_title(name(group))
    if len(groups) > 1:
        for row in (panels[:columns], panels[columns:]):
            for axes in row[1:]:
                axes.sharey(row[0])
            row[0].autoscale(axis="y")
    by_label = dict(zip(*reversed(panels[-1].get_legend_handles_labels()), strict=True))
    legend(figure, list(by_label.values()), list(by_label))
    return figure


def gradients_by_epoch(summary: Summary, groups: Sequence[Group]) -> Figure:
    """A heat map for each network: mean |gradient| by parameter and epoch, on one colour scale."""
    figure, panels = canvas(
        summary,
        "mean size of gradients by epoch",
        groups,
        columns=len(groups),
        height=5.2,
        width=max(10.0, 5.0 * len(groups)),
        note=on_biases(groups),
    )
    means = [group["gradients"]["history"]["mean"] for group in groups]
    biggest = max(value for mean in means for epoch in mean for value in epoch)
    scale = LogNorm(vmin=biggest / HEAT_MAP_RANGE, vmax=biggest, clip=True)
    for axes, group, mean in zip(panels, groups, means, strict=True):
        names = group["gradients"]["parameters"]
        order = forward_order(names)
        image = axes.imshow(
            [[epoch[i] for epoch in mean] for i in order],
            aspect="auto",
            cmap="cividis",
            norm=scale,
            extent=(0.5, len(mean) + 0.5, len(order) - 0.5, -0.5),
        )
        axes.grid(False)
        axes.set_yticks(range(len(order)), [names[i] for i in order])
        axes.set_xticks(epoch_ticks(len(mean)))
        axes.set_xlabel("epoch")
        axes.set_title(name(group))
    label = "mean of |∂L/∂w| (smaller values in the darkest shade)"
    figure.subfigs[0].colorbar(image, ax=panels, label=label)
    return figure


def forward_order(parameters: Sequence[str]) -> list[int]:
    """Indices of the parameters in the order in which an image meets their layers.

    Layers of another network keep the order in which they are registered, after those known here.
    """
    places = {layer: place for place, layer in enumerate(LAYERS)}
    layers = [parameter.split(".")[0] for parameter in parameters]
    return sorted(range(len(layers)), key=lambda i: (places.get(layers[i], len(LAYERS)), i))


def on_biases(groups: Sequence[Group]) -> str:
    """Why some gradients of a network with batch normalisation are about zero."""
    if not any(layer.startswith("bn") for g in groups for layer in g["gradients"]["parameters"]):
        return ""
    return (
        "With batch normalisation the biases of conv1 to conv3 and fc1 have gradients of about "
        "zero (rounding errors): it subtracts the mean, and with it what they add"
    )
