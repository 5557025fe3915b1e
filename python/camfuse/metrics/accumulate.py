"""What metrics that accumulate over a data set have in common."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Mean", "Metric", "keep_apart"]

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ImportError(
        f"metrics that accumulate need torchmetrics, which cannot be imported ({error}); "
        "pip install 'camfuse[metrics]'"
    ) from error


def keep_apart(metric: Metric, *measures: object) -> None:
    """Gives a metric a state whose name says what it measures, and how.

    Metrics whose states are equal after the first batch are taken for one and the same by a
    ``torchmetrics.MetricCollection``, which updates only one of them from then on. Two that measure
    different things may well begin with equal numbers.
    """
    name = re.sub(r"\W+", "_", "_".join(str(one) for one in measures))
    metric.add_state(f"measures_{name}", torch.zeros(()), dist_reduce_fx="sum")


class Mean(Metric):
    """The mean of numbers that come in batches; processes add up what they have seen.

    Args:
        settings: What tells two metrics of one class apart.
        **kwargs: Those of :class:`torchmetrics.Metric`, such as ``process_group``.
    """

    is_differentiable = False
    higher_is_better: bool | None = True
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self, *, settings: Sequence[object] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        keep_apart(self, type(self).__name__, *settings)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def add(self, values: Tensor) -> None:
        """Takes ``[B, ...]``."""
        self.total = self.total + values.double().sum(0).to(self.total.device)
        self.count = self.count + len(values)

    def compute(self) -> Tensor:
        """The mean so far, f64; NaN of nothing."""
        return self.total / self.count
