"""Runs trained together against the same runs trained alone by the plain loop.

In float64 the two agree to twelve digits through whole runs, which no error of the engine would
survive; in float32, where training amplifies the last bit, over its first steps. Every way in which
a GPU or a network can fail the engine is injected here on the CPU: it must end in the right numbers
and one line for the user.
"""

import gc
import importlib
import math
import multiprocessing
import re
import signal
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from test_train import Reports, Stop, trained
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import data
import models
from data import Dataset
from lab import engine, gradients, provenance, records, stacked, sweep
from lab.checks import UserError
from lab.engine import ALONE, CAPTURED, UNCAPTURED, Mode
from lab.records import Recorder
from lab.stacked import Together
from lab.store import Store
from train import CURVES, Run, evaluate, takes

cuda = pytest.param(
    "cuda",
    marks=[
        pytest.mark.cuda,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    ],
)
TOO_LITTLE = "too little free GPU memory for one run"
ILLEGAL = "CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_CUDA_DSA"


@pytest.fixture
def double(monkeypatch):
    """Everything in float64."""
    normalise = data.normalise
    monkeypatch.setattr(data, "normalise", lambda images: normalise(images).double())
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def every_epoch(monkeypatch):
    """A checkpoint is kept after every epoch."""
    monkeypatch.setattr(records, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(engine, "CHECKPOINT_SHARE", math.inf)


@pytest.fixture(autouse=True)
def fast_engine(monkeypatch):
    """The engine counts as fast: on a GPU, too, a step of so few and so small runs may be slow."""
    monkeypatch.setattr(engine, "seconds_a_step", lambda *_: 0.0)


@pytest.fixture(scope="module", autouse=True)
def quick_collections():
    """The engine collects garbage: what was imported before it is not looked through each time."""
    for name in sweep.PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def digits(digits):
    """120 of them, and 30 to test."""
    parts = (digits.images[:120], digits.labels[:120], digits.test_images[:30])
    return Dataset(*parts, digits.test_labels[:30], digits.class_names)


@pytest.fixture
def few(a_run):
    """A function that makes a narrow run of 24 images: two steps of 10 an epoch, and one of 4."""

    def make(network="BaselineNet", **fields):
        width = 4 if "width" in takes(getattr(models, network)) else 16
        small = {"overfit_images": 24, "batch_size": 10, "width": width}
        return a_run(network=network, **(small | fields))

    return make


@pytest.fixture
def stores(tmp_path):
    """Two stores that must have nothing to say: of runs alone, and of runs together."""
    return [Store(tmp_path / name, say=pytest.fail) for name in ("alone", "together")]


@pytest.fixture
def said(store):
    """The lines that the user reads."""
    lines: list[str] = []
    store.say = lines.append
    return lines


class Inline:
    """An executor that does everything at once, in this thread."""

    def submit(self, function: Callable, *arguments) -> Future:
        done = Future()
        done.set_result(function(*arguments))
        return done


def train_together(
    runs: list[Run],
    dataset: Dataset,
    store: Store,
    reports: Reports | None = None,
    mode: Mode | None = None,
) -> list[Run]:
    """Train as a worker on a GPU does; the runs that the engine left to the plain loop."""
    reports = Reports() if reports is None else reports
    left = engine.train(runs, {"digits": dataset}, store, reports, mode or Mode())
    train_alone(left, dataset, store, reports)
    return left


def train_alone(runs: list[Run], dataset: Dataset, store: Store, reports=None) -> None:
    for run in runs:
        sweep.train_alone(run, dataset, store, Reports() if reports is None else reports)


def stack(runs: list[Run], dataset: Dataset, store: Store, captured: bool = False) -> Together:
    recorders = [Recorder(run, dataset, store, "engine") for run in runs]
    together = Together(recorders, dataset, Inline(), captured)
    together.begin_epoch()
    return together


def assert_same(one: dict, other: dict, rel: float) -> None:
    for name in CURVES:
        assert one[name] == pytest.approx(other[name], rel=rel), name
    for name in ("diverged_at_epoch", "confusion_matrix"):
        assert one[name] == other[name], name
    for name in ("test_loss", "final_train_loss", "final_train_accuracy"):
        assert one[name] == pytest.approx(other[name], rel=rel), name


@pytest.mark.parametrize("device", ["cpu", cuda])
def test_runs_together_have_the_numbers_of_the_plain_loop(device, double, few, digits, stores):
    source = few(network="BatchNormNet", seed=7)
    watched = {"network": "BatchNormNet", "gradient_statistics": True}
    runs = [
        few(),
        few(seed=2, learning_rate=0.01, momentum=0.9),
        few(seed=3, weight_decay=0.1, epochs=3),
        few(seed=4, initialisation="xavier", learning_rate=(0.1, 0.05)),
        few(seed=5, augmentation=("flip", "crop")),
        few(seed=6, drop_last=True),
        few(network="DropoutNet", dropout_rate=0.3),
        few(network="DropoutNet", dropout_rate=0.6, augmentation=("flip",)),
        source,
        few(epochs=4, **watched),
        few(epochs=7, seed=2, **watched),
        few(
            network="BatchNormNet",
            start=source,
            frozen=("conv1", "bn1", "conv2"),
            reinitialised=("fc1", "fc2"),
            weight_decay=0.1,
        ),
        few(overfit_images=1, batch_size=1, learning_rate=0.01, epochs=4),
        few(overfit_images=0, split="halves", epochs=1),  # validated on images of its own
    ]
    alone, together = stores
    train_alone(runs, digits, alone)
    assert train_together([source], digits.to(device), together) == []
    assert train_together(runs, digits.to(device), together) == []
    for run in runs:
        expected, found = alone.load_record(run), together.load_record(run)
        assert expected["engine"] is None
        assert found["engine"] == provenance.engine_fingerprint()
        assert_same(found, expected, rel=1e-9)
        weights, expected_weights = together.load_weights(run), alone.load_weights(run)
        assert weights.keys() == expected_weights.keys()
        for name, tensor in weights.items():
            assert torch.allclose(tensor, expected_weights[name], rtol=1e-9, atol=1e-12), name
        if run.gradient_statistics:
            statistics, expected_statistics = found["gradients"], expected["gradients"]
            for step in range(gradients.WINDOW):
                statistics[f"step {step}"] = statistics["by_step"][step]
                expected_statistics[f"step {step}"] = expected_statistics["by_step"][step]
            for window in expected_statistics.keys() - {"parameters", "by_step"}:
                for statistic, values in expected_statistics[window].items():
                    flat = torch.tensor(values).flatten().tolist()
                    assert torch.tensor(statistics[window][statistic]).flatten().tolist() == (
                        pytest.approx(flat, rel=1e-6, abs=1e-12)
                    ), (window, statistic)
    retrained = next(run for run in runs if run.start)
    frozen = together.load_weights(retrained)
    for name, tensor in together.load_weights(source).items():
        if name.split(".")[0] in retrained.frozen:
            assert torch.equal(frozen[name], tensor), name


@pytest.mark.parametrize("device", ["cpu", cuda])
@pytest.mark.parametrize(
    "network", [pytest.param("BaselineNet", marks=pytest.mark.slow), "DropoutNet", "BatchNormNet"]
)
def test_single_precision_agrees_over_the_first_epoch(device, network, a_run, digits, stores):
    """Batch normalisation amplifies rounding most, and the proof must pass it all the same."""
    few = {"overfit_images": 40, "batch_size": 16}
    dropout = {"dropout_rate": 0.4} if network == "DropoutNet" else {}
    runs = [
        a_run(network=network, seed=seed, epochs=1, learning_rate=0.01, **few, **dropout)
        for seed in (1, 2)
    ]
    alone, together = stores
    train_alone(runs, digits, alone)
    assert train_together(runs, digits.to(device), together) == []
    tolerance = 1e-2 if network == "BatchNormNet" else 1e-4
    for run in runs:
        found, expected = together.load_record(run), alone.load_record(run)
        assert found["train_loss"] == pytest.approx(expected["train_loss"], rel=tolerance)
        assert found["val_loss"] == pytest.approx(expected["val_loss"], rel=10 * tolerance)


@pytest.mark.parametrize("device", ["cpu", cuda])
def test_divergence_of_one_run_disturbs_no_other(device, double, few, digits, stores):
    sound = [few(seed=1, epochs=4), few(seed=2, epochs=4)]
    wild = few(seed=3, epochs=4, learning_rate=(0.05, 1e200, 0.05, 0.05))
    alone, together = stores
    train_alone([*sound, wild], digits, alone)
    seen = Reports()
    train_together([sound[0], wild, sound[1]], digits.to(device), together, seen)
    found = together.load_record(wild)
    assert found["diverged_at_epoch"] == alone.load_record(wild)["diverged_at_epoch"] == 1
    assert found["val_loss"][1:] == [None] * 3
    assert found["test_accuracy"] is None
    for run in sound:
        assert_same(together.load_record(run), alone.load_record(run), rel=1e-9)
    assert max(done for run, done in seen if run == wild) == 2
    assert [done for run, done in seen if run == sound[0]] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("device", ["cpu", cuda])
@pytest.mark.parametrize(
    "fields",
    [
        {"network": "BatchNormNet", "momentum": 0.9, "gradient_statistics": True},
        pytest.param(
            {
                "network": "DropoutNet",
                "dropout_rate": 0.4,
                "augmentation": ("crop",),
                "learning_rate": (0.1, 0.05, 0.02, 0.01),
            },
            marks=pytest.mark.slow,
        ),
    ],
)
def test_resuming_changes_no_bit(fields, device, every_epoch, few, digits, stores):
    """Not even where the runs that go on together had got to different epochs."""
    runs = [few(seed=seed, epochs=4, **fields) for seed in (1, 2)]
    images = digits.to(device)
    whole, parts = stores
    train_together(runs, images, whole)
    earlier: dict[Path, bytes] = {}
    for stop_at in (1, 2):
        with pytest.raises(Stop):
            train_together(runs, images, parts, Reports(stop_at))
        if stop_at == 1:
            earlier = {path: path.read_bytes() for path in parts.checkpoints.glob("*seed=2*")}
    ((path, content),) = earlier.items()
    path.write_bytes(content)  # the second run's second epoch is lost
    seen = Reports()
    assert train_together(runs, images, parts, seen) == []
    assert seen[:2] == [(runs[0], 2), (runs[1], 1)]
    for run in runs:
        one, other = whole.load_record(run), parts.load_record(run)
        for name in (*CURVES, "test_loss"):
            assert one[name] == other[name], name
        assert one.get("gradients") == other.get("gradients")


class Late:
    """A pool whose thread is so slow that it does nothing before somebody waits for it."""

    def __init__(self, threads: int) -> None: ...

    def __enter__(self) -> "Late":
        return self

    def __exit__(self, *error: object) -> None: ...

    def submit(self, function: Callable, *arguments: object) -> SimpleNamespace:
        return SimpleNamespace(result=partial(function, *arguments))


def test_slow_threads_change_no_bit(every_epoch, few, digits, stores, monkeypatch):
    fields = {"network": "DropoutNet", "dropout_rate": 0.4, "gradient_statistics": True}
    runs = [few(seed=seed, epochs=3, **fields) for seed in (1, 2)]
    for store in stores:
        train_together(runs, digits, store)
        monkeypatch.setattr(engine, "ThreadPoolExecutor", Late)
    for run in runs:
        one, other = (store.load_record(run) for store in stores)
        assert one["train_loss"] == other["train_loss"]
        one, other = (store.load_checkpoint(run) for store in stores)
        assert one["curves"] == other["curves"]
        assert str(one["gradients"]) == str(other["gradients"])
        for name, tensor in one["network"].items():
            assert torch.equal(other["network"][name], tensor), name


def test_run_killed_between_its_last_checkpoint_and_its_record(few, digits, stores):
    """It is evaluated with the weights that it had, though its companions train on."""
    runs = [few(network="BatchNormNet", seed=seed, epochs=2) for seed in (1, 2)]
    whole, parts = stores
    train_together(runs, digits, whole)
    parts.checkpoints.mkdir(parents=True)
    for path in whole.checkpoints.glob("*seed=1*"):
        (parts.checkpoints / path.name).write_bytes(path.read_bytes())
    train_together(runs, digits, parts)
    assert parts.load_record(runs[0])["test_loss"] == whole.load_record(runs[0])["test_loss"]
    # the second run trains without its companion, so that its last bits may differ
    assert_same(parts.load_record(runs[1]), whole.load_record(runs[1]), rel=1e-2)


def test_a_run_goes_on_as_it_began(double, few, digits, stores, monkeypatch):
    """The plain loop's by the plain loop, the engine's by the engine, however slow it is now."""
    alone, mixed = stores
    loops, engines = (
        [few(epochs=n, momentum=0.9) for n in (1, 2)],
        [few(epochs=n, seed=2) for n in (1, 2)],
    )
    train_alone([loops[1], engines[1]], digits, alone)
    train_alone(loops[:1], digits, mixed)
    train_together(engines[:1], digits, mixed)
    seconds = iter([9.0, 1.0])
    monkeypatch.setattr(engine, "seconds_a_step", lambda *_: next(seconds))
    seen, lines = Reports(), []
    mixed.say = lines.append
    assert train_together([loops[1], engines[1]], digits, mixed, seen) == loops[1:]
    assert lines == ["runs that the plain loop began, and trains one at a time: 1"]
    assert [done for run, done in seen if run == engines[1]] == [1, 2]
    assert next(done for run, done in seen if run == loops[1]) == 1
    for run, made_by in ((loops[1], None), (engines[1], provenance.engine_fingerprint())):
        assert_same(mixed.load_record(run), alone.load_record(run), rel=1e-9)
        assert mixed.load_record(run)["engine"] == made_by


def test_the_plain_loop_ends_what_the_engine_began_and_the_record_says_so(
    double, few, digits, stores
):
    alone, mixed = stores
    short, long = few(epochs=1, momentum=0.9), few(epochs=2, momentum=0.9)
    train_alone([long], digits, alone)
    train_together([short, few(seed=2)], digits, mixed)
    seen = Reports()
    assert train_together([long], digits, mixed, seen, Mode(ALONE)) == [long]
    assert seen[0] == (long, 1)
    assert_same(mixed.load_record(long), alone.load_record(long), rel=1e-9)
    assert mixed.load_record(long)["engine"] == provenance.engine_fingerprint()


def test_a_checkpoint_holds_one_run_not_its_companions(few, digits, store):
    runs = [few(seed=seed, epochs=1, momentum=0.9, width=16) for seed in (1, 2, 3)]
    train_together(runs, digits, store)
    sizes = [path.stat().st_size for path in store.checkpoints.glob("*.pt")]
    assert len(sizes) == 3
    assert max(sizes) < 3 * 4 * 89_834  # bytes of its weights and momentum, and half as much again


def test_checkpoints_cost_at_most_their_share_of_the_time(few, digits, store, monkeypatch):
    """Epochs of 11 s keep one each time; where that takes 1 s, only every fifth time."""
    kept = []
    clock = SimpleNamespace(now=0.0, cost=0.01, monotonic=lambda: clock.now)
    monkeypatch.setattr(engine, "time", clock)
    together = stack([few(seed=seed, epochs=1000) for seed in (1, 2)], digits, store)
    state_dicts = together.state_dicts

    def slow_copy():
        clock.now += clock.cost
        return state_dicts()

    def write(run, state, engine):
        kept.append((epoch, run.seed))

    monkeypatch.setattr(together, "state_dicts", slow_copy)
    monkeypatch.setattr(store, "save_checkpoint", write)
    checkpoints = engine.Checkpoints(together, Inline())
    for epoch in range(1, 21):
        clock.now += 11.0
        clock.cost = 0.01 if epoch < 5 else 1.0
        checkpoints.epoch_ended([0, 1])
    assert kept == [(epoch, seed) for epoch in (1, 2, 3, 4, 5, 10, 15, 20) for seed in (1, 2)]


def test_a_checkpoint_that_cannot_be_written_ends_training(few, digits, store, monkeypatch):
    def full(*_):
        raise UserError("cannot write: the disk is full")

    monkeypatch.setattr(store, "save_checkpoint", full)
    with pytest.raises(UserError, match="the disk is full"):
        train_together([few()], digits, store)


def test_the_statistics_of_batch_normalisation_keep_no_graph(few, digits, store):
    """Each step would add its own to it, with all activations, until memory runs out."""
    together = stack([few(network="BatchNormNet", seed=seed) for seed in (1, 2)], digits, store)
    for _ in range(2):
        together.step_once(10)
    assert any("running_mean" in name for name in together.fixed)
    assert not any(tensor.requires_grad for tensor in together.fixed.values())


def test_every_run_has_the_momentum_of_the_plain_loop(double, few, digits, store):
    """Two epochs of three steps; each run has a momentum and a weight decay of its own."""
    runs = [few(seed=1), few(seed=2, momentum=0.5), few(seed=3, momentum=0.9, weight_decay=0.1)]
    together = stack(runs, digits, store)
    for _ in range(2):
        for training, measured in zip(together.trainings, together.train_epoch(), strict=True):
            training.end_epoch(measured)
    for run, found in zip(runs, together.state_dicts(), strict=True):
        expected = trained(run, digits).state_dict()
        assert len(found["momentum"]) == (10 if run.momentum else 0)
        for kind in ("momentum", "network"):
            assert found[kind].keys() == expected[kind].keys()
            for name, tensor in expected[kind].items():
                assert torch.allclose(found[kind][name], tensor, 1e-9, 1e-12), (run.seed, name)


def test_what_trains_together(few, digits, store, monkeypatch):
    groups = []
    monkeypatch.setattr(engine, "train_together", lambda runs, *_: groups.append(list(runs)))
    one = [
        few(),
        few(seed=2, learning_rate=0.1, epochs=3, momentum=0.5, weight_decay=0.1),
        few(augmentation=("crop",), initialisation="zeros"),
        few(start=few(), reinitialised=("fc1",)),
    ]
    others = [
        few(network="BatchNormNet"),
        few(frozen=("conv1",)),
        few(width=8),
        few(batch_size=12),
        few(drop_last=True),
        few(gradient_statistics=True),
        few(overfit_images=0),
        few(split="halves"),
    ]
    train_together([others[0], *one, *others[1:]], digits, store)
    assert groups == [[others[0]], one, *([other] for other in others[1:])]


def test_never_more_at_once_than_32_bits_can_count(few, digits, store, monkeypatch):
    groups = []
    monkeypatch.setattr(engine, "train_together", lambda runs, *_: groups.append(len(runs)))
    train_together([few(seed=seed) for seed in range(300)], digits, store)
    assert groups == [150, 150]
    groups.clear()
    large = {"batch_size": 1000, "width": 32, "overfit_images": 0}
    train_together([few(seed=seed, **large) for seed in range(20)], digits, store)
    assert groups == [10, 10]


# Every way of failing, injected


def short_of_memory(monkeypatch, most: int, place: str, captured: bool = False) -> None:
    """Let a method of Together run out of memory where more than so many runs train."""
    method = getattr(Together, place)

    def fails(self, *arguments):
        if len(self.runs) > most and not captured:
            raise torch.OutOfMemoryError
        if len(self.runs) > most:
            raise stacked.CaptureError("a step cannot be captured") from torch.OutOfMemoryError()
        return method(self, *arguments)

    monkeypatch.setattr(Together, place, fails)


def test_fewer_train_at_once_where_memory_is_short(few, digits, store, said, monkeypatch):
    """It runs out before an epoch is trained, as the largest batch is evaluated first."""
    short_of_memory(monkeypatch, 2, "evaluate")
    trained, train_epoch = [], Together.train_epoch

    def watched(self):
        trained.append([run.seed for run in self.runs])
        return train_epoch(self)

    monkeypatch.setattr(Together, "train_epoch", watched)
    runs = [few(seed=seed, epochs=1) for seed in range(7)]
    assert train_together(runs, digits, store) == []
    assert trained == [[0], [1, 2], [3, 4], [5, 6]]
    assert said[0] == "too little GPU memory for 7 runs at once: 4 at once instead"
    assert all(store.is_finished(run) for run in runs)


def test_memory_that_runs_out_in_a_capture_replaces_the_worker(few, digits, store, monkeypatch):
    short_of_memory(monkeypatch, 2, "step", captured=True)
    runs = [few(seed=seed, epochs=1) for seed in range(4)]
    with pytest.raises(engine.ReplaceWorker) as raised:
        train_together(runs, digits, store)
    assert raised.value.mode == Mode(CAPTURED, 2)
    assert str(raised.value) == "too little GPU memory for 4 runs at once: 2 at once instead"
    assert train_together(runs, digits, store, mode=raised.value.mode) == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("no"), TOO_LITTLE),
        (RuntimeError("CUDA error: out of memory"), TOO_LITTLE),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), TOO_LITTLE),
        (RuntimeError("CUDA error: no kernel image is available"), "torch cannot use this GPU: "),
        (RuntimeError("shapes do not match"), None),
    ],
)
def test_what_ends_training_on_a_gpu(error, expected, few, digits, store, said, monkeypatch):
    """A line that tells the user what to do, where there is something; else the error itself."""

    def fails(*_):
        raise error

    monkeypatch.setattr(engine, "train_together", fails)
    with pytest.raises(UserError if expected else RuntimeError) as raised:
        train_together([few(seed=seed) for seed in range(3)], digits, store)
    if expected:
        assert expected in str(raised.value)
        assert "use --device" in str(raised.value)
    else:
        assert raised.value is error


def wrong_steps(monkeypatch, layer: str, factor: float, from_channels: int = 3) -> None:
    """Make a layer wrong where gradients are taken, so that no evaluation shows it."""
    right = getattr(stacked, layer)

    def wrong(input, *others, **more):
        outputs = right(input, *others, **more)
        applies = torch.is_grad_enabled() and input.shape[1] >= from_channels
        return outputs * factor if applies else outputs

    monkeypatch.setattr(stacked, layer, wrong)


@pytest.mark.parametrize("network", ["BaselineNet", "BatchNormNet"])
def test_a_wrong_engine_trains_nothing(network, few, digits, store, stores, said, monkeypatch):
    """A product that is a hundredth too large is found before the first step."""
    if network == "BaselineNet":
        wrong_steps(monkeypatch, "convolution", 1.01, from_channels=8)
    else:
        wrong_steps(monkeypatch, "batch_norm", 1.01)
    runs = [few(network=network, seed=seed) for seed in (1, 2)]
    assert train_together(runs, digits, store) == runs
    (line,) = said
    assert line.startswith(f"{provenance.device_name('cpu')}, torch {torch.__version__}: ")
    assert re.search("the engine disagrees with the plain loop in the (loss|gradient of)", line)
    assert line.endswith("; training one run at a time instead")
    train_alone(runs, digits, stores[0])
    for run in runs:
        record, expected = store.load_record(run), stores[0].load_record(run)
        assert record["engine"] is None
        for name in (*CURVES, "test_loss"):
            assert record[name] == expected[name], name


@pytest.mark.parametrize("row", [0, 1])
def test_a_wrong_evaluation_trains_nothing(row, few, digits, store, said, monkeypatch):
    """No step would show it: batch normalisation evaluates with other numbers than it trains."""
    right = Together.evaluate

    def wrong(self, images):
        logits = right(self, images)
        logits[row] *= 1.001
        return logits

    monkeypatch.setattr(Together, "evaluate", wrong)
    runs = [few(network="BatchNormNet", seed=seed) for seed in (1, 2)]
    assert train_together(runs, digits, store) == runs
    (line,) = said
    assert "the engine disagrees with the plain loop in an evaluation by " in line
    assert line.endswith("; training one run at a time instead")


def test_weights_of_zero_are_no_disagreement(few, digits, store):
    runs = [few(initialisation="zeros", seed=seed) for seed in (1, 2)]
    assert train_together(runs, digits, store) == []


def test_logits_that_overflow_are_no_disagreement(few, digits, store):
    """Such a run will diverge, which is its own affair."""
    together = stack([few(), few(seed=2)], digits, store)
    assert engine.evaluated_otherwise(together, digits.test_images) is None
    with torch.no_grad():
        together.trainings[1].network.fc2.bias.fill_(math.inf)
    assert engine.evaluated_otherwise(together, digits.test_images) is None


def test_evaluation_in_batches_is_that_of_the_plain_loop(few, digits, store, monkeypatch):
    """Of 30 images, which are more than one batch, and the last one is short."""
    monkeypatch.setattr(stacked, "EVALUATION_BATCH", 7)
    together = stack([few(seed=seed) for seed in (1, 2, 3)], digits, store)
    logits = together.evaluate(digits.test_images)
    assert logits.shape == (3, 30, 10)
    for row, training in enumerate(together.trainings):
        expected = evaluate(training.network, digits.test_images)
        assert torch.allclose(logits[row], expected, 1e-4, 1e-5)


FIRST = slice(0, 4 * 27)  # conv1.weight, in a flat gradient


def first_run_in_large_batches(together: Together, gradient: Tensor, size: int) -> None:
    """Not in the short batch of 4."""
    gradient[0, FIRST] *= 1.0 if size < 10 else 1.1


def last_run(together: Together, gradient: Tensor, size: int) -> None:
    gradient[-1, FIRST] *= 1.01


def every_run_in_some_batches(together: Together, gradient: Tensor, size: int) -> None:
    """So that each run agrees in one of its batches."""
    gradient *= 1.0 if together.position < 2 * size else 1.5


def all_weights(together: Together, gradient: Tensor, size: int) -> None:
    """They are those of the plain network, too: from then on both are wrong."""
    gradient *= math.nan
    together.flat.data *= math.nan


def loss(together: Together, gradient: Tensor, size: int) -> None:
    together.loss_sums += 0.001 * size


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (first_run_in_large_batches, "in the gradient of conv1.weight by "),
        (every_run_in_some_batches, "in the gradient of conv1.weight by 4e-01"),
        (all_weights, "in the gradient of conv1.weight by nan"),
        (loss, "disagrees with the plain loop in the loss by "),
        (last_run, r"in the gradient of conv1.weight by (8e-03|1e-02); training one run"),
    ],
)
def test_an_error_in_a_part_of_a_step_is_found(spoil, words, few, digits, store, said, monkeypatch):
    step_once = Together.step_once

    def wrong(self, size):
        gradient = step_once(self, size)
        spoil(self, gradient, size)
        return gradient

    monkeypatch.setattr(Together, "step_once", wrong)
    runs = [few(seed=seed, epochs=1) for seed in (1, 2, 3)]
    assert train_together(runs, digits, store) == runs
    assert re.search(words, said[0])


def test_each_run_must_agree_in_one_of_its_batches(few, digits, store, monkeypatch):
    """Rounding can move a gradient at a pool: in one batch of the first run, in one of the last."""
    step_once, steps = Together.step_once, []

    def unlucky(self, size):
        gradient = step_once(self, size)
        if len(steps) < 2:
            gradient[steps.count(size), FIRST] *= 1.1
        steps.append(size)
        return gradient

    monkeypatch.setattr(Together, "step_once", unlucky)
    monkeypatch.setattr(engine, "TRIES", 2)
    runs = [few(seed=seed, batch_size=8, epochs=1) for seed in (1, 2)]  # all batches have 8
    assert train_together(runs, digits, store) == []


def test_plain_steps_of_the_proof_do_without_cudnn(few, digits, store, monkeypatch):
    """Of several ways to convolve it may take one that rounds more than the engine may differ by.

    What is timed is the plain loop as it is.
    """
    seen: dict[str, set[bool]] = {"compared": set(), "timed": set()}
    plain_step = Together.plain_step

    def compared(self, row, size):
        seen["compared"].add(torch.backends.cudnn.enabled)
        return plain_step(self, row, size)

    def timed(*_):
        seen["timed"].add(torch.backends.cudnn.enabled)
        return 0.0

    monkeypatch.setattr(Together, "plain_step", compared)
    monkeypatch.setattr(engine, "seconds_a_step", timed)
    train_together([few(epochs=1)], digits, store)
    assert seen == {"compared": {False}, "timed": {True}}
    monkeypatch.setattr(engine, "disagreement", lambda *_: "in the loss by 1e-01")
    store.say = lambda line: None
    assert len(train_together([few(epochs=2, seed=2)], digits, store)) == 1
    assert torch.backends.cudnn.enabled


def test_a_capture_that_fails_says_why(monkeypatch):
    """Ending it raises an error of its own, as torch.cuda.graph does."""

    class Graph:
        def __init__(self, *_, stream) -> None: ...

        def __enter__(self) -> None: ...

        def __exit__(self, *error) -> None:
            raise RuntimeError("CUDA error: operation failed due to a previous error")

    def step():
        if not warm_ups:
            raise RuntimeError("CUDA error: the reason")
        warm_ups.pop()

    warm_ups = [True] * stacked.WARM_UP_STEPS
    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, instead in {
        "CUDAGraph": lambda: None,
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": nullcontext,
        "graph": Graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, instead)
    monkeypatch.setattr(stacked, "copies", list)
    monkeypatch.setattr(stacked, "restore", lambda *_: None)
    on_a_gpu = SimpleNamespace(device=torch.device("cuda"))
    with pytest.raises(stacked.CaptureError, match="cannot be captured: CUDA error: the reason"):
        stacked.capture(step, [on_a_gpu])


def test_captured_steps_that_differ_are_not_used(few, digits, store, stores, said, monkeypatch):
    def inexact(step, state):
        def launch():
            gradient = step()
            with torch.no_grad():
                state[0][0, 0] += 1e-4
            return gradient

        return launch

    monkeypatch.setattr(stacked, "capture", inexact)
    runs = [few(seed=seed) for seed in (1, 2)]
    assert train_together(runs, digits, store) == []
    (line,) = said
    assert line.endswith(
        ": captured steps give other numbers than the same uncaptured; "
        "training without CUDA graphs instead"
    )
    monkeypatch.undo()
    train_together(runs, digits, stores[1])
    for run in runs:
        assert store.load_record(run)["train_loss"] == stores[1].load_record(run)["train_loss"]


def test_an_engine_that_is_slower_gives_way(few, digits, store, said, monkeypatch):
    seconds = iter([0.0031, 0.001])
    monkeypatch.setattr(engine, "seconds_a_step", lambda *_: next(seconds))
    runs = [few(seed=seed) for seed in (1, 2, 3)]
    assert train_together(runs, digits, store) == runs
    assert "a step of 3 BaselineNet at once takes 3.10 ms, and a plain step 1.00 ms;" in said[0]
    assert all(store.load_record(run)["engine"] is None for run in runs)


def test_the_proof_changes_no_bit(few, digits, stores, monkeypatch):
    def timed(together, step):
        step()
        return 0.0

    monkeypatch.setattr(engine, "seconds_a_step", timed)
    fields = {"network": "BatchNormNet", "momentum": 0.9, "gradient_statistics": True}
    runs = [few(seed=seed, **fields) for seed in (1, 2)]
    for store in stores:
        train_together(runs, digits, store)
        monkeypatch.setattr(engine, "prove", lambda *_: None)
    for run in runs:
        one, other = (store.load_record(run) for store in stores)
        for name in (*CURVES, "test_loss", "gradients"):
            assert one[name] == other[name], name


class Worker:
    """A worker process that is none: it does its work when it is started."""

    def __init__(self, target, args, name, daemon):
        self.target, self.args, self.name = target, args, name
        self.exitcode = 0

    def start(self):
        self.target(*self.args)

    def kill(self):
        pass

    join = kill


@pytest.fixture
def pretended_gpu(digits, monkeypatch):
    """A sweep's worker for a GPU runs in this process, on the CPU."""
    context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=Worker)
    name = provenance.device_name("cpu")
    monkeypatch.setattr(provenance, "device_name", lambda device: name)
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: context)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(sweep, "end_with_parent", lambda: None)
    monkeypatch.setattr(sweep, "load_data", lambda name: SimpleNamespace(to=lambda device: digits))
    answer = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, answer)


@pytest.mark.parametrize("times", [1, 2])
def test_an_error_of_cuda_replaces_the_worker(
    times, pretended_gpu, every_epoch, few, digits, store, stores, monkeypatch, capfd
):
    """The first time it goes on uncaptured, then by the plain loop."""
    train_epoch, failed = Together.train_epoch, []

    def fails(self):
        if self.trainings[0].epoch > len(failed) and len(failed) < times:
            failed.append(self.captured)
            raise RuntimeError(ILLEGAL)
        return train_epoch(self)

    monkeypatch.setattr(Together, "train_epoch", fails)
    runs = [few(seed=seed, epochs=3) for seed in (1, 2)]
    sweep.train_once(runs, store, ["cuda:0"], False)
    assert failed == [True, False][:times]
    lines = [line for line in capfd.readouterr().err.splitlines() if " instead" in line]
    where = f"{provenance.device_name('cpu')}, torch {torch.__version__}"
    illegal = f"{where}: {ILLEGAL.splitlines()[0]}"
    assert (
        lines
        == [
            f"{illegal}; training without CUDA graphs instead",
            f"{illegal}; training one run at a time instead",
        ][:times]
    )
    monkeypatch.undo()
    train_together(runs, digits, stores[1])
    for run in runs:
        found, expected = store.load_record(run), stores[1].load_record(run)
        assert len(found["trained"]) == 1 + times  # intervals: it was resumed, not begun again
        if times == 1:
            assert found["train_loss"] == expected["train_loss"]
        assert found["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-5)


def test_too_little_memory_for_the_plain_loop_is_one_line(
    pretended_gpu, few, store, monkeypatch, capfd
):
    """There is nothing left to fall back to. What other workers finish is kept."""
    errors = [RuntimeError("CUDA error: out of memory\nmore"), RuntimeError(ILLEGAL)]
    expected = [SystemExit, RuntimeError]  # of a worker process; the latter with its traceback
    monkeypatch.setattr(engine, "train", lambda runs, *_: runs)
    for error, kind in zip(errors, expected, strict=True):

        def fails(*_, error=error):
            raise error

        monkeypatch.setattr(sweep, "train_alone", fails)
        receiver, sender = multiprocessing.Pipe(duplex=False)
        run = few()
        arguments = ([[run]], False, store, "cuda:0", provenance.fingerprints([run], "cuda:0"))
        with pytest.raises(kind):
            sweep.work(*arguments, Mode(), sender)
        sender.close()
        if kind is SystemExit:
            line = "cuda:0: CUDA error: out of memory: free some, or use --device cpu"
            assert receiver.recv() == ("say", line)
        with pytest.raises(EOFError):
            receiver.recv()


def test_a_core_claims_one_run_at_a_time(pretended_gpu, few, digits, store, monkeypatch):
    """So that another core, or another sweep, can take over what is left."""
    runs, free = [few(seed=seed) for seed in range(3)], []

    def look(run, *_):
        for other in runs:
            with store.claim(other) as claimed:
                free.append((run.seed, other.seed, claimed))

    monkeypatch.setattr(sweep, "train_alone", look)
    sweep.train_once(runs, store, ["cpu"], False)
    assert free == [(one, other, one != other) for one in range(3) for other in range(3)]


def test_never_more_than_so_many_runs_are_claimed_at_once(pretended_gpu, few, store, monkeypatch):
    """Each claim is an open file, of which a system allows so many."""
    claimed = []
    monkeypatch.setattr(engine, "MOST_AT_ONCE", 3)
    monkeypatch.setattr(engine, "train", lambda runs, *_: claimed.append(len(runs)) or [])
    sweep.train_once([few(seed=seed) for seed in range(7)], store, ["cuda:0"], False)
    assert claimed == [2, 2, 3]


def test_a_capture_that_fails_replaces_the_worker(
    pretended_gpu, few, digits, store, monkeypatch, capfd
):
    def fails(step, state):
        raise stacked.CaptureError("a step cannot be captured: operation not permitted")

    monkeypatch.setattr(stacked, "capture", fails)
    run = few()
    sweep.train_once([run], store, ["cuda:0"], False)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if " instead" in line]
    assert line.endswith("operation not permitted; training without CUDA graphs instead")
    assert store.load_record(run)["engine"] == provenance.engine_fingerprint()


# Networks of a user's own


class Small(nn.Module):
    """A small network; subclasses say what is special to them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4 * 16, 10)

    def features(self, images: Tensor) -> Tensor:
        return self.conv(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(F.adaptive_avg_pool2d(F.relu(self.features(images)), 4).flatten(1))


class Dilated(Small):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, dilation=2)


class Grouped(Small):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, groups=3)
        self.fc = nn.Linear(6 * 16, 10)


class WithDropout(Small):
    def features(self, images: Tensor) -> Tensor:
        return F.dropout(self.conv(images), 0.3, self.training)


class WithoutRule(Small):
    """vmap has no batching rule for this operation, and takes it run by run."""

    def features(self, images: Tensor) -> Tensor:
        return self.conv(images).lerp_(images[:, :1], 0.5)


class OfItsBatch(Small):
    """Its evaluation depends on which images are evaluated together."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)

    def features(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images))


class RateAsNumber(Small):
    """It keeps the dropout rate as a number, which only the first of several runs would use."""

    noise_features = 4 * 16

    def __init__(self, dropout_rate: float = 0.0) -> None:
        super().__init__()
        self.rate = dropout_rate

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        x = F.adaptive_avg_pool2d(F.relu(self.features(images)), 4).flatten(1)
        return self.fc(x if noise is None else x * (noise >= self.rate) / (1 - self.rate))


class Branching(Small):
    def features(self, images: Tensor) -> Tensor:
        features = self.conv(images)
        return features if features.mean() > 0 else -features


@pytest.mark.parametrize(
    "network", [Dilated, Grouped, WithDropout, WithoutRule, OfItsBatch, Branching]
)
def test_a_network_that_cannot_be_stacked_trains_alone(
    network, few, digits, store, stores, said, add_to
):
    add_to(models, network)
    runs = [few(network=network.__name__, seed=seed) for seed in (1, 2)]
    assert train_together(runs, digits, store) == runs
    (line,) = said
    assert f": {network.__name__} cannot train several runs in one step (" in line
    assert line.endswith("; training one run at a time instead")
    train_alone(runs, digits, stores[0])
    for run in runs:
        assert store.load_record(run)["val_loss"] == stores[0].load_record(run)["val_loss"]


def test_a_dropout_rate_that_is_no_tensor_trains_alone(few, digits, store, said, add_to):
    """It is told although the first and the last run have the same rate."""
    add_to(models, RateAsNumber)
    runs = [few(network="RateAsNumber", seed=n, dropout_rate=r) for n, r in ((1, 0), (2, 0.8))]
    runs.append(few(network="RateAsNumber", seed=3))
    assert train_together(runs, digits, store) == runs
    (line,) = said
    assert "the engine disagrees with the plain loop in " in line


class Usual(nn.Module):
    """Layers with options that users choose, none of them in the study's networks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding="same", bias=False)
        self.bn1 = nn.BatchNorm2d(4, affine=False)
        self.conv2 = nn.Conv2d(4, 5, (4, 3), padding="same", stride=1)
        self.bn2 = nn.BatchNorm2d(5, momentum=0.3, eps=1e-3)
        self.conv3 = nn.Conv2d(5, 7, 5, padding="valid", stride=(3, 2), padding_mode="zeros")
        self.norm = nn.GroupNorm(1, 7)
        self.conv4 = nn.Conv2d(7, 3, 3, padding=1, padding_mode="reflect")
        self.bn4 = nn.BatchNorm2d(3)
        self.fc = nn.Linear(3 * 16, 10, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        x = self.bn2(self.conv2(F.max_pool2d(F.gelu(self.bn1(self.conv1(images))), 2)))
        x = self.bn4(self.conv4(F.relu(self.norm(self.conv3(x)))))
        return self.fc(F.adaptive_avg_pool2d(x, 4).flatten(1))


class Shared(Small):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(3, 4, 3, padding=1)
        self.other.weight = self.conv.weight

    def features(self, images: Tensor) -> Tensor:
        return self.conv(images) + self.other(images)


@pytest.mark.parametrize("network", [Usual, Shared])
def test_usual_layers_train_together(network, double, few, digits, stores, add_to):
    add_to(models, network)
    runs = [few(network=network.__name__, seed=seed, momentum=0.5) for seed in (1, 2)]
    alone, together = stores
    train_alone(runs, digits, alone)
    assert train_together(runs, digits, together) == []
    for run in runs:
        assert_same(together.load_record(run), alone.load_record(run), rel=1e-9)
        weights = together.load_weights(run)
        assert weights.keys() == alone.load_weights(run).keys()


# The parts of a step


@pytest.mark.parametrize("batch", [1, 3, 50])
@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "padding", "bias"),
    [
        (4, (3, 3), 1, 1, True),
        (3, (3, 3), 1, 1, True),  # 27 columns, and one of ones
        (3, 3, 1, 1, False),
        (4, (5, 3), (2, 1), (0, 1), True),
        (5, (1, 1), 2, 0, True),
        (4, (4, 3), 1, "same", False),
    ],
)
def test_a_convolution_is_products_of_patches(
    channels, kernel, stride, padding, bias, batch, double, monkeypatch
):
    layer = nn.Conv2d(channels, 6, kernel, stride=stride, padding=padding, bias=bias)
    images = torch.randn(batch, channels, 9, 8, requires_grad=True)
    expected = layer(images)
    inner, bmm = [], torch.bmm

    def watched(rows, columns):
        inner.append(rows.shape[1])
        return bmm(rows, columns)

    monkeypatch.setattr(torch, "bmm", watched)
    with stacked.WithoutCuDNN():
        found = layer(images)
    assert max(inner) <= stacked.INNER  # what the gradient of the weights adds up at once
    assert found.shape == expected.shape
    assert torch.allclose(found, expected)
    weighting = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weighting).sum(), [images, *layer.parameters()])
    gotten = torch.autograd.grad((found * weighting).sum(), [images, *layer.parameters()])
    for one, other in zip(gotten, wanted, strict=True):
        assert torch.allclose(one, other)


def test_a_batch_is_folded_into_products_of_about_a_thousand_rows(few, digits, store, monkeypatch):
    shapes, bmm = [], torch.bmm

    def watched(rows, columns):
        shapes.append(tuple(rows.shape))
        return bmm(rows, columns)

    monkeypatch.setattr(torch, "bmm", watched)
    run = few(overfit_images=100, batch_size=64, width=16)
    stack([run], digits, store).step_once(64)
    assert shapes == [(64, 1024, 28), (16, 1024, 144), (4, 1024, 288)]


def test_draws_that_no_run_uses_are_not_copied(few, digits, store):
    assert len(stack([few()], digits, store).draws) == 2
    together = stack([few(), few(augmentation=("flip",))], digits, store)
    assert [rows.shape for rows in together.draws] == [
        (2, 24), (2, 24, 0), (2, 24), (2, 24, 2),
    ]  # fmt: skip


def test_a_step_is_all_in_the_state_that_a_capture_restores(few, digits, store):
    """A step's warm-up is undone by writing back state(): nothing else may change in a step."""
    fields = {"network": "BatchNormNet", "momentum": 0.9, "gradient_statistics": True}
    together = stack([few(seed=seed, **fields) for seed in (1, 2)], digits, store)

    def everything() -> dict[str, torch.Tensor]:
        found = {}
        for name, value in vars(together).items():
            if isinstance(value, dict | list | tuple):
                parts = value.items() if isinstance(value, dict) else enumerate(value)
            else:
                parts = [("", value)]
            for key, part in parts:
                if isinstance(part, torch.Tensor):
                    found[f"{name} {key}"] = part.detach().clone()
        return found

    before, state = everything(), [tensor.detach().clone() for tensor in together.state()]
    together.step_once(10)
    after = everything()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    for part in ("flat ", "buffers ", "fixed bn4.running_var", "fixed bn1.num_batches_tracked"):
        assert part in changed
    assert {"loss_sums ", "correct ", "moments ", "position "} <= changed
    stacked.restore(together.state(), state)
    restored = everything()
    for name in before:
        assert torch.equal(restored[name], before[name]), name


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_two_identical_sweeps_on_a_gpu_agree_to_the_last_bit(a_run, digits, stores):
    runs = [a_run(seed=seed, learning_rate=0.1) for seed in range(1, 6)]
    once, again = stores
    for store in (once, again):
        train_together(runs, digits.to("cuda"), store)
    for run in runs:
        for name, tensor in once.load_weights(run).items():
            assert torch.equal(again.load_weights(run)[name], tensor), name


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_rehearsal_on_a_gpu_from_command_to_figures(project):
    done = project.run("--quick", "--device", "cuda")
    assert done.returncode == 0, done.stderr
    assert " instead" not in done.stderr  # the engine trained all runs
    assert torch.cuda.get_device_name() in done.stdout
    assert {run["seed"] for group in project.summary()["groups"] for run in group["runs"]} == {1, 2}


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_step_is_the_step_and_a_capture_changes_nothing(few, digits, store):
    def steps(captured: bool):
        runs = [few(network="BatchNormNet", seed=seed, momentum=0.9) for seed in (1, 2)]
        together = stack(runs, digits.to("cuda"), store, captured)
        for size in (10, 10, 4):
            together.step(size)
        return [tensor.clone() for tensor in together.state()]

    for one, other in zip(steps(True), steps(False), strict=True):
        assert torch.equal(one, other)
        assert math.isfinite(one.double().sum().item())


def walk(loss: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """torch.autograd.grad, node by node: PyTorch's own has no pretended CUDA device."""
    order, seen = [], set()

    def visit(node):
        if node is not None and node not in seen:
            seen.add(node)
            for following, _ in node.next_functions:
                visit(following)
            order.append(node)

    visit(loss.grad_fn)
    waiting = {loss.grad_fn: {0: torch.ones_like(loss)}}
    found = {}
    for node in reversed(order):
        gradients = waiting.pop(node, None)
        if gradients is None:
            continue
        if hasattr(node, "variable"):
            found[id(node.variable)] = gradients[0]
            continue
        arguments = [gradients.get(i) for i in range(len(node._input_metadata))]
        if not callable(node):  # a torch.autograd.Function, which is given zeros
            arguments = [
                torch.zeros(tuple(like.shape), dtype=like.dtype, device=like.device)
                if argument is None
                else argument
                for argument, like in zip(arguments, node._input_metadata, strict=True)
            ]
        results = (node if callable(node) else node.apply)(*arguments)
        results = results if isinstance(results, tuple) else (results,)
        for (following, i), result in zip(node.next_functions, results, strict=False):
            if following is not None and result is not None:
                result = result.sum_to_size(following._input_metadata[i].shape)
                slots = waiting.setdefault(following, {})
                slots[i] = slots[i] + result if i in slots else result
    return [found[id(tensor)] for tensor in inputs]


class Devices(TorchDispatchMode):
    """Counts operations by whether their tensors lie on more than one device."""

    def __init__(self) -> None:
        super().__init__()
        self.across: list[str] = []
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
        self.count += 1
        if len({tensor.device.type for tensor in tensors}) > 1:
            self.across.append(str(function))
        return result


VARIANTS = [
    {},
    {"network": "DropoutNet", "dropout_rate": 0.3, "augmentation": ("flip", "crop")},
    {"network": "BatchNormNet", "momentum": 0.9, "gradient_statistics": True},
    {"network": "BatchNormNet", "frozen": ("conv1", "bn1", "conv2"), "weight_decay": 0.1},
]


@pytest.mark.parametrize("fields", VARIANTS)
def test_walking_the_graph_gives_autograds_gradients(fields, few, digits, store, monkeypatch):
    runs = [few(seed=seed, **fields) for seed in (1, 2)]
    expected = stack(runs, digits, store).step_once(10)
    monkeypatch.setattr(torch.autograd, "grad", walk)
    assert torch.equal(stack(runs, digits, store).step_once(10), expected)


class Launches(TorchDispatchMode):
    """Notes the operations of a step, and takes them again as a CUDA graph does.

    That is without any Python of the step, on the same memory: of tensors it keeps the places.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        if not function.is_view:  # which moves no number
            operation = (args, kwargs or {}, results)
            places = tree_map_only(Tensor, Tensor.detach, operation)
            self.operations.append((function, *places))
        return results

    def launch(self) -> None:
        with torch.no_grad():
            for function, args, kwargs, results in self.operations:
                again = function(*args, **kwargs)
                for old, new in zip(tree_leaves(results), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor):
                        old.copy_(new)


@pytest.mark.parametrize("fields", VARIANTS)
def test_launching_a_step_again_is_taking_it_again(
    fields, every_epoch, few, digits, stores, monkeypatch
):
    """A captured step must read all that changes from where it was when it was captured.

    So must the steps of later epochs, and of a sweep that goes on from a checkpoint.
    """
    rates = [(0.1, 0.05, 0.02, 0.01), (0.05, 0.1, 0.01, 0.02)]
    runs = [few(seed=s, epochs=4, learning_rate=r, **fields) for s, r in enumerate(rates)]
    captures = []

    def capture(step: Callable[[], Tensor], state: list[Tensor]) -> Callable[[], Tensor]:
        before = stacked.copies(state)
        with Launches() as launches:
            outputs = step()
        stacked.restore(state, before)
        captures.append(launches)

        def launch() -> Tensor:
            launches.launch()
            return outputs

        return launch

    taken, launched = stores
    train_together(runs, digits, taken, mode=Mode(UNCAPTURED))
    monkeypatch.setattr(stacked, "capture", capture)
    with pytest.raises(Stop):
        train_together(runs, digits, launched, Reports(2))
    assert train_together(runs, digits, launched) == []
    assert len(captures) == 4  # a batch of each size, before the stop and after it
    assert min(len(launches.operations) for launches in captures) > 50
    for run in runs:
        one, other = taken.load_record(run), launched.load_record(run)
        for name in (*CURVES, "test_loss", "final_train_loss"):
            assert one[name] == other[name], name
        assert one.get("gradients") == other.get("gradients")
        for name, tensor in taken.load_weights(run).items():
            assert torch.equal(launched.load_weights(run)[name], tensor), name


@pytest.mark.parametrize("fields", VARIANTS)
def test_a_step_is_possible_on_a_gpu(fields, few, digits, store, monkeypatch):
    """On a pretended one: its tensors have shapes and devices, and PyTorch takes its CUDA paths.

    No operation of a step may reach across devices, or wait for a number from the GPU: that raises.
    """
    recorders = [Recorder(few(seed=seed, **fields), digits, store, "engine") for seed in (1, 2)]
    monkeypatch.setattr(torch.autograd, "grad", walk)
    names = ("images", "labels", "test_images", "test_labels")
    build = partial(getattr(models, recorders[0].run.network))
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        tensors = [getattr(digits, name) for name in names]
        empty = [torch.empty(t.shape, dtype=t.dtype) for t in tensors]
        images = Dataset(*empty, digits.class_names)
        for recorder in recorders:
            training, run = recorder.training, recorder.run
            dropout = {"dropout_rate": run.dropout_rate} if run.dropout_rate else {}
            training.network = build(width=run.width, **dropout)
            for layer in run.frozen:
                training.network.get_submodule(layer).requires_grad_(False)
            trainable = [p for p in training.network.named_parameters() if p[1].requires_grad]
            training.momentum = {n: torch.zeros_like(p) for n, p in trainable if run.momentum}
            training.train_indices, training.val_indices = torch.zeros(2, 24, dtype=torch.int64)
        with torch.device("cpu"):  # where the draws are made
            together = Together(recorders, images, Inline(), captured=False)
            together.begin_epoch()
            with Devices() as devices:
                gradient = together.step_once(10)
            logits = together.evaluate(images.test_images)
    assert devices.count > 100
    assert devices.across == []
    assert gradient.device.type == logits.device.type == "cuda"
    assert gradient.shape == together.flat.shape
    assert logits.shape == (2, 30, 10)
