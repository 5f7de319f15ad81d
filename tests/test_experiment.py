"""What every script does: its options, its constants, and what a second start does."""

import argparse
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import Lab
from made_up import finish, made_up
from project import ROOT, SMALL, Project, files, summary

import exp1_last_batch
import exp1_lr
import exp1_scheduler
import exp2_transfer
import exp3_gradients
import lab
from lab import experiment
from lab.checks import UserError
from lab.experiment import Store
from lab.sweep import Interrupted
from train import Run

SCRIPTS = sorted(path.stem for path in ROOT.glob("exp*.py"))


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that runs a script in a lab to its end; what it prints."""

    def run(lab: Lab, script: ModuleType, *options: str) -> str:
        capsys.readouterr()
        assert lab.run(script, *options) == 0
        return capsys.readouterr().out

    return run


def snapshot(root: Path) -> dict[Path, tuple[bytes, int]]:
    """Content and time of last change of every file but locks, which filelock may touch."""
    paths = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_has_the_same_skeleton(name: str) -> None:
    script = __import__(name)
    title, question = script.__doc__.split("\n")[0].split(": ")
    number = re.fullmatch(r"Experiment ([\d.]+), [\w ]+", title)[1]
    assert number[0] == name[3]
    assert question.endswith("?")
    for option in ("", " --quick"):
        assert re.search(rf"python {name}\.py{option} +# ", script.__doc__)
    groups = script.runs()  # without arguments
    assert all(isinstance(run, Run) for group in groups.values() for run in group)
    assert not any(run.dataset == "digits" for group in groups.values() for run in group)
    assert callable(script.main)


def test_seeds_make_runs_alike_in_all_other_fields(a_run: Callable[..., Run]) -> None:
    fields = {"network": "BaselineNet", "learning_rate": 0.1, "epochs": 2, "batch_size": 8}
    runs = lab.from_seeds([3, 1], split="halves", **fields)
    assert runs == [Run(seed=seed, split="halves", **fields) for seed in (3, 1)]


def test_rehearsal_shortens_runs_and_keeps_everything_else(a_run: Callable[..., Run]) -> None:
    long = [a_run(seed=s, epochs=50, dataset="cifar10", weight_decay=0.1) for s in (4, 5, 6)]
    (short,) = experiment.rehearsal({"x": long}).values()
    epochs = experiment.QUICK_EPOCHS
    assert short == [a_run(seed=s, epochs=epochs, weight_decay=0.1) for s in (4, 5)]
    (small,) = experiment.rehearsal({"x": [a_run(batch_size=4_096)]}).values()
    assert small == [a_run(batch_size=experiment.QUICK_BATCH)]
    (kept,) = experiment.rehearsal({"x": [a_run(epochs=1)]}).values()
    assert kept == [a_run(epochs=1)]
    with pytest.raises(UserError, match="49 values for 50 epochs"):  # as at full length
        experiment.rehearsal({"x": [a_run(epochs=50, learning_rate=[0.1] * 49)]})


# a second start


@pytest.mark.slow
def test_second_start_trains_nothing(
    finished: Lab, rehearsed: Path, no_figures: None, printed: Callable[..., str]
) -> None:
    before = files(finished.root / "quick", "runs")
    assert "4, of which 4 are finished" in printed(finished, exp1_lr, "--quick")
    assert files(finished.root / "quick", "runs") == before
    assert summary(finished.root / "quick") == summary(rehearsed / "quick")


@pytest.mark.slow
def test_edited_constant_trains_only_what_is_new(
    finished: Lab, rehearsed: Path, no_figures: None, printed: Callable[..., str]
) -> None:
    root, old = finished.root / "quick", summary(rehearsed / "quick")
    before = files(root, "runs")
    finished.edit(exp1_lr, SEEDS=[2, 3], LEARNING_RATES=[0.05])
    assert "2, of which 1 are finished" in printed(finished, exp1_lr, "--quick")
    after = files(root, "runs")
    assert len([name for name in after if name.endswith(".json")]) == 5
    assert before.items() <= after.items()  # nothing else was touched
    (group,) = summary(root)["groups"]
    assert group["seeds"] == [2, 3]
    assert group["runs"][0] == old["groups"][1]["runs"][1]
    # and back again: all of it is still there
    assert "4, of which 4" in printed(finished.edit(exp1_lr, **SMALL), exp1_lr, "--quick")
    assert summary(root) == old


@pytest.mark.slow
def test_longer_run_goes_on_where_the_shorter_one_ended(
    finished: Lab, no_figures: None, printed: Callable[..., str]
) -> None:
    root = finished.root / "quick"
    finished.edit(exp1_lr, EPOCHS=SMALL["EPOCHS"] + 1, SEEDS=[1], LEARNING_RATES=[0.1])
    assert "1, of which 0 are finished" in printed(finished, exp1_lr, "--quick")
    (path,) = root.glob(f"runs/*lr=0.1_seed=1_*_epochs={SMALL['EPOCHS'] + 1}_*.json")
    assert len(json.loads(path.read_text())["trained"]) == 2


@pytest.mark.slow
def test_fresh_trains_again_and_keeps_the_old(
    finished: Lab, rehearsed: Path, no_figures: None, printed: Callable[..., str]
) -> None:
    root = finished.root / "quick"
    assert "4, of which 0 are finished" in printed(finished, exp1_lr, "--quick", "--fresh")
    old = {path.name: path.read_bytes() for path in root.glob("replaced/*/runs/*")}
    assert len(old) == 8  # records and weights
    assert old == {path.name: path.read_bytes() for path in rehearsed.glob("quick/runs/*")}
    assert summary(root) == summary(rehearsed / "quick")


@pytest.mark.slow
def test_refused_fresh_start_moves_nothing(finished: Lab, refused: Callable[..., str]) -> None:
    before = snapshot(finished.root)
    line = refused(finished, exp1_lr, "--quick", "--fresh", "--device", "cuda:99")
    assert "--device" in line
    assert snapshot(finished.root) == before

    def missing(name: str) -> None:
        raise UserError("there are no images")

    finished.monkeypatch.setattr("lab.sweep.load_data", missing)
    assert refused(finished, exp1_lr, "--quick", "--fresh") == "there are no images"
    assert snapshot(finished.root) == before


@pytest.mark.slow
def test_edit_of_the_networks_trains_again_and_keeps_the_old(
    project: Project, rehearsed: Path
) -> None:
    shutil.copytree(rehearsed, project.folder / "results")
    old = project.without_figures().summary()
    path = project.folder / "models.py"
    text = path.read_text()
    path.write_text(text.replace("F.relu(self.fc1", "torch.tanh(self.fc1", 1))
    done = project.run("--quick")
    assert "4, of which 0 are finished" in done.stdout
    assert "4 of the others have results of an older version of the code" in done.stdout
    assert len([name for name in project.files("runs") if name.endswith(".json")]) == 8
    changed = project.summary()
    assert changed["code"] != old["code"]
    assert changed["groups"][0]["mean"] != old["groups"][0]["mean"]


# constants


def test_any_constant_is_accepted_and_recorded(
    finished: Lab, no_figures: None, printed: Callable[..., str]
) -> None:
    added = {
        "GAMMA": 3,
        "WORDS": "a word",
        "TABLE": {"a": [1, None]},
        "LOWEST": None,
        "FACTORS": (1, 2.5),
    }
    finished.edit(exp1_lr, FORMULA=len, **added)
    printed(finished, exp1_lr, "--quick")
    settings = summary(finished.root / "quick")["settings"]
    assert settings.pop("FORMULA") == repr(len)
    assert settings.pop("FACTORS") == [1, 2.5]
    del added["FACTORS"]
    assert settings.items() >= added.items()
    assert settings.items() >= SMALL.items()
    constants = {name for name in vars(exp1_lr) if name.isupper()}
    assert constants == settings.keys() | {"FORMULA", "FACTORS"}


# options


def test_help_tells_the_question_and_every_option(a_lab: Lab, printed: Callable[..., str]) -> None:
    out = printed(a_lab, exp1_lr, "--help")
    assert exp1_lr.__doc__.split("\n")[0] in out
    for option in ("--quick", "--fresh", "--so-far", "--published", "--device"):
        assert option in out
    assert not a_lab.root.exists()


def test_unknown_option_is_status_2(a_lab: Lab) -> None:
    assert a_lab.run(exp1_lr, "--fast") == 2


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "cpu:1", "", "mps"])
def test_unknown_device_is_named(device: str, a_lab: Lab, refused: Callable[..., str]) -> None:
    line = refused(a_lab, exp1_lr, "--quick", "--device", device)
    assert f"--device {device}" in line
    assert "cpu" in line


def test_results_that_cannot_be_written_are_named(a_lab: Lab, refused: Callable[..., str]) -> None:
    a_lab.root.write_text("a file, where the folder should be")
    line = refused(a_lab.edit(exp1_lr, **SMALL), exp1_lr, "--quick")
    assert str(a_lab.root) in line
    assert "cannot write" in line


def test_wrong_data_folder_is_named_and_the_rehearsal_too(
    a_lab: Lab, tmp_path: Path, refused: Callable[..., str]
) -> None:
    a_lab.monkeypatch.setenv("CIFAR10_DIR", str(tmp_path))
    line = refused(a_lab, exp1_lr)
    assert f"CIFAR10_DIR={tmp_path}" in line
    assert "--quick" in line


def test_ctrl_c_outside_of_training_is_one_line_and_status_130(
    a_lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(experiment: lab.Experiment) -> None:
        raise KeyboardInterrupt

    a_lab.edit(exp1_lr, main=interrupted)
    assert a_lab.run(exp1_lr) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert "the same command goes on" in line
    assert a_lab.run(exp1_lr, "--fresh") == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert "the same command without --fresh goes on" in line  # with it, all would begin anew


def test_interrupted_sweep_is_its_own_line_and_status_130(
    a_lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(experiment: lab.Experiment) -> None:
        raise Interrupted("stopped: 3 of 4")

    assert a_lab.edit(exp1_lr, main=interrupted).run(exp1_lr) == 130
    assert capsys.readouterr().err == "stopped: 3 of 4\n"


def test_a_terminal_that_knows_no_minus_sign_shows_a_question_mark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    experiment.forgive_stdout()
    print("−0.20 points", flush=True)
    assert written.getvalue() == b"?0.20 points\n"


def test_results_dir_puts_everything_elsewhere(
    a_lab: Lab, no_training: list[Run], no_figures: None, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "scratch" / "disk"
    a_lab.monkeypatch.setenv("RESULTS_DIR", str(elsewhere))
    assert a_lab.run(exp1_lr) == 0
    assert {path.name for path in elsewhere.iterdir()} == {"exp1_lr", "runs", "README.md"}
    assert not a_lab.root.exists()
    a_lab.monkeypatch.setenv("RESULTS_DIR", "")  # as if it were not set
    assert experiment.results_root() == ROOT / "results"


def test_results_never_replace_another_readme(a_lab: Lab, refused: Callable[..., str]) -> None:
    a_lab.root.mkdir()
    (a_lab.root / "README.md").write_text("# Results of mine\n")
    line = refused(a_lab.edit(exp1_lr, **SMALL), exp1_lr)
    readme = a_lab.root / "README.md"
    assert line == f"{readme} is no page of results: move it, or set RESULTS_DIR elsewhere"
    assert readme.read_text() == "# Results of mine\n"
    assert list(a_lab.root.iterdir()) == [readme]  # nothing was trained


@pytest.mark.parametrize(
    ("script", "edited"),
    [
        (exp1_last_batch, exp3_gradients),
        (exp1_scheduler, exp1_scheduler),
        (exp2_transfer, exp2_transfer),
    ],
)
def test_batch_that_does_not_fit_is_named_before_the_runs_of_others_are_trained(
    script: ModuleType,
    edited: ModuleType,
    a_lab: Lab,
    no_training: list[Run],
    refused: Callable[..., str],
) -> None:
    a_lab.monkeypatch.setattr(experiment, "QUICK_BATCH", 5000)
    line = refused(a_lab.edit(edited, BATCH_SIZE=2000), script, "--quick")
    assert line.startswith("BATCH_SIZE = 2000: must be at most the ")
    assert line.endswith(" training images of digits")
    assert not no_training


# --so-far


@pytest.fixture
def half_way(finished: Lab) -> Lab:
    """Of four runs one is missing, and another sweep is training it."""
    next((finished.root / "quick" / "runs").glob("*lr=0.05_seed=2*.json")).unlink()
    return finished


@pytest.mark.slow
def test_so_far_reports_what_is_finished_while_a_sweep_goes_on(
    half_way: Lab, printed: Callable[..., str]
) -> None:
    root = half_way.root / "quick"
    missing = experiment.rehearsal(exp1_lr.runs())["lr=0.05"][1]
    before = snapshot(root)
    with Store(root).claim(missing) as claimed:
        assert claimed
        out = printed(half_way, exp1_lr, "--quick", "--so-far")
    after = snapshot(root)
    assert before.items() <= after.items()  # nothing but new files
    folder = root / "so-far" / "exp1_lr"
    new = {path.relative_to(root).parts[0] for path in after.keys() - before.keys()}
    assert new <= {"so-far", ".locks"}
    found = json.loads((folder / "summary.json").read_text())
    assert found["finished"] == {"runs": 3, "of": 4}
    assert [group["seeds"] for group in found["groups"]] == [[1, 2], [1]]
    assert "3 of 4 runs" in out
    for name in ("table.md", "table.csv", "../README.md"):
        assert "3 of 4" in (folder / name).read_text()
    assert list(folder.glob("*.png"))


def test_so_far_leaves_out_settings_of_which_nothing_is_finished(
    half_way: Lab, no_figures: None, printed: Callable[..., str]
) -> None:
    root = half_way.root / "quick"
    next((root / "runs").glob("*lr=0.05_seed=1*.json")).unlink()
    printed(half_way, exp1_lr, "--quick", "--so-far")
    (group,) = json.loads((root / "so-far" / "exp1_lr" / "summary.json").read_text())["groups"]
    assert (group["label"], group["seeds"]) == ("lr=0.1", [1, 2])


def test_so_far_without_a_finished_run_is_one_line(a_lab: Lab, refused: Callable[..., str]) -> None:
    line = refused(a_lab.edit(exp1_lr, **SMALL), exp1_lr, "--so-far")
    assert line == "none of the 4 runs of exp1_lr.py is finished yet"
    assert not (a_lab.root / "so-far").exists()


def test_so_far_of_a_script_without_runs_is_one_line(
    a_lab: Lab, refused: Callable[..., str]
) -> None:
    a_lab.monkeypatch.delattr(exp1_lr, "runs")
    assert refused(a_lab, exp1_lr, "--so-far") == "--so-far needs a function runs() in exp1_lr.py"


# under torchrun


def test_fresh_start_is_refused_where_processes_share_a_sweep(
    a_lab: Lab, refused: Callable[..., str]
) -> None:
    """One of them would move away what another has just trained."""
    a_lab.monkeypatch.setenv("WORLD_SIZE", "2")
    assert "--fresh does not work with torchrun" in refused(a_lab, exp1_lr, "--fresh")


@pytest.mark.parametrize("option", ["--published", "--so-far"])
def test_only_rank_0_looks_at_results(
    option: str, finished: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        finished.monkeypatch.setenv(name, value)
    assert finished.run(exp1_lr, option) == 0
    assert capsys.readouterr() == ("", "")
    assert not (finished.root / "so-far").exists()


def test_mistake_is_said_by_one_process_of_a_machine(
    a_lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    a_lab.edit(exp1_lr, EPOCHS=0)
    for rank in ("0", "1"):
        a_lab.monkeypatch.setenv("LOCAL_RANK", rank)
        assert a_lab.run(exp1_lr) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "EPOCHS = 0" in line


# --published, and results held against the published ones


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, a_lab: Lab) -> Iterator[Path]:
    """A published folder of made-up runs of 1.1, with a small table; yours are the same runs."""
    folder = tmp_path / "published"
    monkeypatch.setattr("lab.experiment.PUBLISHED", folder)
    monkeypatch.setattr("lab.figures.save", lambda found, folder: [])
    a_lab.edit(exp1_lr, **SMALL)
    runs = [run for group in exp1_lr.runs().values() for run in group]
    finish(runs, Store(folder, any_code=True))
    finish(runs, Store(a_lab.root))
    constants = {name: value for name, value in vars(exp1_lr).items() if name.isupper()}
    options = argparse.Namespace(quick=False, device=None, fresh=False)
    theirs = lab.Experiment(Path(exp1_lr.__file__), exp1_lr.__doc__, constants, options)
    theirs.root, theirs.store = folder, Store(folder, any_code=True)
    exp1_lr.main(theirs)
    (folder / "exp1_lr" / "comparison.png").write_bytes(b"")
    yield folder


def test_published_prints_table_and_paths_and_changes_nothing(
    published: Path, a_lab: Lab, printed: Callable[..., str]
) -> None:
    before = snapshot(published), snapshot(a_lab.root)
    a_lab.edit(exp1_lr, EPOCHS=0)  # whatever the constants are now
    out = printed(a_lab, exp1_lr, "--published")
    assert (published / "exp1_lr" / "table.md").read_text() in out
    for name in ("comparison.png", "curves.csv", "summary.json"):
        assert str(published / "exp1_lr" / name) in out
    assert (snapshot(published), snapshot(a_lab.root)) == before


@pytest.mark.slow
def test_published_ends_quietly_where_nobody_reads_on() -> None:
    """As in `python exp1_lr.py --published | head -n 1`."""
    command = [sys.executable, "exp1_lr.py", "--published"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as it:
        it.stdout.close()
        assert it.stderr.read() == b""
    assert it.returncode == 0


def test_nothing_published_is_one_line(
    a_lab: Lab, tmp_path: Path, refused: Callable[..., str]
) -> None:
    a_lab.monkeypatch.setattr("lab.experiment.PUBLISHED", tmp_path / "nothing")
    assert "nothing is published of exp1_lr yet" in refused(a_lab, exp1_lr, "--published")


def test_published_runs_do_not_count_as_finished(
    published: Path, a_lab: Lab, no_training: list[Run], printed: Callable[..., str]
) -> None:
    shutil.rmtree(a_lab.root)
    printed(a_lab, exp1_lr)
    assert len(no_training) == 4


def agreement(out: str) -> dict[str, str]:
    """{setting: its row} of the table that holds results against the published ones."""
    rows = out.split("loss of epoch 1")[1].splitlines()[2:4]
    return {row.split()[0]: row for row in rows}


def test_equal_results_are_equal_to_the_last_bit(
    published: Path, a_lab: Lab, printed: Callable[..., str]
) -> None:
    out = printed(a_lab, exp1_lr)
    assert "published" in out
    for label in ("lr=0.1", "lr=0.05"):
        assert "equal to the last bit" in agreement(out)[label]
        assert "+0.00" in agreement(out)[label]


def test_other_results_differ_by_seed_with_interval_and_first_loss(
    published: Path, a_lab: Lab, printed: Callable[..., str]
) -> None:
    store = Store(a_lab.root)
    for seed, run in enumerate(exp1_lr.runs()["lr=0.1"], 1):
        record = made_up(run)
        record["test_accuracy"] += 0.01 * seed  # 1 and 2 points: 1.5, interval ± 12.71 / 2
        record["train_loss"][0] += 1e-6 * seed
        store.save(run, record, None)
    rows = agreement(printed(a_lab, exp1_lr))
    assert "equal to the last bit" in rows["lr=0.05"]
    for words in ("+1.50", "−4.85 to +7.85", "differs by up to 2.0e-06 nats"):
        assert words in rows["lr=0.1"]


def test_unpublished_runs_are_left_out_of_the_agreement(
    published: Path, a_lab: Lab, printed: Callable[..., str]
) -> None:
    for path in published.glob("runs/*lr=0.1_seed=2_*.json"):
        path.unlink()
    assert re.search(r"lr=0.1 .* 1 .*equal to the last bit", printed(a_lab, exp1_lr))


@pytest.mark.parametrize(
    ("change", "options"),
    [({"SMOOTHING_WINDOW": 4}, ()), ({}, ("--quick",)), ({}, ("--so-far",))],
)
def test_other_constants_and_rehearsals_are_not_held_against_published_results(
    change: dict[str, Any],
    options: tuple[str, ...],
    published: Path,
    a_lab: Lab,
    no_training: list[Run],
    printed: Callable[..., str],
) -> None:
    out = printed(a_lab.edit(exp1_lr, **change), exp1_lr, *options)
    assert "minus published" not in out


def test_damaged_published_summary_is_named_after_the_report(
    published: Path, a_lab: Lab, no_training: list[Run], printed: Callable[..., str]
) -> None:
    path = published / "exp1_lr" / "summary.json"
    path.write_text(path.read_text()[:300])
    out = printed(a_lab, exp1_lr)
    assert f"{path} is damaged" in out
    assert (a_lab.root / "exp1_lr" / "summary.json").exists()
