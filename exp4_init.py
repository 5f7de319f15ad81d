"""Experiment 4.3, initialisation: what do the first weights decide?

BaselineNet starts from weights drawn in seven ways. Biases are PyTorch's own in the default and
zero in all others. It is trained from there in one way, from the same five seeds. The mean of
|gradient| is gathered for every parameter tensor: what each of the first steps passes back through
the layers tells why some learn at once, some late and some never.

    python exp4_init.py            # 35 runs of 30 epochs
    python exp4_init.py --quick    # a rehearsal without CIFAR-10, in under a minute
"""

import lab
from lab import Experiment, Groups, UserError
from lab.tables import zero_gradients

EPOCHS = 30
EARLY_EPOCHS = 5  # shown in a figure of their own
BATCH_SIZE = 64  # images; the last batch of an epoch is smaller
SEEDS = [1, 2, 3, 4, 5]  # a seed fixes a run's initial weights and the order of its batches
LEARNING_RATE = 0.05
# each is a function in models.py, under the same name
INITIALISATIONS = ["default", "uniform", "small uniform", "normal", "xavier", "kaiming", "zeros"]
SMOOTHING_WINDOW = 3  # epochs, for the validation curves in the comparison figure


def runs() -> Groups:
    """Every initialisation from every seed, its gradients watched."""
    return {
        initialisation: lab.from_seeds(
            SEEDS,
            network="BaselineNet",
            learning_rate=LEARNING_RATE,
            epochs=EPOCHS,
            batch_size=BATCH_SIZE,
            split="standard",
            initialisation=initialisation,
            gradient_statistics=True,
        )
        for initialisation in INITIALISATIONS
    }


def main(experiment: Experiment) -> None:
    if not isinstance(EARLY_EPOCHS, int) or EARLY_EPOCHS < 1:
        raise UserError(f"EARLY_EPOCHS = {EARLY_EPOCHS!r}: must be a whole number, at least 1")
    records = experiment.train(runs())
    experiment.report(records, findings=zero_gradients(records))


if __name__ == "__main__":
    lab.run(main, globals())
