"""Checks of the constants at the top of a script, by what their names end in."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from lab.checks import Rule, UserError, check, rules
from train import Run

Constants = dict[str, Any]  # {EPOCHS: its value, ...}


def check_constants(script: str, names: Mapping[str, Any]) -> Constants:
    """Every UPPER_CASE name of a script with its value as a plain one.

    Raises UserError, with the constant and the script, where a value makes no sense.
    """
    try:
        return {
            name: check_constant(name, value)
            for name, value in names.items()
            if name.isupper() and not name.startswith("_")
        }
    except UserError as error:
        raise UserError(f"{error} (edit it at the top of {script})") from None


def runs_of(script: ModuleType) -> dict[str, list[Run]]:
    """The runs() of another script, whose constants are checked first.

    Raises UserError as check_constants(), with that script's name, and as its runs().
    """
    check_constants(Path(script.__file__).name, vars(script))
    return script.runs()


def check_constant(name: str, value: Any) -> Any:
    """The value of a constant as a plain Python value.

    A name that ends in a field of Run (INITIAL_LEARNING_RATE), in DECAY_RATE or in WINDOW must hold
    what is right for that. Its plural (LEARNING_RATES) must hold a list of different values, its
    range (LEARNING_RATE_RANGE) the lowest and the highest. Any other value is accepted as it is.

    Raises UserError where the value is not right.
    """
    shown = f"{name} = {value!r}"
    known = rules()
    known |= {"decay_rate": known["weight_decay"], "window": known["epochs"]}
    for field, rule in known.items():
        if ends_in(name, field):
            return check(value, rule, shown)
        if ends_in(name, f"{field}s"):
            return check_list(value, rule, shown)
        if ends_in(name, f"{field}_range"):
            lowest_highest = check_list(value, rule, shown)
            if len(lowest_highest) != 2 or lowest_highest[0] > lowest_highest[1]:
                raise UserError(f"{shown}: must be [lowest, highest]")
            return lowest_highest
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return repr(value)  # recorded in words, as JSON cannot hold it


def ends_in(name: str, ending: str) -> bool:
    return f"_{name.lower()}".endswith(f"_{ending}")


def check_list(value: Any, rule: Rule, shown: str) -> list[Any]:
    """A list of different values that are all right by the rule."""
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence) or not value:
        raise UserError(f"{shown}: must be a list of one or more values")
    values = [check(item, rule, f"{shown}: {item!r}") for item in value]
    if len(set(values)) < len(values):
        raise UserError(f"{shown}: give each value once")
    return values
