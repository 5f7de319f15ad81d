"""The networks against their definitions, and the first weights against published formulas.

The definitions are written out with torch.nn.functional, the formulas worked out from the fans.
"""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models
import train


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    return models.DropoutNet(0.4) if name == "DropoutNet" else getattr(models, name)()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(3))


# conv 448 + 4,640 + 18,496, dense 65,600 + 650; batch norm adds 2 (16 + 32 + 64 + 64)
@pytest.mark.parametrize(
    ("name", "count"), [("BaselineNet", 89_834), ("DropoutNet", 89_834), ("BatchNormNet", 90_186)]
)
def test_parameters_and_shapes(name, count, images):
    network = make(name)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == count
    assert network(images).shape == (5, 10)
    layers = {parameter.split(".")[0] for parameter, _ in network.named_parameters()}
    norms = {"bn1", "bn2", "bn3", "bn4"} if name == "BatchNormNet" else set()
    assert layers == {"conv1", "conv2", "conv3", "fc1", "fc2"} | norms


# at width w: conv 28 w, 18 w² + 2 w, 72 w² + 4 w; dense 256 w² + 4 w, 40 w + 10; batch norm 22 w
@pytest.mark.parametrize(
    ("network", "width", "count"),
    [
        ("BaselineNet", 8, 224 + 1_168 + 4_640 + 16_416 + 330),
        ("BaselineNet", 16, 448 + 4_640 + 18_496 + 65_600 + 650),
        ("BaselineNet", 1, 28 + 20 + 76 + 260 + 50),
        ("DropoutNet", 8, 22_778),
        ("BatchNormNet", 8, 22_778 + 176),
    ],
)
def test_parameters_by_width(network, width, count, a_run):
    built = train.build(a_run(network=network, width=width))
    assert sum(weights.numel() for weights in built.parameters()) == count
    assert built(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", ["BaselineNet", "DropoutNet", "BatchNormNet"])
def test_a_network_tells_as_many_classes_apart_as_it_is_asked_to(name, a_run, images):
    network = train.build(a_run(network=name), classes=7)
    assert network(images).shape == (5, 7)


def convolved(network, x):
    """ReLU before pooling, as the study defines it."""
    for conv in (network.conv1, network.conv2, network.conv3):
        x = F.max_pool2d(F.relu(F.conv2d(x, conv.weight, conv.bias, padding=1)), 2)
    return x.flatten(1)


def test_baseline_is_the_network_of_the_study_to_the_last_bit(images):
    network = make("BaselineNet")
    hidden = F.relu(network.fc1(convolved(network, images)))
    assert torch.equal(network(images), network.fc2(hidden))


def test_dropout_acts_on_the_activations_of_fc1_alone(images):
    network = make("DropoutNet")
    noise = torch.rand(5, 64, generator=torch.Generator().manual_seed(4))
    hidden = F.relu(network.fc1(convolved(network, images)))
    kept = torch.where(noise < 0.4, torch.zeros(()), hidden / 0.6)
    assert torch.allclose(network(images, noise), network.fc2(kept), atol=1e-6)
    assert torch.equal(network.eval()(images, noise), network.fc2(hidden))


def test_dropout_draws_its_own_noise_where_none_is_given():
    network = models.DropoutNet(0.25)
    hidden = []
    network.fc2.register_forward_pre_hook(lambda layer, inputs: hidden.append(inputs[0]))
    network.fc1.bias.data.fill_(10.0)  # every activation above 0, so that zeros are dropped ones
    network.fc1.weight.data.zero_()
    network(torch.zeros(400, 3, 32, 32))
    dropped = (hidden[0] == 0).float().mean().item()
    assert dropped == pytest.approx(0.25, abs=0.02)  # 25,600 draws: deviation 0.003
    assert hidden[0].max().item() == pytest.approx(10 / 0.75)


def test_batch_norm_acts_before_every_relu_but_not_on_the_logits(images):
    network = make("BatchNormNet")

    def normalised(x):
        dims = [d for d in range(x.dim()) if d != 1]
        mean = x.mean(dims, keepdim=True)
        return (x - mean) / (x.var(dims, unbiased=False, keepdim=True) + 1e-5).sqrt()

    x = images
    for conv in (network.conv1, network.conv2, network.conv3):
        x = F.max_pool2d(F.relu(normalised(conv(x))), 2)
    x = network.fc2(F.relu(normalised(network.fc1(x.flatten(1)))))
    assert torch.allclose(network(images), x, atol=1e-5)


# Initialisations

INITIALISATIONS = ("default", "uniform", "small uniform", "normal", "xavier", "kaiming", "zeros")
# inputs and outputs of each layer's units by hand: channels times the 3 × 3 window, or neurons
FANS = {
    "conv1": (3 * 9, 16 * 9),
    "conv2": (16 * 9, 32 * 9),
    "conv3": (32 * 9, 64 * 9),
    "fc1": (64 * 4 * 4, 64),
    "fc2": (64, 10),
}
XAVIER = {layer: math.sqrt(6 / (i + o)) for layer, (i, o) in FANS.items()}  # Glorot & Bengio 2010
KAIMING = {layer: math.sqrt(6 / i) for layer, (i, _) in FANS.items()}  # He et al. 2015
# name: the interval of a layer's weights, where it is finite
INTERVALS = {
    "uniform": lambda layer: (0, 1),
    "small uniform": lambda layer: (-0.05, 0.05),
    "xavier": lambda layer: (-XAVIER[layer], XAVIER[layer]),
    "kaiming": lambda layer: (-KAIMING[layer], KAIMING[layer]),
}


@pytest.fixture
def build(a_run) -> Callable[..., nn.Module]:
    """A function that builds the network of a run, not trained."""
    return lambda initialisation, **fields: train.build(
        a_run(initialisation=initialisation, **fields)
    )


def weights_of(network, layer):
    """A layer's weights, flat and in double precision; its biases must all be zero."""
    assert not network.get_submodule(layer).bias.any()
    return network.get_submodule(layer).weight.detach().double().flatten()


@pytest.mark.parametrize("layer", FANS)
@pytest.mark.parametrize("name", INTERVALS)
def test_uniform_initialisations_fill_their_interval_evenly(name, layer, build):
    low, high = INTERVALS[name](layer)
    width = high - low
    weights = weights_of(build(name), layer)
    n = len(weights)
    assert low <= weights.min() < low + 10 * width / n
    assert high - 10 * width / n < weights.max() <= high + 1e-7
    error = width / math.sqrt(12 * n)  # of the mean; four of them leave one chance in 15,000
    assert abs(weights.mean() - (low + high) / 2) < 4 * error
    # a uniform distribution's fourth moment makes the variance's error var · √(0.8 / n)
    assert weights.var() == pytest.approx(width**2 / 12, rel=4 * math.sqrt(0.8 / n))


@pytest.mark.parametrize("layer", FANS)
def test_normal_has_the_deviation_that_is_asked_for(layer, build):
    weights = weights_of(build("normal"), layer)
    n = len(weights)
    assert abs(weights.mean()) < 4 * 0.05 / math.sqrt(n)
    assert weights.std() == pytest.approx(0.05, rel=4 / math.sqrt(2 * n))
    beyond = (weights.abs() > 2 * 0.05).double().mean().item()  # 4.55% of a normal distribution
    assert beyond == pytest.approx(0.0455, abs=4 * math.sqrt(0.0455 / n))


@pytest.mark.parametrize("layer", FANS)
def test_zeros_are_zero(layer, build):
    assert not weights_of(build("zeros"), layer).any()


def test_the_default_is_pytorchs_own(build):
    torch.manual_seed(1)
    expected = models.BaselineNet().state_dict()
    for name, tensor in build("default").state_dict().items():
        assert torch.equal(tensor, expected[name]), name
        assert tensor.any(), name  # biases too


@pytest.mark.parametrize("name", INITIALISATIONS)
def test_an_initialisation_follows_from_the_seed(name, build):
    one, again, other = (build(name, seed=seed).state_dict() for seed in (1, 1, 2))
    for key, tensor in one.items():
        assert torch.equal(tensor, again[key]), key
        constant = name == "zeros" or (name != "default" and key.endswith("bias"))
        assert torch.equal(tensor, other[key]) == constant, key


def test_building_leaves_the_global_stream_alone(build):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    build("kaiming")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", INITIALISATIONS)
def test_batch_normalisation_keeps_its_own_initialisation(name, build):
    network = build(name, network="BatchNormNet")
    for layer in ("bn1", "bn2", "bn3", "bn4"):
        norm = network.get_submodule(layer)
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()
        assert (norm.running_mean == 0).all()
        assert (norm.running_var == 1).all()


def test_the_bounds_follow_the_width(build):
    weights = weights_of(build("xavier", width=4), "conv3")  # from 8 channels to 16
    bound = math.sqrt(6 / (8 * 9 + 16 * 9))
    assert 0.98 * bound < weights.abs().max() <= bound
