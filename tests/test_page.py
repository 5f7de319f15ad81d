"""The page: every sentence follows from the numbers."""

import json

import pytest
from test_summary import record

from page import difference, sentences, write_page
from search import summarise_search
from summary import summarise


def summary_of(groups, experiment="exp1_lr", **more):
    return more | summarise(experiment, "Why?\n\nSo.", {"SMOOTHING_WINDOW": 3}, groups)


def pair(mean, interval, label="a", minus="b"):
    return {
        "label": label,
        "minus": minus,
        "seeds": [1, 2],
        "test_accuracy": {"mean": mean, "ci95": interval},
    }


@pytest.mark.parametrize(
    ("mean", "interval", "words"),
    [
        (0.02, 0.01, "a minus b: +2.00 points (+1.00 to +3.00, 2 seeds): a is better."),
        (-0.02, 0.01, "a minus b: −2.00 points (−3.00 to −1.00, 2 seeds): b is better."),
        (0.02, 0.03, "a minus b: +2.00 points (−1.00 to +5.00, 2 seeds): within noise."),
        (0.01, 0.01, "a minus b: +1.00 points (+0.00 to +2.00, 2 seeds): within noise."),
    ],
)
def test_a_difference_is_judged_by_its_interval(mean, interval, words):
    assert difference(pair(mean, interval)) == words


def test_too_few_seeds_conclude_nothing():
    assert "nothing can be concluded" in difference(pair(0.02, None))
    assert "no seed is in both" in difference(pair(None, None))


def test_sentences_follow_from_the_groups():
    groups = {
        "lr=0.1": [record(1, 0.60, 0.58, train=0.9), record(2, 0.70, 0.62, train=0.9)],
        "lr=0.05": [record(1, 0.80, 0.71, train=0.9), record(2, 0.82, 0.75, train=0.9)],
        "lr=0.01": [record(1, 0.50, 0.50, train=0.55), record(2, 0.9, diverged_at=1)],
    }
    found = sentences(summary_of(groups))
    assert found[0] == (
        "Among all, **lr=0.05** has the highest mean validation accuracy, 81.00% (standard "
        "deviation 1.41); its mean test accuracy is 73.00% (standard deviation 2.83, 95% interval "
        "of the mean ± 25.41)."
    )
    assert found[1].startswith("lr=0.05 minus lr=0.1: +13.00 points (+13.00 to +13.00, 2 seeds)")
    assert found[1].endswith("lr=0.05 is better.")
    assert "lr=0.05 minus lr=0.01: +21.00 points, from one seed" in found[2]
    assert found[3] == (
        "Among all, the generalisation gap is widest for lr=0.1, 25.00 points (standard deviation "
        "7.07, 95% interval of the mean ± 63.53), and narrowest for lr=0.01, 5.00 points."
    )
    assert found[4] == "Diverged, and left out of every mean: 1 of 2 runs of lr=0.01."
    assert sentences(summary_of({"x": [record(1, 0.9, diverged_at=0)]})) == ["Every run diverged."]


def test_only_candidates_are_ranked():
    groups = {"a": [record(1, 0.6)], "b": [record(1, 0.7)], "c": [record(1, 0.9, train=0.5)]}
    summary = summarise("e", "Why?", {}, groups, ["a", "b"])
    found = sentences(summary)
    assert found[0].startswith("Among a and b, **b** has the highest mean validation accuracy")
    assert "narrowest for b, 20.00 points." in found[-1]
    assert "The best rate above zero is x." in sentences(summary | {"best_with_dropout": "x"})


def test_an_experiments_own_comparisons_are_told():
    groups = {"a": [record(1, 0.6)], "b": [record(1, 0.7)]}
    found = sentences(summary_of(groups, comparisons=[pair(0.02, 0.01)]))
    assert "a minus b: +2.00 points (+1.00 to +3.00, 2 seeds): a is better." in found
    assert sum("minus" in sentence for sentence in found) == 1


def test_runs_that_learned_nothing_are_named():
    """Guessing among ten classes gives 10%; half as much again is still nothing."""
    stuck = record(1, 0.1, val_accuracy=[0.9, 0.149])  # the last epoch counts
    groups = {
        "a": [record(1, 0.151), record(2, 0.6)],
        "b": [stuck, record(2, 0.2, diverged_at=1), record(3, 0.6)],
        "c": [record(1, 0.1), record(2, 0.0)],
    }
    (found,) = [words for words in sentences(summary_of(groups)) if "Learned" in words]
    assert found == (
        "Learned nothing (validation accuracy below 15% after the last epoch, where guessing gives "
        "10%): 1 of 3 runs of b, 2 of 2 runs of c."
    )


def test_gradients_of_exactly_zero_are_named():
    pooled = {"mean": [0.0, 1e-30, 0.0], "std": [0.0] * 3}
    windows = dict.fromkeys(("first_steps", "last_steps", "first_epochs", "last_epochs"), pooled)
    gradients = {"parameters": ["w", "b", "c"], "history": {"mean": [], "std": []}, **windows}
    zeros = record(1, 0.6, gradients=gradients | {"by_step": [pooled] * 5})
    at_first = {"mean": [1.0, 2.0, 3.0], "std": [0.0] * 3}
    dies = record(1, 0.6, gradients=gradients | {"by_step": [at_first, pooled, pooled]})
    found = sentences(summary_of({"zeros": [zeros], "uniform": [dies], "wild": [record(1, 0.5)]}))
    assert (
        "At each of the first 5 steps of zeros the gradients of 2 of 3 parameter tensors are "
        "exactly zero."
    ) in found
    assert (
        "One after the other, at the first 3 steps of uniform the gradients of 0, 2 and 2 of 3 "
        "parameter tensors are exactly zero."
    ) in found
    assert sum("exactly zero" in words for words in found) == 2


def searched(accuracies):
    """A search of two runs, repeated twice; None where a run diverged."""
    points = [
        [
            record(
                seed,
                accuracy or 0.5,
                diverged_at=None if accuracy else 0,
                run={"learning_rate": 0.001 * seed, "momentum": 0.9},
            )
            for seed, accuracy in zip((7, 8), row, strict=True)
        ]
        for row in accuracies
    ]
    return summarise_search(points)


def test_a_search_is_told_with_how_its_winner_flatters():
    search = {
        "random": searched([[0.5, 0.6], [0.62, None]]),
        "grid": searched([[0.5, 0.5], [0.4, 0.64]]),
    }
    groups = {
        "random, lr=0.007, momentum=0.9": [record(1, 0.57), record(2, 0.59)],
        "grid, lr=0.008, momentum=0.9": [record(1, 0.6, diverged_at=0)],
    }
    found = sentences(summary_of(groups, search=search))
    assert found[1:4] == [
        "A random search of 2 runs finds a validation accuracy of 61.00% (standard deviation "
        "1.41), the mean of 2 repeats, in which 1 of 4 runs diverged. Its best of all, 62.00% at "
        "learning rate 0.007 and momentum 0.9, was chosen as the highest of 3 and so tends to "
        "flatter: from 2 seeds that it was not chosen on, its mean is 58.00%, −4.00 points.",
        "A grid search of 2 runs finds a validation accuracy of 57.00% (standard deviation 9.90), "
        "the mean of 2 repeats, in which 0 of 4 runs diverged. Its best of all, 64.00% at learning "
        "rate 0.008 and momentum 0.9, was chosen as the highest of 4 and so tends to flatter; from "
        "fresh seeds all its runs diverged.",
        # 62 − 50 and 60 − 64: mean 4, deviation 11.314, over √2 = 8, times Student's 12.7062
        "Highest validation accuracy of a search, random search minus grid search: +4.00 points "
        "(−97.65 to +105.65, 2 seeds): within noise.",
    ]


def test_a_search_that_found_nothing_is_told():
    search = {"random": searched([[None, None]] * 2), "grid": searched([[0.5, 0.5]] * 2)}
    groups = {"grid, lr=0.007, momentum=0.9": [record(1, 0.57)]}
    found = sentences(summary_of(groups, search=search))
    assert found[1] == "In every random search of 2 runs all diverged."
    assert "no seed is in both" in found[3]


def test_the_page_holds_every_experiment_and_only_figures_that_exist(tmp_path):
    assert write_page(tmp_path) is None
    for name in ("exp1_lr", "exp2_dropout"):
        folder = tmp_path / name
        folder.mkdir()
        summary = summary_of({"lr=0.1": [record(1, 0.6)]}, name)
        summary["question"] = f"What of {name}?"
        (folder / "summary.json").write_text(json.dumps(summary))
        (folder / "comparison.png").write_bytes(b"")
        (folder / "left_over.png").write_bytes(b"")
    text = write_page(tmp_path).read_text()
    assert text.index("## What of exp1_lr?") < text.index("## What of exp2_dropout?")
    assert "![comparison.png](exp1_lr/comparison.png)" in text
    assert "lr=0.1.png" not in text
    assert "left_over" not in text
    assert "| lr=0.1 (best)" in text
    assert "\nSo.\n" in text  # the method
    assert "2 epochs, 1 seeds" in text  # the notes
    assert "REHEARSAL" not in text


def test_a_damaged_summary_does_not_spoil_the_page(tmp_path):
    for name, content in (
        ("exp1_lr", json.dumps(summary_of({"lr=0.1": [record(1, 0.6)]}))),
        ("exp2_dropout", "{"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(content)
    text = write_page(tmp_path).read_text()
    assert "## Why?" in text
    assert "## exp2_dropout\n\nIts summary.json is damaged" in text


def test_a_rehearsal_concludes_nothing():
    found = sentences(summary_of({"x": [record(1, 0.6)]}) | {"rehearsal": True})
    assert "nothing here is a finding" in found[0]


def test_trainable_parameters_are_told_by_learning_rate():
    groups = {}
    for label, rate, val, test in (
        ("a", 0.1, 0.8, 0.5),
        ("b", 0.1, 0.7, 0.6),
        ("c", 0.01, 0.6, 0.7),
    ):
        groups[label] = [record(seed, val, test) for seed in (1, 2)]
        for seed in groups[label]:
            seed["run"] = seed["run"] | {"learning_rate": rate}
    counts = {"b": 89_834, "a": 66_250}
    found = sentences(summary_of(groups, trainable_parameters=counts))
    assert found[-1] == (
        "At lr=0.1, with 66,250 and 89,834 trainable parameters, mean test accuracy is 50.00 and "
        "60.00%, and the generalisation gap 10.00 and 20.00 points."
    )
    assert not any("At lr=0.01" in sentence for sentence in found)
    groups["b"] = [record(1, 0.7, diverged_at=1), record(2, 0.7, diverged_at=1)]
    found = sentences(summary_of(groups, trainable_parameters=counts))
    assert "mean test accuracy is 50.00 and –%, and the generalisation gap 10.00 and –" in found[-2]
    assert not any("trainable" in sentence for sentence in sentences(summary_of(groups)))
