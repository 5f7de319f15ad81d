"""The benchmark of throughput: what it counts, what it makes of it, and that it never hangs."""

import json
import multiprocessing
import time
from functools import partial
from pathlib import Path
from threading import Barrier

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import models
from benchmarks import throughput
from benchmarks.throughput import LARGE_PRODUCTS, Contestant, Stopwatch, TimeIsUp
from lab.checks import UserError
from lab.stacked import CaptureError
from train import Training

CPU = torch.device("cpu")


class Tally(Stopwatch):
    """Keeps the first five steps."""

    def done(self, work):
        self.work = [*(self.work or []), work]
        if len(self.work) == 5:
            raise TimeIsUp


def test_flop_are_those_of_the_layers():
    conv1, conv2, conv3 = 32**2 * 16 * 27, 16**2 * 32 * 144, 8**2 * 64 * 288
    dense = 1024 * 64 + 64 * 10
    # once forward, once for the weights, and but for conv1 once for what came in
    assert throughput.flop_an_image() == 2 * (2 * conv1 + 3 * (conv2 + conv3 + dense))


def test_large_products_count_what_they_do(tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "CHANNELS", 16)
    tally = Tally(CPU, 0.0, Barrier(1))
    with FlopCounterMode(display=False) as counter, pytest.raises(TimeIsUp):
        throughput.large_products(tally, tmp_path)
    assert sum(tally.work) == counter.get_total_flops()


def test_the_plain_network_is_the_baseline():
    plain, baseline = throughput.plain_network(), models.BaselineNet()
    for mine, theirs in zip(plain.parameters(), baseline.parameters(), strict=True):
        mine.data.copy_(theirs)
    images = torch.randn(5, 3, 32, 32)
    assert torch.allclose(plain(images), baseline(images), atol=1e-6)


def test_the_warm_up_does_not_count(monkeypatch):
    clock = iter([100.0, 101.0, 104.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    stopwatch, steps = Stopwatch(CPU, 2.0, Barrier(1)), 0
    with pytest.raises(TimeIsUp):
        while True:
            stopwatch.done(64)
            steps += 1
    looks = throughput.STEPS_BETWEEN_LOOKS
    assert steps == 3 * looks - 1  # the first look starts the clock, the third finds time up
    assert stopwatch.rate == 2 * looks * 64 / 4.0


@pytest.fixture(params=["digits", pytest.param("cifar10", marks=pytest.mark.slow)])
def images(request, digits, tmp_path, monkeypatch) -> Path:
    """The folder of the images that the contestants find: small ones, or the real CIFAR-10."""
    if request.param == "cifar10":
        request.getfixturevalue("cifar10")
        return throughput.download.data_folder()

    def small(folder, transform):
        pairs = zip(digits.images[:128].numpy(), digits.labels.tolist(), strict=False)
        return [(transform(image), label) for image, label in pairs]

    monkeypatch.setattr("torchvision.datasets.CIFAR10", small)
    monkeypatch.setattr(throughput, "resident", lambda *_: digits)
    return tmp_path


@pytest.mark.parametrize(
    ("loop", "runs"),
    [
        (partial(throughput.plain_loop, workers=0), 1),
        (throughput.one_run, 1),
        (partial(throughput.runs_together, runs=2), 2),
    ],
)
def test_every_contestant_trains_on_what_it_counts(loop, runs, images, monkeypatch):
    networks, before = [], []

    def keep(network):
        networks.append(network)
        before.append([p.detach().clone() for p in network.parameters()])
        return network

    plain_network, init = throughput.plain_network, Training.__init__

    def keep_training(self, *arguments):
        init(self, *arguments)
        keep(self.network)

    monkeypatch.setattr(Training, "__init__", keep_training)
    monkeypatch.setattr(throughput, "plain_network", lambda: keep(plain_network()))
    monkeypatch.setattr(throughput, "STEPS_BETWEEN_LOOKS", 3)
    stopwatch = Stopwatch(CPU, 0.0, Barrier(1))
    with pytest.raises(TimeIsUp):
        loop(stopwatch, images)
    assert stopwatch.work == 3 * 64 * runs
    assert len(networks) == runs
    for network, initial in zip(networks, before, strict=True):
        for weights, old in zip(network.parameters(), initial, strict=True):
            assert weights.isfinite().all()
            assert not torch.equal(weights, old)


def test_one_run_counts_the_short_batch_and_the_next_epoch(digits, tmp_path, monkeypatch):
    few = throughput.Run(**(vars(throughput.a_run(1)) | {"overfit_images": 136}))
    monkeypatch.setattr(throughput, "a_run", lambda seed: few)
    monkeypatch.setattr(throughput, "resident", lambda *_: digits)
    tally = Tally(CPU, 0.0, Barrier(1))
    with pytest.raises(TimeIsUp):
        throughput.one_run(tally, tmp_path)
    assert tally.work == [64, 64, 8, 64, 64]


@pytest.fixture(params=["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def processes(request, monkeypatch) -> None:
    """How the processes of a contestant start: quickly, or as they do."""
    if request.param not in multiprocessing.get_all_start_methods():
        pytest.skip("Windows has no fork")
    context = multiprocessing.get_context(request.param)
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: context)


def seven_a_second(stopwatch, folder):
    stopwatch.barrier.wait(60)  # only together with the other process
    stopwatch.rate = 7.0
    raise TimeIsUp


def fail_in_one_process(stopwatch, folder):
    try:
        (folder / "first").touch(exist_ok=False)
    except FileExistsError:
        stopwatch.barrier.wait()  # for ever
    raise RuntimeError("as a test wants it")


def hang(stopwatch, folder):
    time.sleep(600)


def too_large(stopwatch, folder):
    raise CaptureError("a step cannot be captured") from torch.OutOfMemoryError()


def test_processes_of_a_contestant_run_at_once_and_add_up(processes, tmp_path):
    contestant = Contestant("two", seven_a_second, processes=2)
    assert throughput.race(contestant, CPU, 0.1, tmp_path) == 14.0
    assert not multiprocessing.active_children()


def test_a_process_that_fails_ends_the_others(processes, tmp_path):
    said = r"^two: one of its processes failed: as a test wants it$"
    with pytest.raises(UserError, match=said):
        throughput.race(Contestant("two", fail_in_one_process, 2), CPU, 0.1, tmp_path)
    assert not multiprocessing.active_children()


def test_a_process_that_hangs_is_given_up(processes, tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "PATIENCE_SECONDS", 0.2)
    with pytest.raises(UserError, match=r"^slow: nothing heard for 0.2 s$"):
        throughput.race(Contestant("slow", hang, 2), CPU, 0.1, tmp_path)
    assert not multiprocessing.active_children()


def test_too_little_memory_is_no_failure(processes, tmp_path):
    assert throughput.race(Contestant("large", too_large), CPU, 0.1, tmp_path) is None


def test_on_a_gpu_the_engine_takes_part():
    labels = [contestant.label for contestant in throughput.contestants(torch.device("cuda"))]
    for n in ("1 run", "5 runs", "25 runs", "100 runs", "250 runs"):
        assert {f"engine, {n}", f"one graph, {n}"} <= set(labels)


@pytest.fixture
def result() -> dict:
    """As on a GPU."""
    rates = {
        "plain loop": [2_000.0, 1_000.0, 6_000.0],
        "5 plain loops at once": [3_200.0, 3_200.0, 3_200.0],
        "engine, 25 runs": [64_000.0, 16_000.0, 32_000.0],
        LARGE_PRODUCTS: [4e12, 2e12, 1e12],
    }
    about = {"device": "a GPU", "type": "cuda", "torch": "2.10", "cores": 4, "date": "2026-01-02"}
    about |= {"seconds": 20.0, "turns": 3, "load_average_before": 1.9}
    return about | throughput.summarise(rates)


def test_a_summary_is_medians_ranges_and_ratios(result):
    plain, five, together = result["contestants"]
    assert plain["images_a_second"] == {
        "median": 2_000.0,
        "lowest": 1_000.0,
        "highest": 6_000.0,
        "turns": [2_000.0, 1_000.0, 6_000.0],
    }
    assert [row["times_the_plain_loop"] for row in (plain, five, together)] == [1.0, 1.6, 16.0]
    assert together["fraction_of_large_products"] == 32_000 * 16_322_304 / 2e12


def test_the_report_says_it_in_words(result):
    lines = throughput.report(result).splitlines()
    cells = [cell.strip() for cell in lines[4].split("|")[1:-1]]
    assert cells == ["engine, 25 runs", "32,000", "16,000–64,000", "16.0", "26.1"]
    for words in ("3 measurements of 20 s each", "a GPU, 4 cores", "16.3 MFLOP", "2,000 GFLOP/s"):
        assert words in lines[-1]
    assert "was busy" not in lines[-1]
    assert "was busy" in throughput.report(result | {"load_average_before": 2.1})


def test_the_figure_and_the_file_show_medians(result, tmp_path):
    (bars,) = throughput.figure(result).axes
    assert [bar.get_width() for bar in bars.patches] == [2_000.0, 3_200.0, 32_000.0]
    assert [label.get_text() for label in bars.get_yticklabels()][2] == "engine, 25 runs"
    assert "32,000  (16.0×)" in [text.get_text().strip() for text in bars.texts]
    data, drawing = throughput.save(result, tmp_path)
    assert json.loads(data.read_text()) == result
    assert drawing.read_bytes().startswith(b"\x89PNG")


def test_it_says_how_it_is_used(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["throughput", "--help"])
    with pytest.raises(SystemExit):
        throughput.main()
    assert "python -m benchmarks.throughput" in capsys.readouterr().out
    assert Path(throughput.__file__).parent.name == "benchmarks"
