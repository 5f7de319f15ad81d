"""The figures of the study, each a function of a summary, and which of them an experiment has."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

import download
from canvas import (
    AXIS_LABELS,
    CHANCE,
    FAILURE_COLOUR,
    GUESSING,
    LARGE_LOSS,
    PALETTE,
    PLACES,
    TRAINING_COLOUR,
    Group,
    Summary,
    at_the_end,
    canvas,
    counted,
    cut_off,
    dots,
    label_axes,
    legend_of_panels,
    mark_guessing,
    plot,
    seeds_and_mean,
    share_log_scale,
    share_scale,
    smooth,
    styles,
)
from store import HERE
from summary import by_learning_rate, failure, in_words, overfits_after, range_in_words, spread

WINDOWS = {
    "first_steps": ("first 5 steps", "#9ECAE1"),
    "last_steps": ("last 5 steps", "#FDBE85"),
    "first_epochs": ("first 5 epochs", "#0072B2"),
    "last_epochs": ("last 5 epochs", "#D55E00"),
}
BY_ELEMENT = "over steps, by element"
LAYERS = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "fc1", "bn4", "fc2")
HEAT_MAP_RANGE = 1e3  # from the largest gradient to those in the darkest shade
DIVERGED = {"marker": "x", "color": "black", "linestyle": "none"}
WINNER = {  # a ring around one of the points of a search
    **{"marker": "o", "markersize": 13, "markerfacecolor": "none", "markeredgewidth": 2},
    **{"color": "#D55E00", "linestyle": "none"},
}
LOSSES_COMPARED = 10.0  # nats; what is above on such an axis is told, where others are compared
EARLY_LOSSES = 4.0  # nats; likewise for the first epochs, on a linear axis

Figures = dict[str, Callable[[], Figure | None]]  # by name; None where it cannot be drawn here


def figures(summary: Summary) -> Figures:
    """The figures of an experiment by name, in their order, each a function that draws it.

    A copy of a script under another name gets the figures that every sweep has.
    """
    return FIGURES.get(summary["experiment"], sweep_figures)(summary)


def file_name(figure: str) -> str:
    return f"{figure.replace(', ', '_').replace(' ', '_')}.png"


def sweep_figures(summary: Summary) -> Figures:
    """The comparison of the settings, one figure for each, and the best one's mistakes."""
    return {
        "comparison": partial(comparison, summary, summary["groups"]),
        **{group["label"]: partial(curves, summary, group) for group in summary["groups"]},
        **best_model_figures(summary),
    }


def exploration_figures(summary: Summary) -> Figures:
    """The extremes, what each rate reaches, and what a sweep has."""
    return {
        "extremes": partial(extremes, summary),
        "accuracy_by_rate": partial(accuracy_by_rate, summary),
        **sweep_figures(summary),
    }


def scheduler_figures(summary: Summary) -> Figures:
    """The candidates, the differences from the best fixed rate, and what a sweep has."""
    return {
        "schedules": partial(schedules, summary),
        "differences": partial(differences, summary, summary["groups"]),
        **sweep_figures(summary),
    }


def transfer_figures(summary: Summary) -> Figures:
    """All models' test accuracy, gap and results by class, and the retrained models' curves.

    What freezes fewer layers has figures of its own.
    """
    finer = [group for group in summary["groups"] if group["label"].startswith("frozen=")]
    groups = [group for group in summary["groups"] if group not in finer]
    retrained = [group for group in groups if group["label"].startswith("retrained")]
    shown = {}
    if finer:
        shown = {
            "trainable_parameters": partial(trainable_parameters, summary),
            "differences_by_frozen_layers": partial(differences, summary, finer),
            **{group["label"]: partial(curves, summary, group) for group in finer},
        }
    return {
        "test_accuracy": partial(results, summary, groups),
        "differences": partial(differences, summary, groups),
        "classes": partial(classes, summary, groups),
        "comparison": partial(comparison, summary, retrained),
        **{group["label"]: partial(curves, summary, group) for group in retrained},
        **shown,
        **best_model_figures(summary),
    }


def gradient_figures(summary: Summary) -> Figures:
    """Gradients by network, side by side and over the epochs; then 3.4's curves and results."""
    performance = [g for g in summary["groups"] if not g["settings"]["gradient_statistics"]]
    watched = [group for group in summary["groups"] if "gradients" in group]
    shown = {}
    if watched:  # unless all of them diverged
        shown = {
            "gradients_compared": partial(gradients, summary, watched),
            "gradients_by_epoch": partial(gradients_by_epoch, summary, watched),
        }
    return {
        **{
            f"gradients_{group['settings']['network']}": partial(gradients, summary, [group])
            for group in watched
        },
        **shown,
        "comparison": partial(comparison, summary, performance),
        **{group["label"]: partial(curves, summary, group) for group in performance},
        "differences": partial(differences, summary, summary["groups"]),
        **best_model_figures(summary),
    }


def initialisation_figures(summary: Summary) -> Figures:
    """The first epochs, the gradients of the first steps, the results, and what a sweep has."""
    watched = [group for group in summary["groups"] if "gradients" in group]
    shown = {}
    if watched:  # unless all of them diverged
        shown["gradients_first_steps"] = partial(first_gradients, summary, watched)
    return {
        "early": partial(early, summary),
        **shown,
        "test_accuracy": partial(results, summary, summary["groups"], CHANCE),
        **sweep_figures(summary),
    }


def search_figures(summary: Summary) -> Figures:
    """Where the searches looked and what they found, by budget, and the winners trained again."""
    return {
        "search": partial(search_map, summary),
        "best_so_far": partial(best_by_budget, summary),
        "test_accuracy": partial(results, summary, summary["groups"]),
        "differences": partial(differences, summary, summary["groups"]),
        **sweep_figures(summary),
    }


def overfitting_figures(summary: Summary) -> Figures:
    """What is learned by heart, when each strategy overfits, its gap, and what a sweep has."""
    tried = [group for group in summary["groups"] if group["label"] in summary["candidates"]]
    return {
        "learning": partial(learning, summary),
        "losses": partial(losses, summary, tried),
        "gap": partial(results, summary, tried),
        "differences": partial(differences, summary, tried),
        "comparison": partial(comparison, summary, tried),
        **{group["label"]: partial(curves, summary, group) for group in tried},
        **best_model_figures(summary),
    }


def best_model_figures(summary: Summary) -> Figures:
    """What the best model gets right and wrong, where there is one."""
    if (found := best_run(summary)) is None:
        return {}
    return {
        "best_model": partial(by_class, summary, *found, "Best model"),
        "mistakes": partial(mistakes, summary, *found),
    }


def curves(summary: Summary, group: Group) -> Figure:
    """One setting: loss and accuracy, training and validation, every seed and the mean."""
    title = f"{group['settings']['network']}, {group['label']}"
    figure, panels = canvas(summary, title, [group], columns=2, height=3.6)
    colour, _, _ = styles(summary)[group["label"]]
    for axes, quantity in zip(panels, AXIS_LABELS, strict=True):
        seeds_and_mean(axes, group, quantity, colour, f"mean of {counted(group)}")
    panels[0].plot([], [], color="black", linewidth=0.7, alpha=0.35, label="one seed")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def comparison(summary: Summary, groups: Sequence[Group]) -> Figure:
    """The mean curves of several settings: training as it is, validation smoothed."""
    window = summary["settings"].get("SMOOTHING_WINDOW", 1)
    figure, panels = canvas(summary, "Mean curves compared", groups, rows=2, columns=2, height=6)
    for axes, (quantity, part) in zip(
        panels, [(q, p) for q in AXIS_LABELS for p in ("train", "val")], strict=True
    ):
        for group in groups:
            curve = group["mean"][f"{part}_{quantity}"]
            colour, marker, line = styles(summary)[group["label"]]
            plot(
                axes,
                curve if part == "train" else smooth(curve, window),
                quantity,
                color=colour,
                marker=marker,
                linestyle=line,
                markersize=4,
                markevery=max(1, len(curve) // 6),
                label=f"{group['label']}, {counted(group)}",
            )
        label_axes(axes, quantity)
        axes.set_title("training" if part == "train" else f"validation, moving mean of {window}")
    for row in (panels[:2], panels[2:]):  # training beside validation
        share_scale(row)
    for axes in panels[:2]:
        if axes.dataLim.y1 > LARGE_LOSS:
            cut_off(axes, LOSSES_COMPARED)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def extremes(summary: Summary) -> Figure:
    """Every seed and the mean at the highest, the best and the lowest rate, beside guessing."""
    by_rate = sorted(summary["groups"], key=lambda group: -group["settings"]["learning_rate"])
    extreme = {
        "highest": by_rate[0]["label"],
        "best": summary["best"],
        "lowest": by_rate[-1]["label"],
    }
    groups = [group for group in by_rate if group["label"] in extreme.values()]
    figure, panels = canvas(
        summary, "Extremes of the learning rate", groups, rows=2, columns=len(groups), height=6
    )
    rows = panels[: len(groups)], panels[len(groups) :]
    for row, quantity in zip(rows, AXIS_LABELS, strict=True):
        for axes, group in zip(row, groups, strict=True):
            seeds_and_mean(axes, group, quantity, styles(summary)[group["label"]][0], "mean")
            guess = mark_guessing(axes.axhline, GUESSING[quantity])
            ends = [run["diverged_at_epoch"] for run in group["runs"]]
            (lost,) = axes.plot(
                [end + 1 for end in ends if end is not None],
                [0.97] * group["diverged"],
                "X",
                color="black",
                transform=axes.get_xaxis_transform(),
                label="a seed diverged",
            )
    share_log_scale(rows[0])  # so that a loss that diverges leaves the others to be seen
    share_scale(rows[1])
    for axes, group in zip(rows[0], groups, strict=True):
        which = " and ".join(word for word, label in extreme.items() if label == group["label"])
        axes.set_title(f"{which} rate: {group['label']}\n{counted(group)}")
    legend_of_panels(figure, guess, lost)
    return figure


def accuracy_by_rate(summary: Summary) -> Figure:
    """Accuracy at the last epoch by learning rate, the suggested range, and who diverged."""
    groups = sorted(summary["groups"], key=lambda group: group["settings"]["learning_rate"])
    rates = [group["settings"]["learning_rate"] for group in groups]
    figure, panels = canvas(
        *(summary, "Accuracy after the last epoch by learning rate", groups),
        rows=2,
        height=5.4,
        final=True,
    )
    accuracy, divergence = panels
    divergence.sharex(accuracy)
    accuracy.get_gridspec().set_height_ratios([3, 1])
    for words, accuracy_of, colour, line in (
        ("training", lambda run: run["final_train_accuracy"], TRAINING_COLOUR, "--"),
        ("validation", lambda run: run["val_accuracy"][-1], PALETTE[0][0], "-"),
    ):
        ends = [
            [100 * accuracy_of(run) for run in group["runs"] if run["diverged_at_epoch"] is None]
            for group in groups
        ]
        accuracy.plot(
            rates,
            [spread(values)["mean"] if values else float("nan") for values in ends],
            color=colour,
            linestyle=line,
            linewidth=2,
            label=f"{words}, mean",
        )
        for rate, values in zip(rates, ends, strict=True):
            accuracy.plot([rate] * len(values), values, "o", color=colour, alpha=0.4, markersize=4)
    accuracy.plot([], [], "o", color="black", alpha=0.4, markersize=4, label="one seed")
    mark_guessing(accuracy.axhline, GUESSING["accuracy"])
    lost, widths = [group["diverged"] for group in groups], [0.15 * rate for rate in rates]
    divergence.bar(rates, lost, widths, color=PALETTE[1][0])
    most = max(len(group["runs"]) for group in groups)
    divergence.set_ylim(0, most)
    divergence.yaxis.set_major_locator(MaxNLocator(integer=True))
    divergence.set_ylabel(f"diverged\n(of {most} seeds)")
    if summary["suggested_range"]:
        lowest, highest = summary["suggested_range"]
        words = f"suggested range, {range_in_words([lowest, highest])}"
        for axes, label in ((accuracy, words), (divergence, None)):
            # a little wider, as the range may be a single rate
            axes.axvspan(lowest / 1.1, highest * 1.1, color=PALETTE[4][0], alpha=0.2, label=label)
    accuracy.set_ylabel(AXIS_LABELS["accuracy"])
    for axes in panels:
        axes.set_xscale("log")
    accuracy.tick_params(labelbottom=False)
    divergence.set_xlabel("learning rate")
    figure.legend(*accuracy.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def schedules(summary: Summary) -> Figure:
    """The candidate schedules: learning rate by epoch."""
    figure, (axes,) = canvas(summary, "Candidate learning-rate schedules", [], height=3.6)
    for (name, rates), (colour, marker) in zip(summary["schedules"].items(), PALETTE, strict=False):
        axes.plot(
            range(1, len(rates) + 1),
            rates,
            color=colour,
            marker=marker,
            markersize=4,
            markevery=7,
            drawstyle="steps-mid",
            label=name,
        )
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("learning rate")
    axes.set_yscale("log")
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def differences(summary: Summary, groups: Sequence[Group]) -> Figure:
    """How these settings' test accuracy differs, paired by seed: seeds, mean and 95% interval."""
    labels = [group["label"] for group in groups]
    comparisons = [pair for pair in summary["comparisons"] if pair["label"] in labels]
    compared = {pair[key] for pair in comparisons for key in ("label", "minus")}
    figure, (axes,) = canvas(
        summary,
        "Test accuracy, paired by seed",
        [group for group in summary["groups"] if group["label"] in compared],
        height=1.6 + 0.6 * len(comparisons),
    )
    for row, pair in enumerate(comparisons):
        style = styles(summary)[pair["label"]]
        dots(axes, row, pair["differences"], pair["test_accuracy"], style)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(
        range(len(comparisons)), [f"{pair['label']}\nminus {pair['minus']}" for pair in comparisons]
    )
    axes.set_ylim(len(comparisons) - 0.4, -0.6)
    axes.set_xlabel("difference of test accuracy (percentage points): seeds, mean and 95% interval")
    return figure


def results(summary: Summary, groups: Sequence[Group], chance: float | None = None) -> Figure:
    """Test accuracy and generalisation gap of every setting: seeds, mean and 95% interval.

    chance, an accuracy, is marked by a line.
    """
    height = 1.6 + 0.5 * len(groups)
    figure, panels = canvas(
        *(summary, "Test accuracy and generalisation gap", groups),
        columns=2,
        height=height,
        final=True,
    )
    for axes, quantity in zip(panels, ("test_accuracy", "gap"), strict=True):
        for row, group in enumerate(groups):
            values = [at_the_end(run, quantity) for run in group["runs"]]
            dots(axes, row, values, group[quantity], styles(summary)[group["label"]])
        names = [
            group["label"]
            + f"\n({group['diverged']} of {len(group['runs'])} diverged)" * bool(group["diverged"])
            for group in groups
        ]
        axes.set_yticks(range(len(groups)), names)
        axes.set_ylim(len(groups) - 0.4, -0.6)
    if chance is not None:
        mark_guessing(panels[0].axvline, 100 * chance)
        figure.legend(loc="outside right upper", frameon=False)
    panels[0].set_xlabel("test accuracy (%): seeds, mean and 95% interval")
    panels[1].set_xlabel("training minus validation accuracy (percentage points)")
    panels[1].tick_params(labelleft=False)
    return figure


def classes(summary: Summary, groups: Sequence[Group]) -> Figure:
    """F1 on the test set by class, the mean over seeds, for every setting."""
    figure, (axes,) = canvas(summary, "F1 by class on the test set", groups)
    for group in groups:
        tested = [run for run in group["runs"] if run["report"]]
        if not tested:
            continue
        names = list(tested[0]["report"])[: len(tested[0]["confusion_matrix"])]
        means = [
            100 * sum(run["report"][name]["f1-score"] for run in tested) / len(tested)
            for name in names
        ]
        colour, marker, line = styles(summary)[group["label"]]
        axes.plot(
            names,
            means,
            color=colour,
            marker=marker,
            markerfacecolor="white" if line == "--" else colour,
            linestyle="none",
            markersize=7,
            label=f"{group['label']}, {counted(group)}",
        )
    axes.tick_params(axis="x", labelrotation=30)
    axes.set_ylabel("F1 (%)")
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def trainable_parameters(summary: Summary) -> Figure:
    """Test accuracy and gap by number of trainable parameters: seeds, and the mean of each rate."""
    lines = by_learning_rate(summary)
    groups = [group for line in lines.values() for group in line]
    counts = summary["trainable_parameters"]
    figure, panels = canvas(
        summary,
        f"Retrained from dropout={groups[0]['settings']['dropout_rate']:.12g}, by number of "
        "trainable parameters",
        groups,
        rows=2,
        height=7,
        final=True,
        note="Validation is on the images that the source was trained on: the more is kept of it, "
        "the less the gap says about new images",
    )
    names = {}
    for rate, line in lines.items():
        colour, marker, _ = styles(summary)[line[-1]["label"]]
        diverged = sum(group["diverged"] for group in line)
        for axes, quantity in zip(panels, ("test_accuracy", "gap"), strict=True):
            means = []
            for group in line:
                count, frozen = counts[group["label"]], group["settings"]["frozen"]
                names[count] = f"{count:,}\n{', '.join(frozen) or 'none'}"
                values = [at_the_end(run, quantity) for run in group["runs"]]
                known = [100 * value for value in values if value is not None]
                axes.plot([count] * len(known), known, "o", color=colour, alpha=0.4, markersize=4)
                means.append((count, group[quantity]["mean"]))
            axes.plot(
                [count for count, _ in means],
                [float("nan") if mean is None else 100 * mean for _, mean in means],
                color=colour,
                marker=marker,
                linewidth=2,
                label=f"{rate}, mean over seeds" + f" ({diverged} runs diverged)" * bool(diverged),
            )
    panels[0].plot([], [], "o", color="black", alpha=0.4, markersize=4, label="one seed")
    for axes in panels:
        axes.set_xticks(list(names), [])
    panels[1].set_xticks(list(names), names.values())
    # conv1 has few parameters: the last two stand close together
    for text, side in zip(panels[1].get_xticklabels()[-2:], ("right", "left"), strict=False):
        text.set_horizontalalignment(side)
    panels[1].set_xlabel("trainable parameters, and which layers are frozen")
    panels[0].set_ylabel("test accuracy (%)")
    panels[1].set_ylabel("training minus validation\naccuracy (percentage points)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def gradients(summary: Summary, groups: Sequence[Group]) -> Figure:
    """Mean and standard deviation of |gradient| by parameter, in the first and last windows."""
    title = "Size of gradients: " + ", ".join(group["settings"]["network"] for group in groups)
    rows, columns = (1, 2) if len(groups) == 1 else (2, len(groups))
    figure, panels = canvas(
        summary, title, groups, rows, columns, height=4.2 * rows, note=note_on_biases(groups)
    )
    if len(groups) > 1:
        figure.set_figwidth(5 * columns)
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
            axes.bar(
                places,
                means,
                0.2,
                yerr=[spread or 0 for spread in spreads],
                error_kw={"linewidth": 0.6},
                color=colour,
                label=words,
            )
            if statistic == "std" and "std_by_element" in found[window]:
                by_element = [found[window]["std_by_element"]["mean"][i] for i in order]
                axes.plot(places, by_element, "kx", markersize=4, label=BY_ELEMENT)
        axes.set_yscale("log")
        names = [found["parameters"][i] for i in order]
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
        axes.set_ylabel({"mean": "mean", "std": "standard deviation"}[statistic] + " of |∂L/∂w|")
        axes.set_title(group["settings"]["network"])
    if len(groups) > 1:
        for row in (panels[:columns], panels[columns:]):
            share_scale(row)
    handles = dict(zip(*reversed(panels[-1].get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles, loc="outside right upper", frameon=False)
    return figure


def gradients_by_epoch(summary: Summary, groups: Sequence[Group]) -> Figure:
    """A heat map for each network: mean |gradient| by parameter and epoch, on one colour scale."""
    figure, panels = canvas(
        summary,
        "Mean size of gradients by epoch",
        groups,
        columns=len(groups),
        height=4.8,
        note=note_on_biases(groups),
    )
    figure.set_figwidth(5 * len(groups))
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
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(group["settings"]["network"])
    figure.colorbar(image, ax=panels, label="mean of |∂L/∂w| (smaller values in the darkest shade)")
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
    figure, panels = canvas(
        summary, "Gradients of the first steps", groups, 2, steps, height=6, note=note
    )
    figure.set_figwidth(3 + 2.2 * steps)
    everything = [mean for of in found.values() for step in of for mean in step["mean"]["mean"]]
    positive = [mean for mean in everything if mean > 0]
    lowest = math.floor(math.log10(min(positive, default=1)))
    highest = math.ceil(math.log10(max(positive, default=1)))
    foot = 10.0 ** (lowest - 1.5)
    decades = range(lowest, highest + 1, max(1, (highest - lowest) // 8))
    for number, axes in enumerate(panels):
        row, step = divmod(number, steps)
        kind = ("weight", "bias")[row]
        for place, group in enumerate(groups):
            names = group["gradients"]["parameters"]
            order = [i for i in forward_order(names) if names[i].endswith(kind)]
            over_seeds = found[group["label"]][step]["mean"]
            means, spreads = ([over_seeds[key][i] for i in order] for key in ("mean", "std"))
            colour, marker, _ = styles(summary)[group["label"]]
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
                markersize=4,
                linewidth=1,
                label=f"{group['label']}, {counted(group)}",
            )
        axes.set_yscale("log")
        axes.set_yticks(
            [foot, *(10.0**power for power in decades)],
            ["0", *(f"$10^{{{power}}}$" for power in decades)],
        )
        axes.minorticks_off()
        axes.set_ylim(foot / 3, 10.0**highest * 2)
        axes.axhline(10.0 ** (lowest - 0.75), color="black", linewidth=0.6)
        axes.tick_params(labelleft=step == 0)
        layers = [names[i].split(".")[0] for i in order]
        axes.set_xticks(range(len(order)), layers, rotation=30, ha="right")
        if row == 0:
            axes.set_title(f"step {step + 1}")
        if step == 0:
            axes.set_ylabel(f"{('weights', 'biases')[row]}: mean of |∂L/∂w|")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def forward_order(parameters: Sequence[str]) -> list[int]:
    """Indices of the parameters in the order in which an image meets their layers."""
    return sorted(range(len(parameters)), key=lambda i: LAYERS.index(parameters[i].split(".")[0]))


def note_on_biases(groups: Sequence[Group]) -> str:
    if not any(group["settings"]["network"] == "BatchNormNet" for group in groups):
        return ""
    return (
        "In BatchNormNet the biases of conv1 to conv3 and fc1 have gradients of about zero "
        "(rounding errors):\nbatch normalisation subtracts the mean, and with it what they add"
    )


def early(summary: Summary) -> Figure:
    """Training loss and accuracy in the first epochs: every seed and the mean of every setting."""
    last = min(summary["settings"]["EARLY_EPOCHS"], summary["settings"]["EPOCHS"])
    groups = summary["groups"]
    figure, panels = canvas(summary, "The first epochs", groups, columns=2)
    for axes, (quantity, guessing) in zip(panels, GUESSING.items(), strict=True):
        name = f"train_{quantity}"
        for place, group in enumerate(groups):
            colour, marker, _ = styles(summary)[group["label"]]
            for run in group["runs"]:
                plot(axes, run[name][:last], quantity, color=colour, linewidth=0.7, alpha=0.35)
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
        label_axes(axes, quantity)
        axes.set_title(f"training, epochs 1 to {last}")
    if panels[0].dataLim.y1 > EARLY_LOSSES:
        panels[0].set_yscale("linear")
        cut_off(panels[0], EARLY_LOSSES)
    panels[0].set_ylim(bottom=0)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def search_map(summary: Summary) -> Figure:
    """Every run of both searches: where it was in the ranges, and its validation accuracy."""
    searches = summary["search"]
    repeats = len(searches["grid"]["repeats"])
    figure, panels = canvas(
        summary,
        "Where the searches looked, and what they found",
        summary["groups"],
        columns=2,
        height=5,
        note=f"The {repeats} repeats of the grid lie side by side at each of its points",
    )
    accuracies = [
        100 * point["val_accuracy"]
        for found in searches.values()
        for repeat in found["repeats"]
        for point in repeat["points"]
        if point["val_accuracy"] is not None
    ]
    scale = Normalize(min(accuracies, default=0), max(accuracies, default=100))
    low, high = summary["settings"]["LEARNING_RATE_RANGE"]
    for axes, (name, found) in zip(panels, searches.items(), strict=True):
        aside = (high / low) ** 0.025 if name == "grid" else 1.0  # a factor between repeats
        placed = [
            (point["learning_rate"] * aside ** (n - (repeats - 1) / 2), point["momentum"], point)
            for n, repeat in enumerate(found["repeats"])
            for point in repeat["points"]
        ]
        sound = [(x, y, point) for x, y, point in placed if point["val_accuracy"] is not None]
        lost = [(x, y, point) for x, y, point in placed if point["val_accuracy"] is None]
        won = [(x, y, point) for x, y, point in sound if point == found["winner"]]
        image = axes.scatter(
            [x for x, _, _ in sound],
            [y for _, y, _ in sound],
            40,
            [100 * point["val_accuracy"] for _, _, point in sound],
            cmap="cividis",
            norm=scale,
        )
        for style, marked in ((DIVERGED, lost), (WINNER, won)):
            axes.plot([x for x, _, _ in marked], [y for _, y, _ in marked], **style)
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("momentum")
        highest = "".join(f", ○ highest: {100 * p['val_accuracy']:.1f}%" for _, _, p in won)
        axes.set_title(
            f"{name} search: {repeats} repeats of {len(placed) // repeats} runs\n"
            f"× diverged: {len(lost)}{highest}"
        )
    share_scale(panels)
    panels[1].sharex(panels[0])
    panels[0].autoscale(axis="x")
    figure.colorbar(image, ax=panels, label="validation accuracy after the last epoch (%)")
    return figure


def best_by_budget(summary: Summary) -> Figure:
    """The best validation accuracy by the number of runs spent, and where each repeat ends."""
    searches = summary["search"]
    figure, (axes, ends) = canvas(
        summary, "Best so far by runs spent", summary["groups"], columns=2
    )
    for row, (name, found) in enumerate(searches.items()):
        colour, marker = PALETTE[PLACES[name]]
        line = {"color": colour, "drawstyle": "steps-post"}
        for repeat in found["repeats"]:
            plot(axes, repeat["best_so_far"], "accuracy", **line, linewidth=0.7, alpha=0.4)
        plot(
            axes,
            found["best_so_far"]["mean"],
            "accuracy",
            **line,
            marker=marker,
            markersize=4,
            linewidth=2,
            label=f"{name} search, mean of {len(found['repeats'])} repeats",
        )
        values = [repeat["best_so_far"][-1] for repeat in found["repeats"]]
        known = [value for value in values if value is not None]
        dots(ends, row, values, spread(known), (colour, marker, "-"))
    axes.plot([], [], color="black", linewidth=0.7, alpha=0.4, label="one repeat")
    axes.set_xlabel("runs spent")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("highest validation accuracy so far (%)")
    ends.set_yticks(range(len(searches)), [f"{name}\nsearch" for name in searches])
    ends.set_ylim(len(searches) - 0.4, -0.6)
    ends.set_xlabel("highest of all (%): repeats, mean, 95% interval")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def learning(summary: Summary) -> Figure:
    """What had to be learned by heart, and the whole split: curves of every seed, and steps."""
    stages = summary["learning"]
    of = {group["label"]: group for group in summary["groups"]}
    groups = [of[stage["label"]] for stage in stages]
    title = "Can the network learn what it trains on?"
    if failed := [failure(stage) for stage in stages if stage["could_not"]]:
        title = "; ".join(failed)
    note = "Of one image and one batch an epoch is one step, and loss is measured after it"
    figure, panels = canvas(summary, title, groups, 2, 2, height=6.4, note=note)
    colours = {label: colour for label, (colour, _, _) in styles(summary).items()}
    for axes, stage, group in zip(panels, stages, groups, strict=False):
        learning_curves(axes, stage, group, colours[stage["label"]])
    panels[0].plot([], [], color="black", linewidth=2, label="mean")
    panels[0].plot([], [], color="black", linewidth=0.7, alpha=0.35, label="one seed")
    panels[0].legend(loc="upper right", frameon=False)
    axes, names = panels[-1], []
    for row, stage in enumerate(stages):
        colour = colours[stage["label"]]
        took = [steps for steps in stage["steps"] if steps is not None]
        names.append(f"{stage['label']}\n{len(took)} of {len(stage['steps'])} seeds")
        axes.plot(took, [row] * len(took), "o", color=colour, alpha=0.4, markersize=4)
        if took:
            mean = (sum(took) / len(took), row + 0.25)
            axes.plot(*mean, "D", color=colour)
            axes.annotate(f"{mean[0]:,.1f}", mean, (7, 0), textcoords="offset points", va="center")
    axes.set_xscale("log")
    axes.set_xlim(0.8, 3 * max(stage["most_steps"] for stage in stages))
    axes.set_yticks(range(len(stages)), names)
    axes.set_ylim(len(stages) - 0.4, -0.6)
    axes.set_xlabel("steps: seeds and mean")
    axes.set_title("steps until the goal was reached")
    return figure


def learning_curves(axes: Axes, stage: dict[str, Any], group: Group, colour: str) -> None:
    """Every seed and the mean on the way to a stage's goal: by heart in loss, else in accuracy."""
    if stage["by_heart"]:
        name, quantity, goal, words = "val_loss", "loss", stage["loss"], f"below {stage['loss']:g}"
    else:
        name, quantity, goal = "train_accuracy", "accuracy", 100 * stage["accuracy"]
        words = f"{goal:g}%"
    for run in group["runs"]:
        plot(axes, run[name], quantity, color=colour, linewidth=0.7, alpha=0.35)
    plot(axes, group["mean"][name], quantity, color=colour, linewidth=2)
    axes.axhline(goal, color="black", linestyle=":")
    axes.annotate(
        f"goal: {words}",
        (0.01, goal),
        (0, 3),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
    )
    label_axes(axes, quantity)
    title = stage["label"]
    if stage["by_heart"]:
        axes.set_xlabel("step")
        axes.set_xscale("log")
        axes.set_yscale("log")
    else:
        title += ", on the whole training split"
        axes.set_ylabel(f"training {AXIS_LABELS[quantity]}")
    axes.set_title(title)
    if stage["could_not"]:
        seeds = f"SEED{'S' * (len(stage['could_not']) > 1)} {in_words(stage['could_not'])}"
        axes.set_title(f"{title}\nNOT LEARNED FROM {seeds}", color=FAILURE_COLOUR)


def losses(summary: Summary, groups: Sequence[Group]) -> Figure:
    """Loss of every strategy on one scale: every seed, the mean, and where it overfits from."""
    columns = min(4, len(groups))
    rows = -(-len(groups) // columns)
    figure, panels = canvas(
        summary,
        "Where training and validation part",
        groups,
        rows=rows,
        columns=columns,
        height=1.2 + 2.8 * rows,
    )
    figure.set_figwidth(3.2 * columns)
    for axes in panels[len(groups) :]:
        axes.remove()
    shown = panels[: len(groups)]
    for axes, group in zip(shown, groups, strict=True):
        seeds_and_mean(axes, group, "loss", styles(summary)[group["label"]][0], "mean")
        axes.set_title(f"{group['label']}\n{counted(group)}")
        if epoch := overfits_after(group["mean"]["val_loss"]):
            early = epoch <= len(group["mean"]["val_loss"]) / 2
            axes.axvline(epoch, color="black", linestyle="-.", linewidth=0.8)
            axes.annotate(
                f"epoch {epoch}",
                (epoch, 0.98),
                (4 if early else -4, 0),
                xycoords=axes.get_xaxis_transform(),
                textcoords="offset points",
                ha="left" if early else "right",
                va="top",
            )
    share_log_scale(shown)  # so that one seed's spike leaves the others to be seen
    legend_of_panels(
        figure,
        Line2D([], [], color="black", linestyle="-.", label="lowest mean validation loss"),
    )
    return figure


def by_class(summary: Summary, group: Group, run: dict[str, Any], words: str) -> Figure:
    """The confusion matrix and the accuracy by class of one run on the test set."""
    names = list(run["report"])[: len(run["confusion_matrix"])]
    title = f"{words}: {group['label']}, seed {run['seed']}, on the test set"
    figure, (matrix, bars) = canvas(summary, title, [group], columns=2, height=4.6)
    counts = run["confusion_matrix"]
    shares = [[100 * n / max(1, sum(row)) for n in row] for row in counts]
    image = matrix.imshow(shares, cmap="cividis", vmin=0, vmax=100)
    for true, row in enumerate(shares):
        for predicted, share in enumerate(row):
            shade = "black" if share > 50 else "white"
            matrix.text(
                predicted, true, f"{share:.0f}", ha="center", va="center", color=shade, fontsize=6.5
            )
    matrix.grid(False)
    matrix.set_xticks(range(len(names)), names, rotation=60, ha="right")
    matrix.set_yticks(range(len(names)), names)
    matrix.set_xlabel("predicted class")
    matrix.set_ylabel("true class")
    figure.colorbar(image, ax=matrix, label="images of the true class (%)", shrink=0.8)
    recalls = [row[i] for i, row in enumerate(shares)]
    order = sorted(range(len(names)), key=lambda i: recalls[i])
    bars.barh(
        [names[i] for i in order],
        [recalls[i] for i in order],
        color=styles(summary)[group["label"]][0],
    )
    for place, i in enumerate(order):
        bars.text(recalls[i] + 1, place, f"{recalls[i]:.0f}", va="center", fontsize=8)
    bars.set_xlim(0, 105)
    bars.set_xlabel("accuracy by class (%)")
    return figure


def mistakes(summary: Summary, group: Group, run: dict[str, Any]) -> Figure | None:
    """The test images that one run most confidently took for others; None without the data."""
    images = test_images(summary["rehearsal"])
    shown = run["most_confident_mistakes"]
    if images is None or not shown:
        return None
    title = f"Most confident mistakes: {group['label']}, seed {run['seed']}, on the test set"
    rows = -(-len(shown) // 5)
    figure, panels = canvas(summary, title, [group], rows=rows, columns=5, height=1.2 + 1.5 * rows)
    for axes in panels:
        axes.axis("off")
    for axes, mistake in zip(panels, shown, strict=False):
        axes.imshow(images[mistake["image"]].numpy())
        axes.set_title(
            f"{mistake['true']}, taken for\n{mistake['predicted']} ({mistake['probability']:.1%})",
            fontsize=8,
        )
    return figure


def test_images(rehearsal: bool) -> Any:
    """The test images, (n, 32, 32, 3) uint8, or None where they are not on this machine."""
    import data  # takes seconds, which no other figure needs

    if rehearsal:
        return data.load_digits().test_images
    root = download.root(HERE / "data")
    if download.find_faults(root):
        return None
    return data.load_cifar10(root / download.FOLDER).test_images


def best_run(summary: Summary) -> tuple[Group, dict[str, Any]] | None:
    """The best group, and its run with the highest validation accuracy at the last epoch."""
    for group in summary["groups"]:
        if group["label"] == summary["best"]:
            sound = [run for run in group["runs"] if run["diverged_at_epoch"] is None]
            return group, max(sound, key=lambda run: run["val_accuracy"][-1])
    return None


FIGURES: dict[str, Callable[[Summary], Figures]] = {
    "exp1_explore": exploration_figures,
    "exp1_lr": sweep_figures,
    "exp1_scheduler": scheduler_figures,
    "exp2_dropout": sweep_figures,
    "exp2_transfer": transfer_figures,
    "exp3_gradients": gradient_figures,
    "exp4_init": initialisation_figures,
    "exp4_search": search_figures,
    "exp4_overfit": overfitting_figures,
}
