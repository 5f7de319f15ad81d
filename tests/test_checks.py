"""What a user can get wrong in a run is one line, before anything is trained."""

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import data
import lab.sweep
import models
from data import Dataset
from lab.checks import UserError, check_data, check_fit, checked, data_sets
from train import initialisations, networks


class MyNet(nn.Module):
    """A network of the user's own that takes no option."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3_072, 10)

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.fc(images.flatten(1)))


class HiddenNorm(MyNet):
    """A network with batch normalisation somewhere inside, under a name of the user's."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Sequential(nn.BatchNorm1d(3_072)))


class WideNet(MyNet):
    """A network with more outputs than there are classes."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).repeat(1, 2)


class TallNet(MyNet):
    """A network for images of 64 rows and 32 columns."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2 * 3_072, 10)


class WrongNet(MyNet):
    """A network for larger images."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4_096, 10)


class BrokenNet(MyNet):
    """A network whose forward has a mistake that is no RuntimeError."""

    def forward(self, images: Tensor) -> Tensor:
        return self.of_another_name(images)


class DrawingNet(MyNet):
    """A network that draws random numbers in evaluation, too."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images + torch.rand_like(images))


class NoisyNet(MyNet):
    """A network that takes noise and does not say how much."""

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        return super().forward(images)


class WronglyNoisyNet(MyNet):
    """A network that fails on noise alone."""

    noise_features = 3

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        logits = super().forward(images)
        return logits if noise is None else logits[:1]


class EverNoisyNet(MyNet):
    """A network that needs noise in evaluation, too."""

    noise_features = 3

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        return super().forward(images)


class GrowingNet(MyNet):
    """A network that makes a layer when it sees the first images."""

    def forward(self, images: Tensor) -> Tensor:
        self.out = nn.Linear(10, 10)
        return self.out(super().forward(images))


class ReplacingNet(MyNet):
    """A network that replaces a layer by another one of its name when it sees images."""

    def forward(self, images: Tensor) -> Tensor:
        self.fc = nn.Linear(3_072, 10)
        return super().forward(images)


class LazyNet(MyNet):
    """A network with a layer that has no shape before it sees images."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.LazyLinear(10)


class DemandingNet(MyNet):
    """A network with a parameter that no run gives."""

    def __init__(self, depth: int) -> None:
        super().__init__()


# torch 2.15 names the operation, earlier versions do not
SHAPES = r"fails on images: (addmm: )?mat1 and mat2 shapes cannot"


@pytest.fixture
def own_networks(add_to) -> None:
    """As if the user had added these classes to models.py."""
    kinds = [MyNet, HiddenNorm, WideNet, TallNet, WrongNet, BrokenNet, DrawingNet, NoisyNet]
    kinds += [WronglyNoisyNet, EverNoisyNet, GrowingNet, ReplacingNet, LazyNet, DemandingNet]
    for kind in kinds:
        add_to(models, kind)


@pytest.mark.parametrize(
    "fields",
    [
        {"epochs": 0},
        {"epochs": 2.0},
        {"epochs": True},
        {"epochs": "2"},
        {"batch_size": 0},
        {"seed": -1},
        {"seed": 2**63},
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
        {"initialisation": "ones"},
        {"network": "DropoutNet", "dropout_rate": 1},
        {"network": "DropoutNet", "dropout_rate": -0.1},
        {"dropout_rate": 0.5},
        {"momentum": 1.0},
        {"weight_decay": -1e-4},
        {"augmentation": ("rotate",)},
        {"augmentation": "flip"},
        {"augmentation": None},
        {"frozen": "conv1"},
        {"frozen": [1]},
        {"reinitialised": {"fc1": True}},
        {"width": 0},
        {"overfit_images": -1},
        {"drop_last": 1},
        {"gradient_statistics": "yes"},
    ],
)
def test_nonsense_is_refused_and_named(fields, a_run):
    with pytest.raises(UserError) as error:
        checked(a_run(**fields))
    assert any(field in str(error.value) for field in fields)
    assert "\n" not in str(error.value)


def test_what_a_run_starts_from_is_checked_too(a_run):
    checked(a_run(start=a_run()))
    with pytest.raises(UserError, match="epochs = 0"):
        checked(a_run(start=a_run(epochs=0)))
    for start in (0, "x", {"network": "BaselineNet"}, []):
        with pytest.raises(UserError, match=r"^start = .* must be a run, or None$"):
            checked(a_run(start=start))


def test_a_schedule_needs_one_rate_an_epoch(a_run):
    checked(a_run(learning_rate=[0.1, 0.05]))
    with pytest.raises(UserError, match="3 values for 2 epochs"):
        checked(a_run(learning_rate=[0.1, 0.05, 0.01]))


def test_what_models_and_data_import_is_none_of_theirs(a_run, monkeypatch):
    known = set(networks()), set(initialisations()), set(data_sets())
    monkeypatch.setattr(models, "Conv2d", nn.Conv2d, raising=False)
    monkeypatch.setattr(models, "xavier_normal_", nn.init.xavier_normal_, raising=False)
    monkeypatch.setattr(data, "load_data", lab.sweep.load_data, raising=False)
    assert known == (set(networks()), set(initialisations()), set(data_sets()))
    with pytest.raises(UserError, match="network = 'Conv2d' must be one of BaselineNet"):
        checked(a_run(network="Conv2d"))


@pytest.mark.parametrize(
    ("network", "field", "value"),
    [
        ("MyNet", "width", 8),
        ("MyNet", "dropout_rate", 0.5),
        ("BaselineNet", "dropout_rate", 0.5),
        ("BatchNormNet", "dropout_rate", 0.1),
    ],
)
def test_an_option_that_a_network_does_not_take_is_refused(
    network, field, value, a_run, own_networks
):
    with pytest.raises(UserError, match=rf"^{field} = {value}: {network} takes no {field}$"):
        checked(a_run(network=network, **{field: value}))
    neutral = {"width": 16, "dropout_rate": 0.0}[field]
    checked(a_run(network=network, **{field: neutral}))


@pytest.mark.parametrize("field", ["frozen", "reinitialised"])
def test_a_layer_that_the_network_does_not_have_is_named(field, a_run, digits):
    layers = "conv1, conv2, conv3, fc1, fc2"
    for name in ("conv4", "weight", ""):
        run = a_run(**{field: ("conv1", name)})
        with pytest.raises(UserError) as error:
            check_fit(run, digits)
        assert str(error.value) == f"BaselineNet has no layer {name!r}: choose from {layers}"


def test_a_run_with_nothing_to_train_is_refused(a_run, digits):
    layers = ("conv1", "conv2", "conv3", "fc1", "fc2")
    with pytest.raises(UserError, match=r"^frozen = .*'fc2'\): .*BaselineNet nothing to train$"):
        check_fit(a_run(frozen=layers), digits)
    check_fit(a_run(frozen=layers[:-1]), digits)


def test_a_start_from_a_network_of_other_layers_is_refused(a_run, digits):
    check_fit(a_run(start=a_run(network="DropoutNet", frozen=("conv1",))), digits)
    for fields, named in (({"width": 8}, "BaselineNet of width 8"), ({}, "BatchNormNet of width")):
        start = a_run(network=named.split()[0], **fields)
        with pytest.raises(UserError, match=f"^start is a run of {named}.*not those of BaselineN"):
            check_fit(a_run(start=start), digits)


def test_a_start_on_data_of_other_classes_is_refused_before_it_is_trained(
    a_run, digits, monkeypatch
):
    def letters(folder: Path) -> Dataset:
        return dataclasses.replace(digits, class_names=tuple("abcdefghijkl"))

    kinds = {**data_sets(), "letters": letters}
    monkeypatch.setattr("lab.sweep.data_sets", lambda: kinds)
    start = dataclasses.replace(a_run(), dataset="letters")
    run = a_run(start=start, reinitialised=("fc1", "fc2"), dataset="digits")
    with pytest.raises(UserError, match=r" with 12 classes: its layers are not .* with 10$"):
        lab.sweep.check([run])


@pytest.mark.parametrize("network", ["BatchNormNet", "HiddenNorm"])
def test_a_last_batch_of_one_image_is_refused_for_batch_normalisation(
    network, a_run, digits, own_networks
):
    for fields in (
        {"batch_size": 71},  # 1,350 images are 19 batches of 71 and one image
        {"batch_size": 1},
        {"batch_size": 1, "drop_last": True},
        {"batch_size": 1, "overfit_images": 1},
        {"batch_size": 64, "overfit_images": 65},
    ):
        with pytest.raises(UserError, match=f"^BATCH_SIZE = {fields['batch_size']}: .*one image"):
            check_fit(a_run(network=network, **fields), digits)
        for other in ("BaselineNet", "DropoutNet", "MyNet"):
            check_fit(a_run(network=other, **fields), digits)
    check_fit(a_run(network=network, batch_size=71, drop_last=True), digits)


def test_a_batch_larger_than_the_split_is_refused(a_run, digits):
    check_fit(a_run(batch_size=1_350, drop_last=True), digits)
    for drop_last in (True, False):
        with pytest.raises(UserError, match="BATCH_SIZE = 1351: must be at most the 1,350"):
            check_fit(a_run(batch_size=1_351, drop_last=drop_last), digits)


def test_a_data_set_of_other_classes_needs_a_network_that_takes_classes(
    a_run, digits, own_networks, add_to
):
    def three(folder: Path) -> Dataset:
        raise NotImplementedError

    add_to(data, three)
    few = Dataset(*list(vars(digits).values())[:4], ("zero", "one", "two"))
    for network in ("BaselineNet", "DropoutNet", "BatchNormNet"):
        check_fit(a_run(network=network, dataset="three"), few)
    with pytest.raises(UserError, match=r"^dataset = 'three' has 3 classes: MyNet must"):
        check_fit(a_run(network="MyNet", dataset="three"), few)


def test_a_network_that_takes_noise_must_say_how_much(a_run, digits, own_networks, monkeypatch):
    with pytest.raises(UserError, match="NoisyNet takes noise in forward: it needs noise_features"):
        check_fit(a_run(network="NoisyNet"), digits)
    monkeypatch.setattr(NoisyNet, "noise_features", 3, raising=False)
    check_fit(a_run(network="NoisyNet"), digits)


@pytest.mark.parametrize("fractions", [(0.0, 1.0), (0.5, 0.5)])
def test_split_that_leaves_nothing_is_refused(fractions, a_run, digits, monkeypatch):
    monkeypatch.setitem(data.TRAINING_FRACTIONS, "mine", fractions)
    with pytest.raises(UserError, match="split = 'mine': must leave images to train and to valid"):
        check_fit(a_run(split="mine"), digits)


def test_a_network_must_make_logits_of_images(a_run, digits, own_networks):
    state = torch.get_rng_state()
    check_fit(a_run(network="MyNet"), digits)
    check_fit(a_run(network="DrawingNet"), digits)
    with pytest.raises(UserError, match=r"^BrokenNet fails on images: 'BrokenNet' object has no "):
        check_fit(a_run(network="BrokenNet"), digits)
    with pytest.raises(UserError, match=r"^WideNet must make logits \(2, 10\) of two images, not "):
        check_fit(a_run(network="WideNet"), digits)
    with pytest.raises(UserError, match=r"^WronglyNoisyNet must make .*, not \(1, 10\)$"):
        check_fit(a_run(network="WronglyNoisyNet"), digits)
    with pytest.raises(UserError, match=r"^EverNoisyNet fails on images: .* argument: 'noise'$"):
        check_fit(a_run(network="EverNoisyNet"), digits)
    with pytest.raises(UserError, match=rf"^WrongNet {SHAPES}"):
        check_fit(a_run(network="WrongNet"), digits)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("network", ["GrowingNet", "ReplacingNet", "LazyNet"])
def test_a_layer_that_the_optimizer_would_not_know_is_refused(network, a_run, digits, own_networks):
    with pytest.raises(UserError, match=f"^{network} makes layers or their shapes in forward: "):
        check_fit(a_run(network=network), digits)


def test_a_constructor_that_fails_is_one_line(a_run, digits, own_networks):
    for run in (a_run(network="DemandingNet"), a_run(start=a_run(network="DemandingNet"))):
        with pytest.raises(UserError, match=r"^DemandingNet cannot be built: .*argument: 'depth'$"):
            check_fit(run, digits)


def test_a_network_too_large_for_the_memory_is_one_line(a_run, digits):
    with pytest.raises(UserError, match=r"^BaselineNet cannot be built: .*memory"):
        check_fit(a_run(width=1_000_000), digits)


def test_a_data_set_must_be_what_the_training_loop_takes(digits, add_to):
    """Images as floats would be normalised again at every evaluation."""
    check_data("digits", digits)
    for change, words in (
        ({"images": digits.images.float()}, "images must be a torch.uint8 tensor of shape"),
        ({"images": digits.images.numpy()}, "images must be a torch.uint8 tensor of shape"),
        ({"test_images": digits.test_images[..., 0]}, "test_images must be a torch.uint8 tensor"),
        ({"images": digits.images[:0]}, "there are no images"),
        ({"test_images": digits.test_images[:0]}, "there are no test_images"),
        ({"test_images": digits.test_images[:, 1:]}, "test_images must have the shape of the im"),
        ({"labels": digits.labels.int()}, "labels must be a torch.int64 tensor"),
        ({"test_labels": digits.test_labels.tolist()}, "test_labels must be a torch.int64 tensor"),
        ({"test_labels": digits.test_labels[1:]}, "test_labels must be one for each image"),
        ({"labels": digits.labels + 1}, "labels must be from 0 to 9"),
        ({"test_labels": digits.test_labels - 1}, "test_labels must be from 0 to 9"),
    ):
        with pytest.raises(UserError, match=rf"^dataset = 'mine': {words}"):
            check_data("mine", dataclasses.replace(digits, **change))

    def mine(folder: Path) -> Dataset:
        return dataclasses.replace(digits, images=digits.images.float())

    add_to(data, mine)
    with pytest.raises(UserError, match=r"dataset = 'mine': images must be a torch.uint8 tensor"):
        lab.sweep.load_data("mine")


def test_images_of_another_size_are_for_networks_that_take_them(a_run, digits, own_networks):
    parts = [digits.images.repeat_interleave(2, 1), digits.test_images.repeat_interleave(2, 1)]
    tall = dataclasses.replace(digits, images=parts[0], test_images=parts[1])
    check_data("tall", tall)
    check_fit(a_run(network="TallNet"), tall)
    with pytest.raises(UserError, match=rf"^BaselineNet {SHAPES}"):
        check_fit(a_run(), tall)
    with pytest.raises(UserError, match=r"^augmentation = .*: is only for images of 32 × 32"):
        check_fit(a_run(network="TallNet", augmentation=("flip",)), tall)
