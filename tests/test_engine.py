"""Runs trained together against the same runs trained alone by the plain loop.

In float64 the two agree to twelve digits through whole runs, which no error of the engine would
survive; in float32, where training amplifies the last bit, over its first steps.
"""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import data
import engine
import gradients
import models
import train
from errors import UserError
from runs import CURVES
from store import Store

cuda = pytest.param(
    "cuda",
    marks=[
        pytest.mark.cuda,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    ],
)


@pytest.fixture
def double(monkeypatch):
    """Everything in float64."""
    normalise = data.normalise
    monkeypatch.setattr(data, "normalise", lambda images: normalise(images).double())
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def few(a_run):
    """A function that makes a run of 200 images: three steps of 64 an epoch, and one of 8."""
    return lambda **fields: a_run(**({"overfit_images": 200} | fields))


def stores(tmp_path):
    return (Store(tmp_path / name, "exp", say=pytest.fail) for name in ("alone", "together"))


def assert_same(one: dict, other: dict, rel: float) -> None:
    for name in CURVES:
        assert one[name] == pytest.approx(other[name], rel=rel), name
    for name in ("diverged_at_epoch", "confusion_matrix"):
        assert one[name] == other[name], name
    for name in ("test_loss", "final_train_loss", "final_train_accuracy"):
        assert one[name] == pytest.approx(other[name], rel=rel), name


@pytest.mark.parametrize("device", ["cpu", cuda])
def test_runs_together_are_the_runs_alone(device, double, few, digits, tmp_path):
    source = few(network="BatchNormNet", seed=7)
    runs = [
        few(),
        few(seed=2, learning_rate=0.01, momentum=0.9),
        few(seed=3, weight_decay=0.1, epochs=3),
        few(seed=4, initialisation="xavier", learning_rate=(0.1, 0.05)),
        few(seed=5, augmentation=("flip", "crop")),
        few(network="DropoutNet", dropout_rate=0.3),
        few(network="DropoutNet", dropout_rate=0.6, augmentation=("flip",)),
        source,
        few(network="BatchNormNet", width=4, epochs=4, gradient_statistics=True),
        few(network="BatchNormNet", width=4, epochs=7, gradient_statistics=True, seed=2),
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
    alone, together = stores(tmp_path)
    train.train(runs, digits, alone)
    engine.train(runs, digits.to(device), together)
    for run in runs:
        expected, found = alone.load_result(run), together.load_result(run)
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
    frozen = together.load_weights(runs[10])
    for name, tensor in together.load_weights(source).items():
        if name.split(".")[0] in runs[10].frozen:
            assert torch.equal(frozen[name], tensor), name


@pytest.mark.parametrize("device", ["cpu", cuda])
@pytest.mark.parametrize("network", ["BaselineNet", "DropoutNet", "BatchNormNet"])
def test_in_single_precision_too(device, network, a_run, digits, tmp_path):
    """One epoch on the standard split; batch normalisation amplifies rounding most."""
    dropout = {"dropout_rate": 0.4} if network == "DropoutNet" else {}
    runs = [
        a_run(network=network, seed=seed, epochs=1, learning_rate=0.01, **dropout)
        for seed in (1, 2)
    ]
    alone, together = stores(tmp_path)
    train.train(runs, digits, alone)
    engine.train(runs, digits.to(device), together)
    tolerance = 1e-2 if network == "BatchNormNet" else 1e-4
    for run in runs:
        found, expected = together.load_result(run), alone.load_result(run)
        assert found["train_loss"] == pytest.approx(expected["train_loss"], rel=tolerance)
        assert found["val_loss"] == pytest.approx(expected["val_loss"], rel=10 * tolerance)


@pytest.mark.parametrize("device", ["cpu", cuda])
def test_divergence_of_one_run_disturbs_no_other(device, double, few, digits, tmp_path):
    sound = [few(seed=1, epochs=4), few(seed=2, epochs=4)]
    wild = few(seed=3, epochs=4, learning_rate=(0.05, 1e200, 0.05, 0.05))
    alone, together = stores(tmp_path)
    train.train([*sound, wild], digits, alone)
    seen = []
    engine.train(
        [sound[0], wild, sound[1]], digits.to(device), together, lambda *report: seen.append(report)
    )
    found = together.load_result(wild)
    assert found["diverged_at_epoch"] == alone.load_result(wild)["diverged_at_epoch"] == 1
    assert found["val_loss"][1:] == [None] * 3
    assert found["test_accuracy"] is None
    for run in sound:
        assert_same(together.load_result(run), alone.load_result(run), rel=1e-9)
    assert max(done for run, done in seen if run == wild) == 2
    assert [done for run, done in seen if run == sound[0]] == [0, 1, 2, 3, 4]


class Stop(Exception):
    pass


@pytest.mark.parametrize("device", ["cpu", cuda])
@pytest.mark.parametrize(
    "fields",
    [
        {"network": "BatchNormNet", "momentum": 0.9, "gradient_statistics": True},
        {
            "network": "DropoutNet",
            "dropout_rate": 0.4,
            "augmentation": ("crop",),
            "learning_rate": (0.1, 0.05, 0.02, 0.01),
        },
    ],
)
def test_resuming_changes_no_bit(fields, device, few, digits, tmp_path, monkeypatch):
    """Nor does it when the runs that go on together had got to different epochs."""
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", 0.0)
    runs = [few(seed=seed, epochs=4, **fields) for seed in (1, 2)]
    images = digits.to(device)
    whole, parts = stores(tmp_path)
    engine.train(runs, images, whole)

    def stop_at(epochs):
        def report(_, done):
            if done >= epochs:
                raise Stop

        return report

    with pytest.raises(Stop):
        engine.train(runs, images, parts, stop_at(2))  # the second run's second epoch is lost
    resumed_at = {}
    engine.train(runs, images, parts, lambda run, done: resumed_at.setdefault(run, done))
    assert resumed_at == {runs[0]: 2, runs[1]: 1}
    for run in runs:
        one, other = whole.load_result(run), parts.load_result(run)
        for name in (*CURVES, "test_loss"):
            assert one[name] == other[name], name
        assert one.get("gradients") == other.get("gradients")


def test_a_run_killed_between_its_last_checkpoint_and_its_result(few, digits, tmp_path):
    """It is tested as it was, though its companions train on."""
    runs = [few(network="BatchNormNet", seed=seed, epochs=2) for seed in (1, 2)]
    whole, parts = stores(tmp_path)
    engine.train(runs, digits, whole)
    for name in ("checkpoints", "runs"):
        (parts.folder / name).mkdir(parents=True)
    for path in whole.folder.glob(f"checkpoints/{runs[0].name}*"):
        (parts.folder / "checkpoints" / path.name).write_bytes(path.read_bytes())
    engine.train(runs, digits, parts)
    for run in runs:
        assert parts.load_result(run)["test_loss"] == whole.load_result(run)["test_loss"]


def test_checkpoints_pass_between_engine_and_plain_loop(double, few, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", 0.0)
    short, long = few(epochs=1, momentum=0.9), few(epochs=2, momentum=0.9)
    alone, mixed = stores(tmp_path)
    train.train([long], digits, alone)
    engine.train([short, few(seed=2)], digits, mixed)
    started = []
    train.train([long], digits, mixed, lambda _, done: started.append(done))
    assert started[0] == 1
    assert_same(mixed.load_result(long), alone.load_result(long), rel=1e-9)


def test_a_checkpoint_holds_one_run_not_its_companions(few, digits, store):
    runs = [few(seed=seed, epochs=1) for seed in range(1, 9)]
    engine.train(runs, digits, store)
    sizes = [path.stat().st_size for path in store.folder.glob("checkpoints/*.pt")]
    assert len(sizes) == 8
    assert max(sizes) < 2 * 4 * 89_834  # bytes of its weights in float32, and as much again


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
        few(batch_size=32),
        few(gradient_statistics=True),
        few(overfit_images=0),
        few(split="halves"),
    ]
    engine.train([others[0], *one, *others[1:]], digits, store)
    assert groups == [[others[0]], one, *([other] for other in others[1:])]


def test_fewer_at_once_where_memory_is_short(few, digits, store, monkeypatch):
    trained, said = [], []
    store.say = said.append

    def train_together(runs, *_):
        if len(runs) > 2:
            raise torch.OutOfMemoryError
        trained.append([run.seed for run in runs])

    monkeypatch.setattr(engine, "train_together", train_together)
    engine.train([few(seed=seed) for seed in range(7)], digits, store)
    assert trained == [[0], [1, 2], [3, 4], [5, 6]]
    assert "too little GPU memory for 7 runs at once: 3 at once instead" in said


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("no"), UserError),
        (RuntimeError("CUDA error: out of memory"), UserError),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), UserError),
        (RuntimeError("shapes do not match"), RuntimeError),
    ],
)
def test_too_little_memory_for_one_run(error, expected, few, digits, store, monkeypatch):
    def train_together(runs, *_):
        raise error

    monkeypatch.setattr(engine, "train_together", train_together)
    with pytest.raises(expected) as raised:
        engine.train([few(seed=seed) for seed in range(3)], digits, store)
    if expected is UserError:
        assert "too little free GPU memory for one run" in str(raised.value)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [((3, 3), 1, 1), ((5, 3), (2, 1), (0, 1)), ((1, 1), 2, 0)]
)
def test_a_convolution_is_a_product_of_patches(kernel, stride, padding, double):
    layer = torch.nn.Conv2d(4, 6, kernel, stride=stride, padding=padding)
    images = torch.randn(3, 4, 9, 8, requires_grad=True)
    expected = layer(images)
    with engine.WithoutCuDNN():
        found = layer(images)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected)
    weighting = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weighting).sum(), [images, *layer.parameters()])
    gotten = torch.autograd.grad((found * weighting).sum(), [images, *layer.parameters()])
    for one, other in zip(gotten, wanted, strict=True):
        assert torch.allclose(one, other)
    dilated = torch.nn.Conv2d(4, 6, 3, dilation=2)
    with engine.WithoutCuDNN(), pytest.raises(NotImplementedError):
        dilated(images)


def test_a_step_is_all_in_the_state_that_a_capture_restores(few, digits, store):
    """A step's warm-up is undone by writing back _state(): nothing else may change in a step."""
    runs = [
        few(network="BatchNormNet", seed=seed, momentum=0.9, gradient_statistics=True)
        for seed in (1, 2)
    ]
    trainings = [train.Training(run, digits, store) for run in runs]
    together = engine.Together(trainings, digits)
    together.begin_epoch()

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

    before, state = everything(), [tensor.detach().clone() for tensor in together._state()]
    together._step_once(64)
    after = everything()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    for part in ("weights conv1.weight", "weights bn4.running_var", "momentum_buffers 0"):
        assert part in changed
    assert {"loss_sums ", "correct ", "moments ", "position "} <= changed
    with torch.no_grad():
        for tensor, value in zip(together._state(), state, strict=True):
            tensor.copy_(value)
    restored = everything()
    for name in before:
        assert torch.equal(restored[name], before[name]), name


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_two_identical_sweeps_on_a_gpu_agree_to_the_last_bit(a_run, digits, tmp_path):
    runs = [a_run(seed=seed, learning_rate=0.1) for seed in range(1, 6)]
    once, again = stores(tmp_path)
    for store in (once, again):
        engine.train(runs, digits.to("cuda"), store)
    for run in runs:
        for name, tensor in once.load_weights(run).items():
            assert torch.equal(again.load_weights(run)[name], tensor), name


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_step_is_the_step_and_a_capture_changes_nothing(few, digits, store, tmp_path):
    def steps(captured: bool):
        own = Store(tmp_path / str(captured), "exp")
        runs = [few(network="BatchNormNet", seed=seed, momentum=0.9) for seed in (1, 2)]
        images = digits.to("cuda")
        together = engine.Together([train.Training(run, images, own) for run in runs], images)
        together.begin_epoch()
        take = together._step if captured else together._step_once
        for size in (64, 64, 64, 8):
            take(size)
        return [tensor.clone() for tensor in together._state()]

    for one, other in zip(steps(True), steps(False), strict=True):
        assert torch.equal(one, other)
        assert math.isfinite(one.double().sum().item())


@pytest.mark.parametrize("network", ["BaselineNet", "DropoutNet", "BatchNormNet"])
def test_a_step_is_possible_on_a_gpu(network, few, digits, store, monkeypatch):
    """On a pretended one: its tensors have shapes and devices, and PyTorch takes its CUDA paths.

    What depends on a real one is the backward pass, which is left out.
    """
    run = few(network=network, augmentation=("flip", "crop"), gradient_statistics=True)
    monkeypatch.setattr(
        torch.autograd, "grad", lambda loss, weights: [torch.zeros_like(w) for w in weights]
    )
    networks = [getattr(models, network), [0.3] if network == "DropoutNet" else []]
    trainings = [train.Training(run, digits, store) for _ in range(2)]
    names = ("images", "labels", "test_images", "test_labels")
    with FakeTensorMode(), torch.device("cuda"):
        tensors = [getattr(digits, name) for name in names]
        images = data.Dataset(*(torch.empty(t.shape, dtype=t.dtype) for t in tensors), ())
        for training in trainings:
            training.network = networks[0](*networks[1])
            training.train_indices, training.val_indices = torch.zeros(2, 200, dtype=torch.int64)
        with torch.device("cpu"):  # where the draws are made
            together = engine.Together(trainings, images)
            together.begin_epoch()
            gradients = together._step_once(64)
            logits = together.evaluate(images.test_images)
    assert {gradient.device.type for gradient in gradients} == {"cuda"}
    assert logits.device.type == "cuda"
    assert logits.shape == (2, 297, 10)
