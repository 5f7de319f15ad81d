"""What counts as learned, after how many steps, and when validation turns: by hand."""

import pytest
from test_summary import RUN, record

from lab.overfitting import (
    failure,
    first_epoch,
    in_short,
    learned,
    overfits_after,
    overfitting,
    stage,
)
from lab.summary import compare_all


# the first epoch with a loss below 0.01 and full accuracy, by hand
@pytest.mark.parametrize(
    ("losses", "accuracies", "epoch"),
    [
        ([2.0, 0.009, 0.001], [0.0, 1.0, 1.0], 2),
        ([0.001, 0.01, 0.02, 0.009], [0.98, 1.0, 1.0, 1.0], 4),  # both at once, and strictly below
        ([0.009, 5.0], [1.0, 0.0], 1),  # that it is lost again is another matter
        ([2.0, 1.0], [0.5, 1.0], None),
        ([2.0, None], [0.5, None], None),
        ([0.001, None], [1.0, None], 1),
        ([None, None], [None, None], None),
    ],
)
def test_the_first_epoch_that_reaches_a_goal(losses, accuracies, epoch):
    assert first_epoch(accuracies, losses, 1.0, 0.01) == epoch


def test_without_a_loss_accuracy_alone_counts():
    assert first_epoch([0.5, 0.89, 0.9, 0.95], [9.0, 9.0, 9.0, 9.0], 0.9, None) == 3


def by_heart(seed, val_loss, images=64, **changes):
    run = RUN | {"seed": seed, "epochs": 3, "batch_size": images, "overfit_images": images}
    curves = {"val_loss": val_loss, "val_accuracy": [0.5, 1.0, 1.0], "train_loss": [9.0] * 3}
    return record(seed, 1.0, run=run, **(curves | {"train_accuracy": [0.1, 0.2, 1.0]} | changes))


def test_steps_to_learn_by_hand():
    few = [by_heart(4, [2, 0.1, 0.001]), by_heart(7, [2, 1, 0.5])]
    found = stage("one batch", few, 1.0, 1, 0.01)
    assert found["steps"] == [3, None]  # a step an epoch, whatever the training curves say
    assert found["seeds"] == [4, 7]
    assert found["could_not"] == [7]
    assert found["most_steps"] == 3
    assert found["by_heart"] is True
    # 45,000 images in batches of 64 are 704 steps; the training curves count
    whole = [record(1, 0.6, train=0.9), record(2, 0.99, train=0.89)]
    found = stage("baseline", [*whole, record(3, 0.6, diverged_at=1)], 0.9, 704)
    assert found["steps"] == [1_408, None, None]
    assert found["most_steps"] == 1_408
    assert found["train_accuracy"]["mean"] == pytest.approx(0.895)
    assert found["by_heart"] is False


def test_where_validation_loss_is_lowest():
    assert overfits_after([2.0, 1.0, 1.5]) == 2
    assert overfits_after([1.0, 1.0]) == 1
    assert overfits_after([1.0, 0.5, None]) == 2
    assert overfits_after([2.0, 1.5, 1.0]) is None  # and may fall further
    assert overfits_after([None, None]) is None


def whole(seed, val, train, val_loss):
    """A run of three epochs; its final weights know more of what they have seen than before."""
    curves = {"val_loss": val_loss, "train_loss": [2.0, 1.0, 0.5], "run": RUN | {"epochs": 3}}
    curves |= {"train_accuracy": [0.5, 0.6, train], "val_accuracy": [0.4, 0.5, val]}
    return record(seed, val, test=val, train=train + 0.01, **curves)


@pytest.fixture
def records():
    """A baseline and one strategy, from two seeds."""
    return {
        "baseline": [whole(1, 0.6, 0.95, [1.5, 1, 2]), whole(2, 0.62, 0.97, [1.5, 1, 3])],
        "augmentation": [
            whole(seed, 0.6 + 0.05 * seed, 0.65 + 0.06 * seed, [1.5, 1.2, 1.1]) for seed in (1, 2)
        ],
    }


@pytest.fixture
def stages(records):
    """One image is learned, one batch is not learned from seed 2, the split not from seed 1."""
    image = [by_heart(seed, [2, 0.1 * seed**9, 0.001], images=1) for seed in (1, 2)]
    batch = [by_heart(1, [2, 0.001, 0.001]), by_heart(2, [2, 1, 1])]
    return [
        stage("one image", image, 1.0, 1, 0.01),
        stage("one batch", batch, 1.0, 1, 0.01),
        stage("baseline", records["baseline"], 0.96, 704),
    ]


def test_what_cannot_learn_is_said_unmistakably(stages):
    image, batch, split = map(learned, stages)
    assert image == (
        "Memorising one image: a loss below 0.01 with 100% accuracy is reached by 2 of 2 "
        "seeds, after 3 to 3 steps (mean 3.0)."
    )
    assert batch.startswith(
        "**COULD NOT LEARN ONE BATCH**, from seed 2: a loss below 0.01 with 100% accuracy in 3 "
        "steps is reached by 1 of 2 seeds, after 2 to 2 steps (mean 2.0). "
    )
    assert "learning rate" in batch
    assert split == (
        "**COULD NOT LEARN THE WHOLE SPLIT (BASELINE)**, from seed 1: 96% training accuracy in "
        "2,112 steps is reached by 1 of 2 seeds, after 2,112 to 2,112 steps (mean 2,112.0); after "
        "2,112 steps it is 96.00 ± 1.41%. " + batch.split(" (mean 2.0). ")[1]
    )
    sound = stages[2] | {"could_not": [], "steps": [1_408, 2_112]}
    assert learned(sound).startswith(
        "The whole split (baseline): 96% training accuracy is reached by 2 of 2 seeds, after 1,408 "
    )
    none = stages[1] | {"steps": [None, None], "could_not": [1, 2]}
    assert "from seeds 1 and 2: " in learned(none)
    assert "reached by 0 of 2 seeds. " in learned(none)
    diverged = stages[2] | {"train_accuracy": {"mean": None, "std": None, "ci95": None}}
    assert "it is" not in learned(diverged)


def test_a_failure_is_a_headline_that_says_what_was_not_learned(stages):
    assert failure(stages[1]) == "COULD NOT LEARN ONE BATCH"
    assert failure(stages[2]) == "COULD NOT LEARN THE WHOLE SPLIT (BASELINE)"


def test_all_in_short_is_who_fits_what_and_how_the_gap_changes(stages, records):
    """Gaps of final weights, in points: 36 and 36, then 7 and 8."""
    lost = {"lost": [record(seed, 0.6, diverged_at=0) for seed in (1, 2)]}
    pairs = [("augmentation", "baseline"), ("lost", "baseline")]
    compared = compare_all(records | lost, pairs)
    assert in_short(stages, compared) == (
        "2 of 2 seeds fit one image, 1 of 2 seeds fit one batch and 1 of 2 seeds reach 96% on the "
        "whole split during training. Trust none of the following. The generalisation gap minus "
        "that of “baseline” is, in points, −28.50 with “augmentation” and – with “lost”. On the "
        "test set, “baseline” is within noise of “augmentation”, and without a verdict against "
        "“lost” (without seeds 1 and 2, which diverged)."
    )
    assert "Trust" not in in_short(stages[:1], compared)


def test_a_sentence_says_when_overfitting_begins(records):
    lost = {"lost": [record(1, 0.6, diverged_at=0)]}  # of which nothing can be said
    assert overfitting(records | lost) == (
        "Mean validation loss is lowest after epoch 2 for “baseline” (single seeds: 2 to 2) and "
        "the last epoch for “augmentation”."
    )
    unknown = "Mean validation loss is lowest after an unknown epoch, as all runs diverged."
    assert overfitting(lost) == unknown
