"""Statistics against numbers worked out by hand and slow oracles, and the summary's contract."""

import itertools
import json
import math
import random

import pytest
from scipy import stats

from lab.checks import UserError
from lab.summary import (
    best,
    best_label,
    common,
    compare,
    in_words,
    judge,
    load_summaries,
    load_summary,
    paired,
    paired_p,
    spread,
    summarise,
    summarise_group,
    wall_seconds,
)

ENVIRONMENT = {"torch": "2", "python": "3", "device": "cpu", "git_commit": "c", "git_dirty": False}
RUN = {"network": "BaselineNet", "learning_rate": 0.1, "epochs": 2, "batch_size": 64}
RUN |= {"split": "standard"}


def record(seed, val, test=0.5, train=0.9, diverged_at=None, trained=((0.0, 1.0),), **changes):
    """A finished run of two epochs that ends at the given accuracies."""
    fields = {
        "run": RUN | {"seed": seed},
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
        "confusion_matrix": [[1] * 10] * 10,
        "most_confident_mistakes": [],
        "trained": [list(span) for span in trained],
    }
    if diverged_at is not None:
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            fields[name] = fields[name][:diverged_at] + [None] * (2 - diverged_at)
        fields |= dict.fromkeys(("test_loss", "test_accuracy", "report", "confusion_matrix"))
        fields |= dict.fromkeys(("final_train_loss", "final_train_accuracy"))
    return fields | changes


def test_spread_of_known_numbers():
    # mean 0.62; squared differences 4 + 1 + 0 + 1 + 4 = 10 (in 0.01²), over 4 = 2.5; Student's
    # 97.5% quantile with 4 degrees of freedom is 2.776445 in every table
    found = spread([0.60, 0.61, 0.62, 0.63, 0.64])
    assert found["mean"] == pytest.approx(0.62)
    assert found["std"] == pytest.approx(0.01 * math.sqrt(2.5))
    assert found["ci95"] == pytest.approx(2.776445 * 0.01 * math.sqrt(2.5 / 5), rel=1e-6)


def test_what_diverged_is_left_out_of_a_spread():
    assert spread([None, 0.4, None, 0.6]) == spread([0.4, 0.6])
    assert spread(iter([None, 0.5])) == spread([0.5])


def test_one_value_has_no_spread_and_none_has_no_mean():
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
    groups = {
        "early": [record(1, 0.60, test=0.9, val_accuracy=[0.99, 0.60])],
        "good": [record(1, 0.61, test=0.1), record(2, 0.99, diverged_at=1)],
        "gone": [record(1, 0.99, diverged_at=1)],
    }
    assert best(groups) == "good"
    assert best({"gone": groups["gone"]}) is None


def test_wall_time_is_the_union_of_intervals():
    records = [
        record(1, 0.6, trained=[(100.0, 110.0), (200.0, 205.0)]),
        record(2, 0.6, trained=[(105.0, 120.0)]),  # beside the first for 5 s
        record(3, 0.6, trained=[(201.0, 203.0)]),  # within the first's second
    ]
    assert wall_seconds(records) == 25.0


def test_common_values_and_lists_in_words():
    assert common(["cpu", "cpu"]) == "cpu"
    assert common(["cpu", "NVIDIA H200", "cpu"]) == ["cpu", "NVIDIA H200"]
    assert in_words(common([30, 50])) == "30 and 50"
    assert in_words(common([30])) == "30"
    assert in_words(["a", "b", "c"]) == "a, b and c"
    assert in_words([]) == ""


def test_the_best_is_chosen_from_the_candidates():
    groups = {"long": [record(1, 0.7)], "short": [record(1, 0.8)], "other": [record(1, 0.6)]}
    assert summarise("e", "Q", {}, groups)["best"] == "short"
    assert summarise("e", "Q", {}, groups, ["long", "other"])["best"] == "long"
    assert summarise("e", "Q", {}, groups, [])["best"] is None
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


def test_title_question_and_method_come_from_the_docstring():
    groups = {"x": [record(1, 0.6)]}

    def told(description):
        summary = summarise("my_experiment", description, {}, groups)
        return summary["title"], summary["question"], summary["method"]

    description = (
        "Experiment 1.1, learning rates: how does\nit change?\n\nFive: 1, 2.\n\n  python x"
    )
    assert told(description) == ("1.1 learning rates", "How does it change?", "Five: 1, 2.")
    assert told("Batch sizes: which is best?") == ("Batch sizes", "Which is best?", "")
    assert told("Which is best?\n\nAll.") == ("my_experiment", "Which is best?", "All.")


def test_a_script_adds_to_its_summary_and_names_further_records_that_it_rests_on():
    groups = {"x": [record(1, 0.6)]}
    plain = summarise("e", "Q", {}, groups)
    assert (plain["findings"], plain["tables"], plain["comparisons"]) == ([], {}, [])
    assert (plain["rehearsal"], plain["finished"], plain["seconds"]) == (False, None, 1.0)
    finished = {"runs": 1, "of": 5}
    gpu = ENVIRONMENT | {"device": "NVIDIA H100"}
    other = record(9, 0.9, environment=gpu, code="other", trained=[[10.0, 18.0]])
    more = {"findings": ["So."], "finished": finished, "search": {}}
    summary = summarise("e", "Q", {}, groups, besides=[other], **more)
    assert {key: summary[key] for key in more} == more
    assert summary["groups"] == plain["groups"]
    assert summary["seconds"] == 9.0
    assert summary["environment"]["device"] == ["NVIDIA H100", "cpu"]
    assert summary["code"] == ["other", plain["code"]]


def test_a_half_way_report_leaves_out_settings_without_a_finished_run():
    groups = {"a": [record(1, 0.6)], "b": [], "c": [record(1, 0.7)]}
    summary = summarise("e", "Q", {}, groups, ["a", "b"], [("a", "b"), ("c", "a")])
    assert [group["label"] for group in summary["groups"]] == ["a", "c"]
    assert (summary["candidates"], summary["best"]) == (["a"], "a")
    assert [(pair["label"], pair["minus"]) for pair in summary["comparisons"]] == [("c", "a")]


def test_comparisons_are_paired_by_seed():
    one = [record(1, 0.6, 0.70), record(2, 0.6, 0.60), record(3, 0.6, diverged_at=0)]
    other = [record(2, 0.6, 0.50), record(1, 0.6, 0.64), record(3, 0.6, 0.4), record(4, 0.6, 0.1)]
    pair = compare("a", one, "b", other)
    assert (pair["label"], pair["minus"], pair["seeds"]) == ("a", "b", [1, 2])
    assert pair["differences"] == pytest.approx([0.06, 0.10])
    assert pair["test_accuracy"]["mean"] == pytest.approx(0.08)
    # standard deviation 0.02828, over √2 = 0.02, times Student's 12.7062
    assert pair["test_accuracy"]["ci95"] == pytest.approx(0.254124, rel=1e-5)
    # t = 0.08 / 0.02 = 4; with 1 degree of freedom p = 1 - 2 arctan(4) / π
    assert pair["p"] == pytest.approx(1 - 2 * math.atan(4) / math.pi)
    assert compare("a", one[2:], "b", other)["test_accuracy"]["mean"] is None


def test_a_comparison_names_the_seeds_that_it_leaves_out():
    one = [record(seed, 0.6, diverged_at=0 if seed == 3 else None) for seed in (1, 2, 3, 4)]
    other = [record(seed, 0.6, diverged_at=0 if seed < 4 else None) for seed in (2, 3, 4, 5)]
    pair = compare("a", one, "b", other)
    assert (pair["seeds"], pair["left_out"]) == ([4], [2, 3])  # 1 and 5 are in one group only


def test_gaps_are_compared_by_seed_too():
    one = [record(1, 0.6, train=0.7), record(2, 0.5, train=0.8), record(3, 0.6, diverged_at=0)]
    other = [record(2, 0.5, train=0.9), record(1, 0.6, train=0.9), record(3, 0.6)]
    gap = compare("a", one, "b", other)["gap"]  # 0.1 - 0.3 and 0.3 - 0.4
    assert gap["mean"] == pytest.approx(-0.15)
    assert gap["ci95"] == pytest.approx(12.7062 * 0.05, rel=1e-4)


def test_any_quantity_can_be_paired():
    ours = [record(1, 0.6), record(2, 0.7), record(3, 0.7, diverged_at=0)]
    theirs = [record(2, 0.5), record(3, 0.1), record(1, 0.4)]
    accuracies = paired(ours, theirs, lambda run: run["val_accuracy"][-1])
    assert accuracies == {1: pytest.approx(0.2), 2: pytest.approx(0.2)}


def test_p_is_that_of_the_paired_t_test():
    draws = random.Random(0)
    for n in (2, 3, 5, 10):
        one, other = ([draws.gauss(0.6, 0.05) for _ in range(n)] for _ in range(2))
        differences = [a - b for a, b in zip(one, other, strict=True)]
        assert paired_p(differences) == pytest.approx(stats.ttest_rel(one, other).pvalue)
        # the interval excludes zero just where p is below 0.05
        found = spread(differences)
        assert (abs(found["mean"]) > found["ci95"]) == (paired_p(differences) < 0.05)


def test_p_is_one_where_nothing_differs_and_undefined_for_less_than_two_pairs(recwarn):
    assert paired_p([0.0, 0.0, 0.0]) == 1.0
    assert paired_p([0.1]) is None
    assert paired_p([]) is None
    assert paired_p([0.1, 0.1]) == pytest.approx(0, abs=1e-10)  # the same difference twice
    assert not list(recwarn)


def judged(ps, means=None):
    """p_holm and verdict of comparisons with the given p."""
    means = means or [0.1] * len(ps)
    pairs = [
        {"label": f"a{i}", "minus": f"b{i}", "p": p, "test_accuracy": {"mean": mean}}
        for i, (p, mean) in enumerate(zip(ps, means, strict=True))
    ]
    found = judge(pairs)
    return [pair["p_holm"] for pair in found], [pair["verdict"] for pair in found]


def test_holms_correction_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04, the last no less
    # than the one before
    corrected, verdicts = judged([0.01, 0.04, 0.03, 0.005], [0.1, 0.1, 0.1, -0.1])
    assert corrected == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert verdicts == ["a0 is better", "within noise", "within noise", "b3 is better"]
    assert judged([0.6, 0.7])[0] == [1.0, 1.0]  # never above 1
    assert judged([0.05])[1] == ["within noise"]
    assert judged([0.0499])[1] == ["a0 is better"]
    assert judged([]) == ([], [])


def test_holms_correction_does_not_count_an_undefined_p():
    corrected, verdicts = judged([0.03, None, 0.02, None])
    assert corrected == [pytest.approx(0.04), None, pytest.approx(0.04), None]
    assert verdicts == ["a0 is better", None, "a2 is better", None]
    corrected, _ = judged([0.03, 1.0, 0.02])  # while a p of 1 counts
    assert corrected == [pytest.approx(0.06), 1.0, pytest.approx(0.06)]


def test_holms_correction_rejects_what_its_stepwise_procedure_rejects():
    """Holm's own words: in ascending order, reject while p <= level / (number left)."""
    for ps in itertools.product((0.001, 0.012, 0.02, 0.03, 0.2), repeat=3):
        rejected = set()
        for rank, at in enumerate(sorted(range(3), key=lambda at: ps[at])):
            if ps[at] >= 0.05 / (3 - rank):
                break
            rejected.add(at)
        _, verdicts = judged(list(ps))
        assert {at for at in range(3) if verdicts[at] != "within noise"} == rejected, ps


def test_no_comparison_mixes_devices():
    gpu = ENVIRONMENT | {"device": "NVIDIA H100"}
    groups = {
        "a": [record(seed, 0.7, 0.7 + seed / 1000) for seed in (1, 2, 3)],
        "b": [record(seed, 0.6, 0.6) for seed in (1, 2, 3)],
        "c": [record(seed, 0.6, 0.6, environment=gpu) for seed in (1, 2, 3)],
    }
    summary = summarise("e", "Q", {}, groups)
    alike, mixed = summary["comparisons"]
    assert alike["verdict"] == "a is better"
    assert alike["p"] == alike["p_holm"]  # the other pair is not counted
    assert (mixed["p"], mixed["p_holm"], mixed["verdict"]) == (None, None, None)
    assert mixed["test_accuracy"]["mean"] == pytest.approx(0.102)
    assert summary["environment"]["device"] == ["cpu", "NVIDIA H100"]
    mixed_a, mixed_b = (
        [groups[label][0] | {"environment": gpu}, *groups[label][1:]] for label in ("a", "b")
    )
    assert compare("a", mixed_a, "b", groups["b"])["p"] is None
    # each difference is of one device, whichever that is
    assert compare("a", mixed_a, "b", mixed_b)["p"] == alike["p"]


def test_the_best_is_compared_with_every_other_candidate_unless_others_are_asked_for():
    groups = {}
    for label, val in (("a", 0.6), ("b", 0.8), ("c", 0.7)):
        groups[label] = [record(1, val), record(2, val)]

    def pairs(**asked):
        found = summarise("e", "Q", {}, groups, **asked)["comparisons"]
        return [(pair["label"], pair["minus"]) for pair in found]

    assert pairs() == [("b", "a"), ("b", "c")]
    assert pairs(candidates=["a", "c"]) == [("c", "a")]
    assert pairs(comparisons=[("a", "c")]) == [("a", "c")]
    assert pairs(comparisons=[("a", "a"), ("a", "c"), ("a", "z")]) == [("a", "c")]
    assert pairs(candidates=[]) == []


@pytest.fixture
def kept(tmp_path):
    """A results folder with the summaries of three experiments; the paths of these."""
    paths = []
    for name, number in (("a", "1.10"), ("b", "1.9"), ("c", "2.1")):
        summary = summarise(name, f"Experiment {number}, x: why?", {}, {"x": [record(1, 0.6)]})
        paths.append(tmp_path / name / "summary.json")
        paths[-1].parent.mkdir()
        paths[-1].write_text(json.dumps(summary))
    return paths


def test_summaries_are_loaded_in_the_order_of_their_numbers(kept):
    found = load_summaries(kept[0].parent.parent)
    assert [summary["experiment"] for summary in found] == ["b", "a", "c"]
    assert found[1] == load_summary(kept[0])


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[]", "5", '{"groups": []}', "groups", "title", "runs", "untitled", "untested"],
)
def test_a_damaged_summary_is_left_out_and_named_in_one_line(damage, kept):
    summary = json.loads(kept[0].read_text())
    if damage == "runs":
        del summary["groups"][0]["runs"]
    elif damage == "untested":
        del summary["groups"][0]["runs"][-1]["test_accuracy"]
    elif damage == "untitled":
        summary["title"] = None
    elif damage in summary:
        del summary[damage]
    kept[0].write_text(json.dumps(summary) if damage.isalpha() else damage)
    assert [found["experiment"] for found in load_summaries(kept[0].parent.parent)] == ["b", "c"]
    with pytest.raises(
        UserError, match=r"^.*summary.json is damaged \(.*\): run its script again$"
    ):
        load_summary(kept[0])


def test_gradients_are_averaged_over_seeds_that_did_not_diverge():
    def gradients(value):
        pooled = {"mean": [value], "std": [2 * value]}
        windows = dict.fromkeys(("last_steps", "first_epochs", "last_epochs"), pooled)
        windows["first_steps"] = pooled | {"std_by_element": [5 * value]}
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
    assert found["first_steps"]["std_by_element"]["mean"] == [10.0]
    assert found["first_epochs"]["std"]["mean"] == [4.0]
    assert [step["mean"]["mean"] for step in found["by_step"]] == [[20.0], [2.0]]
    assert found["by_step"][1]["std"] == {"mean": [4.0], "std": [pytest.approx(math.sqrt(8))]}
    assert "gradients" not in group["runs"][0]
