"""Statistics of |∂L/∂w| for every parameter tensor, gathered as training goes.

No gradient is kept: sums over elements are added up epoch by epoch, and sums over steps element by
element in the two windows of steps, all in double precision on the device that trains. Standard
deviations are sample standard deviations.
"""

from typing import Any

import torch
from torch import Tensor, nn

WINDOW = 5  # steps and epochs in the first and the last window


class GradientStatistics:
    """Watches the gradients of a network's trainable parameters during one run.

    Call observe() after every backward pass and end_epoch() after every epoch.
    """

    def __init__(self, network: nn.Module, epochs: int, steps_per_epoch: int) -> None:
        trainable = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in trainable]
        self.parameters = [parameter for _, parameter in trainable]
        self.steps_per_epoch = steps_per_epoch
        self.steps = epochs * steps_per_epoch
        self.step = 0
        self.history: list[Tensor] = []  # an epoch each: (2, tensors), sums of |g| and of g²
        self.epoch_sums = self._zeros_by_tensor()
        # per element over the steps of a window: sum of |g| and sum of g²
        self.windows = {name: self._zeros_by_element() for name in ("first_steps", "last_steps")}

    def _zeros_by_tensor(self) -> Tensor:
        device = self.parameters[0].device
        return torch.zeros(2, len(self.parameters), dtype=torch.float64, device=device)

    def _zeros_by_element(self) -> list[Tensor]:
        return [
            torch.zeros(2, *p.shape, dtype=torch.float64, device=p.device) for p in self.parameters
        ]

    @torch.no_grad()
    def observe(self) -> None:
        """Add the gradients of one step."""
        moments = [torch.stack([p.grad.abs(), p.grad.square()]) for p in self.parameters]
        self.epoch_sums += torch.stack([m.flatten(1).double().sum(1) for m in moments], 1)
        windows = []
        if self.step < WINDOW:
            windows.append("first_steps")
        if self.step >= self.steps - WINDOW:
            windows.append("last_steps")
        for window in windows:
            for total, moment in zip(self.windows[window], moments, strict=True):
                total += moment
        self.step += 1

    def end_epoch(self) -> None:
        """Close the epoch's sums."""
        self.history.append(self.epoch_sums.cpu())
        self.epoch_sums = self._zeros_by_tensor()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint at the end of an epoch must hold."""
        return {"step": self.step, "history": self.history, "windows": self.windows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.history = state["step"], state["history"]
        for name, totals in state["windows"].items():
            for mine, saved in zip(self.windows[name], totals, strict=True):
                mine.copy_(saved)

    def summary(self) -> dict[str, Any]:
        """Mean and standard deviation of |g| by parameter tensor, ready for JSON.

        {"parameters": [name, ...], "history": {"mean": [[one a tensor] an epoch], "std": the same},
        "first_epochs" and "last_epochs": {"mean": [...], "std": [...]} pooled over elements and
        steps, "first_steps" and "last_steps": the same, and "std_by_element": the deviation of each
        element over the window's steps, averaged over elements}
        """
        by_epoch = [self._pooled(sums, self.steps_per_epoch) for sums in self.history]
        summary: dict[str, Any] = {
            "parameters": self.names,
            "history": {key: [epoch[key] for epoch in by_epoch] for key in ("mean", "std")},
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
        counts = torch.tensor([p.numel() * steps for p in self.parameters], dtype=torch.float64)
        return {
            "mean": (sums[0] / counts).tolist(),
            "std": deviation(sums[0], sums[1], counts).tolist(),
        }


def deviation(total: Tensor, squares: Tensor, count: Tensor | int) -> Tensor:
    """The sample standard deviation from a sum, a sum of squares and how many there are (0 if 1).

    Squares are taken in single precision, which leaves the result accurate to about 1e-4 of the
    mean: enough, as gradients spread over more than their mean.
    """
    count = torch.as_tensor(count, dtype=torch.float64)
    return ((squares - total**2 / count).clamp(min=0) / (count - 1).clamp(min=1)).sqrt()
