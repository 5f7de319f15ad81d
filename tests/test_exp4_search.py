"""Experiment 4.2: where both searches look, and what becomes of their winners."""

import dataclasses
import json
import re
import runpy
from collections.abc import Callable

import pytest
from conftest import Lab, Rehearsal
from made_up import finish
from project import files

import exp4_search
from lab import experiment, figures
from lab.experiment import Store
from lab.summary import wall_seconds
from train import Run

SMALL = {"EPOCHS": 1, "SEARCH_SEEDS": [11], "SEEDS": [1]}
QUICK = {"GRID_SIDE": 2}


def by_search() -> dict[str, list[list[Run]]]:
    """{name of the search: for each repeat its runs in the order of the search}."""
    groups = exp4_search.runs()
    return {
        name: list(map(list, zip(*(groups[key] for key in groups if name in key), strict=True)))
        for name in ("random", "grid")
    }


def test_both_searches_spend_the_same_runs_on_the_same_ranges() -> None:
    seeds = exp4_search.SEARCH_SEEDS
    for repeats in by_search().values():
        assert [len(repeat) for repeat in repeats] == [16] * len(seeds)
        for seed, repeat in zip(seeds, repeats, strict=True):
            for run in repeat:
                assert run.seed == seed
                assert (run.network, run.split, run.batch_size) == ("BaselineNet", "standard", 64)
                assert (run.epochs, run.weight_decay) == (exp4_search.EPOCHS, 0)
                assert 1e-4 <= run.learning_rate <= 1e-2
                assert 0.85 <= run.momentum <= 0.99
    assert sum(map(len, exp4_search.runs().values())) + 3 * 5 == 175
    assert "175 runs of 10 epochs" in exp4_search.__doc__


def test_grid_is_walked_in_other_orders_and_random_points_are_never_repeated() -> None:
    points = {
        name: [[(run.learning_rate, run.momentum) for run in repeat] for repeat in repeats]
        for name, repeats in by_search().items()
    }
    walks = points["grid"]
    assert all(sorted(walk) == sorted(walks[0]) for walk in walks)
    assert len({tuple(walk) for walk in walks}) == len(walks)
    assert len({point for repeat in points["random"] for point in repeat}) == 16 * len(walks)


def test_winners_are_trained_from_seeds_that_no_search_has_seen() -> None:
    point = {"learning_rate": 0.0012345, "momentum": 0.95, "val_accuracy": 0.6, "seed": 101}
    (label,) = groups = exp4_search.final_runs({"random": point})
    assert label == "random, lr=0.00123, momentum=0.95"
    assert [run.seed for run in groups[label]] == [1, 2, 3, 4, 5]
    assert not set(exp4_search.SEARCH_SEEDS) & {run.seed for run in groups[label]}
    for run in groups[label]:
        assert (run.learning_rate, run.momentum) == (0.0012345, 0.95)
        assert run.epochs == exp4_search.EPOCHS


def test_rehearsal_keeps_whole_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exp4_search, "GRID_SIDE", 2)
    groups = experiment.rehearsal(exp4_search.runs())
    walks = [group for label, group in groups.items() if label.startswith("grid")]
    for repeat in zip(*walks, strict=True):
        assert len({run.seed for run in repeat}) == 1
        assert len({(run.learning_rate, run.momentum) for run in repeat}) == 4


@pytest.fixture(scope="module")
def rehearsal(rehearse: Callable[..., Rehearsal]) -> Rehearsal:
    return rehearse(exp4_search, quick=QUICK, **SMALL)


def test_winners_are_trained_again_and_compared(
    a_lab: Lab, no_training: list[Run], no_figures: None
) -> None:
    a_lab.edit(exp4_search, SEARCH_SEEDS=[11, 12, 13], SEEDS=[1, 2, 3])
    assert a_lab.run(exp4_search, "--quick", quick=QUICK) == 0
    assert len(no_training) == 16 + 6
    quick = a_lab.root / "quick"
    summary = json.loads((quick / "exp4_search" / "summary.json").read_text())
    assert summary["settings"]["GRID_SIDE"] == 2  # of a rehearsal
    labels = [group["label"] for group in summary["groups"]]
    for name, group in zip(("random", "grid"), summary["groups"], strict=False):
        search = summary["search"][name]
        assert [repeat["seed"] for repeat in search["repeats"]] == [11, 12]
        points = [point for repeat in search["repeats"] for point in repeat["points"]]
        assert len(points) == 8
        highest = max(point["val_accuracy"] for point in points)
        assert search["winner"]["val_accuracy"] == highest
        assert group["seeds"] == [1, 2]
        for setting in ("learning_rate", "momentum"):
            assert group["settings"][setting] == search["winner"][setting]
    assert labels[2] == "untuned, lr=0.05, momentum=0"
    pairs = [(pair["label"], pair["minus"]) for pair in summary["comparisons"]]
    assert pairs == [(labels[0], labels[1]), (labels[0], labels[2]), (labels[1], labels[2])]
    first, second = summary["answer"].split(". The best run of a random search ")
    assert f"“{labels[0]}” is " in first
    assert f" “{labels[1]}”" in first
    assert re.search(
        r"(more|less) validation accuracy than .* grid search \(repeats: 2, each on one device",
        second,
    )


@pytest.mark.slow
def test_rehearsal_draws_the_search_and_tells_it(rehearsal: Rehearsal) -> None:
    assert "runs     8, of which 0 are finished" in rehearsal.out
    assert "runs     3, of which 0 are finished" in rehearsal.out
    quick = rehearsal.root / "quick"
    summary = json.loads((quick / "exp4_search" / "summary.json").read_text())
    records = [json.loads(path.read_text()) for path in quick.glob("runs/*.json")]
    assert len(records) == 11
    assert summary["seconds"] == wall_seconds(records)  # the search's own are counted
    page = (quick / "README.md").read_text()
    assert "A grid search of 4 runs finds" in page
    names = list(figures.figures(summary))
    assert {"search", "best_so_far"} <= set(names)
    for name in map(figures.file_name, names):
        assert (quick / "exp4_search" / name).exists()
        assert f"(exp4_search/{name})" in page


@pytest.mark.slow
def test_second_rehearsal_trains_nothing(
    rehearsal: Rehearsal, a_lab: Lab, no_figures: None, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(rehearsal.root / "quick", "runs")
    a_lab.monkeypatch.setenv("RESULTS_DIR", str(rehearsal.root))
    assert a_lab.edit(exp4_search, **SMALL).run(exp4_search, "--quick", quick=QUICK) == 0
    out = capsys.readouterr().out
    assert "8, of which 8 are finished" in out
    assert "3, of which 3 are finished" in out
    assert files(rehearsal.root / "quick", "runs") == before


def test_script_hands_in_what_a_rehearsal_shortens(
    a_lab: Lab, no_training: list[Run], no_figures: None
) -> None:
    """With the script's own call of lab.run, and without an edit that stays."""
    a_lab.monkeypatch.setattr("sys.argv", ["exp4_search.py", "--quick"])
    runpy.run_path(exp4_search.__file__, run_name="__main__")
    summary = json.loads((a_lab.root / "quick" / "exp4_search" / "summary.json").read_text())
    assert summary["settings"]["GRID_SIDE"] == 2
    assert {len(search["repeats"][0]["points"]) for search in summary["search"].values()} == {4}
    assert len(no_training) == 2 * 4 * 2 + 3 * 2


def test_search_of_which_all_runs_diverge_is_told(
    a_lab: Lab, no_figures: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """And beside it a setting that does not."""
    store = Store(a_lab.root)
    a_lab.edit(exp4_search, SEARCH_SEEDS=[11], SEEDS=[1, 2], GRID_SIDE=2)
    for group in exp4_search.runs().values():
        finish(group, store, diverged_at=0)
    untuned = exp4_search.final_runs({"untuned": {"learning_rate": 0.05, "momentum": 0.0}})
    finish(untuned["untuned, lr=0.05, momentum=0"], store)
    assert a_lab.run(exp4_search) == 0
    summary = json.loads((a_lab.root / "exp4_search" / "summary.json").read_text())
    assert [group["label"] for group in summary["groups"]] == ["untuned, lr=0.05, momentum=0"]
    assert summary["search"]["grid"]["winner"] is None
    assert "Every run of the grid search diverged." in summary["findings"]
    assert len(summary["findings"]) == 2
    assert summary["answer"] == ""  # nothing is left to compare
    for finding in summary["findings"]:
        assert finding in (a_lab.root / "README.md").read_text()
    # and not even that one
    for run in untuned["untuned, lr=0.05, momentum=0"]:
        finish([run], store, diverged_at=0)
    capsys.readouterr()
    assert a_lab.run(exp4_search) == 0
    assert "no best setting" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        ("MOMENTUM_RANGE", [0.99, 0.85]),
        ("LEARNING_RATE_RANGE", [0, 1e-2]),
        ("SEARCH_SEEDS", [5, 6]),
        ("SEARCH_SEEDS", [1, 1]),
        ("GRID_SIDE", 1),
        ("GRID_SIDE", "4"),
        ("GRID_SIDE", None),
    ],
)
def test_bad_constant_is_named_before_anything_is_trained(
    constant: str,
    value: object,
    a_lab: Lab,
    no_training: list[Run],
    refused: Callable[..., str],
) -> None:
    a_lab.edit(exp4_search, **{constant: value})
    line = refused(a_lab, exp4_search, "--quick", quick=QUICK)
    assert line.startswith(constant)
    assert not no_training


def test_bad_grid_is_named_half_way_too(a_lab: Lab, refused: Callable[..., str]) -> None:
    line = refused(a_lab.edit(exp4_search, GRID_SIDE="4"), exp4_search, "--quick", "--so-far")
    assert line.startswith("GRID_SIDE = '4': must be a whole number")


@pytest.mark.slow
def test_half_way_there_is_no_report_as_every_repeat_tries_other_points(
    a_lab: Lab, refused: Callable[..., str]
) -> None:
    a_lab.edit(exp4_search, GRID_SIDE=4)
    runs = [run for group in exp4_search.runs().values() for run in group]
    finish(runs[:3], Store(a_lab.root))
    line = refused(a_lab, exp4_search, "--so-far")
    assert line.startswith("3 of 160 runs are finished; exp4_search.py has no half-way report")
    assert not (a_lab.root / "so-far").exists()


def test_settings_of_a_run_are_its_point_alone() -> None:
    one, other = (run for repeats in by_search().values() for run in repeats[0][:1])
    changes = {"learning_rate": one.learning_rate, "momentum": one.momentum}
    assert dataclasses.replace(other, **changes) == one
