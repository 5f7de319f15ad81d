"""Statistics against numbers worked out by hand, and the contract of summary.json."""

import csv
import json
import math

import pytest

import summary as summaries
from errors import UserError
from summary import (
    best,
    best_label,
    common,
    compare,
    in_words,
    spread,
    summarise,
    summarise_group,
    wall_seconds,
)

ENVIRONMENT = {"torch": "2", "python": "3", "device": "cpu", "git_commit": "c", "git_dirty": False}


def record(seed, val, test=0.5, train=0.9, diverged_at=None, trained=((0.0, 1.0),), **changes):
    """A finished run of two epochs that ends at the given accuracies."""
    fields = {
        "run": {"network": "BaselineNet", "seed": seed, "learning_rate": 0.1, "split": "standard"},
        "seed": seed,
        "code": "abc",
        "environment": ENVIRONMENT,
        "diverged_at_epoch": diverged_at,
        "train_loss": [2.0, 1.0],
        "train_accuracy": [0.5, train],
        "val_loss": [2.0, 1.5],
        "val_accuracy": [0.4, val],
        "final_train_loss": 0.5,
        "final_train_accuracy": train,
        "test_loss": 1.25,
        "test_accuracy": test,
        "report": {},
        "confusion_matrix": [[1]],
        "most_confident_mistakes": [],
        "trained": [list(span) for span in trained],
    }
    if diverged_at is not None:
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            fields[name] = fields[name][:diverged_at] + [None] * (2 - diverged_at)
        fields |= dict.fromkeys(("test_loss", "test_accuracy", "report"))
        fields |= dict.fromkeys(("final_train_loss", "final_train_accuracy"))
    return fields | changes


def test_spread_of_known_numbers():
    # mean 0.62; squared differences 4 + 1 + 0 + 1 + 4 = 10 (in 0.01²), over 4 = 2.5; Student's
    # 97.5% quantile with 4 degrees of freedom is 2.776445 in every table
    found = spread([0.60, 0.61, 0.62, 0.63, 0.64])
    assert found["mean"] == pytest.approx(0.62)
    assert found["std"] == pytest.approx(0.01 * math.sqrt(2.5))
    assert found["ci95"] == pytest.approx(2.776445 * 0.01 * math.sqrt(2.5 / 5), rel=1e-6)


def test_spread_of_too_few():
    assert spread([0.5]) == {"mean": 0.5, "std": None, "ci95": None}
    assert spread([]) == {"mean": None, "std": None, "ci95": None}


def test_a_group_keeps_the_contract():
    group = summarise_group(
        "lr=0.1", [record(1, 0.6, 0.58, test_loss=1.0), record(2, 0.7, 0.62, test_loss=1.5)]
    )
    assert group["label"] == "lr=0.1"
    assert group["seeds"] == [1, 2]
    assert group["settings"]["learning_rate"] == 0.1
    assert "seed" not in group["settings"]
    assert group["mean"]["val_accuracy"] == pytest.approx([0.4, 0.65])
    assert group["std"]["val_accuracy"] == pytest.approx([0, math.sqrt(0.005)])
    assert group["mean"]["train_loss"] == [2.0, 1.0]
    assert group["test_accuracy"]["mean"] == pytest.approx(0.60)
    assert group["test_accuracy"]["std"] == pytest.approx(math.sqrt(0.0008))
    assert group["test_loss"] == {"mean": 1.25, "std": pytest.approx(math.sqrt(0.125))}
    assert group["gap"]["mean"] == pytest.approx(0.9 - 0.65)
    assert group["final_train_accuracy"]["mean"] == 0.9
    assert group["final_train_loss"] == {"mean": 0.5, "std": 0}
    assert group["runs"][1]["test_accuracy"] == 0.62
    assert {"seed", "train_loss", "val_accuracy", "report"} <= group["runs"][0].keys()
    assert group["diverged"] == 0


def test_a_diverged_run_is_counted_and_left_out():
    group = summarise_group("x", [record(1, 0.6), record(2, 0.9, diverged_at=1), record(3, 0.7)])
    assert group["diverged"] == 1
    assert group["mean"]["val_accuracy"] == pytest.approx([0.4, 0.65])
    assert group["runs"][1]["diverged_at_epoch"] == 1
    assert group["runs"][1]["val_accuracy"] == [0.4, None]
    alone = summarise_group("x", [record(1, 0.6, diverged_at=0)])
    assert alone["mean"]["val_accuracy"] == [None, None]
    assert alone["test_accuracy"] == {"mean": None, "std": None, "ci95": None}


def test_best_is_chosen_on_validation_at_the_last_epoch():
    groups = [
        summarise_group("early", [record(1, 0.60, test=0.9, val_accuracy=[0.99, 0.60])]),
        summarise_group("good", [record(1, 0.61, test=0.1)]),
        summarise_group("gone", [record(1, 0.99, diverged_at=1)]),
    ]
    assert best(groups) == "good"
    assert best(groups[2:]) is None


def test_wall_time_is_the_union_of_intervals():
    records = [
        record(1, 0.6, trained=[(100.0, 110.0), (200.0, 205.0)]),
        record(2, 0.6, trained=[(105.0, 120.0)]),  # beside the first for 5 s
        record(3, 0.6, trained=[(201.0, 203.0)]),  # within the first's second
    ]
    assert wall_seconds(records) == 25.0


def test_common_values():
    assert common(["cpu", "cpu"]) == "cpu"
    assert common(["cpu", "NVIDIA H200", "cpu"]) == ["cpu", "NVIDIA H200"]
    assert in_words(common([30, 50])) == "30 and 50"
    assert in_words(common([30])) == "30"


def test_the_best_is_chosen_from_the_candidates():
    groups = {"long": [record(1, 0.7)], "short": [record(1, 0.8)], "other": [record(1, 0.6)]}
    assert summarise("e", "Q", {}, groups)["best"] == "short"
    assert summarise("e", "Q", {}, groups, ["long", "other"])["best"] == "long"
    assert best_label(groups) == "short"
    with pytest.raises(UserError, match=r"every run of x diverged"):
        best_label({"x": [record(1, 0.6, diverged_at=0)]})


def test_a_groups_settings_are_complete_and_those_of_all_its_runs():
    start = {"network": "DropoutNet", "seed": 1, "split": "halves", "dropout_rate": 0.4}
    run = {"network": "DropoutNet", "seed": 1, "split": "swapped halves", "start": start}
    settings = summarise_group("x", [record(1, 0.6, run=run)])["settings"]
    assert settings["dropout_rate"] == settings["momentum"] == 0
    assert settings["start"]["dropout_rate"] == 0.4
    assert "seed" not in settings
    assert "seed" not in settings["start"]


def test_notes_say_what_differs():
    groups = {"a": [record(1, 0.6)], "b": [record(1, 0.6, diverged_at=0), record(2, 0.6)]}
    text = summaries.notes(summarise("e", "Q", {}, groups))
    assert "2 epochs, 1 and 2 seeds" in text


@pytest.fixture
def summary():
    groups = {
        "lr=0.1": [record(1, 0.6, 0.58), record(2, 0.7, 0.62)],
        "lr=0.05": [record(1, 0.8, 0.7), record(2, 0.7, diverged_at=0)],
    }
    return summarise("exp1_lr", "Question?\n\nMethod.", {"EPOCHS": 2, "SEEDS": [1, 2]}, groups)


def test_summary_keeps_the_contract(summary, tmp_path):
    summaries.save(summary, tmp_path)
    saved = json.loads((tmp_path / "summary.json").read_text())
    assert saved == summary
    assert saved["experiment"] == "exp1_lr"
    assert saved["settings"]["EPOCHS"] == 2
    assert saved["environment"] == ENVIRONMENT
    assert saved["code"] == "abc"
    assert saved["seconds"] == 1.0
    assert [group["label"] for group in saved["groups"]] == ["lr=0.1", "lr=0.05"]
    assert saved["best"] == "lr=0.05"
    assert saved["rehearsal"] is False


def test_the_tables_say_what_the_summary_says(summary, tmp_path):
    summaries.save(summary, tmp_path)
    text = (tmp_path / "table.md").read_text()
    first, second = text.splitlines()[2:4]
    # gaps 0.3 and 0.2; Student's quantile with 1 degree of freedom is 12.7062
    for cell in ("90.00 ± 0.00", "65.00 ± 7.07", "25.00 ± 7.07", "60.00 ± 2.83", "± 25.41"):
        assert cell in first
    assert "0 of 2" in first
    for cell in ("lr=0.05 (best)", "80.00", "70.00", "–", "1 of 2"):
        assert cell in second
    assert "2 epochs, 2 seeds" in text
    assert "REHEARSAL" not in text
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert float(rows[0]["test_accuracy_mean"]) == pytest.approx(0.60)
    assert float(rows[0]["gap_mean"]) == pytest.approx(0.25)
    assert rows[1]["test_accuracy_std"] == ""
    assert rows[1]["diverged"] == "1"
    assert rows[0]["data"] == "CIFAR-10"


def test_a_rehearsal_is_marked_in_every_table(summary, tmp_path):
    summaries.save(summary | {"rehearsal": True}, tmp_path)
    assert "REHEARSAL" in (tmp_path / "table.md").read_text()
    assert "rehearsal" in (tmp_path / "table.csv").read_text().splitlines()[1]


def test_comparisons_are_paired_by_seed():
    one = [record(1, 0.6, 0.70), record(2, 0.6, 0.60), record(3, 0.6, diverged_at=0)]
    other = [record(2, 0.6, 0.50), record(1, 0.6, 0.64), record(3, 0.6, 0.4), record(4, 0.6, 0.1)]
    pair = compare("a", one, "b", other)
    assert (pair["label"], pair["minus"], pair["seeds"]) == ("a", "b", [1, 2])
    assert pair["differences"] == pytest.approx([0.06, 0.10])
    assert pair["test_accuracy"]["mean"] == pytest.approx(0.08)
    # standard deviation 0.02828, over √2 = 0.02, times Student's 12.7062
    assert pair["test_accuracy"]["ci95"] == pytest.approx(0.254124, rel=1e-5)
    assert compare("a", one[2:], "b", other)["test_accuracy"]["mean"] is None


def test_gradients_are_averaged_over_seeds_that_did_not_diverge():
    def gradients(value):
        pooled = {"mean": [value], "std": [2 * value]}
        windows = dict.fromkeys(
            ("first_steps", "last_steps", "first_epochs", "last_epochs"), pooled
        )
        history = {"mean": [[value], [3 * value]], "std": [[0.0], [0.0]]}
        by_step = [{"mean": [10 * value], "std": [0.0]}, pooled]
        return {"parameters": ["w"], "history": history, "by_step": by_step, **windows}

    group = summarise_group(
        "x",
        [
            record(1, 0.6, gradients=gradients(1.0)),
            record(2, 0.6, gradients=gradients(3.0)),
            record(3, 0.6, gradients=None, diverged_at=1),
        ],
    )
    found = group["gradients"]
    assert found["parameters"] == ["w"]
    assert found["history"]["mean"] == [[2.0], [6.0]]
    assert found["last_steps"]["mean"] == {"mean": [2.0], "std": [pytest.approx(math.sqrt(2))]}
    assert found["first_epochs"]["std"]["mean"] == [4.0]
    assert [step["mean"]["mean"] for step in found["by_step"]] == [[20.0], [2.0]]
    assert found["by_step"][1]["std"] == {"mean": [4.0], "std": [pytest.approx(math.sqrt(8))]}
    assert "gradients" not in group["runs"][0]
