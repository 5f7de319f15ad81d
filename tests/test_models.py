"""The networks against their definitions, written out with torch.nn.functional."""

import pytest
import torch
import torch.nn.functional as F

import models


def make(name: str) -> torch.nn.Module:
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
    network(torch.zeros(4000, 3, 32, 32)[:400])
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
