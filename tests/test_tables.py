"""Tables, CSV files and sentences: each says what the numbers of the summary say."""

import csv
import json
import math

import pytest
from test_summary import ENVIRONMENT, RUN, record

from lab.summary import summarise
from lab.tables import (
    against_published,
    caveats,
    conclusions,
    facts,
    gaps,
    headline,
    highest,
    in_a_sentence,
    percent,
    plus_minus,
    save,
    standing,
    table,
    table_rows,
)


def summary_of(groups, **more):
    return summarise("exp1_lr", "Why?\n\nSo.", {}, groups, **more)


def at(rate, seed, val, test=0.5, **changes):
    """A run at a learning rate."""
    return record(seed, val, test, run=RUN | {"seed": seed, "learning_rate": rate}, **changes)


@pytest.fixture
def groups():
    return {
        "lr=0.1": [at(0.1, 1, 0.6, 0.58), at(0.1, 2, 0.7, 0.62)],
        "lr=0.05": [at(0.05, 1, 0.8, 0.7), at(0.05, 2, 0.7, diverged_at=1)],
    }


@pytest.fixture
def summary(groups):
    return summarise(
        "exp1_lr", "Experiment 1.1, rates: why?\n\nSo.", {"EPOCHS": 2, "SEEDS": [1, 2]}, groups
    )


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_written_summary_keeps_the_contract(summary, groups, tmp_path):
    paths = save(summary, groups, tmp_path)
    names = ["summary.json", "table.md", "table.csv", "curves.csv", "runs.csv"]
    assert sorted(path.name for path in paths) == sorted(names)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
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
    assert saved["finished"] is None


def test_the_tables_say_what_the_summary_says(summary, groups, tmp_path):
    save(summary, groups, tmp_path)
    text = (tmp_path / "table.md").read_text()
    first, second = text.splitlines()[4:6]
    # gaps 0.3 and 0.2; Student's quantile with 1 degree of freedom is 12.7062
    for cell in ("90.00 ± 0.00", "65.00 ± 7.07", "25.00 ± 7.07", "60.00 ± 2.83", "± 25.41"):
        assert cell in first
    assert "0 of 2" in first
    for cell in ("lr=0.05 (best)", "80.00", "70.00", "–", "1 of 2"):
        assert cell in second
    assert (
        "Batch size: 64. Epochs: 2. Split: standard. Seeds: 1 and 2. Device: cpu. Code: abc."
        in text
    )
    assert "Learning rate" not in text  # the settings differ in it
    assert "REHEARSAL" not in text
    assert "HALF-WAY" not in text
    rows = rows_of(tmp_path / "table.csv")
    assert [row["setting"] for row in rows] == ["lr=0.1", "lr=0.05"]
    assert float(rows[0]["test_accuracy_mean"]) == pytest.approx(0.60)
    assert float(rows[0]["gap_mean"]) == pytest.approx(0.25)
    assert rows[1]["test_accuracy_std"] == ""
    assert rows[1]["diverged"] == "1"
    assert rows[0]["data"] == "cifar10"


def test_curves_have_a_row_for_each_epoch_of_a_run(summary, groups, tmp_path):
    save(summary, groups, tmp_path)
    rows = rows_of(tmp_path / "curves.csv")
    names = ["train_loss", "train_accuracy", "val_loss", "val_accuracy"]
    assert list(rows[0]) == ["setting", "seed", "epoch", *names]
    where = [("lr=0.1", 1), ("lr=0.1", 2), ("lr=0.05", 1), ("lr=0.05", 2)]
    assert [(row["setting"], int(row["seed"]), int(row["epoch"])) for row in rows] == [
        (label, seed, epoch) for label, seed in where for epoch in (1, 2)
    ]
    for row in rows[:-1]:
        run = next(r for r in groups[row["setting"]] if r["seed"] == int(row["seed"]))
        for name in names:
            assert float(row[name]) == run[name][int(row["epoch"]) - 1]  # to the last bit
    assert [rows[-1][name] for name in names] == ["", "", "", ""]  # from where it diverged on
    assert rows[-2]["val_accuracy"] == "0.4"


def test_runs_have_a_row_each_with_every_field_and_final_number(summary, groups, tmp_path):
    start = RUN | {"seed": 2}
    changes = {"learning_rate": [0.1, 0.05], "frozen": ["conv1"], "start": start}
    groups["lr=0.05"][1]["run"] |= changes
    save(summary, groups, tmp_path)
    rows = rows_of(tmp_path / "runs.csv")
    assert len(rows) == 4
    first, last = rows[0], rows[-1]
    assert list(first)[:2] == ["setting", "seed"]
    assert (first["setting"], first["seed"]) == ("lr=0.1", "1")
    assert {name: first[name] for name in ("network", "learning_rate", "epochs", "split")} == {
        **{"network": "BaselineNet", "learning_rate": "0.1", "epochs": "2", "split": "standard"}
    }
    for name, default in {"momentum": "0.0", "width": "16", "dataset": "cifar10"}.items():
        assert first[name] == default
    assert (first["start"], first["augmentation"], first["drop_last"]) == ("", "[]", "False")
    assert {name: float(first[name]) for name in list(first)[-8:-1]} == {
        **{"final_val_loss": 1.5, "final_val_accuracy": 0.6, "final_train_loss": 0.5},
        **{"final_train_accuracy": 0.9, "test_loss": 1.25, "test_accuracy": 0.58},
        "gap": pytest.approx(0.3),
    }
    assert first["diverged_at_epoch"] == ""
    assert json.loads(last["learning_rate"]) == [0.1, 0.05]
    assert json.loads(last["frozen"]) == ["conv1"]
    assert json.loads(last["start"])["seed"] == 2
    assert [last[name] for name in list(last)[-8:]] == [""] * 7 + ["1"]


def test_a_rehearsal_is_marked_in_every_table(groups, tmp_path):
    save(summary_of(groups, rehearsal=True), groups, tmp_path)
    assert "REHEARSAL" in (tmp_path / "table.md").read_text()
    assert "rehearsal" in (tmp_path / "table.csv").read_text().splitlines()[1]


def test_a_half_way_report_says_in_every_table_how_many_runs_it_rests_on(groups, tmp_path):
    tables = {"Roughness": [{"setting": "lr=0.1", "points": "1.20"}]}
    summary = summary_of(groups, finished={"runs": 4, "of": 25}, tables=tables)
    for title in ("Settings", "Comparisons", "Roughness"):
        assert f"{title} (4 of 25 runs):" in table(summary, "simple")
    assert "HALF-WAY: 4 of 25 runs are finished." in facts(summary)
    save(summary, groups, tmp_path)
    assert [row["finished"] for row in rows_of(tmp_path / "table.csv")] == ["4 of 25 runs"] * 2
    assert "finished" not in table_rows(summary_of(groups))[0]
    assert "of 25" not in table(summary_of(groups))


def test_facts_say_what_differs():
    groups = {"a": [record(1, 0.6)], "b": [record(1, 0.6, diverged_at=0), record(2, 0.6)]}
    assert facts(summary_of(groups)) == (
        "Learning rate: 0.1. Batch size: 64. Epochs: 2. Split: standard. Seeds: 1 or 1 and 2. "
        "Device: cpu. Code: abc. Torch: 2."
    )
    groups["c"] = [record(1, 0.6, run=RUN | {"seed": 1, "epochs": 3, "batch_size": 1})]
    groups["d"] = [record(1, 0.6, run=RUN | {"seed": 1, "split": "halves"})]
    assert facts(summary_of(groups)).startswith(
        "Learning rate: 0.1. Batch size: 64 and 1. Epochs: 2 and 3. Seeds: "
    )
    schedule = [record(1, 0.6, run=RUN | {"seed": 1, "learning_rate": [0.1, 0.05]})]
    assert facts(summary_of({"a": schedule})).startswith("Batch size: 64.")


def comparison(summary):
    """The cells of the first comparison."""
    line = table(summary).split("Comparisons:")[1].strip().splitlines()[2]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_comparison_is_told_with_interval_p_correction_and_verdict():
    """Differences 6 and 10 points: mean 8, half-width 25.41, p = 1 - 2 arctan(4) / π = 0.156."""
    groups = {
        "a": [record(1, 0.8, 0.70), record(2, 0.8, 0.60)],
        "b": [record(1, 0.6, 0.64), record(2, 0.6, 0.50)],
    }
    assert comparison(summary_of(groups)) == [
        *("a minus b", "+8.00", "−17.41 to +33.41", "2", "0.156", "0.156", "within noise"),
        *("−20.00", "−20.00 to −20.00"),
    ]


def test_a_verdict_names_the_better_setting():
    better = [record(seed, 0.8, 0.70 + seed / 1000) for seed in (1, 2, 3)]
    worse = [record(seed, 0.6, 0.60) for seed in (1, 2, 3)]
    assert "a is better" in comparison(summary_of({"a": better, "b": worse}))
    turned = summary_of({"a": better, "b": worse}, comparisons=[("b", "a")])
    assert "a is better" in comparison(turned)
    assert comparison(turned)[1] == "−10.20"


def test_a_comparison_names_left_out_seeds_in_the_same_line():
    groups = {
        "a": [record(1, 0.8), record(2, 0.8), record(3, 0.8)],
        "b": [record(1, 0.6), record(2, 0.6, diverged_at=0), record(3, 0.6, diverged_at=1)],
    }
    cells = comparison(summary_of(groups))
    assert cells[3] == "1 (without seeds 2 and 3, which diverged)"
    assert cells[4:7] == ["–", "–", "none: too few seeds"]
    assert cells[1:3] == ["+0.00", "–"]


def test_devices_that_differ_give_no_verdict():
    gpu = ENVIRONMENT | {"device": "NVIDIA H100"}
    groups = {
        "a": [record(seed, 0.8) for seed in (1, 2)],
        "b": [record(seed, 0.6, environment=gpu) for seed in (1, 2)],
    }
    assert comparison(summary_of(groups))[4:7] == ["–", "–", "none: different devices"]
    assert "Paired by seed, it is without a verdict against “b”." in standing(summary_of(groups))
    assert "Device: cpu and NVIDIA H100." in facts(summary_of(groups))


def test_a_scripts_own_tables_stand_below_their_titles():
    tables = {"Roughness, in points": [{"setting": "a", "with": "1.20"}], "Nothing": []}
    text = table(summary_of({"a": [record(1, 0.6)]}, tables=tables))
    assert text.endswith(
        "Roughness, in points:\n\n| setting   | with   |\n|-----------|--------|\n"
        "| a         | 1.20   |"
    )
    assert "Comparisons" not in text  # one setting has nothing to be compared with


def test_the_table_names_trainable_parameters_where_they_are_known(summary):
    assert "parameters" not in table(summary)
    summary["trainable_parameters"] = {"lr=0.1": 22_778, "lr=0.05": 89_834}
    first, second = table(summary).splitlines()[4:6]
    assert "| 22,778 " in first
    assert "| 89,834 " in second
    assert [row["trainable_parameters"] for row in table_rows(summary)] == [22_778, 89_834]


def test_what_runs_on_a_few_images_has_no_gap():
    few = record(1, 1.0, run=RUN | {"seed": 1, "overfit_images": 64})
    rows = table_rows(summary_of({"one batch": [few], "baseline": [record(1, 0.6)]}))
    assert rows[0]["gap_mean"] is None
    assert rows[1]["gap_mean"] == pytest.approx(0.3)


def test_the_answer_names_the_best_with_its_numbers_and_verdicts():
    groups = {
        "a": [record(1, 0.60, 0.70), record(2, 0.70, 0.74), record(3, 0.7, 0.73)],
        "b": [record(1, 0.80, 0.71), record(2, 0.82, 0.75), record(3, 0.8, 0.74)],
        "c": [record(1, 0.50, 0.75), record(2, 0.51, 0.70), record(3, 0.5, diverged_at=0)],
        "d, e": [record(1, 0.50, 0.60), record(2, 0.51, 0.64), record(3, 0.5, 0.63)],
    }
    for one, bit in zip(groups["b"], (1e-4, 2e-4, 3e-4), strict=True):
        one["test_accuracy"] += bit  # equal differences are no sample
    for one in groups["c"]:
        one["final_train_accuracy"] = 0.6
    assert told(groups) == (
        "“b” has the highest mean validation accuracy, 80.67%. Its mean test accuracy is 73.35% "
        "(95% interval ± 5.19). Paired by seed, it is better than “a” (by 1.02 points) and “d, e” "
        "(by 11.02 points), and within noise of “c” (without seed 3, which diverged). Its mean "
        "generalisation gap is 9.33 points (lowest: “b”, 9.33; highest: “d, e”, 39.67).",
    )
    pairs = [("b", "a"), ("c", "b"), ("c", "d, e"), ("a", "d, e")]
    assert told(groups, candidates=["a", "c"], comparisons=pairs) == (
        "“a” has the highest mean validation accuracy among “a” and “c”, 66.67%. Its mean test "
        "accuracy is 72.33% (95% interval ± 5.17). Paired by seed, it is better than “d, e” (by "
        "10.00 points), and worse than “b” (by 1.02 points). Its mean generalisation gap is 23.33 "
        "points (lowest: “c”, 9.50; highest: “a”, 23.33).",
    )
    assert told(groups, candidates=["c"], comparisons=[("b", "d, e")]) == (
        "“c” is the only candidate. Its mean test accuracy is 72.50% (95% interval ± 31.77). Its "
        "mean generalisation gap is 9.50 points.",
    )
    five = groups | {"f": groups["c"]}
    four = summary_of(five, candidates=["a", "b", "c", "d, e"])
    assert "among 4 candidates, 80.67%. Its" in standing(four)
    assert told({"lr=0.1": [record(1, 0.6)]}) == (
        "lr=0.1 is the only candidate. Its mean test accuracy is 50.00%. Its mean generalisation "
        "gap is 30.00 points.",
    )
    lost = [record(1, 0.9, diverged_at=0)]
    nothing = ("There is no best setting, because too many runs diverged.",)
    assert told({"x": lost}) == nothing
    assert caveats(summary_of({"x": lost})) == []
    assert told({"x": lost, "y": lost}, comparisons=[("x", "y")]) == nothing
    # it may have seen the images that it validates on
    started = {"x y": [record(1, 0.6, run=RUN | {"start": RUN | {"seed": 1}})]}
    worse = {"z": [record(1, 0.5, run=RUN | {"start": RUN | {"seed": 1}})]}
    assert told(started | worse)[0].startswith(
        "“x y” has the highest mean validation accuracy. Its mean test accuracy is 50.00%. Paired "
    )
    assert "gap" not in told(started | worse)[0]


def told(groups, **more):
    """All conclusions, without the caveats."""
    summary = summary_of(groups, **more)
    found = [standing(summary), *gaps(summary)]
    assert conclusions(summary)[0] == " ".join([*found, *caveats(summary)])
    assert headline(summary) == " ".join(found)
    return " ".join(found), *conclusions(summary)[1:]


def test_the_answer_and_its_caveats_come_first():
    groups = {"a": [at(0.1, 1, 0.6)], "b": [at(0.2, 1, 0.5)]}
    summary = summary_of(groups)
    assert len(caveats(summary)) == 1
    stands = " ".join([standing(summary), *gaps(summary), *caveats(summary)])
    assert conclusions(summary_of(groups, findings=["And so."])) == [stands, "And so."]
    own = summary_of(groups, answer="So.", findings=["And so."])
    assert conclusions(own) == ["So.", stands, "And so."]
    assert headline(own) == "So."
    del own["answer"]  # as in a summary of an older version
    assert conclusions(own)[0] == stands


def test_a_comparison_is_a_sentence():
    better = [record(seed, 0.8, 0.70 + seed / 1000) for seed in (1, 2, 3)]
    groups = {"a": better, "lr=0.1": [record(seed, 0.6, 0.60) for seed in (1, 2, 3)]}
    (pair,) = summary_of(groups)["comparisons"]
    assert in_a_sentence(pair) == "On the test set, “a” is better than lr=0.1 (by 10.20 points)."
    (pair,) = summary_of({"a": better, "b": better})["comparisons"]
    assert in_a_sentence(pair) == "On the test set, “a” is within noise of “b”."


def test_a_best_at_the_edge_of_what_was_tried_is_a_caveat():
    def edge(best, field="learning_rate", values=(0.1, 0.05, 0.01), **others):
        groups = {
            str(value): [
                record(1, 0.9 if value == best else 0.5, run=RUN | others | {field: value})
            ]
            for value in values
        }
        return caveats(summary_of(groups))

    assert edge(0.01) == [
        "The best setting's learning rate, 0.01, is the lowest of this experiment. It tried no "
        "lower one."
    ]
    assert edge(0.1) == [
        "The best setting's learning rate, 0.1, is the highest of this experiment. It tried no "
        "higher one."
    ]
    assert edge(0.05) == []
    assert edge(128, "batch_size", (32, 64, 128)) == [
        "The best setting's batch size, 128, is the highest of this experiment. It tried no "
        "higher one."
    ]
    dropout = {"field": "dropout_rate", "values": (0, 0.2, 0.4), "network": "DropoutNet"}
    assert edge(0, **dropout) == []  # no rate is below zero
    assert len(edge(0.4, **dropout)) == 1
    assert edge(True, "drop_last", (False, True)) == []
    assert edge("zeros", "initialisation", ("zeros", "normal")) == []
    assert edge([0.1, 0.2], values=([0.1, 0.2], 0.1, 0.2)) == []  # a schedule
    assert edge(0.1, values=(0.1,)) == []


def test_an_edge_is_one_only_with_all_else_equal():
    low = [record(1, 0.9, run=RUN | {"learning_rate": 0.01, "momentum": 0.9})]
    groups = {"low": low, "high": [record(1, 0.5, run=RUN | {"learning_rate": 0.1})]}
    assert caveats(summary_of(groups)) == []
    # a rate that diverged was tried, even where it is no candidate
    groups = {
        "good": [at(0.1, 1, 0.8)],
        "low": [at(0.01, 1, 0.7)],
        "wild": [at(0.2, 1, 0.1, diverged_at=0)],
    }
    found = caveats(summary_of(groups, candidates=["good", "low"]))
    assert not any("tried" in sentence for sentence in found)


def test_a_best_by_accuracy_that_is_not_the_best_by_loss_is_a_caveat():
    groups = {
        "a": [record(1, 0.8, val_loss=[1.0, 2.5])],
        "b": [record(1, 0.7, val_loss=[1.0, 1.25])],
        "c": [record(1, 0.1, diverged_at=1)],
    }
    assert caveats(summary_of(groups)) == ["By mean validation loss, “b” would be the best."]
    assert caveats(summary_of(groups, candidates=["a", "c"])) == []
    some = caveats(summary_of(groups | {"d": groups["a"]}, candidates=["a", "b"]))
    assert some == ["By mean validation loss, “b” would be the best of these."]


def test_a_best_that_an_earlier_epoch_would_not_choose_is_a_caveat():
    groups = {
        "a": [record(1, 0.7, val_accuracy=[0.5, 0.7]), record(2, 0.7, val_accuracy=[0.7, 0.7])],
        "b": [record(1, 0.6, val_accuracy=[0.8, 0.6]), record(2, 0.6, val_accuracy=[0.7, 0.6])],
        "c": [record(1, 0.1, diverged_at=1)],
    }
    assert caveats(summary_of(groups)) == [
        "Stopped after the best epoch of its mean validation accuracy, “b” would be the best "
        "(75.00% after epoch 1)."
    ]
    assert caveats(summary_of(groups, candidates=["a", "c"])) == []
    groups["a"] = [record(1, 0.8, val_accuracy=[0.75, 0.75])]  # as high
    assert caveats(summary_of(groups)) == []
    assert highest([None, 0.2, 0.3, 0.3, None]) == (0.3, 3)
    assert highest([None]) is None


def test_a_comparison_of_different_lengths_is_a_caveat():
    """As where EPOCHS is edited in a script that compares with another one's runs."""
    long = [record(1, 0.8, run=RUN | {"epochs": 5})]
    groups = {"step": long, "a": [record(1, 0.7)], "b": [record(1, 0.6)]}
    pairs = [("step", "a"), ("b", "a")]
    found = caveats(summary_of(groups, comparisons=pairs))
    assert [sentence for sentence in found if "numbers of epochs" in sentence] == [
        "Different numbers of epochs are compared: “step” (5) with “a” (2)."
    ]


def test_runs_that_stayed_near_guessing_are_named():
    """Guessing among ten classes gives 10%; half as much again is still nothing."""
    stuck = record(1, 0.1, val_accuracy=[0.16, 0.149])  # the last epoch counts
    groups = {
        "a": [record(1, 0.151), record(2, 0.6)],
        "b": [stuck, record(2, 0.2, diverged_at=1), record(3, 0.6)],
        "c": [record(1, 0.1), record(2, 0.0)],
    }
    assert caveats(summary_of(groups)) == [
        "Some runs stayed near guessing (final validation accuracy below 15%; guessing gives 10%): "
        "“b” (1 of 3) and “c” (2 of 2).",
    ]
    two_classes = {"a": [record(1, 0.7, confusion_matrix=[[1, 1], [1, 1]])]}
    assert "below 75%; guessing gives 50%" in caveats(summary_of(two_classes))[0]


def test_agreement_with_published_results_is_a_table():
    bit = math.nextafter(2.0, 3)
    mine = {
        "same": [record(1, 0.6, 0.60), record(2, 0.6, 0.61)],
        "near": [record(1, 0.6, 0.60), record(2, 0.6, 0.62), record(3, 0.6, diverged_at=0)],
        "bit": [record(1, 0.6), record(2, 0.6)],
        "gone": [record(1, 0.6, diverged_at=0)],
        "new": [record(1, 0.6)],
    }
    gpu = {"environment": ENVIRONMENT | {"device": "NVIDIA H100"}}
    theirs = {
        "same": mine["same"][::-1],
        "near": [record(seed, 0.6, 0.6, train_loss=[2.25, 1.0], **gpu) for seed in (1, 2, 3)],
        "bit": [record(1, 0.6, train_loss=[bit, 1.0])],
        "gone": mine["gone"],
        "new": [],
    }
    lines = against_published(mine, theirs).splitlines()[2:]
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
    assert cells == [
        ["same", "+0.00", "+0.00 to +0.00", "2", "equal to the last bit"],
        [
            *("near", "+1.00", "−11.71 to +13.71", "2 (without seed 3, which diverged)"),
            "differs by up to 2.5e-01 nats",
        ],
        ["bit", "+0.00", "–", "1", "differs by up to 4.4e-16 nats"],
        ["gone", "–", "–", "0 (without seed 1, which diverged)", "–"],
    ]


def test_a_mean_is_told_with_its_deviation():
    assert plus_minus(0.225, 0.0354) == "22.50 ± 3.54"
    assert plus_minus(-0.1, None) == "−10.00"
    assert plus_minus(None, None) == "–"
    assert plus_minus(1.2345, 0.5, scale=1, digits=3) == "1.234 ± 0.500"
    assert percent(0.5, 0.01) == "50.00 ± 1.00%"
    assert percent(None) == "–"
