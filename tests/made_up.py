"""Finished runs that nobody trained: for tests of what is done with records, not of training."""

import random
from collections.abc import Iterable
from typing import Any

from lab import provenance
from lab.records import settings_of
from lab.store import Store, digest
from train import CURVES, Run, build

CLASSES = [str(digit) for digit in range(10)]
Record = dict[str, Any]


def made_up(
    run: Run,
    *,
    val_accuracy: float | None = None,
    test_accuracy: float | None = None,
    diverged_at: int | None = None,
    **changes: Any,
) -> Record:
    """A whole record of a run. What is not given follows from the run's value alone."""
    numbers = random.Random(f"{digest(run)} {run.epochs}")
    sound = run.epochs if diverged_at is None else diverged_at
    curves = {
        name: [numbers.uniform(0.3, 0.6) for _ in range(sound)] + [None] * (run.epochs - sound)
        for name in CURVES
    }
    if val_accuracy is not None and diverged_at is None:
        curves["val_accuracy"][-1] = val_accuracy
    by_class = {"precision": 0.5, "recall": 0.5, "f1-score": numbers.random(), "support": 1_000}
    final = {
        "final_train_loss": numbers.uniform(0.3, 0.6),
        "final_train_accuracy": numbers.uniform(0.6, 0.9),
        "test_loss": numbers.uniform(0.3, 0.6),
        "test_accuracy": numbers.uniform(0.3, 0.6) if test_accuracy is None else test_accuracy,
        "report": dict.fromkeys(CLASSES, by_class) | {"accuracy": 0.5},
        "confusion_matrix": [[500 * (i == j) + 50 for i in range(10)] for j in range(10)],
        "most_confident_mistakes": [],
    }
    return {
        "run": settings_of(run),
        "seed": run.seed,
        "code": provenance.fingerprint(run),
        "engine": None,
        "environment": provenance.environment("cpu"),
        "diverged_at_epoch": diverged_at,
        **curves,
        **(dict.fromkeys(final) if diverged_at is not None else final),
        "trained": [[1_000.0, 1_060.0]],
        **changes,
    }


def finish(runs: Iterable[Run], store: Store, **fields: Any) -> list[Record]:
    """Keep made-up records of the runs, with first weights as the trained ones; the records."""
    records = []
    for run in dict.fromkeys(runs):
        record = made_up(run, **fields)
        weights = build(run).state_dict() if record["diverged_at_epoch"] is None else None
        store.save(run, record, weights)
        records.append(store.load_record(run))
    return records
