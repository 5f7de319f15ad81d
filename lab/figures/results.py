"""Figures of what settings reach: test accuracy and gap, differences, classes, the whole study."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from lab.figures.canvas import (
    GUESSING,
    PALETTE,
    Group,
    Summary,
    canvas,
    counted,
    dots,
    legend_of,
    mark_guessing,
    name_of,
    name_rows,
    styles,
    within_percent,
)
from lab.summary import generalisation_gap

FINAL = "Training accuracy is measured as validation is, by the final weights."


def results(summary: Summary, groups: Sequence[Group], guessing: bool = False) -> Figure:
    """Test accuracy and generalisation gap of every setting: seeds, mean and 95% interval.

    guessing says that the accuracy of guessing is marked.
    """
    words = "test accuracy and generalisation gap by setting"
    height = 1.4 + 0.55 * len(groups)
    figure, panels = canvas(summary, words, groups, columns=2, height=height, note=FINAL)
    look = styles(summary)
    for axes, quantity in zip(panels, ("test_accuracy", "gap"), strict=True):
        for row, group in enumerate(groups):
            values = [at_the_end(run, quantity) for run in group["runs"]]
            dots(axes, row, values, group[quantity], look[group["label"]])
        name_rows(axes, [name_of(group) for group in groups])
    if guessing:
        mark_guessing(panels[0].axvline, GUESSING["accuracy"])
        legend_of(figure, panels[0])
    within_percent(panels[0])
    panels[0].set_xlabel("test accuracy (%): seeds, mean, 95% interval")
    panels[1].set_xlabel("training minus validation accuracy (points)")
    panels[1].tick_params(labelleft=False)
    return figure


def at_the_end(run: dict[str, Any], quantity: str) -> float | None:
    """A run's "test_accuracy" or "gap"; None where it diverged."""
    return generalisation_gap(run) if quantity == "gap" else run["test_accuracy"]


def differences(summary: Summary, groups: Sequence[Group]) -> Figure | None:
    """How these settings' test accuracy differs, paired by seed: seeds, mean and 95% interval."""
    labels = {group["label"] for group in groups}
    pairs = [pair for pair in summary["comparisons"] if pair["label"] in labels]
    if not pairs:
        return None
    compared = {pair[key] for pair in pairs for key in ("label", "minus")}
    shown = [group for group in summary["groups"] if group["label"] in compared]
    height = 1.3 + 0.65 * len(pairs)
    words = "differences of test accuracy, paired by seed"
    figure, (axes,) = canvas(summary, words, shown, height=height)
    look = styles(summary)
    for row, pair in enumerate(pairs):
        dots(axes, row, pair["differences"], pair["test_accuracy"], look[pair["label"]])
    axes.axvline(0, color="black", linewidth=0.8)
    name_rows(axes, [f"{pair['label']}\nminus {pair['minus']}" for pair in pairs])
    axes.set_xlabel("percentage points: seeds, mean and 95% interval")
    return figure


def classes(summary: Summary, groups: Sequence[Group]) -> Figure:
    """F1 on the test set by class, the mean over seeds, for every setting."""
    figure, (axes,) = canvas(summary, "F1 by class on the test set, mean over seeds", groups)
    look = styles(summary)
    for group in groups:
        tested = [run for run in group["runs"] if run["report"]]
        if not tested:
            continue
        names = list(tested[0]["report"])[: len(tested[0]["confusion_matrix"])]
        means = [
            100 * sum(run["report"][name]["f1-score"] for run in tested) / len(tested)
            for name in names
        ]
        colour, marker, line = look[group["label"]]
        axes.plot(
            names,
            means,
            color=colour,
            marker=marker,
            markerfacecolor="white" if line == "--" else colour,
            linestyle="none",
            markersize=8,
            label=f"{group['label']}, {counted(group)}",
        )
    axes.set_ylabel("F1 (%)")
    legend_of(figure, axes)
    return figure


def at_a_glance(summaries: Sequence[Summary]) -> Figure:
    """Test accuracy of every setting of every experiment, with its 95% interval."""
    rows = [(summary, group) for summary in summaries for group in summary["groups"]]
    study = {**summaries[0], "title": "The study at a glance"}
    height = 1.2 + 0.27 * len(rows) + 0.2 * len(summaries)
    figure, (axes,) = canvas(study, "test accuracy, mean and 95% interval", height=height)
    names, place, last = {}, 0.0, None
    for summary, group in rows:
        if summary is not last:
            place += 0.8 if last else 0.0
            axes.axhline(place - 0.7, color="black", linewidth=0.5)
            text = {"ha": "left", "va": "center", "fontweight": "bold", "fontsize": 10}
            axes.text(0.01, place, summary["title"], transform=axes.get_yaxis_transform(), **text)
            last = summary
        mean, ci95 = group["test_accuracy"]["mean"], group["test_accuracy"]["ci95"]
        names[place] = group["label"] + (
            f" ({group['diverged']} diverged)" if group["diverged"] else ""
        )
        best = group["label"] == summary["best"]
        if mean is not None:
            axes.errorbar(
                100 * mean,
                place,
                xerr=100 * ci95 if ci95 and len(group["runs"]) - group["diverged"] > 2 else None,
                color=PALETTE[1][0] if best else PALETTE[0][0],
                marker="D" if best else "o",
                markersize=6,
                capsize=3,
                label="best of its experiment" if best else "other settings",
            )
        place += 1
    axes.set_yticks(list(names), names.values(), fontsize=9)
    axes.set_ylim(place - 0.4, -0.8)
    low, high = axes.get_xlim()
    axes.set_xlim(max(0, low - 0.35 * (high - low)), min(100, high))  # room for the titles
    axes.set_xlabel("test accuracy (%)")
    by_label = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.subfigs[0].legend(by_label.values(), by_label, loc="outside lower center", ncols=2)
    return figure
