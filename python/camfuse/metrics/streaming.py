"""The mean over images as a ``torchmetrics.Metric``: over batches, over processes."""

from __future__ import annotations

import zlib
from functools import partial
from typing import Any

import torch
from torch import Tensor

try:
    from torchmetrics import Metric
except ModuleNotFoundError as error:
    if error.name != "torchmetrics":
        raise
    raise ModuleNotFoundError(
        "camfuse's metrics that accumulate over a data set need torchmetrics: "
        "pip install camfuse[metrics]",
        name=error.name,
    ) from error


class MeanOverImages(Metric):
    """The mean over images of a function that has one number for each, or one of several kinds.

    Subclasses define ``update``, which calls :attr:`of` and hands what it returns to :meth:`add`.
    Sums are f64 and lie where the metric does.

    Args:
        of: The function and its options.
        kinds: How many kinds of numbers it returns.
        **kwargs: Those of :class:`torchmetrics.Metric`, such as ``process_group``.
    """

    is_differentiable = False
    full_state_update = False

    images: Tensor

    def __init__(self, of: partial[Any], *, kinds: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.of = of
        # A MetricCollection takes metrics for one if states of the same names happen to be equal
        # after the first batch: only those of one function and equal options may have them.
        options = zlib.crc32(repr(of.keywords).encode())
        self._total = f"{of.func.__name__}_{options:08x}"
        self.add_state(self._total, torch.zeros(kinds, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def add(self, *values: Tensor) -> None:
        """Takes numbers ``[B]`` in, of each kind."""
        total: Tensor = getattr(self, self._total)
        setattr(self, self._total, total + torch.stack(values).sum(1).to(total))
        self.images = self.images + len(values[0])

    def means(self) -> Tensor:
        """The means of each kind over all images so far, f64; NaN before the first."""
        total: Tensor = getattr(self, self._total)
        return total / self.images

    def compute(self) -> Tensor:
        """The mean over all images so far, f64; NaN before the first."""
        return self.means()[0]
