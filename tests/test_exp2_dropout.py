"""Experiment 2.1: its runs, the rate that it names, and its bad constants."""

import json
from collections.abc import Callable

import pytest
from conftest import Lab
from made_up import finish

import data
import exp2_dropout
from lab.experiment import Store
from train import Run


def test_runs_are_five_rates_on_one_half_of_the_images() -> None:
    groups = exp2_dropout.runs()
    assert list(groups) == [f"dropout={rate}" for rate in ("0", "0.2", "0.4", "0.6", "0.8")]
    for label, group in groups.items():
        assert [run.seed for run in group] == [1, 2, 3, 4, 5]
        for run in group:
            assert f"dropout={run.dropout_rate:g}" == label
            assert (run.network, run.split, run.learning_rate) == ("DropoutNet", "halves", 0.05)
            assert (run.epochs, run.batch_size) == (50, 64)
    assert len(data.split_indices("halves", 50_000)[0]) == 25_000
    assert exp2_dropout.SMOOTHING_WINDOW == 3
    assert "25 runs of 50 epochs, on 25,000 images" in exp2_dropout.__doc__


def test_best_rate_above_zero_is_named_even_where_zero_is_the_best(
    a_lab: Lab, no_figures: None, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(a_lab.root)
    for label, group in exp2_dropout.runs().items():
        accuracy = {"dropout=0": 0.9, "dropout=0.4": 0.7}.get(label, 0.5)
        finish(group, store, val_accuracy=accuracy)
    assert a_lab.run(exp2_dropout) == 0
    summary = json.loads((a_lab.root / "exp2_dropout" / "summary.json").read_text())
    assert summary["best"] == "dropout=0"
    assert summary["findings"] == [
        "Of the rates above zero, dropout=0.4 has the highest mean validation accuracy. Experiment "
        "2.2 uses it."
    ]
    assert summary["findings"][0] in capsys.readouterr().out
    assert summary["findings"][0] in (a_lab.root / "README.md").read_text()


def test_where_all_rates_above_zero_diverge_the_rest_is_reported(
    a_lab: Lab, no_figures: None
) -> None:
    store = Store(a_lab.root)
    for label, group in exp2_dropout.runs().items():
        finish(group, store, diverged_at=None if label == "dropout=0" else 3)
    assert a_lab.run(exp2_dropout) == 0
    summary = json.loads((a_lab.root / "exp2_dropout" / "summary.json").read_text())
    assert (summary["best"], summary["findings"]) == ("dropout=0", [])


def test_single_rate_is_compared_with_nothing(
    a_lab: Lab, no_training: list[Run], no_figures: None
) -> None:
    assert a_lab.edit(exp2_dropout, DROPOUT_RATES=[0]).run(exp2_dropout) == 0
    summary = json.loads((a_lab.root / "exp2_dropout" / "summary.json").read_text())
    assert (summary["findings"], summary["comparisons"]) == ([], [])


@pytest.mark.parametrize(
    ("constant", "value"),
    [("DROPOUT_RATES", [0, 1]), ("DROPOUT_RATES", [0, 0]), ("LEARNING_RATE", 0)],
)
def test_bad_constant_is_named(
    constant: str, value: object, a_lab: Lab, refused: Callable[..., str]
) -> None:
    line = refused(a_lab.edit(exp2_dropout, **{constant: value}), exp2_dropout, "--quick")
    assert line.startswith(constant)
    assert "edit it at the top of exp2_dropout.py" in line
