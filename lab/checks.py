"""What a user can get wrong in a run, told in one line before anything is trained.

No number depends on these checks: an edit here retires no finished run.
"""

import dataclasses
import inspect
import sys
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

import data
from data import Dataset
from train import Run, build, defined_in, initialisations, networks, plain, takes

LARGEST = sys.float_info.max
AUGMENTATIONS = ("flip", "crop")
Rule = tuple[type, Callable[[Any], bool], str]  # a type, a condition, and both in words


SHARE: Rule = (float, lambda value: 0 <= value <= 1, "from 0 to 1")


class UserError(ValueError):
    """A mistake that the user can correct; the text is one line that says how."""


def first_line(error: Exception) -> str:
    """The first line of an error's text, or the name of its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def data_sets() -> dict[str, Callable[..., Dataset]]:
    """Every data set by the name of its function in data.py."""
    functions = defined_in(data, inspect.isfunction)
    return {name: f for name, f in functions.items() if f.__annotations__.get("return") is Dataset}


def rules() -> dict[str, Rule]:
    """The rule for each field of a run that is a number, a name, or true or false."""

    def whole(least: int) -> Rule:
        return int, lambda value: least <= value < 2**63, f"a whole number, at least {least}"

    def one_of(names: Collection[str]) -> Rule:
        return str, lambda value: value in names, f"one of {', '.join(names)}"

    fraction = float, lambda value: 0 <= value < 1, "a number, at least 0 and below 1"
    true_or_false = bool, lambda value: True, "True or False"
    return {
        "network": one_of(networks()),
        "seed": whole(0),
        "epochs": whole(1),
        "learning_rate": (float, lambda value: 0 < value <= LARGEST, "a number above 0"),
        "batch_size": whole(1),
        "split": one_of(data.TRAINING_FRACTIONS),
        "dataset": one_of(data_sets()),
        "dropout_rate": fraction,
        "momentum": fraction,
        "weight_decay": (float, lambda value: 0 <= value <= LARGEST, "a number, at least 0"),
        "gradient_statistics": true_or_false,
        "width": whole(1),
        "initialisation": one_of(initialisations()),
        "overfit_images": whole(0),
        "drop_last": true_or_false,
    }


def check(value: Any, rule: Rule, shown: str) -> Any:
    """The value as a plain Python one. Raises UserError where it breaks the rule."""
    kind, allows, words = rule
    value = plain(value, as_float=kind is float)
    if type(value) is not kind or not allows(value):
        raise UserError(f"{shown} must be {words}")
    return value


def checked(run: Run) -> Run:
    """The run. Raises UserError where a field is wrong, also of the run that it starts from."""
    for field, rule in rules().items():
        value = getattr(run, field)
        if field == "learning_rate" and isinstance(value, tuple):
            for rate in value:
                check(rate, rule, f"learning_rate: {rate!r}")
            if len(value) != run.epochs:
                raise UserError(f"learning_rate: {len(value)} values for {run.epochs} epochs")
        else:
            check(value, rule, f"{field} = {value!r}")
    for field in ("augmentation", "reinitialised", "frozen"):
        names = getattr(run, field)
        if not isinstance(names, tuple) or not all(type(name) is str for name in names):
            raise UserError(f"{field} = {names!r} must be a list of names")
    if not set(run.augmentation) <= set(AUGMENTATIONS):
        known = ", ".join(AUGMENTATIONS)
        raise UserError(f"augmentation = {run.augmentation!r}: choose from {known}")
    for field, neutral in (("width", 16), ("dropout_rate", 0.0)):
        value = getattr(run, field)
        if value != neutral and field not in takes(networks()[run.network]):
            raise UserError(f"{field} = {value!r}: {run.network} takes no {field}")
    if run.start is not None:
        if not isinstance(run.start, Run):
            raise UserError(f"start = {run.start!r} must be a run, or None")
        checked(run.start)
    return run


def check_data(name: str, dataset: Dataset) -> None:
    """Raise UserError where a data set is not of the types that Dataset describes."""
    for part in ("", "test_"):
        images, labels = (getattr(dataset, part + what) for what in ("images", "labels"))
        if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.dim() != 4:
            raise UserError(
                f"dataset = {name!r}: {part}images must be a torch.uint8 tensor of shape "
                "(n, height, width, channels)"
            )
        if not len(images):
            raise UserError(f"dataset = {name!r}: there are no {part}images")
        if images.shape[1:] != dataset.images.shape[1:]:
            raise UserError(f"dataset = {name!r}: test_images must have the shape of the images")
        classes = len(dataset.class_names)
        if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
            raise UserError(f"dataset = {name!r}: {part}labels must be a torch.int64 tensor")
        if labels.shape != images.shape[:1]:
            raise UserError(f"dataset = {name!r}: {part}labels must be one for each image")
        if not 0 <= labels.min() <= labels.max() < classes:
            raise UserError(f"dataset = {name!r}: {part}labels must be from 0 to {classes - 1}")


def check_fit(run: Run, dataset: Dataset, of_start: Dataset | None = None) -> None:
    """Raise UserError where a run's network, layers or batches do not fit or cannot be trained.

    of_start is the data set of the run that it starts from, where that is another one.
    """
    classes, kind = len(dataset.class_names), networks()[run.network]
    if classes != 10 and "classes" not in takes(kind):
        raise UserError(
            f"dataset = {run.dataset!r} has {classes} classes: {run.network} must take classes"
        )
    network = built(run, classes)
    layers = [name for name, _ in network.named_modules() if name]
    for layer in (*run.reinitialised, *run.frozen):
        if layer not in layers:
            known = ", ".join(layers)
            raise UserError(f"{run.network} has no layer {layer!r}: choose from {known}")
    for layer in run.frozen:
        network.get_submodule(layer).requires_grad_(False)
    if run.start:
        start_classes = len((of_start or dataset).class_names)
        source = built(run.start, start_classes)
        try:
            network.load_state_dict(source.state_dict())
        except RuntimeError:
            raise UserError(
                f"start is a run of {run.start.network} of width {run.start.width} with "
                f"{start_classes} classes: its layers are not those of {run.network} of width "
                f"{run.width} with {classes}"
            ) from None
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(f"frozen = {run.frozen}: leaves {run.network} nothing to train")
    if "noise" in takes(network.forward) and not hasattr(network, "noise_features"):
        raise UserError(f"{run.network} takes noise in forward: it needs noise_features, too")
    split = data.split_indices(run.split, len(dataset.images), run.overfit_images)
    (n, n_val), size = map(len, split), run.batch_size
    if not (n and n_val):
        raise UserError(f"split = {run.split!r}: must leave images to train and to validate on")
    if size > n:
        raise UserError(
            f"BATCH_SIZE = {size}: must be at most the {n:,} training images of {run.dataset}"
        )
    kinds = nn.modules.batchnorm._BatchNorm
    normalised = any(isinstance(layer, kinds) for layer in network.modules())
    if normalised and (size == 1 or (n % size == 1 and not run.drop_last)):
        raise UserError(
            f"BATCH_SIZE = {size}: leaves a last batch of one image, which batch normalisation "
            "cannot train on"
        )
    height, width, channels = dataset.images.shape[1:]
    if run.augmentation and (height, width) != (32, 32):
        raise UserError(f"augmentation = {run.augmentation!r}: is only for images of 32 × 32")
    check_forward(run, network, torch.zeros(2, channels, height, width), classes)


def built(run: Run, classes: int) -> nn.Module:
    """The run's network with nothing frozen. Raises UserError where it cannot be built."""
    try:
        return build(dataclasses.replace(run, frozen=()), classes)
    except Exception as error:  # of a network of the user's own: any
        raise UserError(f"{run.network} cannot be built: {first_line(error)}") from None


def check_forward(run: Run, network: nn.Module, images: Tensor, classes: int) -> None:
    """Raise UserError where a network does not make logits (2, classes) of two images.

    Or where it makes layers meanwhile, which the optimizer would not know.
    """
    names, parameters = list(network.state_dict()), list(network.parameters())
    lazy = any(map(nn.parameter.is_lazy, network.state_dict().values()))
    inputs = [(images,)]  # an evaluation gives no noise
    if "noise" in takes(network.forward):
        inputs.append((images, torch.zeros(2, network.noise_features)))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            shapes = [tuple(network.eval()(*given).shape) for given in inputs]
    except Exception as error:  # of a network of the user's own: any
        raise UserError(f"{run.network} fails on images: {first_line(error)}") from None
    for found in shapes:
        if found != (2, classes):
            words = f"must make logits (2, {classes}) of two images, not {found}"
            raise UserError(f"{run.network} {words}")
    same = list(map(id, network.parameters())) == list(map(id, parameters))
    if lazy or list(network.state_dict()) != names or not same:
        raise UserError(
            f"{run.network} makes layers or their shapes in forward: make them in its constructor"
        )
