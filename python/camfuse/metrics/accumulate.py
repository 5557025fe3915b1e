"""What metrics that accumulate over a data set have in common: ``torchmetrics``, and the mean."""

from __future__ import annotations

import zlib
from functools import partial
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
    name = f"measures_{zlib.crc32(repr(measures).encode()):08x}"
    metric.add_state(name, torch.zeros(()), dist_reduce_fx="sum")


class Mean(Metric):
    """The mean over images of a function; processes add up what they have seen.

    Subclasses define ``update``, which calls :attr:`of` and hands what it returns to :meth:`add`.
    Those with one function and equal options share their work in a ``MetricCollection``.

    Args:
        of: The function and its options.
        shape: Of what it returns for one image.
        **kwargs: Those of :class:`torchmetrics.Metric`, such as ``process_group``.
    """

    is_differentiable = False
    higher_is_better: bool | None = True
    full_state_update = False

    total: Tensor
    images: Tensor

    def __init__(self, of: partial[Tensor], *, shape: tuple[int, ...] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.of = of
        keep_apart(self, of.func.__name__, of.keywords)
        self.add_state("total", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def add(self, values: Tensor) -> None:
        """Takes numbers ``[B, *shape]`` in."""
        self.total = self.total + values.to(self.total).sum(0)
        self.images = self.images + len(values)

    def compute(self) -> Tensor:
        """The mean over all images so far, f64; NaN before the first."""
        return self.total / self.images
