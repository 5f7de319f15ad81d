"""Figures of what settings reach: test accuracy and gap, differences, classes, the whole study."""

import statistics
from collections.abc import Sequence
from itertools import chain
from typing import Any

from matplotlib.figure import Figure

from lab.figures import canvas
from lab.figures.canvas import PALETTE, Group, Summary
from lab.summary import common, generalisation_gap, in_words

NOTE = "Gap: training minus validation accuracy, both of the final weights. Best: by validation"
QUANTITIES = {"test_accuracy": "test accuracy (%)", "gap": "gap (points)"}
GLANCE_POINTS = 25  # percentage points; what is further below the median is told, not drawn


def results(summary: Summary, groups: Sequence[Group]) -> Figure:
    """Test accuracy and generalisation gap of every setting: seeds, mean and 95% interval.

    The accuracy of guessing is marked where a seed comes near it.
    """
    words, height = "test accuracy and generalisation gap by setting", 1.0 + 0.55 * len(groups)
    figure, panels = canvas.blank(summary, words, groups, 2, 2, row=height, note=NOTE)
    look, names = canvas.styles(summary), [name_of(group, summary["best"]) for group in groups]
    for axes, quantity in zip(panels, QUANTITIES, strict=True):
        rows = [row(g, quantity, look, name) for g, name in zip(groups, names, strict=True)]
        canvas.dots(axes, rows, QUANTITIES[quantity])
    panels[1].tick_params(labelleft=False)
    if panels[0].dataLim.x0 < 20:
        canvas.mark_guessing(panels[0].axvline, "accuracy")
        canvas.legend(figure, panels[0])
    return figure


def row(group: Group, quantity: str, look: dict[str, canvas.Style], name: str) -> canvas.Row:
    """A setting's row of dots, of its "test_accuracy" or "gap"."""
    values = [at_the_end(run, quantity) for run in group["runs"]]
    return name, values, group[quantity], look[group["label"]]


def at_the_end(run: dict[str, Any], quantity: str) -> float | None:
    """A run's "test_accuracy" or "gap"; None where it diverged."""
    return generalisation_gap(run) if quantity == "gap" else run["test_accuracy"]


def name_of(group: Group, best: str | None = None) -> str:
    """A group's label, whether it is the best, and how many of its seeds diverged, if any did."""
    notes = ["best"] if group["label"] == best else []
    if group["diverged"]:
        notes.append(f"{group['diverged']} of {len(group['runs'])} diverged")
    return group["label"] + (f"\n({', '.join(notes)})" if notes else "")


def differences(summary: Summary, groups: Sequence[Group]) -> Figure | None:
    """How these settings' test accuracy differs, paired by seed: seeds, mean and 95% interval.

    None where there is nothing to compare.
    """
    labels = {group["label"] for group in groups}
    pairs = [pair for pair in summary["comparisons"] if pair["label"] in labels]
    if not pairs:
        return None
    compared = {pair[key] for pair in pairs for key in ("label", "minus")}
    shown = [group for group in summary["groups"] if group["label"] in compared]
    words, row = "differences of test accuracy, paired by seed", 0.9 + 0.62 * len(pairs)
    note = "p is that of the paired t-test after Holm's correction"
    figure, (axes,) = canvas.blank(summary, words, shown, row=row, note=note)
    look, rows = canvas.styles(summary), []
    for at, pair in enumerate(pairs):
        lost = f" (without seed {in_words(pair['left_out'])})" if pair["left_out"] else ""
        name = f"{pair['label']}\nminus {pair['minus']}{lost}"
        rows.append((name, pair["differences"], pair["test_accuracy"], look[pair["label"]]))
        verdict, p = pair["verdict"] or "no verdict", pair["p_holm"]
        if verdict.endswith("is better"):
            verdict = "better" if pair["test_accuracy"]["mean"] > 0 else "worse"
        if p is not None:
            verdict += f"\np = {p:.2g}" if p >= 1e-4 else "\np < 0.0001"
        place = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": canvas.SMALL}
        axes.text(1.01, at, verdict, **place)
    canvas.dots(axes, rows, "percentage points")
    axes.axvline(0, color="black", linewidth=1)
    return figure


def classes(summary: Summary, groups: Sequence[Group]) -> Figure:
    """F1 on the test set by class, the mean over seeds, for every setting."""
    words = "F1 by class on the test set, mean over seeds"
    figure, (axes,) = canvas.blank(summary, words, groups)
    look = canvas.styles(summary)
    for group in groups:
        if tested := [run for run in group["runs"] if run["report"]]:
            names = class_names(tested[0])
            f1 = [statistics.fmean(run["report"][n]["f1-score"] for run in tested) for n in names]
            colour, marker, line = look[group["label"]]
            style = {"color": colour, "marker": marker, "markersize": 8, "linestyle": "none"}
            style["markerfacecolor"] = colour if line == "-" else "white"
            label = f"{group['label']}, {canvas.counted(group)}"
            axes.plot(names, [100 * value for value in f1], label=label, **style)
    axes.set_ylabel("F1 (%)")
    canvas.legend(figure, axes)
    return figure


def class_names(run: dict[str, Any]) -> list[str]:
    """The classes of a run's report, without the averages that follow them."""
    return list(run["report"])[: len(run["confusion_matrix"])]


def at_a_glance(summaries: Sequence[Summary]) -> Figure:
    """Test accuracy of every setting of every experiment: seeds, mean and 95% interval."""
    halves = [summary["finished"] for summary in summaries if summary["finished"]]
    devices = common(in_words(summary["environment"]["device"]) for summary in summaries)
    study = {"title": "The study at a glance", "environment": {"device": devices}}
    study["rehearsal"] = any(summary["rehearsal"] for summary in summaries)
    study["finished"] = halves and {k: sum(half[k] for half in halves) for k in ("runs", "of")}
    blocks = [block(summary) for summary in summaries]
    # two columns of about the same height, parted between two experiments
    heights = [sum(map(len, blocks[:at])) for at in range(len(blocks) + 1)]
    cut = min(range(len(blocks) + 1), key=lambda at: abs(2 * heights[at] - heights[-1]))
    columns = [list(chain(*part)) for part in (blocks[:cut], blocks[cut:]) if part]
    groups = [group for summary in summaries for group in ranked(summary)]
    most, count = max(map(len, columns)), len(columns)
    note = "Squares: the best of an experiment by validation accuracy"
    shape = {"panels": count, "columns": count, "row": 0.9 + 0.23 * most, "note": note}
    words = "test accuracy of every setting"
    figure, panels = canvas.blank(study, words, groups, **shape)
    means = [100 * g["test_accuracy"]["mean"] for g in groups if g["test_accuracy"]["mean"]]
    left = max(0, statistics.median(means) - GLANCE_POINTS) if means else 0
    for axes, rows in zip(panels, columns, strict=True):
        canvas.dots(axes, rows, "test accuracy (%)", below=0.0)
        axes.set_ylim(most - 0.4, -0.6)
        axes.tick_params(axis="y", labelsize=canvas.SMALL)
        for at, (_, seeds, spread, style) in enumerate(rows):
            if not seeds:
                axes.get_yticklabels()[at].set_fontweight("bold")
                axes.axhline(at - 0.5, color="black", linewidth=0.5)
            elif spread["mean"] is not None and 100 * spread["mean"] < left:
                place = {"transform": axes.get_yaxis_transform(), "va": "center"}
                place |= {"color": style[0], "fontsize": canvas.SMALL}
                axes.text(0.01, at, f"◂ {100 * spread['mean']:.1f}", **place)
    canvas.share_limits(panels)
    if panels[0].get_xlim()[0] < left:
        for axes in panels:
            axes.set_xlim(left=left)
    return figure


def block(summary: Summary) -> list[canvas.Row]:
    """The rows of an experiment among others: its title, then its settings."""
    rows = [(summary["title"], [], {"mean": None}, ("", "", ""))]
    for group in ranked(summary):
        style = (*PALETTE[group["label"] == summary["best"]], "-")
        name = name_of(group).replace("\n", " ")
        rows.append(row(group, "test_accuracy", {group["label"]: style}, name))
    return rows


def ranked(summary: Summary) -> list[Group]:
    """The settings but for those that validate on the few images that they train on."""
    return [group for group in summary["groups"] if not group["settings"]["overfit_images"]]
