"""Statistics of |∂L/∂w| for every parameter tensor, gathered as training goes.

No gradient is kept: sums over elements are added up epoch by epoch, and sums over steps element by
element in the two windows of steps, all in double precision on the device that trains. Standard
deviations are sample standard deviations.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

WINDOW = 5  # steps and epochs in the first and the last window


@torch.no_grad()
def moments(gradients: Sequence[Tensor]) -> Tensor:
    """Sums of |g| and of g² over the elements of each run's tensors, (2, runs, tensors) float64.

    gradients: one tensor (runs, *shape) for each parameter.
    """
    flat = [gradient.flatten(1) for gradient in gradients]
    norm = torch.linalg.vector_norm
    sums = torch.stack([norm(g, 1, dim=1, dtype=torch.float64) for g in flat], 1)
    squares = torch.stack([norm(g, 2, dim=1, dtype=torch.float64) for g in flat], 1).square()
    return torch.stack([sums, squares])


class GradientStatistics:
    """Watches the gradients of a network's trainable parameters during one run.

    watch() takes the gradients of every step. A trainer that has their moments already (the engine)
    adds those to epoch_sums, (2, tensors), and calls observe() for the steps in a window. Both call
    end_epoch() after every epoch.
    """

    def __init__(self, network: nn.Module, epochs: int, steps_per_epoch: int) -> None:
        trainable = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in trainable]
        self.sizes = torch.tensor([p.numel() for _, p in trainable], dtype=torch.float64)
        self.steps_per_epoch = steps_per_epoch
        self.steps = epochs * steps_per_epoch
        self.history: list[Tensor] = []  # an epoch each: (2, tensors), sums of |g| and of g²
        self.by_step: list[Tensor] = []  # likewise for each of the first WINDOW steps
        # per element over the steps of a window: sum of |g| and sum of g²
        self.windows = {
            name: [
                torch.zeros(2, *p.shape, dtype=torch.float64, device=p.device) for _, p in trainable
            ]
            for name in ("first_steps", "last_steps")
        }
        device = trainable[0][1].device
        self.epoch_sums = torch.zeros(2, len(trainable), dtype=torch.float64, device=device)

    def windows_at(self, step: int) -> list[str]:
        """The windows that a step, counted from 0 over the whole training, belongs to."""
        inside = {"first_steps": step < WINDOW, "last_steps": step >= self.steps - WINDOW}
        return [name for name in inside if inside[name]]

    def watch(self, step: int, gradients: Sequence[Tensor | None]) -> None:
        """Take a step's gradients, one tensor for each parameter; steps are counted from 0.

        None stands for zeros: the loss did not use that parameter.
        """
        pairs = zip(gradients, self.windows["first_steps"], strict=True)
        gradients = [torch.zeros_like(total[0]) if g is None else g for g, total in pairs]
        self.epoch_sums += moments([gradient[None] for gradient in gradients])[:, 0]
        self.observe(step, gradients)

    @torch.no_grad()
    def observe(self, step: int, gradients: Sequence[Tensor]) -> None:
        """Add the gradients of a step, a tensor a parameter, to the windows that it belongs to."""
        if step < WINDOW:
            self.by_step.append(moments([gradient[None] for gradient in gradients])[:, 0].cpu())
        for window in self.windows_at(step):
            for total, gradient in zip(self.windows[window], gradients, strict=True):
                double = gradient.double()
                total += torch.stack([double.abs(), double.square()])

    def end_epoch(self) -> None:
        """Close the epoch's sums."""
        self.history.append(self.epoch_sums.cpu().clone())
        self.epoch_sums.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Copies, on the CPU, of what a checkpoint at the end of an epoch must hold."""
        windows = {
            name: [total.cpu().clone() for total in totals] for name, totals in self.windows.items()
        }
        return {"history": [*self.history], "by_step": [*self.by_step], "windows": windows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history, self.by_step = state["history"], state["by_step"]
        for name, totals in state["windows"].items():
            for mine, saved in zip(self.windows[name], totals, strict=True):
                mine.copy_(saved)

    def summary(self) -> dict[str, Any]:
        """Mean and standard deviation of |g| by parameter tensor, ready for JSON.

        {"parameters": [name, ...], "history": {"mean": [[one a tensor] an epoch], "std": the same},
        "by_step": [{"mean": [one a tensor], "std": [...]} for each of the first steps],
        "first_epochs" and "last_epochs": {"mean": [...], "std": [...]} pooled over elements and
        steps, "first_steps" and "last_steps": the same, and "std_by_element": the deviation of each
        element over the window's steps, averaged over elements}
        """
        by_epoch = [self._pooled(sums, self.steps_per_epoch) for sums in self.history]
        summary: dict[str, Any] = {
            "parameters": self.names,
            "history": {key: [epoch[key] for epoch in by_epoch] for key in ("mean", "std")},
            "by_step": [self._pooled(sums, 1) for sums in self.by_step],
        }
        epochs = min(WINDOW, len(self.history))
        for name, part in (
            ("first_epochs", self.history[:epochs]),
            ("last_epochs", self.history[-epochs:]),
        ):
            summary[name] = self._pooled(sum(part), epochs * self.steps_per_epoch)
        steps = min(WINDOW, self.steps)
        for name, totals in self.windows.items():
            sums = torch.stack([total.flatten(1).sum(1) for total in totals], 1).cpu()
            by_element = [deviation(total[0], total[1], steps).mean().item() for total in totals]
            summary[name] = self._pooled(sums, steps) | {"std_by_element": by_element}
        return summary

    def _pooled(self, sums: Tensor, steps: int) -> dict[str, list[float]]:
        counts = self.sizes * steps
        return {
            "mean": (sums[0] / counts).tolist(),
            "std": deviation(sums[0], sums[1], counts).tolist(),
        }


def deviation(total: Tensor, squares: Tensor, count: Tensor | int) -> Tensor:
    """The sample standard deviation from a sum, a sum of squares and a count (0 if that is 1)."""
    count = torch.as_tensor(count, dtype=torch.float64)
    return ((squares - total**2 / count).clamp(min=0) / (count - 1).clamp(min=1)).sqrt()
