"""Roughness of validation accuracy, by hand, and its differences paired by seed."""

import pytest
from test_summary import ENVIRONMENT, record

from lab.roughness import compare_roughness, roughness


def test_roughness_by_hand():
    # the second half of six epochs is 4, 5 and 6: the changes into them are 0.3, 0.1 and 0.2
    curve = [0.1, 0.9, 0.5, 0.2, 0.3, 0.1]
    assert roughness(record(1, 0.6, val_accuracy=curve)) == pytest.approx(0.2)
    # of five epochs, the changes into 3, 4 and 5
    assert roughness(record(1, 0.6, val_accuracy=curve[:5])) == pytest.approx(0.8 / 3)
    assert roughness(record(1, 0.6, val_accuracy=[0.4, 0.6])) == pytest.approx(0.2)
    assert roughness(record(1, 0.6, val_accuracy=[0.4])) is None
    assert roughness(record(1, 0.6, diverged_at=1)) is None


def rough(values):
    """Records of seeds from 1, whose validation accuracy changes by these values; None: lost."""
    return [
        record(seed, 0.6, diverged_at=1)
        if value is None
        else record(seed, 0.6, val_accuracy=[0.4, 0.4 + value])
        for seed, value in enumerate(values, 1)
    ]


def test_roughness_is_compared_by_seed():
    groups = {"a": rough([0.01, 0.02, None]), "b": rough([0.11, 0.14, 0.2]), "c": rough([0.0, 0.5])}
    calm, noisy = compare_roughness(groups, [("a", "b"), ("a", "c")])
    assert (calm["label"], calm["minus"]) == ("a", "b")
    assert calm["of_label"]["mean"] == pytest.approx(0.015)
    assert calm["of_minus"]["mean"] == pytest.approx(0.15)  # of all three seeds
    assert calm["difference"]["mean"] == pytest.approx(-0.11)  # -0.10 and -0.12
    assert calm["difference"]["ci95"] == pytest.approx(12.7062 * 0.01, rel=1e-4)
    assert noisy["difference"]["mean"] == pytest.approx(-0.235)


def test_no_difference_of_roughness_mixes_devices():
    groups = {"a": rough([0.01, 0.02, 0.03]), "b": rough([0.11, 0.14, 0.2])}
    groups["b"][2]["environment"] = ENVIRONMENT | {"device": "another"}
    (found,) = compare_roughness(groups, [("a", "b")])
    assert found["difference"]["mean"] == pytest.approx(-0.11)  # without seed 3
