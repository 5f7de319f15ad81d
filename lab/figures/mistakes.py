"""Figures of what one trained network gets right and wrong on the test set."""

from contextlib import suppress
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from lab.figures import canvas
from lab.figures.canvas import Figures, Group, Summary
from lab.figures.results import class_names

MOST_NAMED = 20  # classes


def figures(summary: Summary) -> Figures:
    """What the best model gets right and wrong: nothing where every run diverged.

    It is the best setting's run with the highest validation accuracy at the last epoch.
    """
    for group in summary["groups"]:
        if group["label"] == summary["best"]:
            sound = [run for run in group["runs"] if run["diverged_at_epoch"] is None]
            found = summary, group, max(sound, key=lambda run: run["val_accuracy"][-1])
            return {"best_model": partial(by_class, *found), "mistakes": partial(mistakes, *found)}
    return {}


def by_class(summary: Summary, group: Group, run: dict[str, Any]) -> Figure:
    """The confusion matrix and the accuracy by class of one run on the test set."""
    names = class_names(run)
    words = f"{group['label']}, seed {run['seed']}, by class on the test set"
    figure, (matrix, bars) = canvas.blank(summary, words, [group], 2, 2, row=4.8)
    shares = [[100 * n / max(1, sum(row)) for n in row] for row in run["confusion_matrix"]]
    image = matrix.imshow(shares, cmap="cividis", vmin=0, vmax=100)
    style = {"ha": "center", "va": "center", "fontsize": canvas.SMALL}
    matrix.grid(False)
    matrix.set(xlabel="predicted class", ylabel="true class")
    recalls = sorted((shares[at][at], name) for at, name in enumerate(names))
    label = "accuracy by class (%)"
    if len(names) > MOST_NAMED:  # the names and numbers of more would be a smear
        label += ", lowest and highest"
        recalls = recalls[: MOST_NAMED // 2] + recalls[-MOST_NAMED // 2 :]
    else:
        matrix.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
        matrix.set_yticks(range(len(names)), names)
        for true, row in enumerate(shares):
            for predicted, share in enumerate(row):
                colour = "black" if share > 50 else "white"
                matrix.text(predicted, true, f"{share:.0f}", color=colour, **style)
    figure.colorbar(image, ax=matrix, label="images of the true class (%)", shrink=0.8)
    colour = canvas.styles(summary)[group["label"]]["color"]
    drawn = bars.barh(
        [name for _, name in recalls], [recall for recall, _ in recalls], color=colour
    )
    bars.bar_label(drawn, fmt="%.0f", padding=3)
    bars.set(xlabel=label, xlim=(0, 108), xticks=range(0, 101, 20))
    return figure


def mistakes(summary: Summary, group: Group, run: dict[str, Any]) -> Figure | None:
    """The test images that one run most confidently took for others; None without the data.

    Beside each stands one minus the probability of the predicted class.
    """
    shown, images = run["most_confident_mistakes"], test_images(group["settings"]["dataset"])
    if images is None or images.shape[-1] not in (1, 3) or not shown:
        return None
    words = f"{group['label']}, seed {run['seed']}, most confident mistakes on the test set"
    note = "In brackets: one minus the probability of the predicted class"
    figure, panels = canvas.blank(summary, words, [group], len(shown), 5, row=1.85, note=note)
    for axes, mistake in zip(panels, shown, strict=True):
        axes.axis("off")
        axes.imshow(images[mistake["image"]].numpy())
        left = 1 - mistake["probability"]
        left = f"{left:.1g}" if left >= 1e-15 else "below 1e-15"  # all that float64 can tell
        words = f"{mistake['true']}, taken for\n{mistake['predicted']} ({left})"
        axes.set_title(words, fontsize=canvas.SMALL)
    return figure


def test_images(dataset: str) -> Any:
    """The test images, (n, 32, 32, 3) uint8, or None where they cannot be loaded here."""
    from lab import download, sweep  # not at the top: the sweep's own imports lead here

    if dataset == "cifar10" and download.find_faults(download.data_folder()):
        return None
    with suppress(OSError, RuntimeError, ValueError, KeyError):
        return sweep.load_data(dataset).test_images
    return None
