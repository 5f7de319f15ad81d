"""Sweeps that are killed, interrupted, damaged and shared, and what they say on their way."""

import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import Lab, Rehearsal
from made_up import made_up
from project import SMALL, Project, children, files, one_line, summary, wait_until, workers

import data
import exp1_lr
from lab import sweep
from lab.checks import UserError
from lab.store import Store
from lab.sweep import Progress
from train import Run

MANY_RUNS = {"EPOCHS": 10, "SEEDS": [1, 2], "LEARNING_RATES": [0.1, 0.09, 0.08, 0.07, 0.06]}


@pytest.fixture
def quiet(project: Project) -> Project:
    """A project of the small constants that draws nothing."""
    return project.without_figures()


@pytest.fixture
def again(
    quiet: Project, a_lab: Lab, no_figures: None, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """A function that starts the project's sweep once more, in this process; what it prints."""

    def start(**constants: object) -> str:
        a_lab.monkeypatch.setenv("RESULTS_DIR", str(quiet.folder / "results"))
        capfd.readouterr()
        assert a_lab.edit(exp1_lr, **SMALL).edit(exp1_lr, **constants).run(exp1_lr, "--quick") == 0
        return "".join(capfd.readouterr())

    return start


def keep_every_epoch(project: Project) -> Project:
    """Keeps a checkpoint after every epoch, not every ten seconds."""
    path = project.folder / "lab" / "records.py"
    text = path.read_text()
    assert "CHECKPOINT_SECONDS = 10.0" in text
    path.write_text(text.replace("CHECKPOINT_SECONDS = 10.0", "CHECKPOINT_SECONDS = 0"))
    return project


def records(root: Path) -> dict[str, int]:
    return {name: t for name, t in files(root, "runs").items() if name.endswith(".json")}


@pytest.fixture(scope="module")
def uninterrupted(rehearse: Callable[..., Rehearsal]) -> Callable[..., dict]:
    """A function that gives the summary of a sweep with these constants that nobody disturbed."""

    def run(constants: dict) -> dict:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lab.figures.save", lambda found, folder: [])
            return summary(rehearse(exp1_lr, **constants).root / "quick")

    return run


# killed and interrupted


@pytest.mark.slow
def test_sweep_killed_at_any_moment_goes_on(
    quiet: Project, again: Callable[..., str], rehearsed: Path
) -> None:
    """SIGKILL for the command alone, whose workers die with it; then for all its processes."""
    process = keep_every_epoch(quiet).start("--quick")
    wait_until(lambda: epochs_kept(quiet) >= 1, process)
    training = workers(process.pid)
    assert len(training) == min(2, len(os.sched_getaffinity(0)))
    family = [*children(process.pid), *training]
    process.kill()
    process.wait()
    wait_until_gone(family)
    assert not records(quiet.results)
    process = quiet.start("--quick")
    wait_until(lambda: bool(records(quiet.results)), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = records(quiet.results)
    again()
    assert finished.items() <= records(quiet.results).items()  # nothing was trained twice
    assert summary(quiet.results) == summary(rehearsed / "quick")
    found = [json.loads(path.read_text()) for path in quiet.results.glob("runs/*.json")]
    assert max(len(record["trained"]) for record in found) >= 2  # it did go on from a checkpoint
    assert not list(quiet.folder.glob("**/*.damaged"))


def epochs_kept(project: Project) -> int:
    """How many epochs the furthest checkpoint holds."""
    kept = [0]
    for path in project.results.glob("checkpoints/*.pt"):
        kept.append(len(torch.load(path, weights_only=True)["curves"]["train_loss"]))
    return max(kept)


@pytest.mark.slow
@pytest.mark.endurance
def test_sweep_killed_at_fifty_random_moments_loses_nothing(
    quiet: Project, uninterrupted: Callable[..., dict]
) -> None:
    """From the first import to the report, again and again until it has been killed fifty times."""
    keep_every_epoch(quiet).edit(**MANY_RUNS)
    expected = uninterrupted(MANY_RUNS)
    moments, kills, ends = random.Random(1), 0, 0
    finished: dict[str, int] = {}
    while kills < 50:
        process = quiet.start("--quick")
        try:
            out, err = process.communicate(timeout=moments.uniform(0, 20))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        else:  # it came to its end first: from the beginning, for the kills that are left
            assert process.returncode == 0, out + err
            assert summary(quiet.results) == expected
            shutil.rmtree(quiet.folder / "results")
            finished, ends = {}, ends + 1
        assert finished.items() <= records(quiet.results).items()
        finished = records(quiet.results)
        for path in quiet.results.glob("runs/*.json"):
            json.loads(path.read_text())  # whole
    done = quiet.run("--quick")
    assert done.returncode == 0, done.stderr
    assert finished.items() <= records(quiet.results).items()
    assert summary(quiet.results) == expected
    assert not list(quiet.folder.glob("**/*.damaged"))


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie, which waits for a parent that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_interrupted_sweep_says_what_is_kept(quiet: Project) -> None:
    """With most of the sweep still to do, so that waiting for a run or an epoch would be seen."""
    many = {"EPOCHS": 1, "LEARNING_RATES": [rate / 100 for rate in range(1, 16)]}
    process = quiet.edit(**many).start("--quick")
    wait_until(lambda: bool(records(quiet.results)), process)
    family = [*children(process.pid), *workers(process.pid)]
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    process.wait(timeout=5)  # well under a second, but for a busy machine
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in out + err
    (line,) = [line for line in err.splitlines() if "stopped" in line]
    found = re.search(r"stopped: (\d+) of 30 runs are finished.*same command goes on", line)
    assert int(found[1]) == len(records(quiet.results))
    wait_until_gone(family)


def wait_until_gone(family: list[int]) -> None:
    deadline = time.monotonic() + 30  # the server ends last
    while any(map(is_alive, family)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_sigterm_is_answered_like_ctrl_c(
    a_lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sent to this process as soon as a run has begun."""
    reported = Progress.progress

    def terminated(*words: object) -> None:
        reported(*words)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Progress, "progress", terminated)
    assert a_lab.edit(exp1_lr, **MANY_RUNS).run(exp1_lr, "--quick") == 130
    lines = [line for line in capsys.readouterr().err.splitlines() if "stopped" in line]
    assert len(lines) == 1
    assert lines[0].startswith("stopped: 0 of 10 runs are finished and kept")


@pytest.mark.slow
def test_ctrl_c_while_workers_start_is_not_lost(quiet: Project) -> None:
    process = quiet.edit(**MANY_RUNS).start("--quick")
    for line in process.stdout:
        if line.startswith("data "):
            break
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=10)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in out + err
    assert "stopped: 0 of 10 runs" in err


@pytest.mark.slow
def test_worker_that_dies_is_named_and_the_others_go_on(
    quiet: Project, again: Callable[..., str], rehearsed: Path
) -> None:
    process = quiet.start("--quick", "--device", "cpu")
    wait_until(lambda: bool(quiet.files("checkpoints")), process)
    victim = max(workers(process.pid))
    os.kill(victim, signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    done = subprocess.CompletedProcess([], process.returncode, out, err.splitlines()[-1])
    assert re.search(rf"process {victim} died .*SIGKILL.*start again", one_line(done))
    assert len(records(quiet.results)) >= 2
    again()
    assert summary(quiet.results) == summary(rehearsed / "quick")


# side by side


@pytest.mark.slow
def test_two_sweeps_side_by_side_share_the_work(
    quiet: Project, again: Callable[..., str], rehearsed: Path
) -> None:
    """One of them a command of its own, the other in this process."""
    process = quiet.start("--quick")
    out = again()
    first = process.communicate(timeout=200)
    assert process.returncode == 0, first
    assert summary(quiet.results) == summary(rehearsed / "quick")
    assert len(records(quiet.results)) == 4
    lines = [line for text in (*first, out) for line in text.splitlines()]
    finished = [line.split(":")[0] for line in lines if line.startswith("finished ")]
    assert len(finished) == len(set(finished)) == 4  # each run is trained by one of them
    assert not list(quiet.folder.glob("**/*.partial"))
    assert not list(quiet.folder.glob("**/*.damaged"))


@pytest.mark.slow
def test_sweep_waits_for_a_run_that_another_one_trains(
    finished: Lab, no_figures: None, capsys: pytest.CaptureFixture[str]
) -> None:
    root = finished.root / "quick"
    run = sweep_runs()[-1]
    store = Store(root)
    record, weights = store.load_record(run), store.load_weights(run)
    store.find_record(run)[0].unlink()
    released = threading.Event()

    def train_elsewhere() -> None:
        with store.claim(run) as claimed:
            assert claimed
            released.set()
            time.sleep(2)
            store.save(run, record, weights)

    other = threading.Thread(target=train_elsewhere)
    other.start()
    released.wait()
    assert finished.run(exp1_lr, "--quick") == 0
    other.join()
    printed = capsys.readouterr()
    assert "waiting for 1 runs that another process on this folder is training" in printed.out
    assert printed.out.count("device ") == 1  # no worker is started once all is finished
    assert "finished " not in printed.err


def sweep_runs() -> list[Run]:
    groups = exp1_lr.lab.experiment.rehearsal(exp1_lr.runs())
    return [run for group in groups.values() for run in group]


# damage, and edits of the code


@pytest.mark.slow
def test_damaged_files_are_named_and_trained_again(
    finished: Lab, rehearsed: Path, no_figures: None, capfd: pytest.CaptureFixture[str]
) -> None:
    root = finished.root / "quick"
    run = next(root.glob("runs/*lr=0.1_seed=1*.json"))
    checkpoint = next(root.glob("checkpoints/*lr=0.1_seed=1*"))
    for path in (run, checkpoint):
        path.write_bytes(path.read_bytes()[:300])
    assert finished.run(exp1_lr, "--quick") == 0
    said = "".join(capfd.readouterr())
    for path in (run, checkpoint):
        assert f"{path.name} is damaged" in said
        assert path.with_name(path.name + ".damaged").exists()
    assert summary(root) == summary(rehearsed / "quick")


@pytest.mark.slow
def test_code_edited_while_workers_start_is_noticed(
    a_lab: Lab,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Their numbers would come from other code than the one that names their files."""
    now = sweep.provenance.text_of

    def older(name: str) -> str | None:
        return now(name) + "OLDER = 1\n" if name == "train.py" else now(name)

    monkeypatch.setattr("lab.provenance.text_of", older)
    sweep.provenance._fingerprint.cache_clear()
    request.addfinalizer(sweep.provenance._fingerprint.cache_clear)
    line = refused(a_lab.edit(exp1_lr, **SMALL), exp1_lr, "--quick")
    assert line == "the code that decides numbers was edited meanwhile: start again"
    assert not files(a_lab.root / "quick", "runs")


@pytest.mark.slow
def test_code_edited_between_two_sweeps_of_a_script_is_noticed(
    quiet: Project, rehearsed: Path
) -> None:
    """exp1_scheduler.py sweeps twice: the two must not come from different code."""
    shutil.copytree(rehearsed, quiet.folder / "results")
    quiet.edit("exp1_scheduler.py", EPOCHS=2, SEEDS=[1, 2], STEP_EPOCHS=1)
    edit = "    __import__('pathlib').Path('train.py').open('a').write('EDITED = 1')\n"
    quiet.insert("exp1_scheduler.py", "    best = best_label(fixed)\n", edit)
    done = quiet.run("--quick", script="exp1_scheduler.py")
    assert "4, of which 4 are finished" in done.stdout
    assert "edited" in one_line(done)
    assert not (quiet.results / "exp1_scheduler" / "summary.json").exists()


@pytest.mark.slow
def test_diverged_source_stops_the_runs_that_start_from_it(
    store: Store, a_run: Callable[..., Run]
) -> None:
    source = a_run(learning_rate=1e20, epochs=1)
    with pytest.raises(UserError, match=r"lr=1e\+20_seed=1 diverged, so that no run can start"):
        sweep.train([a_run(start=source)], store, "cpu")


def test_start_from_other_layers_is_refused_before_the_source_is_trained(
    store: Store, a_run: Callable[..., Run]
) -> None:
    with pytest.raises(UserError, match=r"^start is a run of BaselineNet of width 8"):
        sweep.train([a_run(start=a_run(width=8))], store, "cpu")
    assert files(store.root, "runs") == {}


# what is said on the way


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time of the progress, in seconds, to be set."""
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    yield now


def test_time_left_is_counted_in_epochs(
    a_run: Callable[..., Run], clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (a_run(seed=seed, epochs=300) for seed in (1, 2))
    progress = Progress([one, other])
    progress.progress(one, 0.0, 64, None)
    clock[0] = 9.0
    progress.progress(one, 90.0, 64, 0.5)
    progress.close()
    # 90 epochs in 9 s; 510 are left, at 10 a second, of 64 images each
    line = capsys.readouterr().err.splitlines()[0]
    assert re.search(r"^ 15%.* 90\.0/600\.0 epochs \[00:09<00:51, 640 images/s, 1 at once", line)


def test_progress_of_a_checkpoint_is_no_work_of_this_sweep(
    a_run: Callable[..., Run], clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    run = a_run(epochs=300)
    progress = Progress([run])
    progress.progress(run, 200.0, 64, None)  # where it goes on
    clock[0] = 10.0
    progress.progress(run, 210.0, 64, 0.5)
    said = capsys.readouterr().err
    assert re.search(r"^ 10%.* 10\.0/100\.0 epochs \[00:10<01:30, 64 images/s", said)
    progress.close()


def test_progress_line_shows_the_last_validation_accuracy(
    a_run: Callable[..., Run], clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    run = a_run(epochs=4)
    progress = Progress([run])
    progress.progress(run, 0.0, 64, None)
    for seconds in (4.0, 5.0, 6.0, 40.0):  # after three seconds, then every half minute
        clock[0] = seconds
        progress.progress(run, 1.5, 64, 0.625)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert re.search(r"1\.5/4\.0 epochs .*epoch 2/4 of .*seed=1, validation 62\.5%", line)


@pytest.mark.parametrize("terminal", [True, False])
def test_each_finished_run_leaves_one_line(
    terminal: bool, a_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal and in a log alike; where another process trained it, that one says so."""
    sound, lost, elsewhere = (a_run(seed=seed, epochs=4) for seed in (1, 2, 3))
    progress = Progress([sound, lost, elsewhere])
    progress.terminal = terminal
    for run in (sound, lost):
        progress.progress(run, 0.0, 64, None)
    record = made_up(sound, val_accuracy=0.625, test_accuracy=0.59995)
    progress.finished(sound, record)
    progress.finished(lost, made_up(lost, diverged_at=2))
    progress.finished(elsewhere, None)
    said = re.split(r"[\r\n]", capsys.readouterr().err)
    progress.close()
    lines = [line for line in said if line.startswith(("finished", "diverged"))]
    assert lines == [
        "finished BaselineNet_lr=0.05_seed=1: validation 62.50%, test 59.99%",
        "diverged BaselineNet_lr=0.05_seed=2 in epoch 3",
    ]


def test_bar_counts_what_this_sweep_trains(a_run: Callable[..., Run]) -> None:
    """Not what others had finished; but what it takes over of theirs, from where that begins."""
    elsewhere, here, taken = (a_run(seed=seed, epochs=10) for seed in (1, 2, 3))
    progress = Progress([elsewhere, here])
    progress.finished(elsewhere, None)
    progress.progress(here, 0.0, 64, None)
    progress.progress(here, 4.0, 64, None)
    assert "4.0/10.0 epochs" in str(progress.bar)
    progress.progress(taken, 2.0, 64, None)
    progress.progress(taken, 7.0, 64, None)
    assert "9.0/18.0 epochs" in str(progress.bar)
    progress.progress(taken, 4.0, 64, None)  # a replaced worker goes back to its checkpoint
    assert "6.0/18.0 epochs" in str(progress.bar)
    progress.progress(taken, 10.0, 64, None)
    progress.finished(taken, made_up(taken))
    progress.progress(here, 10.0, 64, None)
    progress.finished(here, made_up(here))
    assert "100%" in str(progress.bar)
    assert "18.0/18.0 epochs" in str(progress.bar)
    progress.close()


def test_bar_is_full_at_the_end_whatever_diverged(a_run: Callable[..., Run]) -> None:
    """A run that diverges leaves epochs out, in the midst of one."""
    runs = [a_run(seed=seed, epochs=10) for seed in range(5)]
    progress = Progress(runs)
    for run in runs:
        progress.progress(run, 0.0, 64, None)
        progress.progress(run, 2.9, 64, None)
        progress.finished(run, made_up(run, diverged_at=2))
    assert "100%" in str(progress.bar)
    assert "14.5/14.5 epochs" in str(progress.bar)
    progress.close()


def test_bar_of_a_run_that_only_lacked_its_record(a_run: Callable[..., Run]) -> None:
    run = a_run(epochs=10)
    progress = Progress([run])
    progress.progress(run, 10.0, 64, 0.5)
    assert "0.0/0.0 epochs" in str(progress.bar)
    progress.finished(run, made_up(run))
    progress.close()


@pytest.mark.slow
def test_rehearsal_says_each_finished_run_once(rehearsal_of_1_1: Rehearsal) -> None:
    lines = [x for x in rehearsal_of_1_1.err.splitlines() if x.startswith("finished ")]
    labels = itertools.product(SMALL["LEARNING_RATES"], SMALL["SEEDS"])
    expected = {f"finished BaselineNet_lr={rate}_seed={seed}" for rate, seed in labels}
    assert {line.split(":")[0] for line in lines} == expected
    assert len(lines) == 4
    for line in lines:
        assert re.search(r": validation \d+\.\d\d%, test \d+\.\d\d%$", line)


def test_one_gpu_for_all_processes_of_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="cuda:1: torchrun gives every process a GPU of its own"):
        sweep.worker_devices("cuda:1", 25)


def test_record_that_is_moved_away_at_the_end_is_one_line(
    store: Store, a_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "is_finished", lambda run, weights=False: True)
    with pytest.raises(UserError, match="were moved or damaged meanwhile: start again"):
        sweep.train([a_run()], store, "cpu")


def test_there_are_as_many_workers_as_cores_or_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert sweep.worker_devices("cpu", 25) == ["cpu"] * 8
    assert sweep.worker_devices("cpu", 3) == ["cpu"] * 3
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for device in (None, "cuda", "cuda:1"):  # as with a driver that is too old for this torch
        with pytest.raises(UserError, match=r"^torch .* cannot use the GPU: update its driver, "):
            sweep.worker_devices(device, 25)
    assert sweep.worker_devices("cpu", 3) == ["cpu"] * 3
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert sweep.worker_devices(None, 25) == ["cuda:0", "cuda:1"]
    assert sweep.worker_devices(None, 1) == ["cuda:0"]
    assert sweep.worker_devices("cuda:1", 25) == ["cuda:1"]


def test_a_worker_reports_now_and_then_and_at_the_end(
    a_run: Callable[..., Run], digits: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 0, 0.4, 0.6, 1.0 and 1.2 seconds, of which one in half a second is passed on."""
    sent, clock = [], iter([0.0, 0.4, 0.6, 1.0, 1.2])
    monkeypatch.setattr(sweep.time, "monotonic", lambda: next(clock))
    training = sweep.Training(a_run(epochs=1), digits)
    reporter = sweep.Reporter(sent.append)
    for done in (0.1, 0.2, 0.3, 0.4, 0.5):
        reporter.progress(training, done)
    assert [words[2] for words in sent] == [0.1, 0.3, 0.5]
    monkeypatch.setattr(sweep.time, "monotonic", lambda: 1.3)
    reporter.progress(training, 1.0)
    assert sent[-1] == ("progress", training.run, 1.0, 1_350, None)
