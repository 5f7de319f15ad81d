"""Experiment 4.2: does a random search find a better learning rate and momentum than a grid?

Both searches spend the same number of runs of BaselineNet on the same ranges, and are repeated from
five seeds: each repeat draws another random sample, or walks the same grid in another order, and
trains from another seed. Each search's winner is the one run with the highest validation accuracy
after the last epoch. As the highest of many noisy numbers flatters, both winners are trained again
from fresh seeds, and only the test results of these runs are read, beside those of plain SGD at a
rate that nobody tuned.

    python exp4_search.py            # the whole sweep; interrupt it at will
    python exp4_search.py --quick    # a rehearsal in under a minute, without CIFAR-10

It costs 175 runs of 20 epochs on 45,000 images, nearly three times 1.1's 25 runs of 50.
"""

import itertools

import errors
from errors import UserError
from experiment import Constants, Experiment, Groups
from runs import Run
from search import Point, grid, sample, summarise_search
from summary import compare, wall_seconds

EPOCHS = 20  # of the search and of the winners: a setting is judged at the length it was chosen at
BATCH_SIZE = 64  # images; the last batch of an epoch is smaller
LEARNING_RATE_RANGE = [1e-4, 1e-2]  # drawn as 10^-u, u uniform from 2 to 4
MOMENTUM_RANGE = [0.85, 0.99]
GRID_SIDE = 4  # values of each; the random search tries as many points as the grid has, 4 × 4
SEARCH_SEEDS = [101, 102, 103, 104, 105]  # of the sample, the order of the grid, and the runs
SEEDS = [1, 2, 3, 4, 5]  # of the winners: none that the search has seen
LEARNING_RATE = 0.05  # untuned, without momentum: that of experiments 2.1 and 3
SMOOTHING_WINDOW = 3  # epochs, for validation curves in the comparison


def constants() -> Constants:
    """What stands above, by name, to be checked and recorded."""
    return {
        "EPOCHS": EPOCHS,
        "BATCH_SIZE": BATCH_SIZE,
        "LEARNING_RATE_RANGE": LEARNING_RATE_RANGE,
        "MOMENTUM_RANGE": MOMENTUM_RANGE,
        "GRID_SIDE": GRID_SIDE,
        "SEARCH_SEEDS": SEARCH_SEEDS,
        "SEEDS": SEEDS,
        "LEARNING_RATE": LEARNING_RATE,
        "SMOOTHING_WINDOW": SMOOTHING_WINDOW,
    }


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


def search_runs(side: int) -> dict[str, Groups]:
    """Both searches, as the first point that they try in each repeat, the second, and so on."""
    ranges = (LEARNING_RATE_RANGE, MOMENTUM_RANGE)
    walks = {
        "random": [sample(*ranges, side**2, seed) for seed in SEARCH_SEEDS],
        "grid": [grid(*ranges, side, seed) for seed in SEARCH_SEEDS],
    }
    return {
        search: {
            f"{search}, point {n}": list(map(run, points, SEARCH_SEEDS))
            for n, points in enumerate(zip(*repeats, strict=True), 1)
        }
        for search, repeats in walks.items()
    }


def final_runs(settings: dict[str, Point]) -> Groups:
    """Each setting from every fresh seed."""
    return {
        f"{name}, lr={point['learning_rate']:.3g}, momentum={point['momentum']:.3g}": [
            run(point, seed) for seed in SEEDS
        ]
        for name, point in settings.items()
    }


def main() -> None:
    experiment = Experiment(__file__, __doc__, constants())
    if not set(SEARCH_SEEDS).isdisjoint(SEEDS):
        raise UserError(f"SEARCH_SEEDS = {SEARCH_SEEDS}: must hold none of SEEDS = {SEEDS}")
    searches = search_runs(experiment.constants["GRID_SIDE"])
    tried = experiment.train({**searches["random"], **searches["grid"]})
    search = {
        name: summarise_search([tried[label] for label in groups])
        for name, groups in searches.items()
    }
    settings = {name: found["winner"] for name, found in search.items() if found["winner"]}
    settings["untuned"] = {"learning_rate": LEARNING_RATE, "momentum": 0.0}
    records = experiment.train(final_runs(settings))
    summary = experiment.summarise(
        records,
        search=search,
        comparisons=[
            compare(one, records[one], other, records[other])
            for one, other in itertools.combinations(records, 2)
        ],
    )
    everything = [record for group in [*tried.values(), *records.values()] for record in group]
    summary["seconds"] = wall_seconds(everything)
    experiment.report(summary)


if __name__ == "__main__":
    errors.run(main)
