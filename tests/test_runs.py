"""Runs as values: what they accept, and that names follow from the whole value."""

import dataclasses

import numpy as np
import pytest

from errors import UserError
from runs import Run, check, settings_of


def test_every_field_is_part_of_the_name(a_run):
    base = a_run(network="DropoutNet")
    changed = {
        "network": "BatchNormNet",
        "seed": 2,
        "learning_rate": 0.04,
        "epochs": 3,
        "batch_size": 32,
        "split": "halves",
        "dataset": "cifar10",
        "dropout_rate": 0.2,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "augmentation": ("flip",),
        "start": a_run(),
        "reinitialised": ("fc1",),
        "frozen": ("conv1",),
        "gradient_statistics": True,
        "width": 8,
        "initialisation": "kaiming",
        "overfit_images": 64,
    }
    assert set(changed) == {field.name for field in dataclasses.fields(Run)}
    names = {dataclasses.replace(base, **{field: value}).name for field, value in changed.items()}
    assert len(names | {base.name}) == len(changed) + 1


def test_a_label_names_what_experiments_vary(a_run):
    base = {"seed": 7, "learning_rate": 0.05, "epochs": 3}
    assert a_run(**base).label == "BaselineNet_lr=0.05_seed=7"
    tuned = a_run(**base, momentum=0.9123456789, weight_decay=1e-4, augmentation=("flip", "crop"))
    assert tuned.label == (
        "BaselineNet_lr=0.05_momentum=0.912346_weight-decay=0.0001_augmentation=flip+crop_seed=7"
    )
    frozen = a_run(**base, start=a_run(), frozen=("conv1", "conv2"), network="DropoutNet")
    assert frozen.label == "DropoutNet_lr=0.05_dropout=0_retrained_frozen=conv1+conv2_seed=7"
    small = a_run(**base, initialisation="small uniform", width=8, overfit_images=1)
    assert small.label == (
        "BaselineNet_lr=0.05_width=8_initialisation=small-uniform_overfit-images=1_seed=7"
    )


def test_equal_values_have_equal_names_whatever_their_types(a_run):
    plain = a_run(learning_rate=1, seed=2)
    typed = a_run(learning_rate=np.float64(1.0), seed=np.int64(2))
    assert plain == typed
    assert plain.name == typed.name
    assert settings_of(typed)["seed"] == 2
    assert type(typed.seed) is int


def test_a_field_at_its_default_leaves_the_name_alone(a_run):
    assert "momentum" not in settings_of(a_run())
    assert settings_of(a_run(momentum=0.9))["momentum"] == 0.9


def test_no_default_may_ever_be_edited():
    """A run's name leaves out what stands at its default: another default, another meaning."""
    defaults = {field.name: field.default for field in dataclasses.fields(Run)}
    assert {k: v for k, v in defaults.items() if v is not dataclasses.MISSING} == {
        "dataset": "cifar10",
        "dropout_rate": 0.0,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "augmentation": (),
        "start": None,
        "reinitialised": (),
        "frozen": (),
        "gradient_statistics": False,
        "width": 16,
        "initialisation": "default",
        "overfit_images": 0,
    }


def test_runs_of_different_length_share_a_trajectory(a_run):
    assert a_run(epochs=2).trajectory == a_run(epochs=9).trajectory
    assert a_run(epochs=2).name != a_run(epochs=9).name
    assert a_run(seed=1).trajectory != a_run(seed=2).trajectory
    watched = [a_run(epochs=epochs, gradient_statistics=True).trajectory for epochs in (2, 9)]
    assert watched[0] != watched[1]


def test_a_schedule_is_one_rate_an_epoch(a_run):
    run = a_run(learning_rate=[0.1, 0.05])
    assert [run.learning_rate_at(epoch) for epoch in range(2)] == [0.1, 0.05]
    assert [a_run(learning_rate=0.1).learning_rate_at(epoch) for epoch in range(2)] == [0.1, 0.1]
    with pytest.raises(UserError, match="3 values for 2 epochs"):
        a_run(learning_rate=[0.1, 0.05, 0.01])


@pytest.mark.parametrize(
    "fields",
    [
        {"epochs": 0},
        {"epochs": 2.0},
        {"epochs": True},
        {"epochs": "2"},
        {"batch_size": 0},
        {"seed": -1},
        {"learning_rate": 0},
        {"learning_rate": -0.1},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"learning_rate": "0.1"},
        {"learning_rate": 10**400},
        {"learning_rate": [0.1, 0]},
        {"network": "ResNet"},
        {"split": "thirds"},
        {"dataset": "cifar100"},
        {"network": "DropoutNet", "dropout_rate": 1},
        {"network": "DropoutNet", "dropout_rate": -0.1},
        {"dropout_rate": 0.5},
        {"momentum": 1.0},
        {"weight_decay": -1e-4},
        {"augmentation": ("rotate",)},
    ],
)
def test_nonsense_is_refused_and_named(fields, a_run):
    with pytest.raises(UserError) as error:
        a_run(**fields)
    assert any(field in str(error.value) for field in fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EPOCHS", 0),
        ("EPOCHS", [50]),
        ("SEEDS", []),
        ("SEEDS", [1, 2, 1]),
        ("SEEDS", 5),
        ("SEEDS", "12345"),
        ("SEEDS", {1, 2}),
        ("SEEDS", [1, 2.5]),
        ("LEARNING_RATES", [0.1, -0.1]),
        ("LEARNING_RATES", [0.1, 0.10]),
        ("DROPOUT_RATES", [0, 1]),
        ("SMOOTHING_WINDOW", 0),
        ("DECAY_RATE", -1),
        ("INITIAL_LEARNING_RATE", None),
    ],
)
def test_constants_are_checked_by_their_names(name, value):
    with pytest.raises(UserError, match=f"^{name}"):
        check(name, value)


def test_sound_constants_come_back_as_plain_values():
    assert check("SEEDS", range(1, 4)) == [1, 2, 3]
    assert check("LEARNING_RATES", (1, 0.5)) == [1.0, 0.5]
    assert check("EPOCHS", np.int64(50)) == 50
