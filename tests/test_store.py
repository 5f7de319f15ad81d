"""The results folder: whole files, damaged files, claims, and the code that decides numbers."""

import hashlib
import io
import json
import math
import multiprocessing
import os
import pickle
import resource
import shutil
from pathlib import Path

import pytest
import torch

import store as store_module
import train
from errors import UserError
from store import Store, code_fingerprint, write


@pytest.fixture
def said(tmp_path):
    return []


@pytest.fixture
def kept(a_run, digits, tmp_path, said):
    """A store with one finished run, and that run."""
    store, run = Store(tmp_path / "results", "exp", said.append), a_run(epochs=1)
    train.train([run], digits, store)
    return store, run


def files(store: Store, kind: str) -> list[Path]:
    return sorted(store.root.glob(f"*/{kind}/*"))


def test_a_finished_run_is_found_from_every_experiment(kept, a_run):
    store, run = kept
    other = Store(store.root, "another")
    assert other.load_result(run) == store.load_result(run)
    assert other.load_result(run)["run"]["learning_rate"] == 0.05
    assert other.load_weights(run).keys() == store.load_weights(run).keys()
    assert other.load_result(a_run(seed=2)) is None


def test_a_record_says_what_it_was_trained_with(kept):
    store, run = kept
    result = store.load_result(run)
    assert result["environment"]["torch"] == torch.__version__
    assert result["environment"]["device"].startswith("cpu (")
    assert set(result["environment"]) == {"torch", "python", "device", "git_commit", "git_dirty"}
    assert result["code"] == code_fingerprint()
    (span,) = result["trained"]
    assert span[0] < span[1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"\xff\x00" * 100,
        lambda content: content.replace(b'"seed": 1', b'"seed": 2'),
        lambda content: json.dumps(json.loads(content) | {"val_loss": []}).encode(),
        lambda content: json.dumps(json.loads(content) | {"val_loss": [None]}).encode(),
        lambda content: json.dumps([1]).encode(),
        lambda content: content.replace(b'"test_loss"', b'"test_los_"'),
    ],
)
def test_a_damaged_run_file_is_named_and_set_aside(damage, kept, said):
    store, run = kept
    (path,) = files(store, "runs")
    path.write_bytes(damage(path.read_bytes()))
    broken = path.read_bytes()
    assert store.load_result(run) is None
    assert len(said) == 1
    assert path.name in said[0]
    assert "\n" not in said[0]
    assert path.with_name(path.name + ".damaged").read_bytes() == broken
    assert not path.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"nonsense",
        lambda content: content[:1_000],
        lambda content: content[:5_000],
        lambda content: content[:100_000] + bytes([content[100_000] ^ 1]) + content[100_001:],
    ],
)
def test_a_damaged_checkpoint_is_named_and_set_aside(damage, kept, said, a_run):
    store, run = kept
    (path,) = files(store, "checkpoints")
    path.write_bytes(damage(path.read_bytes()))
    assert store.load_checkpoint(a_run(epochs=2)) is None
    assert len(said) == 1
    assert path.name in said[0]
    assert path.with_name(path.name + ".damaged").exists()
    assert store.load_weights(run) is None


def test_a_checkpoint_cannot_run_code(kept, tmp_path):
    store, run = kept
    (path,) = files(store, "checkpoints")

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "evil"),))

    buffer = io.BytesIO()
    torch.save({"network": Evil()}, buffer)
    content = buffer.getvalue()
    path.write_bytes(content + hashlib.sha256(content).digest())
    with pytest.raises(pickle.UnpicklingError):
        store.load_checkpoint(run)
    assert not (tmp_path / "evil").exists()


def test_a_checkpoint_of_another_run_is_not_taken(kept, a_run, said):
    store, run = kept
    (path,) = files(store, "checkpoints")
    other = a_run(epochs=1, seed=2)
    path.rename(path.with_name(path.name.replace(run.trajectory, other.trajectory)))
    assert store.load_weights(other) is None
    assert "belongs to another run" in said[0]


def test_a_checkpoint_can_be_opened_with_torch_alone(kept):
    store, run = kept
    (path,) = files(store, "checkpoints")
    weights = torch.load(path, weights_only=True)["network"]
    assert torch.equal(weights["fc2.bias"], store.load_weights(run)["fc2.bias"])


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "file.json"
    write(path, b"first")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(UserError, match=r"file\.json: No space left.*kept"):
        write(path, b"second")
    assert path.read_bytes() == b"first"
    assert os.listdir(path.parent) == ["file.json"]


def test_a_full_disk_is_one_line_and_loses_nothing(kept, a_run, digits):
    store, _run = kept
    before = {path: path.read_bytes() for path in store.root.glob("*/*/*")}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))  # no file may grow further
    try:
        with pytest.raises(UserError, match=r"cannot write .*kept"):
            train.train([a_run(epochs=1, seed=2)], digits, store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path: path.read_bytes() for path in store.root.glob("*/*/*")} == before


def test_a_results_folder_that_cannot_be_is_one_line(tmp_path, a_run, digits):
    (tmp_path / "results").write_text("a file, where the folder should be")
    store = Store(tmp_path / "results", "exp")
    with pytest.raises(UserError, match="cannot write"):
        train.train([a_run(epochs=1)], digits, store)
    with pytest.raises(UserError, match="cannot write"), store.claim(a_run()):
        pass


def hold(root, run, ready, done):
    with Store(root, "exp").claim(run) as mine:
        ready.send(mine)
        done.recv()


def test_only_one_process_holds_a_run_and_death_frees_it(store, a_run):
    context = multiprocessing.get_context("spawn")
    ready, theirs = context.Pipe()
    done, waiting = context.Pipe()
    holder = context.Process(target=hold, args=(store.root, a_run(), theirs, waiting))
    holder.start()
    assert ready.recv() is True
    with store.claim(a_run()) as mine:
        assert not mine
    with store.claim(a_run(seed=2)) as mine:
        assert mine
    holder.kill()
    holder.join()
    with store.claim(a_run()) as mine:
        assert mine
    done.close()


def test_partial_files_of_killed_processes_go(store):
    old, new = (store.folder / "runs" / f"{name}.json.1.partial" for name in ("old", "new"))
    write(old, b"")
    write(new, b"")
    os.utime(old, (0, 0))
    Store(store.root, "exp")
    assert not old.exists()
    assert new.exists()


def test_replacing_moves_and_keeps(kept, a_run):
    store, run = kept
    (path,) = files(store, "runs")
    content = path.read_bytes()
    store.replace([a_run(seed=2)])
    assert store.load_result(run) is not None
    store.replace([run])
    assert store.load_result(run) is None
    assert store.load_checkpoint(run) is None
    (moved,) = store.root.glob("*/replaced/*/*.json")
    assert moved.read_bytes() == content


def test_replacing_takes_the_checkpoints_of_other_lengths_too(kept, a_run):
    store, run = kept
    longer = a_run(epochs=5)
    assert store.load_checkpoint(longer) is not None
    store.replace([longer])
    assert store.load_checkpoint(longer) is None
    assert store.load_result(run) is not None


def test_what_another_process_trains_is_not_replaced(kept, a_run):
    store, run = kept
    held = a_run(seed=2)
    with store.claim(held), pytest.raises(UserError, match="another process is training"):
        Store(store.root, "exp").replace([run, held])
    assert store.load_result(run) is not None


def test_a_run_trained_again_for_its_weights_keeps_its_record(kept, digits):
    store, run = kept
    first = store.load_result(run)
    assert store.is_finished(run, weights=True)
    for path in files(store, "checkpoints"):
        path.unlink()
    assert store.is_finished(run)
    assert not store.is_finished(run, weights=True)
    train.train([run], digits, store)
    assert store.is_finished(run, weights=True)
    assert store.load_result(run) == first


def test_a_run_that_diverges_when_trained_again_is_finished_all_the_same(kept, digits, monkeypatch):
    store, run = kept
    for path in files(store, "checkpoints"):
        path.unlink()
    monkeypatch.setattr(train, "train_epoch", lambda *_: (math.nan, 0.0))
    train.train([run], digits, store)
    assert store.load_result(run)["diverged_at_epoch"] == 0
    assert store.is_finished(run, weights=True)


def test_older_code_is_not_mixed_and_not_lost(kept, a_run):
    store, run = kept
    newer = Store(store.root, "exp", code="00000000")
    assert newer.load_result(run) is None
    assert newer.load_checkpoint(run) is None
    assert newer.older_code([run, a_run(seed=2)]) == 1
    assert store.older_code([run, a_run(seed=2)]) == 0
    assert store.load_result(run) is not None


@pytest.fixture
def code(tmp_path):
    """A copy of the code that decides numbers, and a function to edit it."""
    for name in store_module.CODE_THAT_DECIDES_NUMBERS:
        shutil.copy(store_module.HERE / name, tmp_path)

    def edit(name, old, new):
        text = (tmp_path / name).read_text()
        assert old in text
        (tmp_path / name).write_text(text.replace(old, new, 1))
        return code_fingerprint(tmp_path)

    return edit


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("models.py", "2 * width, 3, padding=1)", "2 * width, 3, padding=0)"),
        ("models.py", "F.relu(self.fc1", "F.gelu(self.fc1"),
        ("data.py", "SPLIT_SEED = 0", "SPLIT_SEED = 1"),
        ("data.py", ".sub_(0.5)", ".sub_(0.49)"),
        ("train.py", "optimizer.zero_grad()", "pass"),
        ("gradients.py", "WINDOW = 5", "WINDOW = 6"),
        ("engine.py", "value=-1)", "value=-2)"),
    ],
)
def test_an_edit_that_decides_numbers_is_noticed(name, old, new, code):
    assert code(name, old, new) != code_fingerprint()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("models.py", "import torch\n", "# the networks\nimport torch\n"),
        ("models.py", '"""BaselineNet with dropout', '"""A BaselineNet with dropout'),
        ("data.py", "SPLIT_SEED = 0", "SPLIT_SEED  =  0  # the seed of the split"),
        ("train.py", '"""Training: from a run', '"""How training goes: from a run'),
    ],
)
def test_an_edit_of_a_comment_costs_nothing(name, old, new, code):
    assert code(name, old, new) == code_fingerprint()
