"""Checks of the constants at the top of a script, by what their names end in."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from train import NOT_NEGATIVE, RULES, UserError, obey, whole

Constants = dict[str, Any]  # {EPOCHS: its value, ...}
ENDINGS = RULES | {"decay_rate": NOT_NEGATIVE, "window": whole(1)}


def check_constants(script: str, names: Mapping[str, Any]) -> Constants:
    """Every UPPER_CASE name of a script with its value as a plain one.

    Raises UserError, with the constant and the script, where a value makes no sense.
    """
    try:
        return {
            name: check(name, value)
            for name, value in names.items()
            if name.isupper() and not name.startswith("_")
        }
    except UserError as error:
        raise UserError(f"{error} (edit it at the top of {script})") from None


def check(name: str, value: Any) -> Any:
    """The value of a constant as a plain Python value.

    A name that ends in a field of Run (INITIAL_LEARNING_RATE), in DECAY_RATE or in WINDOW obeys
    that rule. Its plural (LEARNING_RATES) asks for a list of different values, its range
    (LEARNING_RATE_RANGE) for the lowest and the highest. Any other value is accepted as it is.

    Raises UserError where a rule is broken.
    """
    shown = f"{name} = {value!r}"
    for ending, rule in ENDINGS.items():
        if ends_in(name, ending):
            return obey(rule, value, shown)
        if ends_in(name, f"{ending}s"):
            return check_list(rule, value, shown)
        if ends_in(name, f"{ending}_range"):
            lowest_highest = check_list(rule, value, shown)
            if len(lowest_highest) != 2 or lowest_highest[0] > lowest_highest[1]:
                raise UserError(f"{shown}: must be [lowest, highest]")
            return lowest_highest
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return repr(value)  # recorded in words, as JSON cannot hold it


def ends_in(name: str, ending: str) -> bool:
    return f"_{name.lower()}".endswith(f"_{ending}")


def check_list(rule: tuple, value: Any, shown: str) -> list[Any]:
    """A list of different values that all obey the rule."""
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
        raise UserError(f"{shown}: must be a list of values")
    values = [obey(rule, item, f"{shown}: {item!r}") for item in value]
    if not values:
        raise UserError(f"{shown}: give at least one value")
    if len(set(values)) < len(values):
        raise UserError(f"{shown}: give each value once")
    return values
