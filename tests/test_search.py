"""The two searches: where they look, what they find, and that nothing else decides."""

import numpy as np
import pytest
from scipy.stats import ks_2samp
from test_summary import record

import exp4_init
import exp4_search
import experiment
from errors import UserError
from runs import INITIALISATIONS, check
from search import best_so_far, grid, sample, summarise_search, winner

RATES, MOMENTA = [1e-4, 1e-2], [0.85, 0.99]


def pairs(points):
    return [(point["learning_rate"], point["momentum"]) for point in points]


def test_the_grid_is_the_list_written_by_hand():
    # thirds of two decades, 10^(2/3) = 4.641589, and thirds of 0.14
    rates = [1e-4, 4.641589e-4, 2.154435e-3, 1e-2]
    momenta = [0.85, 0.896667, 0.943333, 0.99]
    expected = [(rate, momentum) for rate in rates for momentum in momenta]
    found = sorted(pairs(grid(RATES, MOMENTA, 4, seed=1)))
    assert np.array(found) == pytest.approx(np.array(expected), rel=1e-5)
    assert sorted(pairs(grid(RATES, MOMENTA, 2, seed=1))) == [
        *((1e-4, 0.85), (1e-4, 0.99), (1e-2, 0.85), (1e-2, 0.99)),
    ]


def test_the_grid_is_walked_in_an_order_of_the_seeds_own():
    one, again, other = (grid(RATES, MOMENTA, 4, seed) for seed in (1, 1, 2))
    assert one == again
    assert one != other
    assert sorted(pairs(one)) == sorted(pairs(other))
    firsts = {pairs(grid(RATES, MOMENTA, 4, seed))[0] for seed in range(200)}
    assert len(firsts) == 16  # any point can be the first


def test_samples_are_those_of_the_seed():
    one, again, other = (sample(RATES, MOMENTA, 16, seed) for seed in (1, 1, 2))
    assert one == again
    assert len(set(pairs(one + other))) == 32
    assert sample(RATES, MOMENTA, 4, 1) == one[:4]  # a larger budget goes on where this one ends
    assert all(type(value) is float for point in one for value in point.values())
    assert len(sample(RATES, MOMENTA, 2, 2**63 - 1)) == 2  # any seed that a run can have


def test_samples_are_uniform_where_they_should_be():
    """Against draws of the textbook's kind: 10 to the minus u, u uniform from 2 to 4."""
    found = np.array(pairs(sample(RATES, MOMENTA, 4_000, seed=0)))
    stream = np.random.default_rng(0)
    rates, momenta = 10 ** -stream.uniform(2, 4, 4_000), stream.uniform(0.85, 0.99, 4_000)
    for mine, textbook, (low, high) in zip(
        found.T, (rates, momenta), (RATES, MOMENTA), strict=True
    ):
        assert low <= mine.min() < mine.max() <= high
        assert ks_2samp(mine, textbook).pvalue > 0.01
    # half of the rates lie below the middle of the exponents, not of the rates
    assert np.quantile(found[:, 0], [0.25, 0.5, 0.75]) == pytest.approx(
        [10**-3.5, 10**-3, 10**-2.5], rel=0.1
    )
    assert abs(np.corrcoef(np.log(found[:, 0]), found[:, 1])[0, 1]) < 0.05  # independent


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([0.3, 0.2, 0.5, 0.5, 0.4], [0.3, 0.3, 0.5, 0.5, 0.5]),
        ([None, 0.0, None, 0.1], [None, 0.0, 0.0, 0.1]),
        ([None, None], [None, None]),
        ([], []),
    ],
)
def test_best_so_far_by_hand(accuracies, expected):
    assert best_so_far(accuracies) == expected


def test_the_winner_is_the_highest_and_the_first_of_equals():
    points = [{"at": i, "val_accuracy": value} for i, value in enumerate([0.3, None, 0.6, 0.6])]
    assert winner(points) == points[2]
    assert winner(points[1:2]) is None
    assert winner([]) is None


def tried(seed, rate, momentum, val, **fields):
    run = {"network": "BaselineNet", "seed": seed, "learning_rate": rate, "split": "standard"}
    run |= {"momentum": momentum} if momentum else {}
    return record(seed, val, run=run, **fields)


@pytest.fixture
def found():
    """Two repeats of three points; the highest test accuracy is not where validation is highest."""
    return summarise_search(
        [
            [tried(7, 0.1, 0.9, 0.30, test=0.99), tried(8, 0.2, 0.8, 0.5, diverged_at=1)],
            [tried(7, 0.3, 0.7, 0.70, test=0.01), tried(8, 0.4, 0.6, 0.5, test=0.99)],
            [tried(7, 0.5, 0.5, 0.60, val_accuracy=[0.9, 0.6]), tried(8, 0.6, 0.0, 0.6)],
        ]
    )


def test_a_search_is_summarised_by_repeat(found):
    first, second = found["repeats"]
    assert (first["seed"], second["seed"]) == (7, 8)
    assert pairs(first["points"]) == [(0.1, 0.9), (0.3, 0.7), (0.5, 0.5)]
    assert pairs(second["points"]) == [(0.2, 0.8), (0.4, 0.6), (0.6, 0.0)]
    assert first["best_so_far"] == [0.30, 0.70, 0.70]
    assert second["best_so_far"] == [None, 0.5, 0.6]
    assert second["points"][0]["diverged_at_epoch"] == 1
    assert second["points"][0]["val_accuracy"] is None
    assert found["best_so_far"]["mean"] == pytest.approx([0.30, 0.60, 0.65])
    assert found["best_so_far"]["std"] == [
        None,
        pytest.approx(0.2 / 2**0.5),
        pytest.approx(0.1 / 2**0.5),
    ]
    assert pairs([first["winner"], second["winner"]]) == [(0.3, 0.7), (0.6, 0.0)]
    assert found["winner"] == first["winner"]


def test_test_results_are_no_part_of_a_search(found):
    assert "test" not in str(found)


def test_a_search_that_only_diverged_has_no_winner():
    nothing = summarise_search([[tried(7, 0.1, 0.9, 0.3, diverged_at=0)]])
    assert nothing["winner"] is nothing["repeats"][0]["winner"] is None
    assert nothing["best_so_far"] == {"mean": [None], "std": [None]}


def test_both_searches_spend_the_same_runs_on_the_same_ranges():
    searches = exp4_search.search_runs(4)
    seeds = exp4_search.SEARCH_SEEDS
    for groups in searches.values():
        assert len(groups) == 16
        for group in groups.values():
            assert [run.seed for run in group] == seeds
            for run in group:
                assert (run.network, run.split, run.batch_size) == ("BaselineNet", "standard", 64)
                assert (run.epochs, run.weight_decay) == (exp4_search.EPOCHS, 0)
                assert 1e-4 <= run.learning_rate <= 1e-2
                assert 0.85 <= run.momentum <= 0.99
    by_repeat = {
        name: [
            [(run.learning_rate, run.momentum) for run in repeat]
            for repeat in zip(*groups.values(), strict=True)
        ]
        for name, groups in searches.items()
    }
    walks = by_repeat["grid"]
    assert all(sorted(walk) == sorted(walks[0]) for walk in walks)
    assert len({tuple(walk) for walk in walks}) == len(seeds)
    assert len({point for repeat in by_repeat["random"] for point in repeat}) == 16 * len(seeds)


def test_the_winners_are_trained_from_seeds_that_no_search_has_seen():
    point = {"learning_rate": 0.0012345, "momentum": 0.95, "val_accuracy": 0.6, "seed": 101}
    (label,) = groups = exp4_search.final_runs({"random": point})
    assert label == "random, lr=0.00123, momentum=0.95"
    assert [run.seed for run in groups[label]] == [1, 2, 3, 4, 5]
    assert not set(exp4_search.SEARCH_SEEDS) & {run.seed for run in groups[label]}
    for run in groups[label]:
        assert (run.learning_rate, run.momentum) == (0.0012345, 0.95)
        assert run.epochs == exp4_search.EPOCHS


def test_a_rehearsal_keeps_whole_repeats():
    groups = experiment.rehearsal(exp4_search.search_runs(2)["grid"])
    for repeat in zip(*groups.values(), strict=True):
        assert len({run.seed for run in repeat}) == 1
        assert len({(run.learning_rate, run.momentum) for run in repeat}) == 4


def test_initialisations_differ_in_nothing_else():
    groups = exp4_init.runs()
    assert tuple(groups) == INITIALISATIONS
    for label, group in groups.items():
        assert [run.seed for run in group] == [1, 2, 3, 4, 5]
        for run in group:
            assert run.initialisation == label
            assert run.gradient_statistics
            assert (run.network, run.split, run.learning_rate) == ("BaselineNet", "standard", 0.05)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEARNING_RATE_RANGE", [1e-2, 1e-4]),
        ("LEARNING_RATE_RANGE", [1e-4]),
        ("LEARNING_RATE_RANGE", [1e-4, 1e-3, 1e-2]),
        ("LEARNING_RATE_RANGE", [0, 1e-2]),
        ("LEARNING_RATE_RANGE", 1e-2),
        ("MOMENTUM_RANGE", [0.9, 1.0]),
        ("MOMENTUM_RANGE", [0.9, 0.9]),
        ("GRID_SIDE", 1),
        ("SEARCH_SEEDS", [1, 1]),
        ("EARLY_EPOCHS", 0),
        ("INITIALISATIONS", ["orthogonal"]),
        ("INITIALISATIONS", "zeros"),
        ("INITIALISATIONS", [0]),
    ],
)
def test_constants_are_checked_by_their_names(name, value):
    with pytest.raises(UserError, match=f"^{name}"):
        check(name, value)


def test_a_range_comes_back_as_plain_numbers():
    assert check("MOMENTUM_RANGE", (0, np.float64(0.5))) == [0.0, 0.5]
