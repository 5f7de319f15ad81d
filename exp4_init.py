"""Experiment 4.3, initialisation: how do the initial weights change training?

BaselineNet starts from weights drawn in seven ways. Biases are PyTorch's own in the default and
zero in all others. All else is the same, and so are the five seeds. The mean of |gradient| is
gathered for every parameter tensor. In the first steps it shows why some networks learn at once,
some late and some not at all.

    python exp4_init.py            # 35 runs of 30 epochs
    python exp4_init.py --quick    # a rehearsal without CIFAR-10, in under a minute
"""

import lab
from lab import Experiment, Groups, Records
from lab.summary import in_words
from lab.tables import named

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


def zero_gradients(records: Records) -> list[str]:
    """Which settings' gradients are exactly zero in the first steps, from all seeds; sentences."""
    found = []
    for label, group in records.items():
        seeds = [record["gradients"] for record in group if record.get("gradients")]
        steps = zip(*(seed["by_step"] for seed in seeds), strict=True)
        means = [list(zip(*(seed["mean"] for seed in step), strict=True)) for step in steps]
        dead = [sum(not any(tensor) for tensor in tensors) for tensors in means]
        if any(dead):
            found.append(
                f"In the first {len(dead)} steps of {named(label)}, the gradients of "
                f"{in_words(dead)} of {len(means[0])} parameter tensors are exactly zero."
            )
    return found


def main(experiment: Experiment) -> None:
    records = experiment.train(runs())
    experiment.report(records, findings=zero_gradients(records))


if __name__ == "__main__":
    lab.run(main, globals())
