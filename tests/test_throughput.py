"""The benchmark of throughput: what it counts, what it makes of it, and that it never hangs."""

import multiprocessing
import time
from functools import partial
from threading import Barrier

import pytest
import torch
from conftest import ROOT, cifar10_root
from torch.utils.flop_counter import FlopCounterMode

import download
import models
from benchmarks import throughput
from benchmarks.throughput import LARGE_PRODUCTS, Contestant, Stopwatch, TimeIsUp
from errors import UserError

CPU = torch.device("cpu")
FOLDER = cifar10_root() / download.FOLDER


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


def test_large_products_count_what_they_do():
    tally = Tally(CPU, 0.0, Barrier(1))
    with FlopCounterMode(display=False) as counter, pytest.raises(TimeIsUp):
        throughput.large_products(tally, FOLDER)
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


@pytest.mark.parametrize(
    ("loop", "runs"),
    [
        (partial(throughput.plain_loop, workers=0), 1),
        (throughput.one_run, 1),
        (partial(throughput.runs_together, runs=2), 2),
    ],
)
def test_every_contestant_trains_on_what_it_counts(loop, runs, cifar10, monkeypatch):
    networks = []

    def keep(make):
        def kept(*arguments):
            made = make(*arguments)
            networks.extend([t.network for t in made] if isinstance(made, list) else [made])
            before.extend(
                [p.detach().clone() for p in network.parameters()] for network in networks
            )
            return made

        return kept

    before = []
    monkeypatch.setattr(throughput, "plain_network", keep(throughput.plain_network))
    monkeypatch.setattr(throughput, "begin", keep(throughput.begin))
    stopwatch = Stopwatch(CPU, 0.0, Barrier(1))
    with pytest.raises(TimeIsUp):
        loop(stopwatch, FOLDER)
    assert stopwatch.work == throughput.STEPS_BETWEEN_LOOKS * 64 * runs
    assert len(networks) == runs
    for network, initial in zip(networks, before, strict=True):
        for weights, old in zip(network.parameters(), initial, strict=True):
            assert weights.isfinite().all()
            assert not torch.equal(weights, old)


def test_one_run_counts_the_short_batch_and_the_next_epoch(cifar10, monkeypatch):
    def begin_with_few_images(*arguments):
        (training,) = begin(*arguments)
        training.train_indices = training.train_indices[:136]
        return [training]

    begin = throughput.begin
    monkeypatch.setattr(throughput, "begin", begin_with_few_images)
    tally = Tally(CPU, 0.0, Barrier(1))
    with pytest.raises(TimeIsUp):
        throughput.one_run(tally, FOLDER)
    assert tally.work == [64, 64, 8, 64, 64]


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


def too_large(stopwatch, folder):
    raise torch.OutOfMemoryError


def test_processes_of_a_contestant_run_at_once_and_add_up(tmp_path):
    contestant = Contestant("two", seven_a_second, processes=2)
    assert throughput.race(contestant, CPU, 0.1, tmp_path) == (14.0, 0)
    assert not multiprocessing.active_children()


def test_a_process_that_fails_ends_the_others(tmp_path):
    with pytest.raises(UserError, match=r"^two: one of its processes failed$"):
        throughput.race(Contestant("two", fail_in_one_process, 2), CPU, 0.1, tmp_path)
    assert not multiprocessing.active_children()


def test_a_process_that_hangs_is_given_up(tmp_path):
    (tmp_path / "first").touch()  # so that none fails
    with pytest.raises(UserError, match=r"^slow: nothing heard for 1 s$"):
        throughput.race(Contestant("slow", fail_in_one_process, 2), CPU, 0.1, tmp_path, 1.0)
    assert not multiprocessing.active_children()


def test_too_little_memory_is_no_failure(tmp_path):
    assert throughput.race(Contestant("large", too_large), CPU, 0.1, tmp_path) is None


def test_start_up_is_seen_and_leaves_nothing_behind(cifar10):
    def results():
        return sorted((ROOT / "results").rglob("*"))

    before = results()
    assert 0.5 < throughput.start_up_seconds(CPU) < throughput.PATIENCE_SECONDS
    assert results() == before


def test_a_start_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR10_DIR", str(tmp_path))
    with pytest.raises(UserError, match=r"no first step after .*: CIFAR10_DIR=.*there is no"):
        throughput.start_up_seconds(CPU)


@pytest.fixture
def result() -> dict:
    """As on a GPU where a hundred runs found too little memory."""
    entered = [
        Contestant("plain loop", print),
        Contestant("5 plain loops at once", print, processes=5),
        Contestant("engine.py, 25 runs", print, runs=25),
        Contestant("engine.py, 100 runs", print, runs=100),
        Contestant(LARGE_PRODUCTS, print),
    ]
    rates = {
        "plain loop": [2_000.0, 1_000.0, 6_000.0],
        "5 plain loops at once": [3_200.0, 3_200.0, 3_200.0],
        "engine.py, 25 runs": [64_000.0, 16_000.0, 32_000.0],
        LARGE_PRODUCTS: [4e12, 2e12, 1e12],
    }
    memory = {"plain loop": 2**20, "5 plain loops at once": 2**21, "engine.py, 25 runs": 3 * 2**20}
    about = {"device": "a GPU", "type": "cuda", "torch": "2.10", "cores": 4, "date": "2026-01-02"}
    about |= {"seconds": 20.0, "turns": 3, "load_average_before": 1.9}
    return about | throughput.summarise(entered, rates, memory, [4.0, 9.0, 5.0])


def test_a_summary_is_medians_ranges_and_ratios(result):
    plain, five, together = result["contestants"]  # and none for a hundred
    assert plain["images_a_second"] == {
        "median": 2_000.0,
        "lowest": 1_000.0,
        "highest": 6_000.0,
        "turns": [2_000.0, 1_000.0, 6_000.0],
    }
    assert [row["times_the_plain_loop"] for row in (plain, five, together)] == [1.0, 1.6, 16.0]
    assert [row["seconds_a_step"] for row in (plain, five, together)] == [0.032, 0.1, 0.05]
    assert together["fraction_of_large_products"] == 32_000 * 16_322_304 / 2e12
    assert together["bytes_a_run"] == 3 * 2**20
    assert result["start_up_seconds"]["median"] == 5.0


def test_the_report_says_it_in_words(result):
    lines = throughput.report(result).splitlines()
    cells = [cell.strip() for cell in lines[4].split("|")[1:-1]]
    assert cells == [
        "engine.py, 25 runs", "32,000", "16,000–64,000", "16.0", "26.1", "50.00", "3.0",
    ]  # fmt: skip
    for words in ("3 turns of 20 s", "a GPU, 4 cores", "16.3 MFLOP", "2,000 GFLOP/s", "5.0 s"):
        assert words in lines[-1]
    assert "was busy" not in lines[-1]
    assert "was busy" in throughput.report(result | {"load_average_before": 2.1})


def test_the_figure_shows_medians(result):
    bars, rates, steps = throughput.figure(result).axes
    assert [bar.get_width() for bar in bars.patches] == [2_000.0, 3_200.0, 32_000.0]
    assert [label.get_text() for label in bars.get_yticklabels()][2] == "engine.py, 25 runs"
    assert "32,000  (16.0×)" in [text.get_text() for text in bars.texts]
    assert rates.lines[0].get_xydata().tolist() == [[25, 0.032]]
    assert steps.lines[0].get_xydata().tolist() == [[25, 50.0]]
    result["contestants"] = result["contestants"][:2]
    assert len(throughput.figure(result).axes) == 1
