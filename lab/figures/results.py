"""Figures of what settings reach: test accuracy and gap, differences, classes, the whole study."""

import statistics
from collections.abc import Sequence
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import Any

from matplotlib.figure import Figure

from lab.figures import canvas
from lab.figures.canvas import COLOURS, Figures, Group, Summary
from lab.summary import class_count, common, generalisation_gap, in_words
from lab.tables import named, relation, seeds_in_words

NOTE = (
    "Gap: training minus validation accuracy, both of the final weights. Best: the highest mean "
    "validation accuracy"
)
QUANTITIES = {  # by the name of their axis
    "test accuracy (%)": itemgetter("test_accuracy"),
    "gap (percentage points)": generalisation_gap,
}
GLANCE_POINTS = 25  # percentage points; what is further below the median is told, not drawn
SETTING = {"color": COLOURS[0], "marker": "o"}
BEST = {"color": COLOURS[1], "marker": "s"}


def results(summary: Summary, groups: Sequence[Group], note: str = NOTE, by: str = "") -> Figure:
    """Test accuracy and generalisation gap of every setting: seeds, mean and 95% interval.

    The accuracy of guessing is marked where a seed comes near it. by says in the title what tells
    the settings apart.
    """
    words, height = f"test accuracy and generalisation gap{by}", 0.7 + 0.55 * len(groups)
    figure, panels = canvas.blank(summary, words, groups, 2, 2, row=height, note=note)
    look, best = canvas.styles(summary), summary["best"]
    for axes, (label, measure) in zip(panels, QUANTITIES.items(), strict=True):
        rows = [(name_of(g, best), [*map(measure, g["runs"])], look[g["label"]]) for g in groups]
        canvas.dots(axes, rows, label)
    panels[1].tick_params(labelleft=False)
    if panels[0].dataLim.x0 < 200 / class_count(run for group in groups for run in group["runs"]):
        canvas.mark_guessing(panels[0].axvline, "accuracy", groups)
    return figure


def name_of(group: Group, best: str | None = None) -> str:
    """A group's label, whether it is the best, and how many of its seeds diverged, if any did."""
    notes = ["best"] if group["label"] == best else []
    if group["diverged"]:
        notes.append(f"{group['diverged']} of {len(group['runs'])} diverged")
    return group["label"] + (f"\n({', '.join(notes)})" if notes else "")


def differences(summary: Summary, groups: Sequence[Group], by: str = "") -> Figures:
    """The figure of how these settings' test accuracy differs; none where nothing is compared."""
    labels = {group["label"] for group in groups}
    pairs = [pair for pair in summary["comparisons"] if pair["label"] in labels]
    name = f"differences{by}".replace(" ", "_")
    return {name: partial(paired_differences, summary, pairs, by)} if pairs else {}


def paired_differences(summary: Summary, pairs: Sequence[dict[str, Any]], by: str) -> Figure:
    """How the settings of these comparisons differ by seed: seeds, mean and 95% interval.

    by says in the title what tells the settings apart.
    """
    compared = {pair[key] for pair in pairs for key in ("label", "minus")}
    shown = [group for group in summary["groups"] if group["label"] in compared]
    words, height = f"differences of test accuracy{by}, paired by seed", 0.7 + 0.62 * len(pairs)
    note = (
        "“Better” and “worse” describe the first setting. p: of the paired t-test, after Holm's "
        "correction. The intervals are not corrected"
    )
    figure, (axes,) = canvas.blank(summary, words, shown, row=height, note=note)
    look, rows = canvas.styles(summary), []
    for at, pair in enumerate(pairs):
        lost = f" (without {seeds_in_words(pair['left_out'])})" if pair["left_out"] else ""
        name = f"{pair['label']}\nminus {pair['minus']}{lost}"
        rows.append((name, pair["differences"], look[pair["label"]]))
        place = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": canvas.SMALL}
        axes.text(1.01, at, verdict(pair), **place)
    canvas.dots(axes, rows, "difference (percentage points)")
    axes.axvline(0, color="black", linewidth=1)
    return figure


def verdict(pair: dict[str, Any]) -> str:
    """What a comparison says of its first setting, and p."""
    words, p = relation(pair, pair["label"]), pair["p_holm"]
    if p is None:
        return words
    return f"{words}\np = {p:.2g}" if p >= 1e-4 else f"{words}\np < 0.0001"


def classes(summary: Summary, groups: Sequence[Group]) -> Figure:
    """F1 on the test set by class, the mean over seeds, for every setting."""
    words = "F1 by class on the test set, mean over seeds"
    note = "F1: the harmonic mean of precision and recall"
    figure, (axes,) = canvas.blank(summary, words, groups, note=note)
    look = canvas.styles(summary)
    for at, group in enumerate(groups):
        if tested := [run for run in group["runs"] if run["report"]]:
            names = class_names(tested[0])
            f1 = [statistics.fmean(run["report"][n]["f1-score"] for run in tested) for n in names]
            style = look[group["label"]] | {"linestyle": "none", "markersize": 6}
            label = f"{group['label']}, {canvas.counted(group)}"
            places = [place + 0.6 * ((at + 0.5) / len(groups) - 0.5) for place in range(len(names))]
            axes.plot(places, canvas.percent(f1), label=label, **style)
            axes.set_xticks(range(len(names)), names, fontsize=canvas.SMALL)
    axes.set_ylabel("F1 (%)")
    return figure


def class_names(run: dict[str, Any]) -> list[str]:
    """The classes of a run's report, without the averages that follow them."""
    return list(run["report"])[: len(run["confusion_matrix"])]


def at_a_glance(summaries: Sequence[Summary]) -> Figure:
    """Test accuracy of every setting of every experiment: seeds, mean and 95% interval."""
    halves = [summary["finished"] for summary in summaries if summary["finished"]]
    found = [summary["environment"]["device"] for summary in summaries]
    devices = chain.from_iterable(one if isinstance(one, list) else [one] for one in found)
    study = {
        "title": "The study at a glance",
        "environment": {"device": common(devices)},
        "rehearsal": any(summary["rehearsal"] for summary in summaries),
        "finished": halves and {key: sum(half[key] for half in halves) for key in ("runs", "of")},
    }
    blocks = [block(summary) for summary in summaries]
    cuts = [(blocks[:n], blocks[n:]) for n in range(len(blocks) + 1)]
    parts = [[list(chain(*half)) for half in cut] for cut in cuts]
    columns = [rows for rows in min(parts, key=lambda part: max(map(len, part))) if rows]
    most = max(map(len, columns))
    groups = [group for summary in summaries for group in ranked(summary)]
    note = "Orange square: the best setting of an experiment, by validation accuracy"
    if some := [s["title"].split()[0] for s in summaries if len(s["candidates"]) < len(ranked(s))]:
        note += f". In {in_words(some)} it is chosen from some settings only"
    if labels := shared(groups):
        note += f"\nExperiments share the runs of {in_words(labels)}"
    means = [100 * g["test_accuracy"]["mean"] for g in groups if g["test_accuracy"]["mean"]]
    lowest = max(0, statistics.median(means) - GLANCE_POINTS) if means else 0
    if min(means, default=0) < lowest:
        note += "\n◂: a mean that is too low to be drawn"
    words, height = "test accuracy of every setting", 0.6 + 0.23 * most
    figure, panels = canvas.blank(
        study, words, groups, len(columns), len(columns), row=height, note=note
    )
    for axes, rows in zip(panels, columns, strict=True):
        canvas.dots(axes, rows, "test accuracy (%)")
        axes.set_ylim(most - 0.4, -0.6)
        axes.tick_params(axis="y", labelsize=canvas.SMALL)
        for at, (_, seeds, style) in enumerate(rows):
            known = [100 * value for value in seeds if value is not None]
            if not seeds:
                axes.get_yticklabels()[at].set_fontweight("bold")
                axes.axhline(at - 0.42, color="black", linewidth=0.5)  # below the last mean
            elif known and statistics.fmean(known) < lowest:
                place = {"transform": axes.get_yaxis_transform(), "va": "center"}
                words = f"◂ {statistics.fmean(known):.1f}"
                axes.text(0.01, at, words, color=style["color"], fontsize=canvas.SMALL, **place)
    canvas.share_limits(panels)
    for axes in panels:
        axes.set_xlim(left=max(lowest, axes.get_xlim()[0]))
    return figure


def block(summary: Summary) -> list[canvas.Row]:
    """The rows of an experiment among others: its title, then its settings."""
    epochs = in_words(common(len(group["mean"]["train_loss"]) for group in ranked(summary)))
    rows: list[canvas.Row] = [(f"{summary['title']} ({epochs} epochs)", [], SETTING)]
    for group in ranked(summary):
        style = BEST if group["label"] == summary["best"] else SETTING
        tested = [run["test_accuracy"] for run in group["runs"]]
        rows.append((name_of(group).replace("\n", " "), tested, style))
    return rows


def ranked(summary: Summary) -> list[Group]:
    """The settings but for those that validate on the few images that they train on."""
    return [group for group in summary["groups"] if not group["settings"]["overfit_images"]]


def shared(groups: Sequence[Group]) -> list[str]:
    """The labels that stand for the same runs in several experiments; two names: "a (or b)"."""
    labels: dict[str, list[str]] = {}
    for group in groups:
        labels.setdefault(str((group["settings"], group["seeds"])), []).append(group["label"])
    several = [dict.fromkeys(map(named, names)) for names in labels.values() if len(names) > 1]
    return [first + (f" (or {in_words(rest)})" if rest else "") for first, *rest in several]
