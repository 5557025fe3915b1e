"""Weakly supervised localization over a data set, on any number of GPUs.

Keyword arguments of :class:`torchmetrics.Metric`, such as ``process_group``, go to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from camfuse.metrics.accumulate import Metric, keep_apart
from camfuse.metrics.histograms import check_step, thresholds
from camfuse.metrics.wsol import (
    Resize,
    average_precision,
    box_overlaps,
    check_resize,
    pixel_counts,
)

_DELTAS = (0.3, 0.5, 0.7)
_TOPS = (1, 5)


class _Wsol(Metric):
    """How maps are brought to score maps, for all metrics of weakly supervised localization."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(
        self, step: float, resize: Resize, normalize: bool, *measures: object, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        keep_apart(self, *measures, step, resize, normalize)
        check_resize(resize)
        self.step, self.resize, self.normalize = check_step(step), resize, normalize


class _BoxCounts(_Wsol):
    """Counts of boxes that fit, for each threshold of the maps and of the overlap.

    All metrics of boxes keep the same counts, so that a ``torchmetrics.MetricCollection`` finds
    the contours of a batch once for all of them.
    """

    correct: Tensor
    images: Tensor
    classified: Tensor

    def __init__(
        self,
        *,
        size: Sequence[int] | None = (224, 224),
        step: float = 0.001,
        resize: Resize = "official",
        normalize: bool = True,
        deltas: Sequence[float] = _DELTAS,
        **kwargs: Any,
    ) -> None:
        measures = ("boxes", size, sorted({*deltas, *_DELTAS}))
        super().__init__(step, resize, normalize, *measures, **kwargs)
        wrong = [one for one in deltas if not 0 < one <= 1]
        if wrong or not deltas:
            raise ValueError(f"deltas: expected numbers in (0, 1], got {wrong or deltas}")
        self.size = None if size is None else tuple(size)
        self.deltas = tuple(sorted({*deltas, *_DELTAS}))
        # Largest or every contour; the class known, among the first 1 or 5; deltas; thresholds.
        shape = (2, 1 + len(_TOPS), len(self.deltas), len(thresholds(step)))
        self.add_state("correct", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        for name in ("images", "classified"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        maps: Tensor,
        boxes: Sequence[Tensor],
        logits: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> None:
        """Takes maps of the true class ``[B, h, w]`` and the boxes of its objects.

        Args:
            maps: ``[B, h, w]``.
            boxes: For each sample ``[n, 4]``, see :func:`camfuse.metrics.box_overlaps`.
            logits: ``[B, classes]``, for the top-1 and top-5 accuracy.
            labels: ``[B]``, the true classes, with ``logits``.
        """
        tops = _among_first(len(maps), logits, labels)  # [3, B]
        overlaps = torch.stack(
            box_overlaps(
                maps,
                boxes,
                size=self.size,
                step=self.step,
                resize=self.resize,
                normalize=self.normalize,
            )
        )
        fits = torch.stack([overlaps >= delta for delta in self.deltas], 1)  # [2, D, B, T]
        counts = (fits[:, None] & tops[:, None, :, None]).sum(3)
        self.correct = self.correct + counts.to(self.correct.device)
        self.images = self.images + len(maps)
        self.classified = self.classified + (0 if logits is None else len(maps))

    def _best(self, contours: int, top: int, delta: float) -> Tensor:
        """Part of the images that are right at the best threshold, f64."""
        counts = self.correct[contours, top, self.deltas.index(delta)]
        return counts.amax().double() / self.images


class MaxBoxAcc(_BoxCounts):
    """Part of the images whose box fits the object's, at the one threshold that is best for all.

    One box per map, that of its largest contour. In [0, 1]; also called GT-known localization.

    Args:
        delta: The overlap from which on a box fits.
        size: ``(H, W)`` that maps are resized to; None leaves them as they are.
        step: Thresholds are 0, step, 2 step, ... below 1, as parts of a map's own maximum.
        resize: ``"official"`` is bicubic, ``"bilinear"`` is how maps are displayed.
        normalize: Whether maps are set on [0, 1] by their own range.
    """

    def __init__(
        self,
        delta: float = 0.5,
        *,
        size: Sequence[int] | None = (224, 224),
        step: float = 0.001,
        resize: Resize = "official",
        normalize: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            size=size, step=step, resize=resize, normalize=normalize, deltas=(delta,), **kwargs
        )
        self.delta = delta

    def compute(self) -> Tensor:
        """The accuracy at the best threshold."""
        return self._best(0, 0, self.delta)


class MaxBoxAccV2(_BoxCounts):
    """As :class:`MaxBoxAcc` with boxes of all contours, on average over several overlaps.

    A map is right where any of its boxes fits any object's. Each overlap has its own best
    threshold. In [0, 1].

    Args:
        deltas: The overlaps from which on a box fits.
        size: As for :class:`MaxBoxAcc`, likewise the rest.
        step: Distance between thresholds.
        resize: How maps are resized.
        normalize: Whether maps are set on [0, 1] by their own range.
    """

    def __init__(
        self,
        deltas: Sequence[float] = _DELTAS,
        *,
        size: Sequence[int] | None = (224, 224),
        step: float = 0.001,
        resize: Resize = "official",
        normalize: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            size=size, step=step, resize=resize, normalize=normalize, deltas=deltas, **kwargs
        )
        self.averaged = tuple(deltas)

    def compute(self) -> Tensor:
        """The mean of the accuracies, each at its best threshold."""
        return torch.stack([self._best(1, 0, delta) for delta in self.averaged]).mean()


class TopLocalization(MaxBoxAcc):
    """As :class:`MaxBoxAcc`, where the true class is among the model's first ``k`` as well.

    Classes of equal score count as better placed together.

    Args:
        k: 1 or 5.
        delta: As for :class:`MaxBoxAcc`, likewise the rest.
        size: What maps are resized to.
        step: Distance between thresholds.
        resize: How maps are resized.
        normalize: Whether maps are set on [0, 1] by their own range.
    """

    def __init__(
        self,
        k: int = 1,
        delta: float = 0.5,
        *,
        size: Sequence[int] | None = (224, 224),
        step: float = 0.001,
        resize: Resize = "official",
        normalize: bool = True,
        **kwargs: Any,
    ) -> None:
        if k not in _TOPS:
            raise ValueError(f"k: expected 1 or 5, got {k}")
        super().__init__(delta, size=size, step=step, resize=resize, normalize=normalize, **kwargs)
        self.k = k

    def compute(self) -> Tensor:
        """The accuracy at the best threshold.

        Raises:
            ValueError: If some images came without ``logits``.
        """
        if int(self.classified) != int(self.images):
            raise ValueError(
                f"logits: expected those of all {int(self.images)} images, got "
                f"{int(self.classified)}"
            )
        return self._best(0, 1 + _TOPS.index(self.k), self.delta)


class PxAP(_Wsol):
    """Average precision of the pixels of all images together, in [0, 1].

    Args:
        step: Scores are told apart by so much.
        resize: ``"official"`` is bicubic, ``"bilinear"`` is how maps are displayed.
        normalize: Whether maps are set on [0, 1] by their own range.
    """

    counts: Tensor

    def __init__(
        self,
        step: float = 0.001,
        *,
        resize: Resize = "official",
        normalize: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(step, resize, normalize, "pixels", **kwargs)
        empty = torch.zeros(2, len(thresholds(step)) + 1, dtype=torch.int64)
        self.add_state("counts", empty, dist_reduce_fx="sum")

    def update(self, maps: Tensor, masks: Tensor, ignore: Tensor | None = None) -> None:
        """Takes maps ``[B, h, w]``, masks ``[B, H, W]`` and, maybe, what is to be ignored."""
        counts = pixel_counts(
            maps,
            masks,
            ignore=ignore,
            step=self.step,
            resize=self.resize,
            normalize=self.normalize,
        )
        self.counts = self.counts + counts.to(self.counts.device)

    def compute(self) -> Tensor:
        """The average precision, f64."""
        return average_precision(self.counts)


def _among_first(batch: int, logits: Tensor | None, labels: Tensor | None) -> Tensor:
    """``[3, B]``, bool on the CPU: always true, the class is the first, is among the first 5."""
    places = torch.full((batch,), max(_TOPS))
    if (logits is None) != (labels is None):
        raise ValueError("logits: expected together with labels, got one of them")
    if logits is not None and labels is not None:
        if logits.ndim != 2 or len(logits) != batch or labels.shape != (batch,):
            raise ValueError(
                f"logits: expected [{batch}, classes] and labels [{batch}], got "
                f"{tuple(logits.shape)} and {tuple(labels.shape)}"
            )
        logits, labels = logits.detach().cpu(), labels.cpu().long()
        if batch and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
            raise ValueError(f"labels: expected 0..{logits.shape[1] - 1}, got {labels.tolist()}")
        places = (logits > logits.gather(1, labels[:, None])).sum(1)
    return torch.stack([places >= 0, *(places < top for top in _TOPS)])
