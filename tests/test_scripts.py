"""The scripts as a user runs them: in a folder of their own, from the command line.

Most of these tests rehearse on digits (--quick), which is the same code path as the real data.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from conftest import cifar10_root
from project import SMALL, Project, children, one_line, wait_until


@pytest.fixture
def another(finished, tmp_path) -> Project:
    """A copy of the finished sweep."""
    project = Project(tmp_path / "another")
    shutil.copytree(finished.folder, project.folder, dirs_exist_ok=True)
    return project


def test_a_rehearsal_writes_everything_and_says_what_it_is(finished):
    names = {path.name for path in finished.results.iterdir()}
    assert {"summary.json", "table.md", "table.csv", "lr=0.1.png", "lr=0.05.png"} <= names
    assert "comparison.png" in names
    assert len(finished.files("runs")) == len(finished.files("checkpoints")) == 4
    summary = finished.summary()
    assert summary["rehearsal"] is True
    assert summary["settings"]["EPOCHS"] == 3
    assert [group["label"] for group in summary["groups"]] == ["lr=0.1", "lr=0.05"]
    assert all(len(run["val_loss"]) == 3 for group in summary["groups"] for run in group["runs"])
    for words in ("REHEARSAL", "cpu (", "runs     4", "± ", "best by validation", "summary.json"):
        assert words in finished.printed


def test_a_second_start_trains_nothing(another, finished):
    before = another.files("runs")
    done = another.run("--quick")
    assert done.returncode == 0
    assert "4, of which 4 are finished" in done.stdout
    assert another.files("runs") == before
    assert another.summary() == finished.summary()


def test_an_edited_constant_trains_only_what_is_new(another, finished):
    before = another.files("runs")
    done = another.edit(SEEDS=[2, 3], LEARNING_RATES=[0.05]).run("--quick")
    assert done.returncode == 0
    assert "2, of which 1 are finished" in done.stdout
    after = another.files("runs")
    assert len(after) == 5
    assert before.items() <= after.items()  # nothing else was touched
    (group,) = another.summary()["groups"]
    assert group["seeds"] == [2, 3]
    assert group["runs"][0] == finished.summary()["groups"][1]["runs"][1]
    # and back again: all of it is still there
    done = another.edit(**SMALL).run("--quick")
    assert "4, of which 4 are finished" in done.stdout
    assert another.summary() == finished.summary()


def test_an_edit_of_the_networks_trains_again_and_keeps_the_old(another, finished):
    path = another.folder / "models.py"
    text = path.read_text()
    path.write_text("# a comment costs nothing\n" + text)
    assert "4, of which 4 are finished" in another.run("--quick").stdout
    path.write_text(text.replace("F.relu(self.fc1", "torch.tanh(self.fc1", 1))
    done = another.run("--quick")
    assert "4, of which 0 are finished" in done.stdout
    assert "4 of the others were trained before an edit of code" in done.stdout
    assert len(another.files("runs")) == 8
    changed, old = another.summary(), finished.summary()
    assert changed["code"] != old["code"]
    assert changed["groups"][0]["mean"] != old["groups"][0]["mean"]


def test_a_refused_fresh_start_moves_nothing(another):
    before = another.files("runs")
    assert "--device" in one_line(another.run("--quick", "--fresh", "--device", "cuda:99"))
    assert another.files("runs") == before


def test_code_edited_while_workers_start_is_noticed(project):
    """Their numbers would come from other code than the one that names their files."""
    path = project.folder / "sweep.py"
    before = "    context = multiprocessing.get_context"
    assert before in path.read_text()
    edit = "    (HERE / 'models.py').open('a').write('EDITED = 1')\n"
    path.write_text(path.read_text().replace(before, edit + before))
    assert "edited" in one_line(project.run("--quick"))
    assert not project.files("runs")


def test_fresh_trains_again_and_keeps_the_old(another, finished):
    done = another.run("--quick", "--fresh")
    assert done.returncode == 0
    assert "4, of which 0 are finished" in done.stdout
    assert len(list(another.results.glob("replaced/*/*.json"))) == 4
    assert another.summary() == finished.summary()


@pytest.fixture(scope="module")
def checkpointing(tmp_path_factory) -> Project:
    """A sweep that keeps a checkpoint at every epoch and was never interrupted."""
    project = Project(tmp_path_factory.mktemp("checkpointing") / "project")
    keep_every_epoch(project)
    assert project.run("--quick").returncode == 0
    return project


def keep_every_epoch(project: Project) -> None:
    project.edit(EPOCHS=8, SEEDS=[1, 2], LEARNING_RATES=[0.1])
    path = project.folder / "train.py"
    path.write_text(path.read_text().replace("CHECKPOINT_SECONDS = 10.0", "CHECKPOINT_SECONDS = 0"))


@pytest.mark.parametrize("epochs", [0, 1, 4, 8])
def test_killed_at_any_moment_it_goes_on(epochs, tmp_path, checkpointing):
    """SIGKILL for all processes at once, after so many epochs of one of the two runs."""
    project = Project(tmp_path / "project")
    keep_every_epoch(project)
    process = project.start("--quick")
    wait_until(lambda: epochs_kept(project) >= epochs, process)
    time.sleep(0.0 if epochs else 3.0)  # at 0, while the workers start
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = project.files("runs")
    again = project.run("--quick")
    assert again.returncode == 0, again.stderr
    assert finished.items() <= project.files("runs").items()  # nothing was trained twice
    assert project.summary() == checkpointing.summary()
    if epochs in (1, 4):  # it did go on from a checkpoint: it trained twice for a while
        records = [json.loads(path.read_text()) for path in (project.results / "runs").iterdir()]
        assert max(len(record["trained"]) for record in records) == 2
    assert not list(project.folder.glob("**/*.damaged"))


def epochs_kept(project: Project) -> int:
    """How many epochs the furthest checkpoint holds."""
    kept = [0]
    for path in project.folder.glob("results/quick/*/checkpoints/*.pt"):
        kept.append(len(torch.load(path, weights_only=True)["curves"]["train_loss"]))
    return max(kept)


def test_workers_die_with_the_sweep(project):
    """After SIGKILL of the command alone, nobody trains on."""
    project.edit(EPOCHS=1000)
    path = project.folder / "experiment.py"
    path.write_text(path.read_text().replace("QUICK_EPOCHS = 10", "QUICK_EPOCHS = 1000"))
    process = project.start("--quick")
    wait_until(lambda: bool(project.files("checkpoints")), process)
    workers = children(process.pid)
    assert workers
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_says_what_is_kept(number, project):
    """With most of the sweep still to do, so that waiting for a run or an epoch would be seen."""
    project.edit(EPOCHS=10, LEARNING_RATES=[0.1, 0.09, 0.08, 0.07, 0.06, 0.05, 0.04, 0.03])
    process = project.start("--quick")
    wait_until(lambda: bool(project.files("runs")), process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    sent = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - sent < 5  # well under a second, but for a busy machine
    assert process.returncode == 130
    assert "Traceback" not in out + err
    (line,) = [line for line in err.splitlines() if "stopped" in line]
    found = re.search(
        r"stopped: (\d+) of 16 runs are finished and kept.*same command goes on", line
    )
    assert int(found[1]) == len(project.files("runs"))
    assert not children(process.pid)


def test_a_worker_that_dies_is_named_and_the_others_go_on(project, finished):
    process = project.start("--quick", "--device", "cpu")
    wait_until(lambda: bool(project.files("checkpoints")), process)
    victim = max(children(process.pid))
    os.kill(victim, signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    done = subprocess.CompletedProcess([], process.returncode, out, err.splitlines()[-1])
    assert re.search(rf"process {victim} died .*SIGKILL.*start again", one_line(done))
    assert project.run("--quick").returncode == 0
    assert project.summary() == finished.summary()


def test_two_sweeps_side_by_side_share_the_work(project, finished):
    first, second = project.start("--quick"), project.start("--quick")
    ends = [process.communicate(timeout=200) for process in (first, second)]
    assert first.returncode == second.returncode == 0, ends
    assert project.summary() == finished.summary()
    assert len(project.files("runs")) == 4
    assert not list(project.folder.glob("**/*.partial"))
    assert not list(project.folder.glob("**/*.damaged"))


def test_damaged_files_are_named_and_trained_again(another, finished):
    run = next((another.results / "runs").glob("*lr=0.1_seed=1*"))
    checkpoint = next((another.results / "checkpoints").glob("*lr=0.1_seed=1*"))
    for path in (run, checkpoint):
        path.write_bytes(path.read_bytes()[:300])
    done = another.run("--quick")
    assert done.returncode == 0
    for path in (run, checkpoint):
        assert f"{path.name} is damaged" in done.stdout + done.stderr
        assert path.with_name(path.name + ".damaged").exists()
    assert another.summary() == finished.summary()


def test_the_scheduler_shares_what_experiment_1_1_trains(another, finished):
    """One of 1.1's runs is missing: 1.2 trains just that one, and 1.1 finds it done."""
    next((another.results / "runs").glob("*lr=0.05_seed=2*")).unlink()
    another.edit("exp1_scheduler.py", EPOCHS=3, SEEDS=[1, 2], STEP_EPOCHS=1)
    done = another.run("--quick", script="exp1_scheduler.py")
    assert done.returncode == 0, done.stderr
    assert "what exp1_lr.py trains" in done.stdout
    assert "4, of which 3 are finished" in done.stdout
    assert "4, of which 0 are finished" in done.stdout
    summary = json.loads((another.results_of("exp1_scheduler") / "summary.json").read_text())
    best = finished.summary()["best"]
    assert [group["label"] for group in summary["groups"]] == [best, "inverse time", "step"]
    assert summary["groups"][0]["runs"] == next(
        group["runs"] for group in finished.summary()["groups"] if group["label"] == best
    )
    pairs = [(pair["label"], pair["minus"]) for pair in summary["comparisons"]]
    assert pairs == [("inverse time", best), ("step", best)]
    assert len(another.files("runs")) == 4
    again = another.run("--quick")
    assert "4, of which 4 are finished" in again.stdout
    assert another.summary() == finished.summary()
    page = (another.folder / "results/quick/README.md").read_text()
    assert page.index("## Experiment 1.1") < page.index("## Experiment 1.2")
    assert "(exp1_scheduler/schedules.png)" in page


FINER = [  # what experiment 2.2 retrains beside "retrained, dropout=0", which freezes all at 0.1
    f"frozen={frozen}, lr={rate}"
    for frozen in range(4)
    for rate in (0.1, 0.01)
    if (frozen, rate) != (3, 0.1)
]


@pytest.fixture(scope="module")
def transferred(finished, tmp_path_factory) -> Project:
    """Experiment 2.2 after the small sweep of 1.1, training 2.1 itself."""
    project = Project(tmp_path_factory.mktemp("transfer") / "project")
    shutil.copytree(finished.folder, project.folder, dirs_exist_ok=True)
    project.edit("exp2_dropout.py", EPOCHS=3, SEEDS=[1, 2], DROPOUT_RATES=[0, 0.9, 0.4])
    project.edit("exp2_transfer.py", EPOCHS=2, SEEDS=[1, 2])
    done = project.run("--quick", script="exp2_dropout.py")
    assert done.returncode == 0, done.stderr
    assert "best with dropout: dropout=0.4" in done.stdout
    done = project.run("--quick", script="exp2_transfer.py")
    assert done.returncode == 0, done.stderr
    return project


def weights(project: Project, experiment: str, pattern: str) -> dict:
    (path,) = (project.results_of(experiment) / "checkpoints").glob(pattern)
    return torch.load(path, weights_only=True)["network"]


def retrained(project: Project, dropout: float, seed: int) -> list[tuple[dict, dict]]:
    """Settings and trained weights of experiment 2.2's runs of one source."""
    found = []
    for path in (project.results_of("exp2_transfer") / "runs").iterdir():
        run = json.loads(path.read_text())["run"]
        if (run.get("dropout_rate", 0), run["seed"]) == (dropout, seed):
            found.append((run, weights(project, "exp2_transfer", f"{path.stem}.pt")))
    return found


def test_transfer_compares_all_the_study_asks_for(transferred, finished):
    summary = json.loads((transferred.results_of("exp2_transfer") / "summary.json").read_text())
    best = finished.summary()["best"]
    assert [group["label"] for group in summary["groups"]] == [
        f"untouched, {best}",
        "dropout=0",
        "dropout=0.4",
        "retrained, dropout=0",
        "retrained, dropout=0.4",
        *FINER,
    ]
    assert summary["candidates"] == ["retrained, dropout=0", "retrained, dropout=0.4"]
    assert summary["groups"][3]["settings"]["start"]["split"] == "halves"
    assert "seed" not in summary["groups"][3]["settings"]["start"]
    assert [(pair["label"], pair["minus"]) for pair in summary["comparisons"]] == [
        ("retrained, dropout=0.4", "retrained, dropout=0"),
        ("retrained, dropout=0", "dropout=0"),
        ("retrained, dropout=0.4", "dropout=0.4"),
        ("retrained, dropout=0.4", f"untouched, {best}"),
        ("dropout=0.4", "dropout=0"),
        *((label, "retrained, dropout=0") for label in FINER),
    ]
    for group in summary["groups"]:
        assert group["seeds"] == [1, 2]
        assert all("f1-score" in run["report"]["7"] for run in group["runs"])
    for dropout, expected in ((0, 8), (0.4, 1)):
        before = weights(transferred, "exp2_dropout", f"*_dropout={dropout}_seed=2_*")
        found = retrained(transferred, dropout, seed=2)
        assert len(found) == expected
        for run, after in found:
            for name in before:
                frozen = name.split(".")[0] in run.get("frozen", ())
                assert torch.equal(before[name], after[name]) == frozen, (run["frozen"], name)


def test_transfer_counts_and_shows_the_trainable_parameters(transferred):
    folder = transferred.results_of("exp2_transfer")
    summary = json.loads((folder / "summary.json").read_text())
    # conv1 448, conv2 4,640, conv3 18,496, fc1 65,600, fc2 650
    by_frozen = (89_834, 89_386, 84_746, 66_250)
    assert summary["trainable_parameters"] == {
        "retrained, dropout=0": 66_250,
        **{label: by_frozen[int(label[len("frozen=")])] for label in FINER},
    }
    for name in ("trainable_parameters", "differences_by_frozen_layers", *FINER):
        assert (folder / f"{name.replace(', ', '_')}.png").exists()
    page = (folder.parent / "README.md").read_text()
    for rate in ("0.1", "0.01"):
        counts = "66,250, 84,746, 89,386 and 89,834"
        assert f"- At lr={rate}, with {counts} trainable parameters, mean test accuracy" in page
    assert "| frozen=2, lr=0.01" in (folder / "table.md").read_text()


@pytest.mark.parametrize("trouble", ["missing", "foreign"])
def test_a_checkpoint_that_transfer_needs_is_trained_again(trouble, transferred, tmp_path):
    project = Project(tmp_path / "project")
    shutil.copytree(transferred.folder, project.folder, dirs_exist_ok=True)
    before = json.loads((project.results_of("exp2_transfer") / "summary.json").read_text())
    checkpoints = project.results_of("exp2_dropout") / "checkpoints"
    (path,) = checkpoints.glob("*_dropout=0.4_seed=1_*")
    if trouble == "missing":
        path.unlink()
    else:
        shutil.copy(next(checkpoints.glob("*_dropout=0_seed=1_*")), path)
    for kind in ("runs", "checkpoints"):
        retrained = f"{kind}/*_dropout=0.4_retrained_*_seed=1_*"
        next(project.results_of("exp2_transfer").glob(retrained)).unlink()
    done = project.run("--quick", script="exp2_transfer.py")
    assert done.returncode == 0, done.stderr
    assert "trained networks to start from: 1 are not there" in done.stdout
    assert (f"{path.name} is damaged" in done.stdout + done.stderr) == (trouble == "foreign")
    after = json.loads((project.results_of("exp2_transfer") / "summary.json").read_text())
    assert after["groups"] == before["groups"]


def test_gradients_from_the_command_line(tmp_path):
    project = Project(tmp_path / "project")
    project.edit("exp3_gradients.py", EPOCHS=2, SEEDS=[1984], PERFORMANCE_EPOCHS=1)
    project.edit("exp3_gradients.py", PERFORMANCE_SEEDS=[1]).edit(EPOCHS=1)
    done = project.run("--quick", script="exp3_gradients.py")
    assert done.returncode == 0, done.stderr
    folder = project.results_of("exp3_gradients")
    summary = json.loads((folder / "summary.json").read_text())
    groups = {group["label"]: group for group in summary["groups"]}
    assert len(groups["BatchNormNet, gradients"]["gradients"]["parameters"]) == 18
    assert len(groups["BaselineNet, gradients"]["gradients"]["history"]["mean"]) == 2
    assert len(groups["BatchNormNet"]["mean"]["val_loss"]) == 1
    assert summary["candidates"] == ["BaselineNet", "BatchNormNet"]
    (pair,) = summary["comparisons"]
    assert (pair["label"], pair["minus"]) == ("BatchNormNet", "BaselineNet")
    assert len(list(project.results_of("exp1_lr").glob("runs/*"))) == 1  # shared with 1.1
    for name in ("gradients_DropoutNet", "gradients_compared", "gradients_by_epoch"):
        assert (folder / f"{name}.png").exists()


def test_initialisations_from_the_command_line(project):
    script = "exp4_init.py"
    project.edit(script, EPOCHS=2, SEEDS=[1], INITIALISATIONS=["kaiming", "zeros"])
    done = project.run("--quick", script=script)
    assert done.returncode == 0, done.stderr
    folder = project.results_of("exp4_init")
    summary = json.loads((folder / "summary.json").read_text())
    kaiming, zeros = summary["groups"]
    assert (kaiming["label"], kaiming["settings"]["initialisation"]) == ("kaiming", "kaiming")
    names, means = (zeros["gradients"]["parameters"], zeros["gradients"]["first_steps"]["mean"])
    moved = {name for name, mean in zip(names, means["mean"], strict=True) if mean}
    assert moved == {"fc2.bias"}  # as nothing else can have a gradient
    assert all(kaiming["gradients"]["first_steps"]["mean"]["mean"])
    for name in ("early", "gradients_first_steps", "test_accuracy", "zeros", "kaiming"):
        assert (folder / f"{name}.png").exists()
    page = (project.folder / "results/quick/README.md").read_text()
    zeros = "steps of zeros the gradients of 9 of 10 parameter tensors are exactly zero"
    assert zeros in page  # of all but fc2.bias
    assert "1 of 1 runs of zeros" in page  # learned nothing


def test_a_search_from_the_command_line(project):
    project.edit("exp4_search.py", EPOCHS=2, SEARCH_SEEDS=[11, 12, 13], SEEDS=[1, 2, 3])
    done = project.run("--quick", script="exp4_search.py")
    assert done.returncode == 0, done.stderr
    assert "runs     16, of which 0 are finished" in done.stdout
    assert "runs     6, of which 0 are finished" in done.stdout
    folder = project.results_of("exp4_search")
    summary = json.loads((folder / "summary.json").read_text())
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
    assert [(pair["label"], pair["minus"]) for pair in summary["comparisons"]] == [
        (labels[0], labels[1]),
        (labels[0], labels[2]),
        (labels[1], labels[2]),
    ]
    records = [json.loads(path.read_text()) for path in (folder / "runs").iterdir()]
    trained = [span[1] - span[0] for record in records for span in record["trained"]]
    assert len(records) == 22
    assert summary["seconds"] > sum(trained) / 4  # the search's own are counted
    for name in ("search", "best_so_far", "test_accuracy", "differences", "comparison"):
        assert (folder / f"{name}.png").exists()
    page = (project.folder / "results/quick/README.md").read_text()
    assert "A grid search of 4 runs finds" in page
    again = project.run("--quick", script="exp4_search.py")
    assert "16, of which 16 are finished" in again.stdout
    assert "6, of which 6 are finished" in again.stdout


def test_a_search_of_which_all_runs_diverge_is_written(project):
    """And beside it a setting that does not."""
    script = "exp4_search.py"
    project.edit(script, EPOCHS=1, SEARCH_SEEDS=[11], SEEDS=[1])
    project.edit(script, LEARNING_RATE_RANGE=[1e20, 1e22])
    done = project.run("--quick", script=script)
    assert done.returncode == 0, done.stderr
    folder = project.results_of("exp4_search")
    summary = json.loads((folder / "summary.json").read_text())
    assert [group["label"] for group in summary["groups"]] == ["untuned, lr=0.05, momentum=0"]
    assert summary["search"]["grid"]["winner"] is None
    assert (folder / "search.png").exists()
    assert (
        "In every grid search of 4 runs all diverged."
        in (project.folder / "results/quick/README.md").read_text()
    )
    # and not even that one
    project.edit(script, LEARNING_RATE=1e20)
    done = project.run("--quick", script=script)
    assert done.returncode == 0, done.stderr
    assert "none, as too many runs diverged" in done.stdout


@pytest.mark.parametrize(
    ("script", "constant", "value"),
    [
        ("exp1_scheduler.py", "DECAY_RATE", -1),
        ("exp1_scheduler.py", "STEP_EPOCHS", 0),
        ("exp1_scheduler.py", "STEP_EPOCHS", 50),
        ("exp2_transfer.py", "SEEDS", [1, 9]),
        ("exp3_gradients.py", "BATCH_SIZE", 19),
        ("exp2_dropout.py", "DROPOUT_RATES", [0, 1]),
        ("exp2_dropout.py", "LEARNING_RATE", 0),
        ("exp2_transfer.py", "SEEDS", []),
        ("exp2_transfer.py", "FINE_TUNING_DIVISOR", 1),
        ("exp3_gradients.py", "DROPOUT_RATE", 1.5),
        ("exp3_gradients.py", "PERFORMANCE_SEEDS", [1, 1]),
        ("exp4_init.py", "INITIALISATIONS", ["ones"]),
        ("exp4_search.py", "MOMENTUM_RANGE", [0.99, 0.85]),
        ("exp4_search.py", "SEARCH_SEEDS", [5, 6]),
    ],
)
def test_a_bad_constant_of_any_script_is_named(script, constant, value, project):
    line = one_line(project.edit(script, **{constant: value}).run("--quick", script=script))
    assert line.startswith(constant)


@pytest.mark.parametrize(
    ("script", "needed", "constant", "value"),
    [
        ("exp1_scheduler.py", "exp1_lr.py", "LEARNING_RATES", ["0.1"]),
        ("exp1_scheduler.py", "exp1_lr.py", "SEEDS", 5),
        ("exp1_scheduler.py", "exp1_lr.py", "SEEDS", []),
        ("exp1_scheduler.py", "exp1_lr.py", "EPOCHS", 0),
        ("exp2_transfer.py", "exp2_dropout.py", "DROPOUT_RATES", 0.5),
        ("exp2_transfer.py", "exp2_dropout.py", "DROPOUT_RATES", [0, "0.2"]),
        ("exp2_transfer.py", "exp2_dropout.py", "SEEDS", 5),
        ("exp2_transfer.py", "exp2_dropout.py", "SEEDS", [1, [2]]),
    ],
)
def test_a_bad_constant_of_a_script_that_another_needs_is_named(
    script, needed, constant, value, project
):
    line = one_line(project.edit(needed, **{constant: value}).run("--quick", script=script))
    assert line.startswith(constant)
    assert f"edit it at the top of {needed}" in line


def test_code_edited_between_two_sweeps_of_a_script_is_noticed(another):
    """exp1_scheduler.py sweeps twice: the two must not come from different code."""
    another.edit("exp1_scheduler.py", EPOCHS=3, SEEDS=[1, 2], STEP_EPOCHS=1)
    path = another.folder / "exp1_scheduler.py"
    text = path.read_text()
    before = "    fixed_best = best_label(fixed)\n"
    assert before in text
    edit = "    __import__('pathlib').Path('models.py').open('a').write('EDITED = 1')\n"
    path.write_text(text.replace(before, edit + before))
    assert "edited" in one_line(another.run("--quick", script="exp1_scheduler.py"))
    assert not (another.results_of("exp1_scheduler") / "summary.json").exists()


def test_figures_are_redrawn_without_training(another, finished):
    for path in another.results.glob("*.png"):
        path.unlink()
    shutil.rmtree(another.results / "runs")
    shutil.rmtree(another.results / "checkpoints")
    done = another.run(script="plots.py")
    assert done.returncode == 0
    for path in finished.results.glob("*.png"):
        assert (another.results / path.name).read_bytes() == path.read_bytes()


def test_plots_without_results_says_what_to_run(project):
    assert "python exp1_lr.py" in one_line(project.run(script="plots.py"))


def test_the_errors_of_any_finished_run(another):
    """A run that is not the best, by a part of its name and by its path."""
    path = next((another.results / "runs").glob("*lr=0.05_seed=2*"))
    before = {file: file.read_bytes() for file in another.results.glob("*.*")}
    done = another.run("--errors", "lr=0.05_seed=2", script="plots.py")
    assert done.returncode == 0, done.stderr
    figures = [
        another.results / "errors" / f"{path.stem}_{f}.png" for f in ("confusion", "mistakes")
    ]
    assert done.stdout.split() == [str(figure) for figure in figures]
    drawn = [figure.read_bytes() for figure in figures]
    assert all(content.startswith(b"\x89PNG") for content in drawn)
    for name in (str(path), f"./{path.relative_to(another.folder)}"):
        assert another.run("--errors", name, script="plots.py").stdout == done.stdout
    assert [figure.read_bytes() for figure in figures] == drawn
    assert {file: file.read_bytes() for file in another.results.glob("*.*")} == before


def test_errors_of_no_run_or_of_several_are_refused(another):
    names = [path.name for path in (another.results / "runs").iterdir()]
    line = one_line(another.run("--errors", "nonsense", script="plots.py"))
    assert "'nonsense'" in line
    assert all(f"results/quick/exp1_lr/runs/{name}" in line for name in names)
    line = one_line(another.run("--errors", "seed=2", script="plots.py"))
    assert "2 finished runs" in line
    assert [name in line for name in names] == ["seed=2" in name for name in names]
    path = next((another.results / "runs").glob("*lr=0.05_seed=2*"))
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"diverged_at_epoch": 1, "report": None}))
    assert "diverged" in one_line(another.run("--errors", path.name, script="plots.py"))
    path.write_text(path.read_text()[:300])
    assert "is damaged" in one_line(another.run("--errors", path.name, script="plots.py"))
    shutil.rmtree(another.results / "runs")
    assert "python exp1_lr.py" in one_line(another.run("--errors", "seed=2", script="plots.py"))


def test_the_help_of_the_figures(project):
    done = project.run("--help", script="plots.py")
    assert done.returncode == 0
    assert "--errors NAME" in done.stdout


def test_a_damaged_summary_is_named(another):
    (another.results / "summary.json").write_text("{")
    assert "summary.json is damaged" in one_line(another.run(script="plots.py"))


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        ("EPOCHS", 0),
        ("EPOCHS", "50"),
        ("BATCH_SIZE", -1),
        ("BATCH_SIZE", 2_000),
        ("SEEDS", []),
        ("SEEDS", [1, 1]),
        ("SEEDS", 5),
        ("LEARNING_RATES", [0.1, -0.05]),
        ("LEARNING_RATES", [0.1, 0]),
        ("LEARNING_RATES", ["0.1"]),
        ("SMOOTHING_WINDOW", 2.5),
    ],
)
def test_a_bad_constant_is_named(constant, value, another):
    before = {path: path.read_bytes() for path in another.results.glob("**/*.*")}
    line = one_line(another.edit(**{constant: value}).run("--quick"))
    assert line.startswith(constant)
    assert {path: path.read_bytes() for path in another.results.glob("**/*.*")} == before


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "cpu:1", ""])
def test_an_unknown_device_is_named(device, project):
    line = one_line(project.run("--quick", "--device", device))
    assert f"--device {device}" in line
    assert "cpu" in line


def test_results_that_cannot_be_written_are_named(project):
    (project.folder / "results").write_text("a file, where the folder should be")
    assert "results" in one_line(project.run("--quick"))


def test_missing_data_names_the_rehearsal(project):
    project.environment["CIFAR10_URL"] = "http://127.0.0.1:9/cifar.tar.gz"
    done = project.run()
    line = one_line(done)
    assert "python exp1_lr.py --quick" in line
    assert "CIFAR10_DIR" in line


def test_a_wrong_data_folder_is_named(project, tmp_path):
    project.environment["CIFAR10_DIR"] = str(tmp_path)
    assert f"CIFAR10_DIR={tmp_path}" in one_line(project.run())


def test_on_real_cifar10(project, cifar10):
    """One epoch of one run on the real data: the command as it is meant."""
    project.environment["CIFAR10_DIR"] = str(cifar10_root())
    done = project.edit(EPOCHS=1, SEEDS=[1], LEARNING_RATES=[0.1]).run()
    assert done.returncode == 0, done.stderr
    assert "CIFAR-10 in" in done.stdout
    assert re.search(r"time     about \d+ (seconds|minutes), at [\d,]+ images/s", done.stderr)
    summary = json.loads((project.folder / "results/exp1_lr/summary.json").read_text())
    assert summary["rehearsal"] is False
    assert summary["groups"][0]["mean"]["train_accuracy"][0] > 0.25
    assert summary["groups"][0]["runs"][0]["report"]["airplane"]["support"] == 1000
    assert "REHEARSAL" not in (project.folder / "results/exp1_lr/table.md").read_text()
