"""A run from its checkpoint to its record: what is kept of it while it trains, and at its end."""

import copy
import dataclasses
import json
import math
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from data import Dataset
from lab import provenance
from lab.checks import UserError, checked
from lab.gradients import GradientStatistics
from train import CURVES, Run, Training, measure

if TYPE_CHECKING:
    from lab.store import Store

CHECKPOINT_SECONDS = 10.0  # at most this much work, and the epoch under way, is ever done twice
MISTAKES = 25  # how many test images a record names that were most confidently taken for others
# of the trained network: numbers, and all that a record says; a run that diverged has none
FINAL = ("final_train_loss", "final_train_accuracy", "test_loss", "test_accuracy")
FINAL_RESULTS = (*FINAL, "report", "confusion_matrix", "most_confident_mistakes")
KEYS = {*FINAL_RESULTS, *CURVES, "seed", "code", "environment", "trained"}

Record = dict[str, Any]  # a finished run, as it stands in its file
Records = dict[str, list[Record]]  # by label


class Recorder:
    """Keeps a run under way: its checkpoints and gradient statistics, and its record at the end.

    The training begins at the run's furthest checkpoint, if there is one. engine is the fingerprint
    of the engine where that trains the run, else None; a run that it began stays marked by it.
    """

    def __init__(
        self, run: Run, dataset: Dataset, store: "Store", engine: str | None = None
    ) -> None:
        self.run, self.store = run, store
        start = store.load_weights(run.start) if run.start else None
        if run.start and start is None:
            raise UserError("the trained weights of a run to start from are gone: start again")
        checkpoint = store.load_checkpoint(run)
        self.engine = engine or (checkpoint and checkpoint["engine"])
        self.training = Training(run, dataset, start, checkpoint)
        self.gradients: GradientStatistics | None = None
        if run.gradient_statistics:
            steps = self.training.steps_per_epoch
            self.gradients = GradientStatistics(self.training.network, run.epochs, steps)
            if checkpoint:
                self.gradients.load_state_dict(checkpoint["gradients"])
        # [start, end], Unix seconds, of each time that it was trained, and the devices in words
        earlier = checkpoint or {"intervals": [], "devices": []}
        self.intervals: list[list[float]] = [*earlier["intervals"], [time.time(), time.time()]]
        self.devices: list[str] = earlier["devices"]
        device = provenance.device_name(str(self.training.device))
        if device not in self.devices[-1:]:
            self.devices.append(device)

    def epoch_ended(self, training: Training) -> None:
        """Keep a checkpoint now and then, and after the last epoch."""
        self.close_epoch()
        due = time.time() - self.intervals[-1][1] >= CHECKPOINT_SECONDS or training.is_over
        if due and training.diverged_at is None:
            state = self.snapshot(training.state_dict())
            self.store.save_checkpoint(self.run, state, self.engine)

    def close_epoch(self) -> None:
        """Close the epoch's gradient statistics."""
        if self.gradients and self.training.diverged_at is None:
            self.gradients.end_epoch()

    def snapshot(self, state: dict[str, Any]) -> dict[str, Any]:
        """What a checkpoint holds, of which state is what Training.state_dict() gives.

        All of it is a copy, so that a thread can write it while training goes on.
        """
        self.intervals[-1][1] = time.time()
        kept = {"curves": state["curves"], "intervals": self.intervals, "devices": self.devices}
        gradients = self.gradients and self.gradients.state_dict()
        return state | copy.deepcopy(kept) | {"gradients": gradients}

    def finish(self, logits: tuple[Tensor, Tensor] | None) -> dict[str, Any]:
        """Keep the result and return its record.

        logits (n_train, classes) and (n_test, classes) of the final weights; None where the run
        diverged.
        """
        training, run = self.training, self.run
        final = dict.fromkeys(FINAL_RESULTS)
        if logits is not None:
            results = final_results(logits, training)
            if math.isfinite(results["final_train_loss"]) and math.isfinite(results["test_loss"]):
                final = results
            else:
                training.diverged_at = run.epochs - 1
        self.intervals[-1][1] = time.time()
        diverged_at = training.diverged_at
        sound = run.epochs if diverged_at is None else diverged_at
        missing = [None] * (run.epochs - sound)
        record = {
            "run": settings_of(run),
            "seed": run.seed,
            "code": provenance.fingerprint(run),
            "engine": self.engine,
            "environment": provenance.environment(str(training.device))
            | {"device": ", then ".join(self.devices)},
            "diverged_at_epoch": diverged_at,
            **{name: curve[:sound] + missing for name, curve in training.curves.items()},
            **final,
            "trained": self.intervals,
        }
        if self.gradients:
            record["gradients"] = self.gradients.summary() if diverged_at is None else None
        weights = training.state_dict()["network"] if diverged_at is None else None
        self.store.save(run, record, weights)
        return record


def final_results(logits: tuple[Tensor, Tensor], training: Training) -> dict[str, Any]:
    """Losses and accuracies of the final weights, and what they get wrong on the test set.

    logits (n_train, classes) and (n_test, classes). The report and the confusion matrix (true,
    predicted) are scikit-learn's. The mistakes are the test images given the highest probability
    of a class that is not theirs.
    """
    from sklearn.metrics import classification_report, confusion_matrix  # a second at start-up

    dataset = training.dataset
    loss, accuracy = measure(logits[0], dataset.labels[training.train_indices]).tolist()
    test_loss, test_accuracy = measure(logits[1], dataset.test_labels).tolist()
    probabilities, predicted = logits[1].softmax(1).cpu().max(1)
    truth, names = dataset.test_labels.cpu(), dataset.class_names
    confidence = torch.where(predicted == truth, -1.0, probabilities)
    order = confidence.argsort(descending=True, stable=True)[:MISTAKES]
    outcome = truth.numpy(), predicted.numpy()
    classes = range(len(names))
    report = classification_report(
        *outcome, labels=classes, target_names=names, output_dict=True, zero_division=0
    )
    return {
        "final_train_loss": loss,
        "final_train_accuracy": accuracy,
        "test_loss": test_loss,
        "test_accuracy": test_accuracy,
        "report": report,
        "confusion_matrix": confusion_matrix(*outcome, labels=classes).tolist(),
        "most_confident_mistakes": [
            {
                "image": image,
                "true": names[truth[image]],
                "predicted": names[predicted[image]],
                "probability": probabilities[image].item(),
            }
            for image in order.tolist()
            if predicted[image] != truth[image]
        ],
    }


def settings_of(run: Run) -> dict[str, Any]:
    """The fields of a run that are not at their defaults, ready for JSON: what its name says."""
    values = {field: getattr(run, field.name) for field in dataclasses.fields(run)}
    settings = {field.name: value for field, value in values.items() if value != field.default}
    if run.start:
        settings["start"] = settings_of(run.start)
    return json.loads(json.dumps(settings))  # which makes lists of tuples


def run_of(settings: dict[str, Any]) -> Run:
    """The run whose settings a record holds.

    Raises UserError where a field makes no sense, or names what is no longer there.
    """
    start = settings.get("start")
    return checked(Run(**settings | {"start": start and run_of(start)}))


def all_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run with the defaults filled in, also in the run that it starts from."""
    optional = {f.name: f.default for f in dataclasses.fields(Run) if hasattr(Run, f.name)}
    filled = json.loads(json.dumps(optional)) | settings
    if filled["start"]:
        filled["start"] = all_settings(filled["start"])
    return filled


def parse_record(content: bytes, run: Run) -> Record:
    """The record of a run. Raises ValueError, KeyError or TypeError where it is not whole."""
    record = json.loads(content)
    diverged_at = record["diverged_at_epoch"]
    finite = run.epochs if diverged_at is None else diverged_at
    curves = all(
        len(record[name]) == run.epochs
        and all(isinstance(value, float) for value in record[name][:finite])
        for name in CURVES
    )
    tested = diverged_at is not None or isinstance(record["test_accuracy"], float)
    if not (curves and tested and record.keys() >= KEYS and record["run"] == settings_of(run)):
        raise ValueError("it does not hold this run")
    return record
