"""The constants at the top of a script: what their names ask for, and what any name may hold."""

import json
from pathlib import Path

import numpy as np
import pytest

import models
from lab.checks import UserError
from lab.constants import check_constant, check_constants


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EPOCHS", 0),
        ("EPOCHS", [50]),
        ("EPOCHS", 50.0),
        ("EPOCHS", True),
        ("BATCH_SIZE", 0),
        ("RETRAINED_BATCH_SIZE", 64.5),
        ("SEEDS", []),
        ("SEEDS", [1, 2, 1]),
        ("SEEDS", 5),
        ("SEEDS", "12345"),
        ("SEEDS", {1, 2}),
        ("SEEDS", [1, 2.5]),
        ("SEEDS", [-1]),
        ("SEED", [1]),
        ("LEARNING_RATES", [0.1, -0.1]),
        ("LEARNING_RATES", [0.1, 0.10]),
        ("LEARNING_RATES", {0.1: "high", 0.01: "low"}),
        ("LEARNING_RATES", 0.1),
        ("INITIAL_LEARNING_RATE", None),
        ("INITIAL_LEARNING_RATE", 0),
        ("INITIAL_LEARNING_RATE", 10**400),
        ("INITIAL_LEARNING_RATE", float("nan")),
        ("DROPOUT_RATES", [0, 1]),
        ("WEIGHT_DECAYS", [0.1, -0.1]),
        ("COMBINED_WEIGHT_DECAY", -1),
        ("MOMENTUM", 1),
        ("WIDTH", 0),
        ("WIDTHS", [8, 8]),
        ("NETWORK", "ResNet"),
        ("NETWORKS", ["BaselineNet", "ResNet"]),
        ("NETWORKS", "BaselineNet"),
        ("SPLIT", "thirds"),
        ("DATASET", "cifar100"),
        ("INITIALISATIONS", ["kaiming", "ones"]),
        ("DROP_LAST", 1),
        ("SMOOTHING_WINDOW", 0),
        ("SMOOTHING_WINDOW", 2.5),
        ("WINDOWS", [3, 0]),
        ("DECAY_RATE", -1),
        ("DECAY_RATES", [0.25, 0.25]),
        ("LEARNING_RATE_RANGE", [0.1]),
        ("LEARNING_RATE_RANGE", [0.1, 0.01]),
        ("LEARNING_RATE_RANGE", [0.01, 0.05, 0.1]),
        ("LEARNING_RATE_RANGE", [0, 0.1]),
        ("LEARNING_RATE_RANGE", 0.1),
        ("MOMENTUM_RANGE", [0.85, 1.0]),
    ],
)
def test_a_constant_is_checked_by_the_end_of_its_name(name, value):
    with pytest.raises(UserError, match=f"^{name} = ") as error:
        check_constant(name, value)
    assert repr(value) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "plain"),
    [
        ("SEEDS", range(1, 4), [1, 2, 3]),
        ("SEEDS", (np.int64(7),), [7]),
        ("LEARNING_RATES", (1, 0.5), [1.0, 0.5]),
        ("EPOCHS", np.int64(50), 50),
        ("INITIAL_LEARNING_RATE", np.float64(0.1), 0.1),
        ("DECAY_RATE", 0, 0.0),
        ("DECAY_RATES", [0.25, 0.1, 0], [0.25, 0.1, 0.0]),
        ("SMOOTHING_WINDOW", 1, 1),
        ("DROPOUT_RATES", [0, 0.8], [0.0, 0.8]),
        ("MOMENTUM_RANGE", (0.85, 0.99), [0.85, 0.99]),
        ("NETWORKS", ["BaselineNet", "DropoutNet"], ["BaselineNet", "DropoutNet"]),
        ("INITIALISATION", "small uniform", "small uniform"),
        ("DROP_LAST", True, True),
    ],
)
def test_sound_constants_come_back_as_plain_values(name, value, plain):
    found = check_constant(name, value)
    assert found == plain
    assert json.dumps(found) == json.dumps(plain)  # to the type: 1.0 is not 1


@pytest.mark.parametrize(
    ("name", "value", "recorded"),
    [
        ("GAMMA", 3, 3),
        ("GAMMA", -0.5, -0.5),
        ("GAMMA", None, None),
        ("GAMMA", "any text", "any text"),
        ("STEPS", [10, [20, 30]], [10, [20, 30]]),
        ("STEPS", (10, 20), [10, 20]),
        ("STEPS", [], []),
        ("OPTIONS", {"a": 1, "b": [True]}, {"a": 1, "b": [True]}),
        ("PERIODS", [3, 3], [3, 3]),  # SEEDS would refuse them
        ("SEEDLINGS", -1, -1),  # ends in no field
        ("FOREPOCHS", "a word", "a word"),  # a field only after an underscore
        ("WINDOW_COLOUR", "blue", "blue"),
        ("GAMMA", float("inf"), "inf"),  # JSON has no infinity
        ("GAMMA", 2 + 1j, "(2+1j)"),
        ("FOLDER", Path("/tmp/x"), repr(Path("/tmp/x"))),
        ("SHAPE", (np.int64(3), 2), repr((np.int64(3), 2))),
    ],
)
def test_any_other_constant_is_accepted_and_recorded(name, value, recorded):
    found = check_constant(name, value)
    assert found == recorded
    assert json.loads(json.dumps(found, allow_nan=False)) == recorded


def test_a_function_is_recorded_as_its_repr():
    assert check_constant("SCHEDULE", test_a_function_is_recorded_as_its_repr) == repr(
        test_a_function_is_recorded_as_its_repr
    )


def test_a_constant_that_holds_itself_is_recorded_in_words():
    endless = [1]
    endless.append(endless)
    assert check_constant("ENDLESS", endless) == "[1, [...]]"


def test_all_upper_case_names_of_a_script_and_no_others_are_its_constants():
    names = {
        "__doc__": "A script.",
        "__FILE__": "dunder",
        "EPOCHS": np.int64(5),
        "GAMMA": 3,
        "TABLE_2": (1, 2),
        "_PRIVATE": 0,
        "_SEEDS": "not checked",
        "epochs": 0,
        "Groups": dict,
        "runs": lambda: {},
    }
    found = check_constants("exp9_mine.py", names)
    assert found == {"EPOCHS": 5, "GAMMA": 3, "TABLE_2": [1, 2]}
    assert list(found) == ["EPOCHS", "GAMMA", "TABLE_2"]
    assert names["EPOCHS"] == 5  # the script's own names stay as they are


def test_an_error_names_the_constant_its_value_and_the_script():
    with pytest.raises(UserError) as error:
        check_constants("exp9_mine.py", {"GAMMA": 3, "LEARNING_RATES": [0.1, -0.1]})
    assert str(error.value) == (
        "LEARNING_RATES = [0.1, -0.1]: -0.1 must be a number above 0 "
        "(edit it at the top of exp9_mine.py)"
    )
    with pytest.raises(UserError) as error:
        check_constants("exp9_mine.py", {"EPOCHS": 0})
    assert str(error.value) == (
        "EPOCHS = 0 must be a whole number, at least 1 (edit it at the top of exp9_mine.py)"
    )


def test_a_network_of_the_users_own_can_be_a_constant(add_to):
    with pytest.raises(UserError, match="must be one of BaselineNet, DropoutNet, BatchNormNet"):
        check_constant("NETWORK", "WideNet")
    add_to(models, type("WideNet", (models.BaselineNet,), {}))
    assert check_constant("NETWORK", "WideNet") == "WideNet"
