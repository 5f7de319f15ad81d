"""The images as tensors: loading, splits, normalisation and augmentation.

Images rest as uint8 of shape (n, 32, 32, 3), a quarter of the memory of floats, with the channels
last as the convolutions like them, and are normalised on the device as each batch is used.
"""

import pickle
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import download

SPLIT_SEED = 0
# what a split trains on, as fractions of the seeded permutation; it validates on the rest
TRAINING_FRACTIONS = {
    "standard": (0.0, 0.9),
    "halves": (0.0, 0.5),
    "swapped halves": (0.5, 1.0),
}
TRAINING_IMAGES = {"cifar10": 50_000, "digits": 1_500}
CROP_PADDING = 4  # pixels of black around an image before the shifted crop


@dataclass(frozen=True)
class Dataset:
    """Images (n, 32, 32, 3) uint8 and labels (n,) int64, to train and validate on and to test."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]

    def to(self, device: torch.device | str) -> "Dataset":
        names = ("images", "labels", "test_images", "test_labels")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def load(name: str, folder: Path | None = None) -> Dataset:
    """The data set "cifar10", from the folder that holds its batches, or "digits"."""
    return load_cifar10(folder) if name == "cifar10" else load_digits()


def load_cifar10(folder: Path) -> Dataset:
    """CIFAR-10 (Krizhevsky 2009) from the batches that download.cifar10() has verified."""

    def read(*files: str) -> tuple[Tensor, Tensor]:
        images, labels = torch.empty(10_000 * len(files), 32, 32, 3, dtype=torch.uint8), []
        for file, part in zip(files, images.split(10_000), strict=True):
            batch = _unpickle(folder / file)
            part.copy_(torch.from_numpy(batch["data"]).view(-1, 3, 32, 32).permute(0, 2, 3, 1))
            labels += batch["labels"]
        return images, torch.tensor(labels)

    names = tuple(_unpickle(folder / download.META_FILE)["label_names"])
    return Dataset(*read(*download.TRAINING_FILES), *read(download.TEST_FILE), names)


def _unpickle(path: Path) -> dict:
    with path.open("rb") as file:
        return pickle.load(file, encoding="latin1")


def load_digits() -> Dataset:
    """scikit-learn's handwritten digits, 8×8 grey, brought to CIFAR-10's shape and range.

    For rehearsals: 1,500 images to train and validate on and 297 to test, no download.
    """
    from sklearn.datasets import load_digits  # takes a second, which other data need not wait for

    digits = load_digits()
    grey = (digits.images / 16 * 255).round().astype(np.uint8)  # (1797, 8, 8)
    images = np.repeat(grey.repeat(4, axis=1).repeat(4, axis=2)[..., None], 3, axis=3)
    images, labels = torch.from_numpy(images), torch.from_numpy(digits.target)
    n = TRAINING_IMAGES["digits"]
    names = tuple(str(name) for name in digits.target_names)
    return Dataset(images[:n], labels[:n].long(), images[n:], labels[n:].long(), names)


def split_indices(split: str, n: int, overfit_images: int = 0) -> tuple[Tensor, Tensor]:
    """Indices to train on and to validate on, (n_train,) and (n_val,) int64, disjoint.

    With overfit_images, both are the first so many to train on. The permutation depends on
    SPLIT_SEED alone, never on a run's seed. RandomState, because numpy promises that its stream
    stays the same in every version.
    """
    permutation = torch.from_numpy(np.random.RandomState(SPLIT_SEED).permutation(n)).long()
    first, last = (round(n * fraction) for fraction in TRAINING_FRACTIONS[split])
    if overfit_images:
        few = permutation[first:last][:overfit_images]
        return few, few
    return permutation[first:last], torch.cat([permutation[:first], permutation[last:]])


def split_sizes(dataset: str, split: str, overfit_images: int = 0) -> tuple[int, int]:
    """How many images a split trains on and validates on, without loading them."""
    n = TRAINING_IMAGES[dataset]
    first, last = (round(n * fraction) for fraction in TRAINING_FRACTIONS[split])
    if overfit_images:
        few = min(overfit_images, last - first)
        return few, few
    return last - first, n - (last - first)


def normalise(images: Tensor) -> Tensor:
    """(batch, 32, 32, 3) uint8 to (batch, 3, 32, 32) float32, mean 0.5 and deviation 0.5 a channel.

    The arithmetic of torchvision's ToTensor and Normalize, to the last bit.
    """
    return images.permute(0, 3, 1, 2).float().div_(255).sub_(0.5).div_(0.5)


def augment(images: Tensor, flip: Tensor, shift: Tensor) -> Tensor:
    """Mirror images from left to right and shift them by a few pixels, black coming in.

    images (batch, 32, 32, 3) uint8; flip (batch,) bool; shift (batch, 2) int64, rows and columns
    from -CROP_PADDING to CROP_PADDING.
    """
    side = torch.arange(32, device=images.device)
    columns = torch.where(flip[:, None], side.flip(0), side)  # (batch, 32)
    rows = side + shift[:, :1] + CROP_PADDING
    columns = columns + shift[:, 1:] + CROP_PADDING
    padded = torch.nn.functional.pad(images, (0, 0) + (CROP_PADDING,) * 4)
    batch = torch.arange(len(images), device=images.device)
    return padded[batch[:, None, None], rows[:, :, None], columns[:, None, :]]
