"""Records: what is kept of a run under way, and what is measured at its end."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import precision_recall_fscore_support
from test_train import CHANGED, Reports, Stop, train_and_load

import data
import lab.records
import models
from lab import provenance
from lab.records import Recorder, all_settings, final_results, parse_record, run_of, settings_of
from train import CURVES, Run, Training


def test_final_training_results_are_measured_as_validation_is(a_run, digits, store):
    """By the final weights, without dropout, on the images as they are."""
    changes = {"network": "DropoutNet", "dropout_rate": 0.6, "augmentation": ("flip", "crop")}
    run = a_run(epochs=2, learning_rate=0.1, **changes)
    record = train_and_load(run, digits, store)
    network = models.DropoutNet(0.6).eval()
    network.load_state_dict(store.load_weights(run))
    for name, indices in zip(("train", "val"), data.split_indices(run.split, 1_500), strict=True):
        with torch.no_grad():
            logits = network(data.normalise(digits.images[indices])).double()
        truth = digits.labels[indices]
        accuracy = np.mean(logits.argmax(1).numpy() == truth.numpy())
        loss = F.cross_entropy(logits, truth).item()
        if name == "train":
            found = record["final_train_accuracy"], record["final_train_loss"]
        else:
            found = record["val_accuracy"][-1], record["val_loss"][-1]
        assert found == (pytest.approx(accuracy), pytest.approx(loss, rel=1e-5))
    assert record["train_accuracy"][-1] != pytest.approx(record["final_train_accuracy"], abs=0.01)


@pytest.mark.slow
def test_test_results_are_those_of_the_trained_weights(a_run, digits, store):
    run = a_run(epochs=4, learning_rate=0.1)
    record = train_and_load(run, digits, store)
    network = models.BaselineNet()
    network.load_state_dict(store.load_weights(run))
    with torch.no_grad():
        logits = network(data.normalise(digits.test_images)).double()
    truth, predicted = digits.test_labels.numpy(), logits.argmax(1).numpy()
    assert record["test_accuracy"] == np.mean(truth == predicted)
    assert record["test_loss"] == pytest.approx(
        -logits.log_softmax(1)[range(297), truth].mean().item(), rel=1e-5
    )
    confusion = np.zeros((10, 10), int)
    for true, guess in zip(truth, predicted, strict=True):
        confusion[true, guess] += 1
    assert record["confusion_matrix"] == confusion.tolist()
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, predicted, labels=range(10), zero_division=0
    )
    for i, name in enumerate(digits.class_names):
        expected = (precision[i], recall[i], f1[i], support[i])
        assert tuple(record["report"][name].values()) == pytest.approx(expected)
    mistakes = record["most_confident_mistakes"]
    wrong = np.flatnonzero(truth != predicted)
    confidence = logits.softmax(1).max(1).values
    surest = sorted(wrong, key=lambda image: -confidence[image])[: lab.records.MISTAKES]
    assert [mistake["image"] for mistake in mistakes] == surest
    assert mistakes[0]["true"] == str(truth[surest[0]])
    assert mistakes[0]["predicted"] == str(predicted[surest[0]])
    assert mistakes[0]["probability"] == pytest.approx(confidence[surest[0]].item(), rel=1e-5)


def logits_for(labels: torch.Tensor, confidence: float = 4.0) -> torch.Tensor:
    """Logits that are right about every label."""
    return confidence * F.one_hot(labels, 10).double()


def test_the_most_confident_mistakes_are_listed_in_order_and_never_a_hit(a_run, digits):
    training = Training(a_run(), digits)
    right = logits_for(digits.labels[training.train_indices])
    tested = logits_for(digits.test_labels)
    for image, margin in ((5, 3.0), (200, 7.0), (17, 5.0)):  # three wrong, to different degrees
        wrong = (digits.test_labels[image] + 1) % 10
        tested[image] = 0
        tested[image, wrong] = margin
    found = final_results((right, tested), training)
    assert found["test_accuracy"] == pytest.approx(294 / 297)
    assert found["final_train_accuracy"] == 1.0
    assert [mistake["image"] for mistake in found["most_confident_mistakes"]] == [200, 17, 5]
    for mistake in found["most_confident_mistakes"]:
        truth = int(digits.test_labels[mistake["image"]])
        assert (mistake["true"], mistake["predicted"]) == (str(truth), str((truth + 1) % 10))
    most = np.exp(7) / (np.exp(7) + 9)
    assert found["most_confident_mistakes"][0]["probability"] == pytest.approx(most)
    assert (
        final_results((right, logits_for(digits.test_labels)), training)["most_confident_mistakes"]
        == []
    )


def test_no_more_mistakes_are_listed_than_asked_for(a_run, digits):
    training = Training(a_run(), digits)
    right = logits_for(digits.labels[training.train_indices])
    found = final_results((right, logits_for((digits.test_labels + 1) % 10)), training)
    assert len(found["most_confident_mistakes"]) == lab.records.MISTAKES == 25
    assert found["test_accuracy"] == 0.0


def test_a_class_that_is_never_predicted_is_reported_as_zero(a_run, digits):
    training = Training(a_run(), digits)
    right = logits_for(digits.labels[training.train_indices])
    found = final_results((right, logits_for(torch.zeros_like(digits.test_labels))), training)
    assert found["report"]["3"]["precision"] == 0
    assert found["report"]["3"]["support"] == int((digits.test_labels == 3).sum())
    assert np.shape(found["confusion_matrix"]) == (10, 10)


def test_a_record_says_what_it_was_trained_with(a_run, digits, store):
    run = a_run(epochs=1, overfit_images=64)
    record = train_and_load(run, digits, store)
    assert record["environment"]["torch"] == torch.__version__
    assert record["environment"]["device"].startswith("cpu (")
    assert set(record["environment"]) == {"torch", "python", "device", "git_commit", "git_dirty"}
    assert record["run"] == settings_of(run)
    assert record["seed"] == 1
    assert record["code"] == provenance.fingerprint(run)
    assert record["engine"] is None
    assert "gradients" not in record
    (span,) = record["trained"]
    assert span[0] < span[1]


def test_a_record_keeps_each_time_that_the_run_was_trained(a_run, digits, store, monkeypatch):
    monkeypatch.setattr(lab.records, "CHECKPOINT_SECONDS", 0.0)
    run = a_run(epochs=3, overfit_images=64)
    with pytest.raises(Stop):
        train_and_load(run, digits, store, Reports(stop_at=2.0))
    first, second = train_and_load(run, digits, store)["trained"]
    assert first[0] < first[1] <= second[0] < second[1]


def test_a_record_names_every_device_that_the_run_was_trained_on(a_run, digits, store, monkeypatch):
    monkeypatch.setattr(lab.records, "CHECKPOINT_SECONDS", 0.0)
    run = a_run(epochs=4, overfit_images=64)
    for stop_at, device in ((2.0, "NVIDIA H100"), (3.0, "NVIDIA H100"), (4.0, "cpu (AMD EPYC)")):
        monkeypatch.setattr(provenance, "device_name", lambda _, device=device: device)
        with pytest.raises(Stop):
            train_and_load(run, digits, store, Reports(stop_at))
    record = train_and_load(run, digits, store)
    assert record["environment"]["device"] == "NVIDIA H100, then cpu (AMD EPYC)"
    assert len(record["trained"]) == 4
    longer = train_and_load(dataclasses.replace(run, epochs=5), digits, store)
    assert longer["environment"]["device"] == "NVIDIA H100, then cpu (AMD EPYC)"
    other = train_and_load(dataclasses.replace(run, seed=2), digits, store)
    assert other["environment"]["device"] == "cpu (AMD EPYC)"


def test_a_checkpoint_is_kept_now_and_then_and_at_the_end(a_run, digits, store, monkeypatch):
    run = a_run(epochs=4, overfit_images=64)
    kept = []
    monkeypatch.setattr(
        store, "save_checkpoint", lambda run, state, engine: kept.append(len(state["curves"]))
    )
    train_and_load(run, digits, store)
    assert len(kept) == 1  # a second of work, of which only the end is kept
    monkeypatch.setattr(lab.records, "CHECKPOINT_SECONDS", 0.0)
    train_and_load(run, digits, store)
    assert len(kept) == 1 + 4


def test_the_time_between_checkpoints_counts_from_the_last_one(a_run, digits, store, monkeypatch):
    """Of epochs that end every six seconds, every second one is ten seconds after it."""
    now, kept = [100.0], []
    monkeypatch.setattr(lab.records.time, "time", lambda: now[0])
    monkeypatch.setattr(store, "save_checkpoint", lambda *_: kept.append(now[0]))
    recorder = Recorder(a_run(epochs=9), digits, store)
    for _ in range(6):
        now[0] += 6
        recorder.epoch_ended(recorder.training)
    assert kept == [112, 124, 136]


def test_final_weights_without_a_finite_loss_are_a_divergence(a_run, digits, store):
    """Though every epoch's loss was finite: the last step of all may have been the fatal one."""
    run = a_run(epochs=2, overfit_images=64, gradient_statistics=True)
    for broken in (0, 1):
        recorder = Recorder(run, digits, store)
        for _ in range(run.epochs - recorder.training.epoch):
            recorder.training.end_epoch((1.0, 0.1, 1.0, 0.1))
        logits = [torch.zeros(64, 10).double(), torch.zeros(297, 10).double()]
        logits[broken][7, 3] = torch.inf
        record = recorder.finish(tuple(logits))
        assert record["diverged_at_epoch"] == 1
        assert record["train_loss"] == [1.0, None]
        assert record["test_accuracy"] is record["final_train_loss"] is record["gradients"] is None
        assert store.load_record(run)["diverged_at_epoch"] == 1
        assert store.load_weights(run) is None


# Records as values


def test_every_field_is_part_of_the_settings(a_run):
    base = a_run(network="DropoutNet")
    assert set(CHANGED) == {field.name for field in dataclasses.fields(Run)}
    changed = [dataclasses.replace(base, **{field: value}) for field, value in CHANGED.items()]
    texts = {json.dumps(settings_of(run), sort_keys=True) for run in [base, *changed]}
    assert len(texts) == len(CHANGED) + 1


def test_a_field_at_its_default_is_not_part_of_the_settings(a_run):
    assert "momentum" not in settings_of(a_run())
    assert settings_of(a_run(momentum=0.9))["momentum"] == 0.9
    assert settings_of(a_run(drop_last=False)) == settings_of(a_run())


def test_all_settings_fills_in_the_defaults_here_and_where_a_run_starts(a_run):
    run = a_run(start=a_run(momentum=0.9), frozen=("conv1",))
    filled = all_settings(settings_of(run))
    assert filled.keys() == {field.name for field in dataclasses.fields(Run)}
    assert (filled["frozen"], filled["augmentation"], filled["width"]) == (["conv1"], [], 16)
    assert (filled["start"]["momentum"], filled["start"]["width"]) == (0.9, 16)
    assert filled["start"]["start"] is None


@pytest.mark.parametrize("field", CHANGED)
def test_the_settings_of_a_run_give_the_run_back(field, a_run):
    run = dataclasses.replace(a_run(network="DropoutNet"), **{field: CHANGED[field]})
    assert run_of(json.loads(json.dumps(settings_of(run)))) == run
    assert run_of(all_settings(settings_of(run))) == run


def test_a_schedule_and_where_a_run_starts_come_back_too(a_run):
    first = a_run(augmentation=("flip",))
    source = a_run(learning_rate=(0.1, 0.05), frozen=("conv1",), start=first)
    run = a_run(start=source, reinitialised=("fc1", "fc2"), learning_rate=(0.2, 0.1))
    found = run_of(json.loads(json.dumps(settings_of(run))))
    assert found == run
    assert hash(found) == hash(run)
    assert found.start.start == first


@pytest.fixture
def whole(a_run):
    """A run, and a record of it that is whole."""
    run = a_run(epochs=2)
    record = {
        **dict.fromkeys(lab.records.FINAL_RESULTS, 0.5),
        **{name: [0.5, 0.25] for name in CURVES},
        "run": settings_of(run),
        "diverged_at_epoch": None,
        **{"seed": 1, "code": "c", "environment": {}, "trained": []},
    }
    return run, record


def is_whole(record, run):
    """Whether a file that holds this record is taken for the run's. Raises KeyError."""
    try:
        return parse_record(json.dumps(record).encode(), run) == record
    except ValueError as error:
        assert "does not hold this run" in str(error)
        return False


def test_a_whole_record_is_whole(whole):
    run, record = whole
    assert is_whole(record, run)
    assert is_whole(record | {"a later field": 1}, run)
    diverged = dict.fromkeys(lab.records.FINAL_RESULTS) | {"diverged_at_epoch": 1}
    assert is_whole(record | diverged | {name: [0.5, None] for name in CURVES}, run)
    at_once = diverged | {"diverged_at_epoch": 0}
    assert is_whole(record | at_once | {name: [None, None] for name in CURVES}, run)


@pytest.mark.parametrize(
    "damage",
    [
        {"val_loss": [0.5]},
        {"train_accuracy": [0.5, None]},
        {"train_loss": [0.5, "0.25"]},
        {"test_accuracy": None},
        {"diverged_at_epoch": 1, "val_loss": [None, None]},
        {"run": {}},
    ],
)
def test_a_record_that_is_not_whole_is_not_taken(damage, whole):
    run, record = whole
    assert not is_whole(record | damage, run)


def test_a_record_is_whole_only_for_its_own_run_and_with_every_key(whole, a_run):
    run, record = whole
    assert not is_whole(record, a_run(epochs=2, seed=2))
    for key in lab.records.KEYS - {*CURVES, "test_accuracy"}:
        assert not is_whole({k: v for k, v in record.items() if k != key}, run), key
    for key in (*CURVES, "test_accuracy", "diverged_at_epoch"):
        with pytest.raises(KeyError):
            is_whole({k: v for k, v in record.items() if k != key}, run)
