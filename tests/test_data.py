"""Data: loading, splits, normalisation and augmentation against torchvision and slow oracles."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import transforms
from torchvision.transforms import functional

import data
from lab import download
from lab.checks import checked, data_sets


def digest(indices: torch.Tensor) -> str:
    return hashlib.sha256(indices.numpy().astype("<i8").tobytes()).hexdigest()[:16]


# the splits of the study: whoever changes them changes every result
@pytest.mark.parametrize(
    ("split", "sizes", "digests"),
    [
        ("standard", (45_000, 5_000), ("6275bd7c7e59c701", "5a973435aeb7fc7a")),
        ("halves", (25_000, 25_000), ("c01e443577884753", "03ce16a6385a597b")),
        ("swapped halves", (25_000, 25_000), ("03ce16a6385a597b", "c01e443577884753")),
    ],
)
def test_splits_are_pinned_and_disjoint(split, sizes, digests):
    train, val = data.split_indices(split, 50_000)
    assert (len(train), len(val)) == sizes
    assert (digest(train), digest(val)) == digests
    assert sorted(torch.cat([train, val]).tolist()) == list(range(50_000))


def test_swapped_halves_swap():
    train, val = data.split_indices("halves", 1_500)
    swapped_train, swapped_val = data.split_indices("swapped halves", 1_500)
    assert torch.equal(train, swapped_val)
    assert torch.equal(val, swapped_train)


def test_a_few_images_are_the_first_of_the_split_and_validated_on():
    for split in ("standard", "halves", "swapped halves"):
        whole, _ = data.split_indices(split, 50_000)
        few, validated = data.split_indices(split, 50_000, 64)
        assert few.tolist() == validated.tolist() == whole[:64].tolist()
    # never more than the split has
    whole, _ = data.split_indices("standard", 1_500)
    assert data.split_indices("standard", 1_500, 9_999)[0].tolist() == whole.tolist()


def test_every_split_can_be_named_by_a_run(a_run):
    for split in data.TRAINING_FRACTIONS:
        assert checked(a_run(split=split)).split == split
    assert list(data.TRAINING_FRACTIONS) == ["standard", "halves", "swapped halves"]


def test_every_function_that_returns_a_dataset_is_a_data_set(a_run, add_to):
    assert data_sets() == {"cifar10": data.cifar10, "digits": data.digits}

    def small(folder: Path) -> data.Dataset:
        raise NotImplementedError

    add_to(data, small)
    assert data_sets() == {"cifar10": data.cifar10, "digits": data.digits, "small": small}
    assert checked(a_run(dataset="small")).dataset == "small"


def test_normalise_is_torchvisions_to_the_last_bit():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    half = (0.5, 0.5, 0.5)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(half, half)])
    expected = torch.stack([transform(image) for image in pixels])
    assert torch.equal(data.normalise(torch.from_numpy(pixels)), expected)


def test_augment_moves_every_pixel_where_it_should():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (6, 32, 32, 3), generator=generator).to(torch.uint8)
    flip = torch.tensor([False, True, False, True, True, False])
    shift = torch.tensor([[0, 0], [0, 0], [4, -4], [-3, 2], [4, 4], [-1, 0]])
    result = data.augment(images, flip, shift)
    for n in range(6):
        for row in range(32):
            for column in range(32):
                # where the pixel is taken from: shifted in the image, black outside it, and
                # mirrored last
                from_row = row + shift[n, 0].item()
                from_column = (31 - column if flip[n] else column) + shift[n, 1].item()
                inside = 0 <= from_row < 32 and 0 <= from_column < 32
                expected = images[n, from_row, from_column] if inside else torch.zeros(3)
                assert torch.equal(result[n, row, column].float(), expected.float())


def test_augment_is_torchvisions_pad_crop_and_flip_for_every_shift():
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (32, 32, 3), generator=generator).to(torch.uint8)
    pixels = range(-4, 5)
    shifts = torch.tensor([[rows, columns] for rows in pixels for columns in pixels])
    padded = functional.pad(image.permute(2, 0, 1), [4])
    for mirrored in (False, True):
        images = image.repeat(81, 1, 1, 1)
        result = data.augment(images, torch.full((81,), mirrored), shifts)
        assert result.dtype == torch.uint8
        assert torch.equal(images, image.repeat(81, 1, 1, 1))  # the argument stays as it is
        for (rows, columns), found in zip(shifts.tolist(), result, strict=True):
            expected = functional.crop(padded, 4 + rows, 4 + columns, 32, 32)
            expected = functional.hflip(expected) if mirrored else expected
            assert torch.equal(found.permute(2, 0, 1), expected)


def test_digits_rehearse_cifar10(digits):
    assert digits.images.shape == (1_500, 32, 32, 3)
    assert digits.test_images.shape == (297, 32, 32, 3)
    assert digits.images.dtype == digits.test_images.dtype == torch.uint8
    assert digits.images.max() == 255
    assert digits.labels.dtype == digits.test_labels.dtype == torch.int64
    assert digits.class_names == tuple("0123456789")
    image = digits.images[7]
    assert torch.equal(image[::4, ::4].repeat_interleave(4, 0).repeat_interleave(4, 1), image)
    assert torch.equal(image[..., 0], image[..., 2])


@pytest.mark.slow
def test_cifar10_is_what_its_files_hold(cifar10):
    """Unpickled here, batch by batch: each row is an image's red, green and blue plane."""
    folder = download.data_folder() / "cifar-10-batches-py"

    def unpickled(name):
        return pickle.loads((folder / name).read_bytes(), encoding="bytes")

    training = [unpickled(f"data_batch_{number}") for number in range(1, 6)]
    for batches, images, labels in (
        (training, cifar10.images, cifar10.labels),
        ([unpickled("test_batch")], cifar10.test_images, cifar10.test_labels),
    ):
        planes = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32)
        assert np.array_equal(images.numpy(), planes.transpose(0, 2, 3, 1))
        assert labels.tolist() == [label for batch in batches for label in batch[b"labels"]]
    names = unpickled("batches.meta")[b"label_names"]
    assert cifar10.class_names == tuple(name.decode() for name in names)
    assert cifar10.images.dtype == cifar10.test_images.dtype == torch.uint8
    assert cifar10.labels.dtype == cifar10.test_labels.dtype == torch.int64
    assert torch.bincount(cifar10.labels).tolist() == [5_000] * 10
    assert torch.bincount(cifar10.test_labels).tolist() == [1_000] * 10


def test_a_missing_or_damaged_cifar10_is_never_read(tmp_path):
    with pytest.raises(RuntimeError):
        data.cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py").mkdir()
    names = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta"]
    for name in names:
        (tmp_path / "cifar-10-batches-py" / name).write_bytes(b"damaged")
    with pytest.raises(RuntimeError):
        data.cifar10(tmp_path)


def test_moving_a_dataset_moves_all_of_it(digits):
    moved = digits.to("meta")
    for name in ("images", "labels", "test_images", "test_labels"):
        assert getattr(moved, name).device.type == "meta"
        assert getattr(digits, name).device.type == "cpu"
