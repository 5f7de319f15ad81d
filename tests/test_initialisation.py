"""The first weights against the formulas of those who proposed them, worked out from the fans."""

import math

import pytest
import torch

import models
import train
from runs import INITIALISATIONS

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
def build(a_run, store):
    """A function that builds the network of a run, not trained."""
    return lambda initialisation, **fields: train.build(
        a_run(initialisation=initialisation, **fields), store
    )


def weights_of(network, layer):
    """A layer's weights, flat and in double precision; its biases must all be zero."""
    assert not network.get_submodule(layer).bias.any()
    return network.get_submodule(layer).weight.detach().double().flatten()


def test_a_bound_or_two_in_figures():
    assert XAVIER["fc2"] == pytest.approx(0.284747, rel=1e-5)  # √(6 / 74)
    assert KAIMING["conv1"] == pytest.approx(0.471405, rel=1e-5)  # √(2 / 9)


@pytest.mark.parametrize("layer", FANS)
@pytest.mark.parametrize("name", INTERVALS)
def test_uniform_ones_fill_their_interval_evenly(name, layer, build):
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
def test_normal_ones_have_the_deviation_asked_for(layer, build):
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
def test_it_follows_from_the_seed(name, build):
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
def test_batch_normalisation_keeps_its_own(name, build):
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
