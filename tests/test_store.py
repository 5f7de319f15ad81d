"""The results folder: names, whole files, damaged files, claims, and the code of a run."""

import dataclasses
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
from test_train import CHANGED, PUBLISHED, numbers, train_and_load

import data
import lab.store
import models
import train
from lab import provenance
from lab.checks import UserError
from lab.records import run_of, settings_of
from lab.store import Store, digest, label, write

NO_FINGERPRINT = "00000000"


@pytest.fixture(scope="module")
def trained_once(digits, tmp_path_factory) -> Path:
    """A results folder with one finished run: a_run(epochs=1)."""
    root = tmp_path_factory.mktemp("kept") / "results"
    run = train.Run(
        network="BaselineNet",
        seed=1,
        learning_rate=0.05,
        epochs=1,
        batch_size=64,
        split="standard",
        dataset="digits",
    )
    train_and_load(run, digits, Store(root))
    return root


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def kept(a_run, trained_once, tmp_path, said):
    """A store with one finished run, and that run."""
    shutil.copytree(trained_once, tmp_path / "results")
    return Store(tmp_path / "results", said.append), a_run(epochs=1)


def the_file(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


# Names


def test_every_field_is_part_of_the_name(a_run):
    base = a_run(network="DropoutNet")
    changed = [dataclasses.replace(base, **{field: value}) for field, value in CHANGED.items()]
    names = {f"{digest(run)}_epochs={run.epochs}" for run in [base, *changed]}
    assert len(names) == len(CHANGED) + 1


def test_the_hash_of_every_published_run_is_that_of_its_file_name():
    """Made by older code: no field's name, default or form may ever change a hash."""
    paths = sorted(PUBLISHED.glob("*.json"))
    assert len(paths) >= 60
    for path in paths:
        run = run_of(json.loads(path.read_text())["run"])
        assert f"_seed={run.seed}_{digest(run)}_epochs={run.epochs}_code=" in path.name, path.name


def test_the_hash_of_known_runs_is_pinned(a_run):
    study = {"dataset": "cifar10", "epochs": 50}
    assert digest(a_run(**study, learning_rate=0.01)) == "9878691cf6"
    assert digest(a_run(**study, learning_rate=0.01, drop_last=False)) == "9878691cf6"
    assert digest(a_run(**study, learning_rate=0.1, seed=5)) == "c23e4b0a5b"
    halves = {"network": "DropoutNet", "split": "halves"}
    assert digest(a_run(**study, **halves, seed=5)) == "cd12eb554c"
    assert digest(a_run(**study, **halves, dropout_rate=0.2)) == "b7f13d3aa3"
    rates = [0.1 / (1 + 0.25 * epoch) for epoch in range(50)]
    assert digest(a_run(**study, learning_rate=rates)) in ("5786776487", "d2bc170801")


def test_runs_of_different_length_share_a_hash(a_run):
    assert digest(a_run(epochs=2)) == digest(a_run(epochs=9))
    assert digest(a_run(seed=1)) != digest(a_run(seed=2))
    watched = [digest(a_run(epochs=epochs, gradient_statistics=True)) for epochs in (2, 9)]
    assert watched[0] != watched[1]


@pytest.mark.parametrize("field", CHANGED)
def test_a_files_name_says_every_field_that_is_not_at_the_studys_value(field, a_run, store):
    base = a_run(network="DropoutNet", dataset="digits")
    changed = dataclasses.replace(base, **{field: CHANGED[field]})
    if field == "dataset":  # digits are the data of rehearsals, which have a folder of their own
        own = "dataset=own" in label(pretend(base, dataset="own"))
        assert own
        assert label(changed) == label(base)
        return
    names = [store.stem(run, "c", None).replace(digest(run), "") for run in (base, changed)]
    assert names[0] != names[1]


def pretend(run, **fields):
    """A run with values that it would refuse."""
    run = dataclasses.replace(run)
    for name, value in fields.items():
        object.__setattr__(run, name, value)
    return run


def test_a_label_is_made_of_the_network_its_rate_and_what_differs(a_run):
    base = {"seed": 7, "learning_rate": 0.05, "epochs": 3}
    assert label(a_run(**base)) == "BaselineNet_lr=0.05_seed=7"
    tuned = a_run(**base, momentum=0.9123456789, weight_decay=1e-4, augmentation=("flip", "crop"))
    assert label(tuned) == (
        "BaselineNet_lr=0.05_momentum=0.912346_weight-decay=0.0001_augmentation=flip+crop_seed=7"
    )
    frozen = a_run(**base, start=a_run(), frozen=("conv1", "conv2"), reinitialised=("fc1",))
    assert label(frozen) == (
        "BaselineNet_lr=0.05_retrained_reinitialised=fc1_frozen=conv1+conv2_seed=7"
    )
    small = a_run(**base, initialisation="small uniform", width=8, overfit_images=1)
    assert label(small) == (
        "BaselineNet_lr=0.05_width=8_initialisation=small-uniform_overfit-images=1_seed=7"
    )
    other = {"network": "DropoutNet", "dropout_rate": 0.4, "drop_last": True}
    assert label(a_run(**base, **other, split="swapped halves")) == (
        "DropoutNet_lr=0.05_split=swapped-halves_dropout-rate=0.4_drop-last=True_seed=7"
    )


def test_two_schedules_between_the_same_rates_have_two_labels(a_run):
    inverse_time = a_run(epochs=6, learning_rate=[0.1, 0.05, 0.04, 0.03, 0.02, 0.01])
    step = a_run(epochs=6, learning_rate=[0.1, 0.1, 0.1, 0.01, 0.01, 0.01])
    assert label(inverse_time) == "BaselineNet_lr=0.1-0.01-in-6_seed=1"
    assert label(step) == "BaselineNet_lr=0.1-0.01-in-2_seed=1"


def test_the_longest_name_fits_into_a_file_system(a_run, store):
    layers = tuple(f"a_layer_with_a_long_name_{number}" for number in range(40))
    run = a_run(start=a_run(), frozen=layers, reinitialised=layers, seed=2**63 - 1)
    name = f"{store.stem(run, 'c' * 8, 'e' * 8)}.json.{'f' * 12}.partial"
    assert len(name) <= 180  # of the 259 that Windows takes as a path
    assert f"_seed={2**63 - 1}_" in name
    assert digest(run) in name


def test_a_label_has_no_character_that_a_file_system_forbids(a_run, add_to, monkeypatch):
    split = 'a<b>c:d"e/f\\g|h?i*j\tk\n'
    monkeypatch.setitem(data.TRAINING_FRACTIONS, split, (0.0, 0.1))
    add_to(models, type("Überñet", (models.BaselineNet,), {}))
    run = a_run(network="Überñet", split=split, learning_rate=1e20)
    assert label(run) == "-ber-et_lr=1e+20_split=a-b-c-d-e-f-g-h-i-j-k-_seed=1"
    run = a_run(frozen=["body.0"], learning_rate=(1e-7, 1e-5))
    assert label(run) == "BaselineNet_lr=1e-07-1e-05-in-2_frozen=body.0_seed=1"


# Records and weights


def test_a_finished_run_is_found_by_its_value(kept, a_run):
    store, run = kept
    record = store.load_record(run)
    assert record["run"]["learning_rate"] == 0.05
    path, found = store.find_record(run)
    assert found == record
    assert path == the_file(store.runs, "*.json")
    assert path.name == (
        f"BaselineNet_lr=0.05_seed=1_{digest(run)}_epochs=1_code={provenance.fingerprint(run)}.json"
    )
    assert store.load_record(a_run(seed=2)) is None
    assert store.load_record(a_run(epochs=2)) is None
    assert store.find_record(a_run(seed=2)) is None


def test_weights_lie_beside_their_record_which_holds_their_hash(kept):
    store, run = kept
    path = the_file(store.runs, "*.pt")
    assert path.stem == the_file(store.runs, "*.json").stem
    content_hash = hashlib.sha256(path.read_bytes()).hexdigest()
    assert store.load_record(run)["weights_sha256"] == content_hash
    plain = torch.load(path, weights_only=True)  # a plain state dictionary, for any program
    network = train.build(run)
    network.load_state_dict(plain)
    loaded = store.load_weights(run)
    assert loaded.keys() == plain.keys() == network.state_dict().keys()
    assert all(torch.equal(loaded[name], plain[name]) for name in plain)


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
def test_a_damaged_record_is_named_and_set_aside(damage, kept, said):
    store, run = kept
    path = the_file(store.runs, "*.json")
    path.write_bytes(damage(path.read_bytes()))
    broken = path.read_bytes()
    assert store.load_record(run) is None
    assert len(said) == 1
    assert path.name in said[0]
    assert "\n" not in said[0]
    assert path.with_name(path.name + ".damaged").read_bytes() == broken
    assert not path.exists()
    assert not store.is_finished(run)


def flip_a_bit(content: bytes) -> bytes:
    return content[:100_000] + bytes([content[100_000] ^ 1]) + content[100_001:]


DAMAGES = [
    lambda content: b"",
    lambda content: b"nonsense",
    lambda content: content[:1_000],
    lambda content: content[:5_000],
    flip_a_bit,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_set_aside(damage, kept, said, a_run):
    store, run = kept
    path = the_file(store.checkpoints, "*.pt")
    path.write_bytes(damage(path.read_bytes()))
    assert store.load_checkpoint(a_run(epochs=2)) is None
    assert len(said) == 1
    assert path.name in said[0]
    assert path.with_name(path.name + ".damaged").exists()
    assert store.load_weights(run) is not None  # which have a file of their own


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_named_and_set_aside(damage, kept, said):
    store, run = kept
    path = the_file(store.runs, "*.pt")
    path.write_bytes(damage(path.read_bytes()))
    assert store.load_weights(run) is None
    assert len(said) == 1
    assert path.name in said[0]
    assert path.with_name(path.name + ".damaged").exists()
    assert store.is_finished(run)
    assert not store.is_finished(run, weights=True)


def test_weights_of_another_training_are_not_taken(kept, said):
    """Each file is whole, but the record does not describe these weights."""
    store, run = kept
    path = the_file(store.runs, "*.pt")
    weights = store.load_weights(run)
    weights["fc2.bias"][0] += 1e-3
    torch.save(weights, path)
    assert store.load_weights(run) is None
    assert "its hash is not that of its record" in said[0]


@pytest.fixture
def finished_twice(kept, a_run):
    """A store with a record by the engine and one by the plain loop, with their weights."""
    store, run = kept
    record = store.load_record(run) | {"engine": provenance.engine_fingerprint()}
    weights = store.load_weights(run)
    weights["fc2.bias"] += 1
    store.save(run, record, weights)
    files = {("engine" if "+" in path.name else "loop"): path for path in store.runs.glob("*.pt")}
    assert len(files) == 2
    return store, run, files


@pytest.mark.parametrize("trouble", ["missing", "damaged"])
@pytest.mark.parametrize(("without", "other"), [("engine", "loop"), ("loop", "engine")])
def test_any_record_that_has_its_weights_counts(without, other, trouble, finished_twice):
    store, run, files = finished_twice
    expected = torch.load(files[other], weights_only=True)
    if trouble == "missing":
        files[without].unlink()
    else:
        files[without].write_bytes(b"damaged")
    assert store.is_finished(run, weights=True)
    assert torch.equal(store.load_weights(run)["fc2.bias"], expected["fc2.bias"])
    assert store.find_record(run)[0].stem == files[other].stem  # the record of those weights
    files[other].unlink()
    assert store.is_finished(run)
    assert not store.is_finished(run, weights=True)
    assert store.load_weights(run) is None


def test_a_run_that_diverged_by_one_of_two_ways_is_finished_without_weights(finished_twice):
    store, run, files = finished_twice
    path = files["loop"].with_suffix(".json")
    diverged = {"diverged_at_epoch": 0, "weights_sha256": None}
    path.write_text(json.dumps(json.loads(path.read_text()) | diverged))
    files["engine"].unlink()
    assert store.is_finished(run, weights=True)
    assert store.load_weights(run) is None


@pytest.mark.parametrize("kind", ["record", "weights", "checkpoint"])
def test_a_file_that_vanishes_before_it_is_read_is_not_there(kind, kept, said, monkeypatch):
    store, run = kept
    ending = {"record": "runs/*.json", "weights": "runs/*.pt", "checkpoint": "checkpoints/*.pt"}
    path = the_file(store.root, ending[kind])
    read = Path.read_bytes

    def reading(self):
        if self == path:  # another process moves it at this moment
            path.unlink()
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", reading)
    load = {"record": store.load_record, "weights": store.load_weights}
    assert load.get(kind, store.load_checkpoint)(run) is None
    assert not path.exists()
    assert not said


class Evil:
    """Makes a folder where a careless program unpickles it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return (os.mkdir, (str(self.folder),))


def test_neither_a_checkpoint_nor_weights_can_run_code(kept, tmp_path):
    store, run = kept
    buffer = io.BytesIO()
    torch.save({"network": Evil(tmp_path / "evil")}, buffer)
    content = buffer.getvalue()
    content_hash = hashlib.sha256(content)
    the_file(store.checkpoints, "*.pt").write_bytes(content + content_hash.digest())
    with pytest.raises(pickle.UnpicklingError):
        store.load_checkpoint(run)
    the_file(store.runs, "*.pt").write_bytes(content)
    path = the_file(store.runs, "*.json")
    record = json.loads(path.read_text()) | {"weights_sha256": content_hash.hexdigest()}
    path.write_text(json.dumps(record))
    with pytest.raises(pickle.UnpicklingError):
        store.load_weights(run)
    assert not (tmp_path / "evil").exists()


def test_a_checkpoint_of_another_run_is_not_taken(kept, a_run, said):
    store, run = kept
    path = the_file(store.checkpoints, "*.pt")
    other = a_run(epochs=1, seed=2)
    path.rename(path.with_name(path.name.replace(digest(run), digest(other))))
    assert store.load_checkpoint(other) is None
    assert "belongs to another run" in said[0]


def test_a_checkpoint_can_be_opened_with_torch_alone(kept):
    store, run = kept
    state = torch.load(the_file(store.checkpoints, "*.pt"), weights_only=True)
    assert torch.equal(state["network"]["fc2.bias"], store.load_weights(run)["fc2.bias"])


# Writing


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "file.json"
    write(path, b"first")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(UserError, match=r"file\.json: No space left.*kept"):
        write(path, b"second")
    assert path.read_bytes() == b"first"
    assert os.listdir(path.parent) == ["file.json"]


def test_a_file_is_replaced_and_never_overwritten(tmp_path):
    """Whoever reads the old one at that moment reads all of it."""
    path = tmp_path / "file.json"
    write(path, b"first")
    with path.open("rb") as reader:
        write(path, b"second and longer")
        assert reader.read() == b"first"
    assert path.read_bytes() == b"second and longer"
    assert os.listdir(tmp_path) == ["file.json"]


def test_the_record_is_written_last(kept, monkeypatch):
    """A run that is killed between the two files is not finished."""
    store, run = kept
    record, weights = store.load_record(run), store.load_weights(run)
    shutil.rmtree(store.runs)
    written = []

    def writing(path, content):
        written.append(path.suffix)
        if path.suffix == ".json":
            raise UserError("killed")
        write(path, content)

    monkeypatch.setattr(lab.store, "write", writing)
    with pytest.raises(UserError, match="killed"):
        store.save(run, record, weights)
    assert written == [".pt", ".json"]
    assert not store.is_finished(run)
    assert store.load_weights(run) is None


def everything(store: Store) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}


def test_two_writers_of_one_file_have_partial_files_of_their_own(tmp_path, monkeypatch):
    """Processes on two machines may have the same number, and threads of one process do."""
    path, partials = tmp_path / "file.json", []
    fsync = os.fsync

    def writing_meanwhile(file):
        partials.append(set(tmp_path.glob("*.partial")))
        if len(partials) == 1:
            write(path, b"theirs")
        fsync(file)

    monkeypatch.setattr(os, "fsync", writing_meanwhile)
    write(path, b"mine")
    assert [len(found) for found in partials] == [1, 2]
    assert path.read_bytes() == b"mine"
    assert os.listdir(tmp_path) == ["file.json"]


def test_a_full_disk_is_one_line_and_loses_nothing(kept, a_run, digits):
    store, _run = kept
    before = everything(store)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))  # no file may grow further
    try:
        with pytest.raises(UserError, match=r"cannot write .*kept"):
            train_and_load(a_run(epochs=1, seed=2), digits, store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert everything(store) == before


def test_a_results_folder_that_cannot_be_is_one_line(tmp_path, a_run, digits):
    (tmp_path / "results").write_text("a file, where the folder should be")
    store = Store(tmp_path / "results")
    with pytest.raises(UserError, match="cannot write"):
        train_and_load(a_run(epochs=1, overfit_images=64), digits, store)
    with pytest.raises(UserError, match="cannot write"), store.claim(a_run()):
        pass


def test_a_file_that_cannot_be_read_is_one_line(kept):
    store, run = kept
    path = the_file(store.runs, "*.json")
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"^cannot read .*\.json: Is a directory$"):
        store.load_record(run)


def test_partial_files_of_killed_processes_go(store):
    for folder in (store.runs, store.checkpoints, store.root, store.root / "exp1_lr"):
        old, new = (folder / f"{name}.json.1.partial" for name in ("old", "new"))
        write(old, b"")
        write(new, b"")
        os.utime(old, (0, 0))
        Store(store.root)
        assert not old.exists()
        assert new.exists()


# Claims


def hold(root, run, ready, done):
    with Store(root).claim(run) as mine:
        ready.send(mine)
        done.recv()


def test_only_one_process_holds_a_run_and_death_frees_it(store, a_run):
    provenance.fingerprint(a_run())  # so that the child has nothing to do but to claim
    context = multiprocessing.get_context("fork")
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


# Replacing


def test_replacing_moves_and_keeps(kept, a_run):
    store, run = kept
    before = everything(store)
    store.replace([a_run(seed=2)])
    assert store.load_record(run) is not None
    store.replace([run])
    assert store.load_record(run) is None
    assert store.load_weights(run) is None
    assert store.load_checkpoint(run) is None
    moved = list(store.root.glob("replaced/*/*/*"))
    kinds = sorted((path.parent.name, path.suffix) for path in moved)
    assert kinds == [("checkpoints", ".pt"), ("runs", ".json"), ("runs", ".pt")]
    kept_bytes = sorted(content for path, content in before.items() if path.suffix != ".lock")
    assert sorted(path.read_bytes() for path in moved) == kept_bytes


def test_replacing_takes_the_checkpoints_of_other_lengths_too(kept, a_run):
    store, run = kept
    longer = a_run(epochs=5)
    assert store.load_checkpoint(longer) is not None
    store.replace([longer])
    assert store.load_checkpoint(longer) is None
    assert store.load_record(run) is not None


def test_replacing_is_safe_in_a_folder_that_is_not_there(store, a_run):
    store.replace([a_run(), a_run(seed=2)])
    assert store.load_record(a_run()) is None
    assert not (store.root / "replaced").exists()


def test_a_file_that_vanishes_before_it_is_moved_is_replaced(kept, monkeypatch):
    store, run = kept
    replace = Path.replace

    def replacing(self, target):
        if self.suffix == ".json":
            self.unlink()
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replacing)
    store.replace([run])
    assert {path.suffix for path in store.root.glob("replaced/*/*/*")} == {".pt"}
    assert store.load_record(run) is store.load_weights(run) is store.load_checkpoint(run) is None


def test_a_run_that_another_process_trains_is_not_replaced(kept, a_run):
    store, run = kept
    held = a_run(seed=2)
    with store.claim(held), pytest.raises(UserError, match="another process is training"):
        Store(store.root).replace([run, held])
    assert store.load_record(run) is not None


def test_a_run_trained_again_for_its_weights_replaces_its_record_too(kept, digits):
    store, run = kept
    first = store.load_record(run)
    assert store.is_finished(run, weights=True)
    shutil.rmtree(store.checkpoints)
    the_file(store.runs, "*.pt").unlink()
    assert store.is_finished(run)
    assert not store.is_finished(run, weights=True)
    again = train_and_load(run, digits, store)
    assert store.is_finished(run, weights=True)
    assert numbers(again) == numbers(first)
    assert again["trained"] != first["trained"]
    assert len(list(store.runs.iterdir())) == 2


def test_a_run_that_diverges_when_trained_again_is_finished_all_the_same(kept, digits, monkeypatch):
    store, run = kept
    shutil.rmtree(store.checkpoints)
    monkeypatch.setattr(train, "train_epoch", lambda *_: (math.nan, 0.0))
    record = train_and_load(run, digits, store)
    assert record["diverged_at_epoch"] == 0
    assert record["weights_sha256"] is None
    assert store.is_finished(run, weights=True)
    assert store.load_weights(run) is None  # those of the first training belong to no record


# The code that made a run


def test_runs_by_other_code_are_not_mixed_and_not_lost(kept, a_run, monkeypatch):
    store, run = kept
    assert store.by_other_code([run, a_run(seed=2)]) == 0
    monkeypatch.setattr(provenance, "fingerprint", lambda run: NO_FINGERPRINT)
    assert store.load_record(run) is None
    assert store.load_weights(run) is None
    assert store.load_checkpoint(run) is None
    assert store.by_other_code([run, a_run(seed=2), a_run(epochs=2)]) == 1
    store.replace([run])
    monkeypatch.undo()
    assert store.load_record(run) is not None


def test_a_record_of_the_engine_is_stale_when_the_engine_is_edited(kept, a_run, monkeypatch):
    store, plain = kept
    run = a_run(epochs=1, seed=2)
    record = store.load_record(plain) | {
        "run": settings_of(run),
        "engine": provenance.engine_fingerprint(),
    }
    store.save(run, record, store.load_weights(plain))
    state = {"curves": {"train_loss": [1.0]}}
    store.save_checkpoint(run, state, provenance.engine_fingerprint())
    assert store.load_record(run)["engine"] == provenance.engine_fingerprint()
    assert store.load_weights(run) is not None
    assert store.load_checkpoint(run) is not None
    monkeypatch.setattr(provenance, "engine_fingerprint", lambda: NO_FINGERPRINT)
    assert store.load_record(run) is None
    assert store.load_checkpoint(run) is None
    assert store.by_other_code([run, plain]) == 1
    # a record of the plain loop does not depend on the engine
    assert store.load_record(plain)["engine"] is None
    assert store.load_weights(plain) is not None
    assert store.load_checkpoint(plain) is not None


def test_published_runs_are_found_whatever_code_made_them(tmp_path, said):
    shutil.copytree(PUBLISHED, tmp_path / "published" / "runs")
    published = Store(tmp_path / "published", said.append, any_code=True)
    yours = Store(tmp_path / "published", said.append)
    for path in sorted(PUBLISHED.glob("*.json")):
        record = json.loads(path.read_text())
        run = run_of(record["run"])
        assert published.load_record(run) == record
        assert record["code"] == provenance.fingerprint(run) or yours.load_record(run) is None
    assert not said


def test_published_weights_have_a_folder_of_their_own(kept, said, monkeypatch):
    store, run = kept
    published = Store(store.root / "published", said.append, any_code=True)
    published.save(run, store.load_record(run), store.load_weights(run))
    monkeypatch.setattr(provenance, "fingerprint", lambda run: NO_FINGERPRINT)
    assert published.load_record(run) is not None
    weights = published.load_weights(run)
    assert (
        the_file(published.root / "weights", "*.pt").stem == the_file(published.runs, "*.json").stem
    )
    assert weights.keys() == train.build(run).state_dict().keys()
    assert not list(published.runs.glob("*.pt"))


@pytest.mark.parametrize("kind", ["runs/*.json", "weights/*.pt"])
def test_a_damaged_published_file_stays_where_it_is(kind, kept, said):
    store, run = kept
    published = Store(store.root / "published", said.append, any_code=True)
    published.save(run, store.load_record(run), store.load_weights(run))
    path = the_file(published.root, kind)
    path.write_bytes(b"damaged")
    before = everything(published)
    assert not published.is_finished(run, weights=True)
    assert published.load_weights(run) is None
    assert (published.load_record(run) is None) == (path.suffix == ".json")
    assert everything(published) == before
    assert len(said) == 1
    assert said[0].startswith(f"{path} is damaged (")
    assert said[0].endswith("); it counts as missing")
