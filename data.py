"""The images as tensors: loading, splits, normalisation and augmentation.

Images are kept as uint8 of shape (n, 32, 32, 3), which takes a quarter of the memory of float32.
Each batch is normalised when it is used, on the device that trains.

Every function here that returns a Dataset is a data set that a run can name: dataset="digits".
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SPLIT_SEED = 0
# the part of the permuted images that a split trains on, from and to, as fractions; it validates on
# all others
TRAINING_FRACTIONS = {
    "standard": (0.0, 0.9),
    "halves": (0.0, 0.5),
    "swapped halves": (0.5, 1.0),
}
CROP_PADDING = 4  # pixels of black around an image, from which a shifted crop is taken


@dataclass(frozen=True)
class Dataset:
    """Images (n, 32, 32, 3) uint8 and labels (n,) int64, to train and validate on and to test."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]

    def to(self, device: torch.device | str) -> "Dataset":
        """The same data set with its images and labels on a device."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items()})


def cifar10(folder: Path) -> Dataset:
    """CIFAR-10 (Krizhevsky 2009): 50,000 images to train and validate on, 10,000 to test.

    folder holds cifar-10-batches-py/. Raises RuntimeError where a file is missing or damaged.
    """
    from torchvision.datasets import CIFAR10  # here, as it takes two seconds: a rehearsal has none

    parts = [CIFAR10(folder, train=train) for train in (True, False)]
    images = [torch.from_numpy(part.data) for part in parts]
    labels = [torch.tensor(part.targets) for part in parts]
    return Dataset(images[0], labels[0], images[1], labels[1], tuple(parts[0].classes))


def digits(folder: Path) -> Dataset:
    """scikit-learn's handwritten digits for rehearsals, enlarged to CIFAR-10's shape and range.

    1,500 images to train and validate on, 297 to test. They come with scikit-learn, so the folder
    is not used.
    """
    from sklearn.datasets import load_digits  # here, as it takes a second

    loaded = load_digits()
    grey = (loaded.images / 16 * 255).round().astype(np.uint8)  # (1797, 8, 8), from 0 to 16 before
    images = np.repeat(grey.repeat(4, axis=1).repeat(4, axis=2)[..., None], 3, axis=3)
    images, labels = torch.from_numpy(images), torch.from_numpy(loaded.target).long()
    names = tuple(str(name) for name in loaded.target_names)
    return Dataset(images[:1500], labels[:1500], images[1500:], labels[1500:], names)


def split_indices(split: str, n: int, overfit_images: int = 0) -> tuple[Tensor, Tensor]:
    """Indices of the images to train on and to validate on, (n_train,) and (n_val,) int64.

    No image is in both, except with overfit_images: then both are the first so many images that the
    split trains on. The images are permuted by SPLIT_SEED alone, never by a run's seed. RandomState
    draws the permutation, because numpy promises that its draws are the same in every version.
    """
    permutation = torch.from_numpy(np.random.RandomState(SPLIT_SEED).permutation(n)).long()
    first, last = (round(n * fraction) for fraction in TRAINING_FRACTIONS[split])
    if overfit_images:
        few = permutation[first:last][:overfit_images]
        return few, few
    return permutation[first:last], torch.cat([permutation[:first], permutation[last:]])


def normalise(images: Tensor) -> Tensor:
    """Images (batch, 32, 32, 3) uint8 as (batch, 3, 32, 32) float32, from -1 to 1.

    0.5 is subtracted from each value in [0, 1], and the result is divided by 0.5. The numbers are
    those of torchvision's ToTensor and Normalize, to the last bit.
    """
    return images.permute(0, 3, 1, 2).float().div_(255).sub_(0.5).div_(0.5)


def augment(images: Tensor, flip: Tensor, shift: Tensor) -> Tensor:
    """Mirror images from left to right and shift them by a few pixels; the empty edge is black.

    images (batch, 32, 32, 3) uint8; flip (batch,) bool; shift (batch, 2) int64, rows and columns
    from -CROP_PADDING to CROP_PADDING.
    """
    side = torch.arange(32, device=images.device)
    columns = torch.where(flip[:, None], side.flip(0), side)  # (batch, 32)
    rows = side + shift[:, :1] + CROP_PADDING
    columns = columns + shift[:, 1:] + CROP_PADDING
    padded = F.pad(images, (0, 0) + (CROP_PADDING,) * 4)
    batch = torch.arange(len(images), device=images.device)
    return padded[batch[:, None, None], rows[:, :, None], columns[:, None, :]]
