"""The networks of the study and their initialisations, and nothing else.

Every class here is a network that a run can name, and every function is an initialisation. A
network takes images (batch, 3, 32, 32) and returns logits (batch, classes). Its constructor is
given width, dropout_rate and classes if it has parameters of these names. Its forward is given the
noise if it has a parameter of that name.

Each convolution's output is pooled before its ReLU, not after it. The numbers are the same to the
last bit, because ReLU keeps the order of values, and ReLU has a quarter of the elements to compute.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BaselineNet(nn.Module):
    """Three 3×3 convolutions, each with a 2×2 max-pool and ReLU, then two dense layers.

    width is the number of channels of the first convolution; all other sizes follow from it.
    """

    def __init__(self, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 3, padding=1)
        self.fc1 = nn.Linear(4 * width * 4 * 4, 4 * width)
        self.fc2 = nn.Linear(4 * width, classes)

    def hidden(self, images: Tensor) -> Tensor:
        """fc1's activations, (batch, 4 · width); shapes below are for a width of 16."""
        x = F.relu(F.max_pool2d(self.conv1(images), 2))  # (batch, 16, 16, 16)
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # (batch, 32, 8, 8)
        x = F.relu(F.max_pool2d(self.conv3(x), 2))  # (batch, 64, 4, 4)
        return F.relu(self.fc1(x.flatten(1)))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc2(self.hidden(images))


class DropoutNet(BaselineNet):
    """BaselineNet with dropout on fc1's activations.

    The noise is uniform on [0, 1), of shape (batch, noise_features). The training loop draws it
    from the run's own seed. Without noise, torch's global generator draws it, as in nn.Dropout.
    """

    def __init__(self, dropout_rate: float, width: int = 16, classes: int = 10) -> None:
        super().__init__(width, classes)
        self.noise_features = 4 * width
        # a buffer, so that networks with different rates can be stacked like their weights
        self.register_buffer("dropout_rate", torch.tensor(dropout_rate), persistent=False)

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        x = self.hidden(images)
        if self.training:
            noise = torch.rand_like(x) if noise is None else noise
            x = x * (noise >= self.dropout_rate) / (1 - self.dropout_rate)
        return self.fc2(x)


class BatchNormNet(BaselineNet):
    """BaselineNet with batch normalisation after every layer but the last, before its ReLU."""

    def __init__(self, width: int = 16, classes: int = 10) -> None:
        super().__init__(width, classes)
        self.bn1 = nn.BatchNorm2d(width)
        self.bn2 = nn.BatchNorm2d(2 * width)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.bn4 = nn.BatchNorm1d(4 * width)

    def hidden(self, images: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.bn1(self.conv1(images)), 2))
        x = F.relu(F.max_pool2d(self.bn2(self.conv2(x)), 2))
        x = F.relu(F.max_pool2d(self.bn3(self.conv3(x)), 2))
        return F.relu(self.bn4(self.fc1(x.flatten(1))))


# Initialisations: each draws the weights of one convolution or dense layer. All biases become 0.
# A run names them with spaces: "small uniform". With "default", PyTorch's own draws are kept.


def uniform(weight: Tensor) -> None:
    nn.init.uniform_(weight)  # on [0, 1), the function's own default


def small_uniform(weight: Tensor) -> None:
    nn.init.uniform_(weight, -0.05, 0.05)


def normal(weight: Tensor) -> None:
    nn.init.normal_(weight, std=0.05)


def xavier(weight: Tensor) -> None:
    nn.init.xavier_uniform_(weight)


def kaiming(weight: Tensor) -> None:
    nn.init.kaiming_uniform_(weight, nonlinearity="relu")


def zeros(weight: Tensor) -> None:
    nn.init.zeros_(weight)
