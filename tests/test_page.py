"""The page: every experiment in order, and every sentence from the numbers of its summary."""

import json

import pytest
from made_up import made_up
from test_summary import ENVIRONMENT, RUN, record

import lab.page
from lab.page import anchor, elsewhere, how_sure, second_machine, section, twice_trained, write_page
from lab.records import run_of
from lab.store import Store
from lab.summary import summarise
from train import Run


@pytest.fixture(autouse=True)
def figures(monkeypatch):
    """Two figures for every experiment, whatever its own module draws."""
    monkeypatch.setattr(lab.page, "figures", lambda summary: {"main one": None, "comparison": None})


def summary_of(groups, name="exp1_lr", title="Experiment 1.1, rates", **more):
    return summarise(name, f"{title}: why of {name}?\n\nSo.", {}, groups, **more)


def keep(root, summary):
    folder = root / summary["experiment"]
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_the_page_holds_every_experiment_and_only_figures_that_exist(tmp_path):
    for name, title in (("exp2_dropout", "2.1, dropout"), ("exp1_lr", "1.1, rates")):
        folder = keep(tmp_path, summary_of({"lr=0.1": [record(1, 0.6)]}, name, title))
        (folder / "comparison.png").write_bytes(b"")
        (folder / "left_over.png").write_bytes(b"")
    path = write_page(tmp_path)
    text = path.read_text()
    assert path == tmp_path / "README.md"
    assert text.index("## 1.1 rates\n") < text.index("## 2.1 dropout\n")
    assert "**Question.** Why of exp1_lr?\n" in text
    assert "**Method.** So. Learning rate: 0.1. Batch size: 64. Epochs: 2. Split: standard." in text
    assert "![comparison.png](exp1_lr/comparison.png)" in text
    assert "main_one.png" not in text
    assert "left_over" not in text
    assert "| lr=0.1 (best)" in text
    assert "REHEARSAL" not in text
    assert "at_a_glance" not in text
    (tmp_path / "exp1_lr" / "main_one.png").write_bytes(b"")
    again = write_page(tmp_path).read_text()
    assert again.index("main_one.png") < again.index("comparison.png")  # as figures() has them
    assert again.endswith("\n")


def test_the_page_lists_its_experiments_and_folds_the_curves_of_single_settings(tmp_path):
    folder = keep(tmp_path, summary_of({"comparison": [record(1, 0.6)]}))
    for name in ("main_one.png", "comparison.png"):
        (folder / name).write_bytes(b"")
    text = write_page(tmp_path).read_text()
    keep(tmp_path, summary_of({"x": [record(1, 0.6)]}, "exp2_dropout", "Experiment 1.0, x"))
    two = write_page(tmp_path).read_text()
    assert "\n- [1.0 x](#10-x)\n- [1.1 rates](#11-rates)\n" in two
    assert "\n- [1.1 rates](#11-rates)\n" in text
    assert text.index("(#11-rates)") < text.index("## 1.1 rates")
    before, folded = text.split("<details>")
    assert "main_one.png" in before
    assert "comparison.png" not in before
    folded, after = folded.split("</details>")
    assert "\n\n![comparison.png](exp1_lr/comparison.png)\n\n" in folded
    assert "![" not in after
    assert anchor("1.3 the last batch") == "13-the-last-batch"
    assert anchor("Büro, a-b: c!") == "büro-a-b-c"


def test_experiments_stand_in_the_order_of_their_numbers(tmp_path):
    titles = {"a": "Batch sizes", "b": "3, flow", "c": "1.10, x", "d": "1.9, y", "e": "1.0, z"}
    for name, title in titles.items():
        keep(tmp_path, summary_of({"x": [record(1, 0.6)]}, name, title))
    lines = write_page(tmp_path).read_text().splitlines()
    assert [line for line in lines if line.startswith("## ")] == [
        *("## 1.0 z", "## 1.9 y", "## 1.10 x", "## 3 flow", "## Batch sizes"),
        "## How sure is this?",
    ]


def test_two_experiments_with_one_title_both_stand_on_the_page(tmp_path):
    for name in ("exp1_lr", "my_experiment"):
        keep(tmp_path, summary_of({"x": [record(1, 0.6)]}, name))
    text = write_page(tmp_path).read_text()
    assert text.count("## 1.1 rates") == 2
    assert text.index("Why of exp1_lr?") < text.index("Why of my_experiment?")


def test_the_figure_of_the_whole_study_comes_first(tmp_path):
    keep(tmp_path, summary_of({"x": [record(1, 0.6)]}))
    (tmp_path / "at_a_glance.png").write_bytes(b"")
    text = write_page(tmp_path).read_text()
    assert text.count("](at_a_glance.png)") == 1
    assert text.index("at_a_glance.png") < text.index("## 1.1 rates")


def test_a_section_answers_in_one_line_and_then_tells_the_scripts_findings(tmp_path):
    groups = {
        "lr=0.1": [record(1, 0.6), record(2, 0.6)],
        "lr=0.05": [record(1, 0.8), record(2, 0.9, diverged_at=1)],
    }
    tables = {"Roughness": [{"setting": "lr=0.1", "points": "1.20"}]}
    text = section(summary_of(groups, findings=["One.", "Two."], tables=tables), tmp_path)
    parts = text.split("\n\n")
    stands = (
        "lr=0.05 has the highest mean validation accuracy, 80.00%. Its mean test accuracy is "
        "50.00%. Paired by seed, it is without a verdict against lr=0.1 (without seed 2, which "
        "diverged). Its mean generalisation gap is 10.00 points (lowest: lr=0.05, 10.00; highest: "
        "lr=0.1, 30.00)."
    )
    assert parts[3] == f"**Answer.** {stands}"
    assert parts[4].splitlines() == ["- One.", "- Two."]
    own = section(summary_of(groups, answer="So it is.", findings=["One."]), tmp_path)
    assert own.split("\n\n")[3:5] == ["**Answer.** So it is.", f"- {stands}\n- One."]
    assert "\n\n\n" not in section(summary_of(groups), tmp_path)  # which has an answer alone
    assert [part for part in parts if part.endswith(":")] == [
        *("Settings:", "Comparisons:", "Roughness:"),
    ]
    assert "lr=0.05 minus lr=0.1" in parts[8]


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"groups": 5}', '{"groups": [{}]}'])
def test_a_damaged_summary_does_not_spoil_the_page(content, tmp_path):
    keep(tmp_path, summary_of({"lr=0.1": [record(1, 0.6)]}))
    (tmp_path / "exp2_dropout").mkdir()
    (tmp_path / "exp2_dropout" / "summary.json").write_text(content)
    text = write_page(tmp_path).read_text()
    assert "## 1.1 rates" in text
    assert "## exp2_dropout\n\nIts summary.json is damaged" in text
    assert "Divergence: 0 of the 1 runs in the tables diverged." in text


def test_a_summary_that_its_figures_cannot_read_does_not_spoil_the_page(tmp_path, monkeypatch):
    """As one that an older version wrote."""
    for name in ("exp1_lr", "exp2_dropout"):
        keep(tmp_path, summary_of({"lr=0.1": [record(1, 0.6)]}, name))
    monkeypatch.setattr(
        lab.page, "figures", lambda found: found if found["experiment"] == "exp1_lr" else found["x"]
    )
    text = write_page(tmp_path).read_text()
    assert "Why of exp1_lr?" in text
    assert "## exp2_dropout\n\nIts summary.json is damaged" in text


def test_nothing_but_damage_still_gives_a_page(tmp_path):
    (tmp_path / "exp1_lr").mkdir()
    (tmp_path / "exp1_lr" / "summary.json").write_text("{")
    text = write_page(tmp_path).read_text()
    assert "damaged" in text
    assert "How sure" not in text


def test_a_rehearsal_and_a_half_way_report_say_so_before_the_answer(tmp_path):
    groups = {"x": [record(1, 0.6)]}
    text = section(summary_of(groups, rehearsal=True), tmp_path)
    assert 0 < text.index("REHEARSAL on handwritten digits, not a finding.") < text.index("Answer")
    text = section(summary_of(groups, finished={"runs": 1, "of": 25}), tmp_path)
    assert 0 < text.index("HALF-WAY: 1 of 25 runs are finished.") < text.index("**So far.**")


def test_how_sure_counts_seeds_intervals_verdicts_runs_and_devices(tmp_path):
    gpu = ENVIRONMENT | {"device": "NVIDIA H100"}

    def group(rate, tests, **changes):
        return [
            record(
                *(seed, 0.8 if rate == 0.1 else 0.6, test),
                run=RUN | {"seed": seed, "learning_rate": rate},
                **(changes | ({} if test else {"diverged_at": 0})),
            )
            for seed, test in enumerate(tests, 1)
        ]

    first = {
        "a": group(0.1, [0.701, 0.702, 0.703]),
        "b": group(0.2, [0.6, 0.6, 0.6]),  # 10.1 to 10.3 points below a: p = 0.00003
        "c": group(0.3, [0.541, 0.582, 0.623]),  # 16, 12 and 8 points: t = 3 √3, p = 0.035
        "d": group(0.4, [0.541, 0.582, 0.623]),  # so after Holm's correction 2 · 0.035
        "e": group(0.5, [0.5, None, None]),  # one pair: no verdict
    }
    second = {"x": group(0.6, [0.5], environment=gpu), "a": first["a"], "y": first["a"]}
    summaries = [
        summary_of(first),
        summary_of(second, "exp2", "Experiment 2.1, more"),
    ]
    seeds, intervals, comparisons, choice, divergence, devices = how_sure(summaries, [])
    assert seeds.startswith("Seeds: a setting is trained from 1 and 3 seeds. ")
    # the accuracies of c and d are 4.1 points apart: 4.1 · 4.302653 / √3 = 10.18
    # that of b is 0, e has none; that of a, ± 0.25, is told three times and counts once
    assert intervals == (
        "Intervals: of the settings in the tables, the widest 95% interval of mean test accuracy "
        "is ± 10.18 points. The median is ± 5.22 points."
    )
    assert comparisons == (
        "Comparisons: 1 of the 6 in the tables are more than noise. Without Holm's correction it "
        "would be 3. Each table is corrected for its own number of comparisons. So one that stands "
        "in two tables can have another p (Holm) in each."
    )
    for group in (*summaries[0]["groups"][1:2], *summaries[1]["groups"][1:2]):
        group["runs"] = [run | {"val_accuracy": [0.1, 0.1]} for run in group["runs"]]
    assert "more than noise, 1 of them against a setting of" in how_sure(summaries, [])[2]
    assert "too high" in choice
    # a, seed 1, is one run, told twice
    assert divergence == "Divergence: 2 of the 16 runs in the tables diverged."
    rule = "has no verdict where the two runs of a seed were trained on different devices."
    assert devices == f"Devices: 1.1 on cpu; 2.1 on NVIDIA H100 and cpu. A comparison {rule}"


@pytest.fixture
def two_machines(tmp_path):
    """Runs at one rate, seeds 1 and 2, of which both machines have test accuracies; and others."""
    fields = {"network": "BaselineNet", "epochs": 2, "batch_size": 64, "split": "standard"}
    values = ((1, 0.1), (2, 0.1), (1, 0.2), (1, 0.3), (3, 0.1))
    *runs, unknown = (Run(seed=seed, learning_rate=rate, **fields) for seed, rate in values)
    ours, theirs = (Store(path, any_code=True) for path in (tmp_path, tmp_path / "second_machine"))
    for store, device, loss, tests in (
        (ours, "cpu (A)", 1.0, (0.50, 0.60, None, 0.10)),
        (theirs, "cpu (B)", 1.25, (0.53, 0.55, 0.90, 0.10)),
    ):
        for run, test in zip(runs, tests, strict=True):
            found = made_up(
                run,
                test_accuracy=test,
                val_accuracy=test,
                diverged_at=0 if test is None else None,
            )
            found["environment"] = found["environment"] | {"device": device}
            found["train_loss"][0] = test and loss
            store.save(run, found, None)
    theirs.save(unknown, made_up(unknown), None)  # which the first machine has not trained
    theirs.save(runs[0], theirs.load_record(runs[0]) | {"code": "00000000"}, None)  # counts once
    return {
        "lr=0.1": [ours.load_record(run) for run in runs[:2]],
        "lr=0.2": [ours.load_record(runs[2])],
        "lr=0.3": [ours.load_record(runs[3])],
    }


def test_a_second_machine_is_held_against_the_first_run_by_run(tmp_path, two_machines):
    """By hand: |50 - 53|, |60 - 55| points again; seeds 1 and 2 of one rate are 10 and 2 apart."""
    (sentence,) = second_machine(twice_trained(tmp_path))
    assert sentence == (
        "Second machine: 4 of the runs on cpu (A) were trained on cpu (B), too. Left out of what "
        "follows: 1 that diverged and 1 that stayed near guessing. The training loss of the first "
        "epoch differs by up to 20%. The final test accuracy differs by up to 5.00 points, on "
        "average by 4.00. The first machine's is higher in 1 of 2 runs. Two seeds of a setting "
        "differ by 10.00 on the first machine and by 2.00 on the second, on average."
    )
    path = next(tmp_path.glob("second_machine/runs/*seed=2*.json"))
    half = {"run": json.loads(path.read_text())["run"], "seed": 1}
    for name, content in {"damaged": "{", "half": json.dumps(half)}.items():
        (path.parent / f"{name}.json").write_text(content)
    assert second_machine(twice_trained(tmp_path)) == [sentence]
    keep(tmp_path, summary_of({"x": [record(1, 0.6)]}))
    assert f"- {sentence}\n" in write_page(tmp_path).read_text()


def test_how_often_the_first_machine_is_ahead():
    tests = ((1, 0.6), (2, 0.65), (3, 0.8), (4, 0.7))
    both = [(record(seed, 0.6, 0.7), record(seed, 0.6, test)) for seed, test in tests]
    assert " The first machine's is higher in 2 of 4 runs. Two seeds" in second_machine(both)[0]


def test_without_a_second_machine_nothing_is_said_of_it(tmp_path):
    assert second_machine(twice_trained(tmp_path)) == []
    assert elsewhere(summary_of({"lr=0.1": [record(1, 0.6)]}), twice_trained(tmp_path)) == []


def test_what_a_setting_reaches_on_a_second_machine_follows_the_answer(tmp_path, two_machines):
    """By hand: 53 and 55 have the mean 54, and 12.7062 · 1 as half of their interval.

    Not told are a setting that stayed near guessing and one of which a seed is missing there.
    """
    sentence = (
        "Trained from the same seeds on cpu (B), lr=0.1 has a mean test accuracy of 54.00% (95% "
        "interval ± 12.71)."
    )
    other = "Trained from the same seeds on cpu (B), lr=0.2 has a mean test accuracy of 90.00%."
    assert elsewhere(summary_of(two_machines), twice_trained(tmp_path)) == [sentence, other]
    fields = {"network": "BaselineNet", "epochs": 2, "batch_size": 64, "split": "standard"}
    two_machines["lr=0.2"].append(made_up(Run(seed=3, learning_rate=0.2, **fields)))
    summary = summary_of(two_machines)
    assert elsewhere(summary, twice_trained(tmp_path)) == [sentence]
    assert f"\n- {sentence}\n" in section(summary, tmp_path, twice_trained(tmp_path))
    theirs = Store(tmp_path / "second_machine", any_code=True)
    one, two = (run_of(record["run"]) for record in two_machines["lr=0.1"])
    lost = made_up(two, diverged_at=1, environment=ENVIRONMENT | {"device": "cpu (B)"})
    theirs.save(two, lost, None)
    assert elsewhere(summary, twice_trained(tmp_path)) == [
        "Trained from the same seeds on cpu (B), lr=0.1 has a mean test accuracy of 53.00%; 1 of 2 "
        "diverged."
    ]
    theirs.save(one, made_up(one, diverged_at=1, environment=lost["environment"]), None)
    assert elsewhere(summary, twice_trained(tmp_path)) == []


def test_mixed_versions_of_torch_are_named(tmp_path):
    new = [record(1, 0.6, environment=ENVIRONMENT | {"torch": "3"}), record(2, 0.6)]
    summaries = [
        summary_of({"a": new}),
        summary_of({"a": [record(1, 0.6)]}, "exp2", "Experiment 2.1, more"),
    ]
    *_, devices, versions = how_sure(summaries, [])
    assert devices.startswith("Devices: ")
    assert versions == "Torch: versions 2 and 3 are mixed in 1.1."
    assert not [line for line in how_sure(summaries[1:], []) if line.startswith("Torch")]
