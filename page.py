"""The page that tells the study: results/README.md, written from the summaries alone.

Every sentence follows from the numbers by the rules below; none is written by hand.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from canvas import CHANCE, counted
from figures import figures, file_name
from store import write
from summary import (
    by_learning_rate,
    common,
    compare,
    failure,
    in_words,
    notes,
    overfits_after,
    range_in_words,
    table,
)

INTRODUCTION = """\
# Results

Written by `python plots.py` and at the end of every experiment, from the `summary.json` of each.
Differences are of test accuracy in percentage points, paired by seed, with Student's 95% interval,
which is not adjusted for the number of comparisons; a difference whose interval includes zero is
within noise. The best setting is the one with the highest mean validation accuracy at the last
epoch: the test set chooses nothing.
"""

NEAR_CHANCE = 1.5  # times the accuracy of guessing: above what always naming one class can reach


def write_page(root: Path) -> Path | None:
    """Write README.md into a results folder; its path, or None where there is no summary yet."""
    sections = []
    for path in sorted(root.glob("*/summary.json")):
        try:
            sections.append(section(json.loads(path.read_text()), root))
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            sections.append(
                f"## {path.parent.name}\n\nIts summary.json is damaged: run it again.\n"
            )
    if not sections:
        return None
    parts = [INTRODUCTION, *sections]
    path = root / "README.md"
    write(path, "\n".join(parts).encode())
    return path


def section(summary: dict[str, Any], root: Path) -> str:
    """One experiment: question, method, findings, table and figures."""
    name = summary["experiment"]
    names = [file_name(figure) for figure in figures(summary)]
    images = [f"![{file}]({name}/{file})" for file in names if (root / name / file).exists()]
    findings = [f"- {sentence}" for sentence in sentences(summary)]
    return "\n\n".join(
        [
            f"## {summary['question']}",
            summary["method"],
            "\n".join(findings),
            table(summary),
            notes(summary),
            *images,
            "",
        ]
    )


def sentences(summary: dict[str, Any]) -> list[str]:
    """What the numbers of one experiment say."""
    groups = {group["label"]: group for group in summary["groups"]}
    best = groups.get(summary["best"])
    found = [learned(stage) for stage in summary.get("learning", [])]
    if best is None:
        return [*found, "Every run diverged."]
    if summary["rehearsal"]:
        found.insert(0, "This is a rehearsal on handwritten digits: nothing here is a finding.")
    ranked = [groups[label] for label in summary["candidates"]]
    among = f"Among {who_is_ranked(summary)}, "
    found.append(
        f"{among}**{best['label']}** has the highest mean validation accuracy, "
        f"{percent(best['mean']['val_accuracy'][-1], best['std']['val_accuracy'][-1])}; its mean "
        f"test accuracy is {percent(**best['test_accuracy'])}."
    )
    if chosen := summary.get("best_with_dropout"):
        found.append(f"The best rate above zero is {chosen}.")
    found += search_in_words(summary)
    found += suggested(summary)
    pairs = summary.get("comparisons") or [
        compare(best["label"], best["runs"], label, group["runs"])
        for label, group in groups.items()
        if group is not best
    ]
    found += [difference(pair) for pair in pairs]
    gaps = {group["label"]: group["gap"] for group in ranked if group["gap"]["mean"] is not None}
    if len(gaps) > 1:
        widest, narrowest = (
            choose(gaps, key=lambda label: gaps[label]["mean"]) for choose in (max, min)
        )
        found.append(
            f"{among}the generalisation gap is widest for {widest}, {points(**gaps[widest])}, "
            f"and narrowest for {narrowest}, {points(**gaps[narrowest])}."
        )
    found += [by_parameters(summary, *line) for line in by_learning_rate(summary).items()]
    found += learned_nothing(summary["groups"])
    found += without_gradients(summary["groups"])
    if "learning" in summary:
        found += overfitting(ranked, summary["comparisons"])
    found += diverged(summary["groups"])
    return found


def who_is_ranked(summary: dict[str, Any]) -> str:
    """The candidates for the best, or, where they are many, those that are none."""
    candidates = summary["candidates"]
    others = [group["label"] for group in summary["groups"] if group["label"] not in candidates]
    if not others:
        return "all"
    return in_words(candidates) if len(candidates) <= 3 else f"all but {in_words(others)}"


def suggested(summary: dict[str, Any]) -> list[str]:
    """The range of learning rates that an exploration suggests, in a sentence."""
    if "suggested_range" not in summary:
        return []
    if summary["suggested_range"] is None:
        return ["No range of learning rates is suggested, as most runs diverged at every rate."]
    rates, margin = range_in_words(summary["suggested_range"]), summary["settings"]["RANGE_MARGIN"]
    return [
        f"The suggested range of learning rates is **{rates}**: mean validation accuracy within "
        f"{100 * margin:g} points of the best's, and most runs did not diverge."
    ]


def learned(stage: dict[str, Any]) -> str:
    """Which seeds learned what they train on, and in how many steps; unmissable if some did not."""
    label, accuracy, ending = stage["label"], f"{100 * stage['accuracy']:g}%", ""
    took = [steps for steps in stage["steps"] if steps is not None]
    reached = f"reached by {len(took)} of {len(stage['steps'])} seeds"
    if took:
        mean = sum(took) / len(took)
        reached += f", after {min(took):,} to {max(took):,} steps (mean {mean:,.1f})"
    if stage["by_heart"]:
        goal = f"a loss below {stage['loss']:g} with {accuracy} accuracy"
        what = f"Learned by heart, {label}"
    else:
        goal = f"{accuracy} training accuracy"
        what = f"The whole split ({label})"
        if (end := stage["train_accuracy"])["mean"]:
            ending = f"; after {stage['most_steps']:,} steps it is {percent(**end)}"
    if not stage["could_not"]:
        return f"{what}: {goal} is {reached}{ending}."
    seeds = listed([str(seed) for seed in stage["could_not"]])
    plural = "s" * (len(stage["could_not"]) > 1)
    return (
        f"**{failure(stage)}**, from seed{plural} {seeds}: {goal} in {stage['most_steps']:,} steps "
        f"is {reached}{ending}. Trust nothing below before all do: look at the learning rate (does "
        "the loss swing, or is it still falling?), at the initial weights and gradients, and at "
        "whether images and labels belong together."
    )


def overfitting(ranked: Sequence[dict[str, Any]], pairs: Sequence[dict[str, Any]]) -> list[str]:
    """When training and validation part, and what closes the gap between them."""
    parting, still_falling = [], []
    for group in ranked:
        if epoch := overfits_after(group["mean"]["val_loss"]):
            by_seed = [overfits_after(run["val_loss"]) for run in group["runs"]]
            known = [epoch for epoch in by_seed if epoch]
            seeds = f" (single seeds {min(known)} to {max(known)})" if known else ""
            parting.append(f"{group['label']} {epoch}{seeds}")
        else:
            still_falling.append(group["label"])
    closing = []
    for pair in pairs:
        mean, interval = pair["gap"]["mean"], pair["gap"]["ci95"]
        if interval is not None:
            change = f"{signed(mean)} ({signed(mean - interval)} to {signed(mean + interval)})"
            closing.append(f"{pair['label']} {change}")
    epochs = in_words(common(len(group["mean"]["val_loss"]) for group in ranked))
    found = []
    if parting:
        found.append(
            "Training and validation part where mean validation loss is lowest, after this epoch "
            f"of {epochs}: {', '.join(parting)}."
        )
    if still_falling:
        found.append(
            f"Mean validation loss is lowest after the last of {epochs} epochs, so that nothing "
            f"has parted yet: {', '.join(still_falling)}."
        )
    if closing:
        found.append(
            f"Change of the generalisation gap against {pairs[0]['minus']}, in points, paired by "
            f"seed: {', '.join(closing)}."
        )
    return found


def difference(pair: dict[str, Any], quantity: str = "test_accuracy") -> str:
    """One comparison in words."""
    mean, interval = pair[quantity]["mean"], pair[quantity]["ci95"]
    what = f"{pair['label']} minus {pair['minus']}"
    if mean is None:
        return f"{what}: no seed is in both that did not diverge."
    if interval is None:
        return f"{what}: {signed(mean)} points, from one seed, so that nothing can be concluded."
    low, high = mean - interval, mean + interval
    if low > 0:
        verdict = f"{pair['label']} is better"
    elif high < 0:
        verdict = f"{pair['minus']} is better"
    else:
        verdict = "within noise"
    return (
        f"{what}: {signed(mean)} points ({signed(low)} to {signed(high)}, {len(pair['seeds'])} "
        f"seeds): {verdict}."
    )


def by_parameters(summary: dict[str, Any], rate: str, groups: Sequence[dict[str, Any]]) -> str:
    """Test accuracy and gap at one learning rate, from the fewest trainable parameters on."""

    counts = [f"{summary['trainable_parameters'][group['label']]:,}" for group in groups]
    accuracies, gaps = (
        [hundredths(group[quantity]["mean"]) for group in groups]
        for quantity in ("test_accuracy", "gap")
    )
    return (
        f"At {rate}, with {listed(counts)} trainable parameters, mean test accuracy is "
        f"{listed(accuracies)}%, and the generalisation gap {listed(gaps)} points."
    )


def hundredths(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.2f}".replace("-", "−")


def listed(words: Sequence[str]) -> str:
    """One after the other, as a sentence lists them."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]


def diverged(groups: Sequence[dict[str, Any]]) -> list[str]:
    """Which settings lost runs, in a sentence, or nothing."""
    lost = [
        f"{group['diverged']} of {len(group['runs'])} runs of {group['label']}"
        for group in groups
        if group["diverged"]
    ]
    return [f"Diverged, and left out of every mean: {', '.join(lost)}."] if lost else []


def learned_nothing(groups: Sequence[dict[str, Any]]) -> list[str]:
    """Which settings have runs that end where they would by guessing, in a sentence, or nothing."""
    most = NEAR_CHANCE * CHANCE
    ends = {group["label"]: [run["val_accuracy"][-1] for run in group["runs"]] for group in groups}
    stuck = {
        label: sum(value is not None and value < most for value in values)
        for label, values in ends.items()
    }
    lost = [f"{n} of {len(ends[label])} runs of {label}" for label, n in stuck.items() if n]
    if not lost:
        return []
    return [
        f"Learned nothing (validation accuracy below {100 * most:.0f}% after the last epoch, where "
        f"guessing gives {100 * CHANCE:.0f}%): {', '.join(lost)}."
    ]


def without_gradients(groups: Sequence[dict[str, Any]]) -> list[str]:
    """Which settings' gradients are exactly zero in the first steps, a sentence each."""
    found = []
    for group in groups:
        if "gradients" not in group:
            continue
        means = [step["mean"]["mean"] for step in group["gradients"]["by_step"]]
        dead = [sum(mean == 0 for mean in step) for step in means]
        if any(dead):
            counts = [str(n) for n in (dead if len(set(dead)) > 1 else dead[:1])]
            when = "At each of" if len(counts) == 1 else "One after the other, at"
            found.append(
                f"{when} the first {len(dead)} steps of {group['label']} the gradients of "
                f"{listed(counts)} of {len(means[0])} parameter tensors are exactly zero."
            )
    return found


def search_in_words(summary: dict[str, Any]) -> list[str]:
    """What each search found, by how much its winner flattered, and which search found more."""
    searches = summary.get("search")
    if not searches:
        return []
    found = []
    for name, search in searches.items():
        points = [point for repeat in search["repeats"] for point in repeat["points"]]
        sound = [point for point in points if point["diverged_at_epoch"] is None]
        what = f"{name} search of {len(search['best_so_far']['mean'])} runs"
        if not sound:
            found.append(f"In every {what} all diverged.")
            continue
        mean, std = (search["best_so_far"][key][-1] for key in ("mean", "std"))
        best = search["winner"]
        found.append(
            f"A {what} finds a validation accuracy of {percent(mean, std)}, the mean of "
            f"{len(search['repeats'])} repeats, in which {len(points) - len(sound)} of "
            f"{len(points)} runs diverged. Its best of all, {percent(best['val_accuracy'], None)} "
            f"at learning rate {best['learning_rate']:.3g} and momentum {best['momentum']:.3g}, "
            f"was chosen as the highest of {len(sound)} and so tends to flatter"
        )
        (again,) = (g for g in summary["groups"] if g["label"].startswith(f"{name}, "))
        if (after := again["mean"]["val_accuracy"][-1]) is None:
            found[-1] += "; from fresh seeds all its runs diverged."
        else:
            found[-1] += (
                f": from {counted(again)} that it was not chosen on, its mean is "
                f"{percent(after, None)}, {signed(after - best['val_accuracy'])} points."
            )
    winners = {
        name: [repeat["winner"] for repeat in search["repeats"] if repeat["winner"]]
        for name, search in searches.items()
    }
    pair = compare(
        "random search", winners["random"], "grid search", winners["grid"], ["val_accuracy"]
    )
    found.append(f"Highest validation accuracy of a search, {difference(pair, 'val_accuracy')}")
    return found


def percent(mean: float, std: float | None, ci95: float | None = None) -> str:
    """A mean accuracy with its standard deviation and the 95% interval of the mean."""
    return f"{100 * mean:.2f}%{spread_in_words(std, ci95)}"


def points(mean: float, std: float | None, ci95: float | None) -> str:
    """A mean difference of accuracies in percentage points, likewise."""
    return f"{100 * mean:.2f} points{spread_in_words(std, ci95)}".replace("-", "−")


def spread_in_words(std: float | None, ci95: float | None) -> str:
    words = [] if std is None else [f"standard deviation {100 * std:.2f}"]
    words += [] if ci95 is None else [f"95% interval of the mean ± {100 * ci95:.2f}"]
    return f" ({', '.join(words)})" if words else ""


def signed(fraction: float) -> str:
    return f"{100 * fraction:+.2f}".replace("-", "−")
