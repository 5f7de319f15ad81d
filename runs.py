"""A run as a value: everything that its numbers depend on, and the rules those values obey.

The name of a run's files, its place in a table and whether it has been trained already all follow
from its value. Nothing here needs torch, so that scripts start, check their constants and redraw
figures at once.
"""

import dataclasses
import hashlib
import json
import numbers
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from errors import UserError

NETWORKS = ("BaselineNet", "DropoutNet", "BatchNormNet")
DATASETS = ("cifar10", "digits")
SPLITS = ("standard", "halves", "swapped halves")
AUGMENTATIONS = ("flip", "crop")
INITIALISATIONS = (
    *("default", "uniform", "small uniform", "normal", "xavier", "kaiming", "zeros"),
)
# what a run's label names, beside network, learning rate, dropout and seed, where it is no default
IN_LABELS = (
    *("momentum", "weight_decay", "augmentation", "frozen", "width", "initialisation"),
    "overfit_images",
)
CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")  # one number an epoch each


@dataclass(frozen=True, kw_only=True)
class Run:
    """One network trained once from one seed.

    learning_rate is one number, or one a epoch. start names the run whose trained weights this one
    starts from; layers in reinitialised are then drawn anew, and those in frozen are never updated.
    width is the number of channels of the first convolution, which all other layers follow. With
    overfit_images the run trains on only the first so many images of its split, and validates on
    the same: can it learn at all?

    What stands at its default is not part of a run's name, so that fields can be added: a new one
    needs a default that changes nothing, and no default may ever be edited.

    Raises UserError where a value makes no sense.
    """

    network: str
    seed: int
    learning_rate: float | tuple[float, ...]
    epochs: int
    batch_size: int
    split: str
    dataset: str = "cifar10"
    dropout_rate: float = 0.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    augmentation: tuple[str, ...] = ()
    start: "Run | None" = None
    reinitialised: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    gradient_statistics: bool = False
    width: int = 16
    initialisation: str = "default"
    overfit_images: int = 0

    def __post_init__(self) -> None:
        for field in (
            *("seed", "epochs", "batch_size", "dropout_rate", "momentum", "weight_decay"),
            *("width", "overfit_images"),
        ):
            object.__setattr__(self, field, check(field, getattr(self, field)))
        rates = self.learning_rate
        if isinstance(rates, Sequence) and not isinstance(rates, str):
            rates = tuple(check("learning_rate", rate) for rate in rates)
            if len(rates) != self.epochs:
                raise UserError(f"learning_rate has {len(rates)} values for {self.epochs} epochs")
        else:
            rates = check("learning_rate", rates)
        object.__setattr__(self, "learning_rate", rates)
        for field, known in (
            ("network", NETWORKS),
            ("dataset", DATASETS),
            ("split", SPLITS),
            ("initialisation", INITIALISATIONS),
        ):
            if getattr(self, field) not in known:
                raise UserError(f"{field} = {getattr(self, field)!r}: choose {', '.join(known)}")
        if not set(self.augmentation) <= set(AUGMENTATIONS):
            raise UserError(
                f"augmentation = {self.augmentation!r}: choose from {', '.join(AUGMENTATIONS)}"
            )
        if self.dropout_rate and self.network != "DropoutNet":
            raise UserError(f"dropout_rate = {self.dropout_rate}: {self.network} has no dropout")

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        rates = self.learning_rate
        return rates[epoch] if isinstance(rates, tuple) else rates

    @property
    def label(self) -> str:
        """A short name for people: network, what it is known by, and seed."""
        rates = self.learning_rate
        rate = f"{rates[0]:g}-{rates[-1]:g}" if isinstance(rates, tuple) else f"{rates:g}"
        words = [self.network, f"lr={rate}"]
        if self.network == "DropoutNet":
            words.append(f"dropout={self.dropout_rate:g}")
        words += ["retrained"] * (self.start is not None)
        for field, value in settings_of(self).items():
            if field not in IN_LABELS:
                continue
            if isinstance(value, list):
                text = "+".join(value)
            else:
                text = value.replace(" ", "-") if isinstance(value, str) else f"{value:g}"
            words.append(f"{field.replace('_', '-')}={text}")
        return "_".join([*words, f"seed={self.seed}"])

    @property
    def trajectory(self) -> str:
        """The name shared by runs that differ only in how many epochs they train.

        With gradient statistics they differ in more: the last steps are others.
        """
        settings = settings_of(self)
        if not self.gradient_statistics:
            del settings["epochs"]
        text = json.dumps(settings, sort_keys=True)
        return f"{self.label}_{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    @property
    def name(self) -> str:
        """The name of the run's files, a function of its value alone."""
        return f"{self.trajectory}_epochs={self.epochs}"


def settings_of(run: Run) -> dict[str, Any]:
    """The fields of a run that differ from their defaults, ready for JSON: what its name says."""
    settings = {}
    for field in dataclasses.fields(run):
        value = getattr(run, field.name)
        if value != field.default:
            value = settings_of(value) if isinstance(value, Run) else value
            settings[field.name] = list(value) if isinstance(value, tuple) else value
    return settings


def all_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """What settings_of() gave, with the defaults filled in again, here and in where it starts."""
    defaults = {
        field.name: list(field.default) if isinstance(field.default, tuple) else field.default
        for field in dataclasses.fields(Run)
        if field.default is not dataclasses.MISSING
    }
    settings = defaults | settings
    if settings["start"] is not None:
        settings["start"] = all_settings(settings["start"])
    return settings


def _whole(least: int) -> tuple:
    return (
        numbers.Integral,
        lambda value: least <= value < 2**63,
        int,
        f"a whole number, at least {least}",
    )


def _real(allowed, description: str) -> tuple:
    return (
        numbers.Real,
        lambda value: abs(value) <= sys.float_info.max and allowed(value),
        float,
        description,
    )


_POSITIVE = _real(lambda value: value > 0, "a number above 0")
_NOT_NEGATIVE = _real(lambda value: value >= 0, "a number, at least 0")
_FRACTION = _real(lambda value: 0 <= value < 1, "a number from 0 up to, but not, 1")
_ABOVE_ONE = _real(lambda value: value > 1, "a number above 1")

# name: (type, what is allowed, what it is kept as, how to say it)
RULES: dict[str, tuple] = {
    "epochs": _whole(1),
    "batch_size": _whole(1),
    "performance_epochs": _whole(1),
    "seed": _whole(0),
    "performance_seed": _whole(0),
    "smoothing_window": _whole(1),
    "step_epochs": _whole(1),
    "width": _whole(1),
    "overfit_images": _whole(0),
    "overfit_steps": _whole(1),
    "learning_rate": _POSITIVE,
    "initial_learning_rate": _POSITIVE,
    "decay_rate": _NOT_NEGATIVE,
    "near_zero_loss": _POSITIVE,
    "weight_decay": _NOT_NEGATIVE,
    "combined_weight_decay": _NOT_NEGATIVE,
    "dropout_rate": _FRACTION,
    "momentum": _FRACTION,
    "fine_tuning_divisor": _ABOVE_ONE,
    "search_seed": _whole(0),
    "grid_side": _whole(2),
    "early_epochs": _whole(1),
    "initialisation": (
        str,
        lambda value: value in INITIALISATIONS,
        str,
        f"one of {', '.join(INITIALISATIONS)}",
    ),
    "range_margin": _FRACTION,
    "most_of_the_split": _FRACTION,
}


def check(name: str, value: Any, shown_as: str | None = None) -> Any:
    """The value as a plain Python number, or a UserError that says what it must be.

    The name of a field or a constant (EPOCHS, LEARNING_RATES) says which rule holds; a plural asks
    for a list of different values, a range (LEARNING_RATE_RANGE) for the lowest and the highest.
    """
    shown_as = shown_as or f"{name} = {value!r}"
    if name.lower().endswith("_range"):
        ends = check(f"{name[: -len('_range')]}s", value, shown_as)
        if len(ends) != 2 or ends[0] > ends[1]:
            raise UserError(f"{shown_as}: must be [lowest, highest]")
        return ends
    rule = RULES.get(name.lower())
    if rule is None:
        if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
            raise UserError(f"{shown_as}: must be a list of values")
        values = [check(name[:-1], item, f"{shown_as}: {item!r}") for item in value]
        if not values:
            raise UserError(f"{shown_as}: give at least one value")
        if len(set(values)) < len(values):
            raise UserError(f"{shown_as}: give each value once")
        return values
    kind, allowed, keep, description = rule
    if isinstance(value, bool) or not isinstance(value, kind) or not allowed(value):
        raise UserError(f"{shown_as} must be {description}")
    return keep(value)
