"""The two searches: where they look, what they find, and that nothing else decides."""

import numpy as np
import pytest
from scipy.stats import ks_2samp
from test_summary import ENVIRONMENT, RUN, record

from lab.search import (
    best_so_far,
    grid,
    leads,
    sample,
    search_in_words,
    summarise_search,
    winner,
)

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


def test_no_point_has_digits_in_which_processors_differ():
    """exp() and pow() of NumPy were seen to differ in the 16th digit between AVX2 and AVX512."""
    points = grid(RATES, MOMENTA, 4, seed=1) + sample(RATES, MOMENTA, 16, seed=1)
    values = [value for point in points for value in point.values()]
    assert values == [float(f"{value:.12g}") for value in values]


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
    run = RUN | {"seed": seed, "learning_rate": rate}
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


def searched(accuracies, devices=("cpu", "cpu")):
    """A search of two runs, repeated twice; None where a run diverged."""
    points = [
        [
            tried(
                *(seed, 0.001 * seed, 0.9, one or 0.5),
                diverged_at=None if one else 0,
                environment=ENVIRONMENT | {"device": device},
            )
            for seed, one, device in zip((7, 8), row, devices, strict=True)
        ]
        for row in accuracies
    ]
    return summarise_search(points)


RANGES = {"learning_rate": [0.001, 0.008], "momentum": [0.85, 0.95]}


def test_a_search_is_told_with_how_its_winner_flatters():
    searches = {
        "random": searched([[0.5, 0.6], [0.62, None]]),
        "grid": searched([[0.5, 0.5], [0.4, 0.64]]),
    }
    again = {
        "random": [record(1, 0.57), record(2, 0.59), record(3, 0.9, diverged_at=1)],
        "grid": [record(1, 0.6, diverged_at=0)],
    }
    assert search_in_words(searches, again, RANGES) == [
        "A random search of 2 runs finds 61.00 ± 1.41% validation accuracy; 1 of 4 runs diverged. "
        "Its winner, learning rate 0.007 and momentum 0.9, has 62.00%. The highest of 3 noisy "
        "numbers tends to be too high. From fresh seeds the winner's mean is 58.00%.",
        "A grid search of 2 runs finds 57.00 ± 9.90% validation accuracy; 0 of 4 runs diverged. "
        "Its winner, learning rate 0.008 and momentum 0.9, has 64.00%. Its learning rate is the "
        "highest of the range. The highest of 4 noisy numbers tends to be too high. From fresh "
        "seeds the winner's mean is –.",
    ]
    assert leads(searches) == [
        # 62 − 50 and 60 − 64: mean 4, deviation 11.314, over √2 = 8, times Student's 12.7062
        "The best run of a random search has, on average, 4.00 points more validation accuracy "
        "than that of a grid search (repeats: 2, each on one device; 95% interval of the "
        "difference −97.65 to +105.65).",
    ]


def test_a_search_that_found_nothing_is_told():
    searches = {"random": searched([[None, None]] * 2), "grid": searched([[0.5, 0.5]] * 2)}
    found = search_in_words(searches, {"grid": [record(1, 0.57)]}, RANGES)
    assert found[0] == "Every run of the random search diverged."
    assert len(found) == 2
    assert leads(searches) == []  # the difference of the searches is unknown


def test_searches_are_compared_only_in_repeats_on_one_device():
    searches = {
        "random": searched([[0.5, 0.6]] * 2, ("cpu (A)", "cpu (B)")),
        "grid": searched([[0.4, 0.5]] * 2, ("cpu (A)", "cpu (A)")),
    }
    assert leads(searches) == [
        "The best run of a random search has, on average, 10.00 points more validation accuracy "
        "than that of a grid search (repeats: 1, each on one device).",
    ]
    worse = {"random": searches["grid"], "grid": searches["random"]}
    assert "random search has, on average, 10.00 points less" in leads(worse)[0]
