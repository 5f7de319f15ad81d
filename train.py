"""Training: from a run, which is a value, to its curves and test results.

Every random draw comes from the run's own seed, a purpose and the epoch, never from a shared
stream, so that a run's numbers depend neither on the runs beside it nor on where it was resumed.

This is the plain loop, one run at a time, that a CPU does best with. engine.py takes the same steps
for all runs of a sweep at once, on a GPU, and is tested against it.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import data
import models
from data import Dataset
from errors import UserError
from gradients import GradientStatistics, moments
from runs import CURVES, Run
from store import Store

CHECKPOINT_SECONDS = 10.0  # at most this much work, and the epoch under way, is ever done twice
EVALUATION_BATCH = 500  # images a forward pass; without gradients it changes nothing but speed
PURPOSES = ("order", "dropout", "augmentation", "reinitialisation")

# what a run's initialisation does to the weights of convolutions and dense layers; biases become 0
INITIALISATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": nn.init.uniform_,  # on [0, 1), as the function does by default
    "small uniform": partial(nn.init.uniform_, a=-0.05, b=0.05),
    "normal": partial(nn.init.normal_, std=0.05),
    "xavier": nn.init.xavier_uniform_,
    "kaiming": partial(nn.init.kaiming_uniform_, nonlinearity="relu"),
    "zeros": nn.init.zeros_,
}

MISTAKES = 25  # how many test images a record names that were most confidently taken for others
FINAL_RESULTS = (  # of the trained network; a run that diverged has none
    *("final_train_loss", "final_train_accuracy"),
    *("test_loss", "test_accuracy", "report", "confusion_matrix", "most_confident_mistakes"),
)

Report = Callable[[Run, float], None]  # a run, and how many epochs of it are done by now


def train(
    runs: Sequence[Run],
    dataset: Dataset,
    store: Store,
    report: Report = lambda run, epochs_done: None,
) -> None:
    """Train runs one by one on the device that holds the dataset; what they produce goes to store.

    On the CPU a run uses one thread: a step is too small to share, so several processes, one a
    core, do better, and the numbers do not depend on how many cores there are.
    """
    use_full_precision()
    if dataset.images.device.type == "cpu":
        torch.set_num_threads(1)
    for run in runs:
        train_run(run, dataset, store, report)


def use_full_precision() -> None:
    """Let a GPU calculate in float32 as a CPU does, not in TF32, and in the same order every time.

    PyTorch's own defaults are TF32 for convolutions and float32 for matrix products.
    """
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    torch.backends.cudnn.deterministic = True


class Training:
    """A run under way: its network, what has been measured of it, and what is kept of it.

    It begins at the run's furthest checkpoint, if there is one. Whoever trains it changes network
    and momentum (a buffer for each trainable parameter, by name; empty where the run has none) in
    place, and calls end_epoch() after every epoch until is_over, then finish().
    """

    def __init__(self, run: Run, dataset: Dataset, store: Store) -> None:
        self.run, self.dataset, self.store = run, dataset, store
        self.device = dataset.images.device
        indices = data.split_indices(run.split, len(dataset.images), run.overfit_images)
        self.train_indices, self.val_indices = (part.to(self.device) for part in indices)
        self.network = build(run, store).to(self.device)
        trainable = [(name, p) for name, p in self.network.named_parameters() if p.requires_grad]
        self.momentum = {
            name: torch.zeros_like(p, requires_grad=False) for name, p in trainable if run.momentum
        }
        self.steps_per_epoch = math.ceil(len(self.train_indices) / run.batch_size)
        self.gradients: GradientStatistics | None = None
        if run.gradient_statistics:
            self.gradients = GradientStatistics(self.network, run.epochs, self.steps_per_epoch)
        self.curves: dict[str, list[float]] = {name: [] for name in CURVES}
        self.intervals: list[list[float]] = []  # [start, end], Unix seconds, of each time it ran
        self.diverged_at: int | None = None
        if checkpoint := store.load_checkpoint(run):
            self.network.load_state_dict(checkpoint["network"])
            for name, buffer in self.momentum.items():
                buffer.copy_(checkpoint["momentum"][name])
            self.curves, self.intervals = checkpoint["curves"], checkpoint["intervals"]
            if self.gradients:
                self.gradients.load_state_dict(checkpoint["gradients"])
        self.intervals.append([time.time(), time.time()])

    @property
    def epoch(self) -> int:
        """How many epochs are done, and so the number, from 0, of the next one."""
        return len(self.curves["train_loss"])

    @property
    def is_over(self) -> bool:
        return self.diverged_at is not None or self.epoch == self.run.epochs

    def end_epoch(self, measured: Sequence[float]) -> None:
        """Note an epoch's four numbers, in the order of CURVES; keep a checkpoint now and then."""
        if not all(math.isfinite(value) for value in measured):
            self.diverged_at = self.epoch
            return
        for name, value in zip(CURVES, measured, strict=True):
            self.curves[name].append(value)
        now = time.time()
        if now - self.intervals[-1][1] >= CHECKPOINT_SECONDS or self.is_over:
            self.intervals[-1][1] = now
            state = {
                # copies, as saving a part of a larger tensor saves all of it
                "network": {k: v.cpu().clone() for k, v in self.network.state_dict().items()},
                "momentum": {k: v.cpu().clone() for k, v in self.momentum.items()},
                "curves": self.curves,
                "intervals": self.intervals,
                "gradients": self.gradients and self.gradients.state_dict(),
            }
            self.store.save_checkpoint(self.run, state)

    def finish(self, logits: tuple[Tensor, Tensor] | None) -> None:
        """Keep the result.

        logits (n_train, 10) and (n_test, 10): the trained network's for the images that it was
        trained on, as they are, and for those of the test set. None where the run diverged.
        """
        final = dict.fromkeys(FINAL_RESULTS)
        if logits is not None:
            train_logits, test_logits = logits
            loss, accuracy = measure(train_logits, self.dataset.labels[self.train_indices]).tolist()
            test = test_results(test_logits, self.dataset)
            if math.isfinite(loss) and math.isfinite(test["test_loss"]):
                final = {"final_train_loss": loss, "final_train_accuracy": accuracy, **test}
            else:
                self.diverged_at = self.run.epochs - 1
        self.intervals[-1][1] = time.time()
        sound = self.run.epochs if self.diverged_at is None else self.diverged_at
        missing = [None] * (self.run.epochs - sound)
        curves = {name: curve[:sound] + missing for name, curve in self.curves.items()}
        result = {
            "diverged_at_epoch": self.diverged_at,
            **curves,
            **final,
            "trained": self.intervals,
        }
        if self.gradients:
            result["gradients"] = self.gradients.summary() if self.diverged_at is None else None
        self.store.save_result(self.run, result, self.device)


def train_run(run: Run, dataset: Dataset, store: Store, report: Report) -> None:
    """Train one run, from its checkpoint if there is one, and keep its result.

    Training and validation are measured at every epoch. After the last, the test set is, once, and
    the training images as validation is: without dropout and augmentation, by the final weights.
    """
    training = Training(run, dataset, store)
    network = training.network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        [p for p in network.parameters() if p.requires_grad],
        lr=run.learning_rate_at(0),
        momentum=run.momentum,
        weight_decay=run.weight_decay,
    )
    for name, buffer in training.momentum.items():
        optimizer.state[network.get_parameter(name)]["momentum_buffer"] = buffer
    report(run, training.epoch)
    val_images, val_labels = (of[training.val_indices] for of in (dataset.images, dataset.labels))
    while not training.is_over:
        for group in optimizer.param_groups:
            group["lr"] = run.learning_rate_at(training.epoch)
        set_training(network, run.frozen)
        trained = train_epoch(training, optimizer, report)
        validated = measure(evaluate(network, val_images), val_labels).tolist()
        training.end_epoch((*trained, *validated))
    if training.diverged_at is not None:
        return training.finish(None)
    train_images = dataset.images[training.train_indices]
    training.finish((evaluate(network, train_images), evaluate(network, dataset.test_images)))


def build(run: Run, store: Store) -> nn.Module:
    """The run's network before its first step, on the CPU.

    Weights are the draws of the run's initialisation after torch.manual_seed(run.seed), or those of
    the run it starts from, with the reinitialised layers drawn from a stream of their own.
    """

    def fresh(seed: int) -> nn.Module:
        options = {"dropout_rate": run.dropout_rate} if run.network == "DropoutNet" else {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = getattr(models, run.network)(**options, width=run.width)
            if run.initialisation != "default":
                initialise(network, INITIALISATIONS[run.initialisation])
            return network

    network = fresh(run.seed)
    if run.start is not None:
        weights = store.load_weights(run.start)
        if weights is None:
            raise UserError(f"the trained weights of {run.start.label} are gone: start again")
        network.load_state_dict(weights)
        other = fresh(generator(run.seed, "reinitialisation", 0).initial_seed())
        for layer in run.reinitialised:
            network.get_submodule(layer).load_state_dict(other.get_submodule(layer).state_dict())
    for layer in run.frozen:
        network.get_submodule(layer).requires_grad_(False)
    return network


def initialise(network: nn.Module, draw_weights: Callable[[Tensor], Tensor]) -> None:
    """Draw the weights of all convolutions and dense layers anew; their biases become 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            draw_weights(layer.weight)
            nn.init.zeros_(layer.bias)


def set_training(network: nn.Module, frozen: Sequence[str]) -> None:
    """Training mode, but for frozen layers: their batch normalisation keeps its statistics too."""
    network.train()
    for layer in frozen:
        network.get_submodule(layer).eval()


def generator(seed: int, purpose: str, epoch: int) -> torch.Generator:
    """A CPU generator that belongs to one purpose in one epoch of the runs with one seed."""
    words = np.random.SeedSequence([seed, PURPOSES.index(purpose), epoch])
    return torch.Generator().manual_seed(int(words.generate_state(1, np.uint64)[0] >> 1))


class Draws(NamedTuple):
    """An epoch's random draws, a row for each training image in the order of the epoch."""

    order: Tensor  # (n,) int64, positions in the training split
    noise: Tensor  # (n, network.noise_features) float32, uniform on [0, 1)
    flip: Tensor  # (n,) bool
    shift: Tensor  # (n, 2) int64, pixels


def draw(run: Run, epoch: int, n: int, noise_features: int) -> Draws:
    """All that is random in a run's epoch, the same on every device."""
    augmentation = generator(run.seed, "augmentation", epoch)
    flip = torch.rand(n, generator=augmentation) < 0.5
    most = data.CROP_PADDING
    shift = torch.randint(-most, most + 1, (n, 2), generator=augmentation)
    return Draws(
        torch.randperm(n, generator=generator(run.seed, "order", epoch)),
        torch.rand(n, noise_features, generator=generator(run.seed, "dropout", epoch)),
        flip if "flip" in run.augmentation else torch.zeros_like(flip),
        shift if "crop" in run.augmentation else torch.zeros_like(shift),
    )


def train_epoch(
    training: Training, optimizer: torch.optim.Optimizer, report: Report
) -> tuple[float, float]:
    """Train for one epoch; the mean loss (nats) and accuracy over its images.

    Each batch is measured as it is trained on, before its step, and weighs as many images as it
    has: the last one may be short.
    """
    run, epoch, dataset, network = training.run, training.epoch, training.dataset, training.network
    device, gradients, indices = training.device, training.gradients, training.train_indices
    draws = draw(run, epoch, len(indices), network.noise_features)
    order = indices[draws.order.to(device)]
    noise, flip, shift = (draw.to(device) for draw in draws[1:])
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for step, start in enumerate(range(0, len(order), run.batch_size)):
        rows = slice(start, start + run.batch_size)
        batch = order[rows]
        images, labels = dataset.images[batch], dataset.labels[batch]
        if run.augmentation:
            images = data.augment(images, flip[rows], shift[rows])
        logits = network(data.normalise(images), noise[rows])
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        if gradients:
            of_this_step = [p.grad for p in network.parameters() if p.requires_grad]
            gradients.epoch_sums += moments([gradient[None] for gradient in of_this_step])[:, 0]
            gradients.observe(epoch * training.steps_per_epoch + step, of_this_step)
        optimizer.step()
        loss_sum += loss.detach() * len(batch)
        correct += (logits.argmax(1) == labels).sum()
        report(run, epoch + (start + len(batch)) / len(order))
    if gradients:
        gradients.end_epoch()
    return (loss_sum / len(order)).item(), correct.item() / len(order)


@torch.no_grad()
def evaluate(network: nn.Module, images: Tensor) -> Tensor:
    """The network's logits (n, 10) for images (n, 32, 32, 3), in float64."""
    network.eval()
    batches = images.split(EVALUATION_BATCH)
    return torch.cat([network(data.normalise(batch)) for batch in batches]).double()


def measure(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean loss (nats) and accuracy, (..., 2), of logits (..., n, 10) for labels (n,)."""
    labels = labels.expand(logits.shape[:-1])
    losses = -logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0]
    hits = logits.argmax(-1) == labels
    return torch.stack([losses.mean(-1), hits.to(losses.dtype).mean(-1)], -1)


def test_results(logits: Tensor, dataset: Dataset) -> dict[str, Any]:
    """Loss, accuracy, per-class report, confusion matrix (true, predicted) and mistakes.

    logits (n_test, 10). The mistakes are the test images given the highest probability of a class
    that is not theirs.
    """
    from sklearn.metrics import classification_report, confusion_matrix  # a second at start-up

    loss, accuracy = measure(logits, dataset.test_labels).tolist()
    probabilities, predicted = logits.softmax(1).cpu().max(1)
    truth = dataset.test_labels.cpu()
    confidence = torch.where(predicted == truth, -1.0, probabilities)
    order = confidence.argsort(descending=True, stable=True)[:MISTAKES]
    classes = range(len(dataset.class_names))
    return {
        "test_loss": loss,
        "test_accuracy": accuracy,
        "report": classification_report(
            truth.numpy(),
            predicted.numpy(),
            labels=classes,
            target_names=dataset.class_names,
            output_dict=True,
            zero_division=0,
        ),
        "confusion_matrix": confusion_matrix(
            truth.numpy(), predicted.numpy(), labels=classes
        ).tolist(),
        "most_confident_mistakes": [
            {
                "image": image,
                "true": dataset.class_names[truth[image]],
                "predicted": dataset.class_names[predicted[image]],
                "probability": probabilities[image].item(),
            }
            for image in order.tolist()
            if predicted[image] != truth[image]
        ],
    }
