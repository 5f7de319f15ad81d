"""Experiment 4.3: what do the first weights decide?

BaselineNet starts from weights drawn in seven ways (biases are PyTorch's own in the default, zero
in all others) and is trained from there in one way, from the same five seeds. The mean of
|gradient| is gathered for every parameter tensor: what each of the first steps passes back through
the layers tells why some learn at once, some late and some never.

    python exp4_init.py            # the whole sweep; interrupt it at will
    python exp4_init.py --quick    # a rehearsal in under a minute, without CIFAR-10

It costs 35 runs of 30 epochs on 45,000 images, a little less than 1.1's 25 runs of 50.
"""

import errors
from experiment import Constants, Experiment, Groups
from runs import Run

EPOCHS = 30
EARLY_EPOCHS = 5  # shown in a figure of their own
BATCH_SIZE = 64  # images; the last batch of an epoch is smaller
SEEDS = [1, 2, 3, 4, 5]  # initial weights and the order of every epoch follow from a run's seed
LEARNING_RATE = 0.05
# what each does stands in train.py, under the same name
INITIALISATIONS = ["default", "uniform", "small uniform", "normal", "xavier", "kaiming", "zeros"]
SMOOTHING_WINDOW = 3  # epochs, for validation curves in the comparison


def constants() -> Constants:
    """What stands above, by name, to be checked and recorded."""
    return {
        "EPOCHS": EPOCHS,
        "EARLY_EPOCHS": EARLY_EPOCHS,
        "BATCH_SIZE": BATCH_SIZE,
        "SEEDS": SEEDS,
        "LEARNING_RATE": LEARNING_RATE,
        "INITIALISATIONS": INITIALISATIONS,
        "SMOOTHING_WINDOW": SMOOTHING_WINDOW,
    }


def runs() -> Groups:
    """Every initialisation from every seed, its gradients watched."""
    return {
        initialisation: [
            Run(
                network="BaselineNet",
                seed=seed,
                learning_rate=LEARNING_RATE,
                epochs=EPOCHS,
                batch_size=BATCH_SIZE,
                split="standard",
                initialisation=initialisation,
                gradient_statistics=True,
            )
            for seed in SEEDS
        ]
        for initialisation in INITIALISATIONS
    }


def main() -> None:
    experiment = Experiment(__file__, __doc__, constants())
    summary = experiment.summarise(experiment.train(runs()))
    experiment.report(summary)


if __name__ == "__main__":
    errors.run(main)
