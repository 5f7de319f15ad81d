"""Experiment 4.2, search: does a random search find better settings than a grid?

Both searches look for a learning rate and a momentum of BaselineNet, with the same number of runs
and in the same ranges. Each is repeated from five seeds: a repeat draws another random sample, or
tries the points of the grid in another order, and trains from another seed. Each search's winner is
the run with the highest validation accuracy after the last epoch. The highest of many noisy numbers
tends to be too high, so both winners are trained again from fresh seeds. On the test set only these
new runs are compared, also with plain SGD at a learning rate that was not tuned.

    python exp4_search.py            # 175 runs of 10 epochs
    python exp4_search.py --quick    # a rehearsal without CIFAR-10, in under a minute
"""

import itertools

import lab
from lab import Experiment, Groups, UserError
from lab.checks import check
from lab.search import Point, grid, leads, sample, search_in_words, summarise_search
from lab.summary import compare_all
from lab.tables import in_a_sentence
from train import Run

EPOCHS = 10  # of the search and of the winners: a setting is judged at the length it was chosen at
BATCH_SIZE = 64  # images; the last batch of an epoch is smaller
LEARNING_RATE_RANGE = [1e-4, 1e-2]  # drawn as 10^-u, u uniform from 2 to 4
MOMENTUM_RANGE = [0.85, 0.99]
GRID_SIDE = 4  # values of each; the random search tries as many points as the grid has, 4 × 4
SEARCH_SEEDS = [101, 102, 103, 104, 105]  # of the sample, the order of the grid, and the runs
SEEDS = [1, 2, 3, 4, 5]  # of the winners: none that the search has seen
LEARNING_RATE = 0.05  # untuned, without momentum: that of experiments 2.1 and 3
SMOOTHING_WINDOW = 3  # epochs, for the validation curves in the comparison figure


def run(point: Point, seed: int) -> Run:
    """BaselineNet at a point of the search."""
    return Run(
        network="BaselineNet",
        seed=seed,
        learning_rate=point["learning_rate"],
        momentum=point["momentum"],
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        split="standard",
    )


def runs() -> Groups:
    """Both searches: the first point that each tries in each repeat, the second, and so on."""
    at_least_2 = (int, lambda value: value >= 2, "a whole number, at least 2")
    check(GRID_SIDE, at_least_2, f"{GRID_SIDE = }:")
    ranges = (LEARNING_RATE_RANGE, MOMENTUM_RANGE)
    walks = {
        "random": [sample(*ranges, GRID_SIDE**2, seed) for seed in SEARCH_SEEDS],
        "grid": [grid(*ranges, GRID_SIDE, seed) for seed in SEARCH_SEEDS],
    }
    return {
        f"{search}, point {n}": list(map(run, points, SEARCH_SEEDS))
        for search, repeats in walks.items()
        for n, points in enumerate(zip(*repeats, strict=True), 1)
    }


def final_runs(settings: dict[str, Point]) -> Groups:
    """Each setting from every fresh seed."""
    return {
        f"{name}, lr={point['learning_rate']:.3g}, momentum={point['momentum']:.3g}": [
            run(point, seed) for seed in SEEDS
        ]
        for name, point in settings.items()
    }


def main(experiment: Experiment) -> None:
    if not set(SEARCH_SEEDS).isdisjoint(SEEDS):
        raise UserError(f"SEARCH_SEEDS = {SEARCH_SEEDS}: must hold none of SEEDS = {SEEDS}")
    tried = experiment.train(runs())
    search = {
        name: summarise_search([group for label, group in tried.items() if label.startswith(name)])
        for name in ("random", "grid")
    }
    settings = {name: found["winner"] for name, found in search.items() if found["winner"]}
    settings["untuned"] = {"learning_rate": LEARNING_RATE, "momentum": 0.0}
    records = experiment.train(final_runs(settings))
    ranges = {"learning_rate": LEARNING_RATE_RANGE, "momentum": MOMENTUM_RANGE}
    by_search = dict(zip(settings, records.values(), strict=True))
    pairs = list(itertools.combinations(records, 2))
    winners = map(in_a_sentence, compare_all(records, pairs)[:1])
    experiment.report(
        records,
        comparisons=pairs,
        besides=[record for group in tried.values() for record in group],
        answer=" ".join([*winners, *leads(search)]),
        findings=search_in_words(search, by_search, ranges),
        search=search,
    )


if __name__ == "__main__":
    lab.run(main, globals(), quick={"GRID_SIDE": 2})
