"""Publishing: from own finished runs into a published folder, without training."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Lab
from made_up import finish, made_up
from project import SMALL, Project, one_line

import exp1_lr
import exp1_scheduler
import lab
from lab import publish
from lab.checks import UserError
from lab.provenance import fingerprint
from lab.store import Store, write
from train import Run, build

README = """# A study

<!-- findings: written by python -m lab.publish -->
what was found before
<!-- end of findings -->

Between.

<!-- how sure: written by python -m lab.publish -->
<!-- end of how sure -->

The end.
"""
Publish = Callable[..., tuple[int, str, str]]


@pytest.fixture
def published(tmp_path: Path, a_lab: Lab, no_figures: None, no_training: list[Run]) -> Path:
    """Where things are published, nothing yet; README lies above it. 1.1 is four short runs."""
    patch = a_lab.edit(exp1_lr, **SMALL).monkeypatch
    patch.setattr("lab.experiment.PUBLISHED", tmp_path / "published")
    patch.setattr("lab.publish.HERE", tmp_path)
    (tmp_path / "README.md").write_text(README)
    return tmp_path / "published"


@pytest.fixture
def own(a_lab: Lab) -> Store:
    return Store(a_lab.root)


@pytest.fixture
def do_publish(
    published: Path, a_lab: Lab, no_training: list[Run], capsys: pytest.CaptureFixture[str]
) -> Publish:
    """A function that publishes an experiment; its exit status and what it prints."""

    def run(name: str = "exp1_lr") -> tuple[int, str, str]:
        a_lab.monkeypatch.setattr("sys.argv", ["publish", name])
        capsys.readouterr()
        status = 0
        try:
            publish.main()
        except SystemExit as end:
            status = end.code
        assert not no_training
        return status, *capsys.readouterr()

    return run


def the_runs() -> list[Run]:
    return [run for group in exp1_lr.runs().values() for run in group]


def best(records: list[dict]) -> dict:
    """Of the best setting the run with the highest final validation accuracy."""
    rates = {r["run"]["learning_rate"] for r in records}
    of_rate = {x: [r for r in records if r["run"]["learning_rate"] == x] for x in rates}
    means = {
        rate: sum(r["val_accuracy"][-1] for r in group) / len(group)
        for rate, group in of_rate.items()
    }
    return max(of_rate[max(means, key=means.get)], key=lambda r: r["val_accuracy"][-1])


def test_own_finished_runs_are_copied_unchanged_and_reported(
    published: Path, own: Store, do_publish: Publish
) -> None:
    finish(the_runs(), own)
    mine = {path.name: path.read_bytes() for path in own.runs.iterdir()}
    status, out, err = do_publish()
    assert (status, err) == (0, "")
    assert "older code" not in out
    records = {name: content for name, content in mine.items() if name.endswith(".json")}
    assert {path.name: path.read_bytes() for path in published.glob("runs/*")} == records
    assert {path.name: path.read_bytes() for path in own.runs.iterdir()} == mine
    names = {path.name for path in (published / "exp1_lr").iterdir()}
    assert names == {"summary.json", "table.md", "table.csv", "curves.csv", "runs.csv"}
    summary = json.loads((published / "exp1_lr" / "summary.json").read_text())
    assert (summary["rehearsal"], summary["finished"]) == (False, None)
    assert [group["seeds"] for group in summary["groups"]] == [[1, 2], [1, 2]]
    assert "1.1 learning rates" in (published / "README.md").read_text()
    assert "minus published" not in out
    assert not list(published.glob("checkpoints/*"))


def test_weights_of_the_best_run_alone_are_published(
    published: Path, own: Store, do_publish: Publish
) -> None:
    records = finish(the_runs(), own)
    assert do_publish()[1].count("Settings:") == 1  # the records are as they were reported
    (path,) = (published / "weights").iterdir()
    winner = best(records)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == winner["weights_sha256"]
    assert torch.load(path, weights_only=True)
    network = lab.load_network(str(path))
    run = next(run for run in the_runs() if run.seed == winner["seed"])
    assert type(network).__name__ == run.network


def test_weights_are_those_of_the_best_candidate(
    published: Path, a_lab: Lab, own: Store, do_publish: Publish
) -> None:
    records = finish(the_runs(), own)
    highest = best(records)["run"]["learning_rate"]
    (other,) = {r["run"]["learning_rate"] for r in records} - {highest}

    def main(experiment: lab.Experiment) -> None:
        experiment.report(experiment.train(exp1_lr.runs()), candidates=[f"lr={other}"])

    a_lab.edit(exp1_lr, main=main)
    assert do_publish()[0] == 0
    (path,) = (published / "weights").iterdir()
    assert f"_lr={other}_" in path.name


def test_diverged_run_is_not_the_best_one(published: Path, own: Store, do_publish: Publish) -> None:
    for run in the_runs():
        finish([run], own, diverged_at=0 if run.seed == 2 else None)
    assert do_publish()[0] == 0
    (path,) = (published / "weights").iterdir()
    assert "_seed=1_" in path.name


def test_experiment_of_which_all_runs_diverged_is_published_without_weights(
    published: Path, own: Store, do_publish: Publish
) -> None:
    finish(the_runs(), own, diverged_at=1)
    assert do_publish()[0] == 0
    assert not (published / "weights").exists()


def test_findings_in_readme_are_replaced_and_the_rest_is_kept(
    published: Path, own: Store, do_publish: Publish
) -> None:
    finish(the_runs(), own)
    do_publish()
    readme = published.parent / "README.md"
    text = readme.read_text()
    assert text.startswith("# A study\n")
    assert text.endswith("The end.\n")
    assert "Between." in text
    assert "what was found before" not in text
    question = (
        "**1.1 learning rates: How does the learning rate change training and generalisation?**"
    )
    summary = lab.summary.load_summary(published / "exp1_lr" / "summary.json")
    assert f"{question} {lab.tables.headline(summary)}\n" in text
    do_publish()
    assert readme.read_text() == text


def test_gap_is_refused_and_nothing_is_reported(
    published: Path, own: Store, do_publish: Publish
) -> None:
    finish(the_runs()[:-1], own)
    status, _, err = do_publish()
    assert status == 2
    (line,) = err.splitlines()
    assert "1 of 4 runs are not finished" in line
    assert "run python exp1_lr.py first" in line
    assert not (published / "exp1_lr").exists()
    assert not (published / "README.md").exists()
    assert not list(published.glob("runs/*"))  # they could hide newer ones later
    assert (published.parent / "README.md").read_text() == README


def test_gap_in_a_later_stage_copies_nothing_of_the_first(
    published: Path, own: Store, do_publish: Publish
) -> None:
    finish(the_runs(), own)
    status, _, err = do_publish("exp1_scheduler")
    assert (status, err.count("\n")) == (2, 1)
    assert "10 of 10 runs are not finished, so nothing is published" in err
    assert not list(published.glob("runs/*"))


def test_rehearsal_is_refused(
    published: Path, a_lab: Lab, do_publish: Publish, a_run: Callable[..., Run]
) -> None:
    """Neither is one taken for the real thing, nor is one published as itself."""
    rehearsed = lab.experiment.rehearsal(exp1_lr.runs())
    finish([run for group in rehearsed.values() for run in group], Store(a_lab.root / "quick"))
    assert "4 of 4 runs are not finished" in do_publish()[2]
    finish([run for group in rehearsed.values() for run in group], Store(a_lab.root))
    a_lab.edit(exp1_lr, runs=lambda: rehearsed)
    status, _, err = do_publish()
    assert (status, err) == (2, "exp1_lr.py: a rehearsal is not published\n")
    assert not published.exists()


def test_published_runs_count_whatever_code_made_them(
    published: Path, own: Store, do_publish: Publish
) -> None:
    """And are not replaced by your own."""
    store = Store(published, any_code=True)
    for run in the_runs():
        store.save(run, made_up(run, code="00000000"), None)
    before = contents(store.root)
    status, out, _ = do_publish()
    assert status == 0
    assert out.endswith("4 of 4 published records were made by older code\n")
    assert "other results" not in out
    assert contents(store.root).items() >= before.items()
    finish(the_runs()[:1], own, test_accuracy=0.123)
    finish(the_runs()[1:2], own)
    (line,) = [line for line in do_publish()[1].splitlines() if "have other results" in line]
    assert line.startswith("1 runs have other results in ")
    assert line.endswith(f": {name_of(the_runs()[0])}")
    other = store.load_record(the_runs()[1])  # on another device, with equal results
    other["environment"]["device"] = "cpu (another)"
    store.save(the_runs()[1], other, None)
    assert do_publish()[1].count("1 runs have other results") == 1


@pytest.fixture
def old(published: Path) -> Store:
    """Published runs by older code, without weights."""
    store = Store(published, any_code=True)
    for run in the_runs():
        store.save(run, made_up(run, code="00000000"), None)
    return store


def contents(root: Path) -> dict[Path, bytes]:
    """Every published run, with weights and checkpoints if there are any."""
    paths = [path for folder in ("runs", "weights") for path in root.glob(f"{folder}/*")]
    return {path: path.read_bytes() for path in paths}


@pytest.mark.parametrize("same_code", [False, True])
def test_run_retrained_for_its_weights_replaces_record_and_summary(
    same_code: bool, old: Store, published: Path, own: Store, do_publish: Publish
) -> None:
    """By the same code, both records have the same file name."""
    store, winner = old, best_of(old)
    assert "are not kept: train it again, and publish again" in do_publish()[1]
    assert not store.weights.exists()
    if same_code:
        store.find_record(winner)[0].unlink()
        store.save(winner, made_up(winner), None)
    finish([winner], own)
    assert do_publish()[0] == 0
    record = store.load_record(winner)
    assert record["code"] == fingerprint(winner)
    assert store.load_weights(winner) is not None
    assert len(list(store.runs.iterdir())) == 4
    summary = json.loads((published / "exp1_lr" / "summary.json").read_text())
    hashes = [run["weights_sha256"] for group in summary["groups"] for run in group["runs"]]
    assert sorted(filter(None, hashes)) == [record["weights_sha256"]]


@pytest.mark.parametrize("difference", ["curve", "test", "device"])
def test_retrained_run_that_differs_replaces_nothing(
    difference: str, old: Store, own: Store, do_publish: Publish
) -> None:
    run = best_of(old)
    record = made_up(run)
    if difference == "curve":
        record["val_loss"][0] = math.nextafter(record["val_loss"][0], 1)
    elif difference == "test":
        record["confusion_matrix"][3][5] += 1
    else:
        record["environment"]["device"] = "cpu (another)"
    own.save(run, record, build(run).state_dict())
    before = contents(old.root)
    status, out, _ = do_publish()
    assert status == 0
    assert f"weights  of {name_of(run)} are not published: the retrained run differs\n" in out
    assert contents(old.root) == before


def test_published_record_is_kept_until_the_new_one_is_written(
    old: Store, own: Store, do_publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish([best_of(old)], own)
    before = contents(old.root)

    def full(path: Path, content: bytes) -> None:
        if path.suffix == ".json":
            raise UserError(f"cannot write {path}")
        write(path, content)

    monkeypatch.setattr("lab.publish.write", full)
    status, _, err = do_publish()
    assert status == 2
    assert err.startswith("cannot write")
    assert contents(old.root).items() >= before.items()


def best_of(store: Store) -> Run:
    winner = best([store.load_record(run) for run in the_runs()])
    return lab.trained.run_of(winner["run"])


def name_of(run: Run) -> str:
    return lab.store.label(run)


@pytest.mark.slow
def test_experiment_that_needs_another_publishes_the_runs_of_both(
    published: Path, a_lab: Lab, own: Store, do_publish: Publish
) -> None:
    a_lab.edit(exp1_scheduler, EPOCHS=3, SEEDS=[1, 2], STEP_EPOCHS=1)
    finish([*the_runs(), *(run for group in exp1_scheduler.runs().values() for run in group)], own)
    assert do_publish("exp1_scheduler.py")[0] == 0  # with its ending, too
    assert len(list(published.glob("runs/*.json"))) == 4 + 4
    assert [path.parent.name for path in published.glob("*/summary.json")] == ["exp1_scheduler"]
    assert do_publish("exp1_lr")[0] == 0
    page = (published / "README.md").read_text()
    assert page.index("1.1 learning rates") < page.index("1.2 schedules")


def test_published_experiment_is_what_the_next_sweep_is_held_against(
    published: Path,
    a_lab: Lab,
    own: Store,
    do_publish: Publish,
    capsys: pytest.CaptureFixture[str],
) -> None:
    finish(the_runs(), own)
    do_publish()
    assert a_lab.run(exp1_lr) == 0
    assert capsys.readouterr().out.count("equal to the last bit") == 2


def test_unknown_experiment_and_bad_constant_are_named(
    a_lab: Lab, published: Path, do_publish: Publish
) -> None:
    assert do_publish("exp9_nothing")[::2] == (2, "there is no exp9_nothing.py here\n")
    a_lab.edit(exp1_lr, EPOCHS=0)
    status, _, err = do_publish()
    assert status == 2
    assert err.startswith("EPOCHS = 0")


@pytest.mark.parametrize("name", ["train", "plots.py", "lab"])
def test_module_that_is_no_experiment_is_named(name: str, do_publish: Publish) -> None:
    status, _, err = do_publish(name)
    assert status == 2
    assert err == f"{Path(name).stem}.py is no experiment: it has no runs() and main()\n"


@pytest.mark.parametrize("name", ["", "exp1-lr", "a.b.c"])
def test_name_of_no_module_is_named(name: str, do_publish: Publish) -> None:
    assert do_publish(name)[::2] == (2, f"there is no {Path(name).stem}.py here\n")


def test_script_that_cannot_be_imported_says_what_is_missing(
    tmp_path: Path, do_publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "exp8_broken.py").write_text("import nothing_of_this_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    status, _, err = do_publish("exp8_broken")
    assert (status, err) == (2, "No module named 'nothing_of_this_name'\n")


def test_damaged_summary_of_another_experiment_is_named_and_readme_is_kept(
    published: Path, own: Store, do_publish: Publish
) -> None:
    finish(the_runs(), own)
    path = published / "exp2_dropout" / "summary.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"groups": [{"runs": [1]}]}')
    status, _, err = do_publish()
    assert status == 2
    (line,) = err.splitlines()
    assert line.startswith(f"{path} is damaged")
    assert (published.parent / "README.md").read_text() == README


def test_readme_without_the_places_for_findings_is_named(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing")
    with pytest.raises(UserError, match=r"README.md must hold the lines <!-- findings: .* once"):
        publish.write_findings(readme)


def test_publication_trains_nothing_even_where_it_could(
    published: Path, own: Store, a_lab: Lab
) -> None:
    constants = lab.constants.check_constants("exp1_lr.py", vars(exp1_lr))
    publication = publish.Publication(Path(exp1_lr.__file__), exp1_lr.__doc__, constants)
    with pytest.raises(UserError, match="4 of 4 runs are not finished"):
        publication.train(exp1_lr)


@pytest.mark.slow
def test_command_line_publishes_nothing_that_is_not_finished(project: Project) -> None:
    shutil.rmtree(project.folder / "results", ignore_errors=True)
    done = project.run("lab.publish", "exp1_lr", script="-m")
    assert "4 of 4 runs are not finished" in one_line(done)
