"""What metrics that accumulate over a data set have in common."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Mean", "Metric"]

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ImportError(
        f"metrics that accumulate need torchmetrics, which cannot be imported ({error}); "
        "pip install 'camfuse[metrics]'"
    ) from error


class Mean(Metric):
    """The mean of numbers that come in batches; processes add up what they have seen."""

    is_differentiable = False
    higher_is_better: bool | None = True
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def add(self, values: Tensor) -> None:
        """Takes ``[B, ...]``."""
        self.total = self.total + values.double().sum(0).to(self.total.device)
        self.count = self.count + len(values)

    def compute(self) -> Tensor:
        """The mean so far, f64; NaN of nothing."""
        return self.total / self.count
