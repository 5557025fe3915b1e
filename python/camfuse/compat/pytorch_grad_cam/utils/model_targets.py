"""Targets: from what a model says of one sample to the score that is explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from camfuse.compat.pytorch_grad_cam.arrays import Array, tensor_of


class ClassifierOutputTarget:
    """The output of one class, as it is.

    Args:
        category: The class.
    """

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, model_output: Tensor) -> Tensor:
        """Scores of ``[classes]`` or of a batch ``[B, classes, ...]``."""
        return _of_class(model_output, self.category)


class ClassifierOutputSoftmaxTarget:
    """The softmax probability of one class.

    Args:
        category: The class.
    """

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, model_output: Tensor) -> Tensor:
        """Probabilities of ``[classes]`` or of a batch ``[B, classes]``."""
        return _of_class(_checked(model_output).softmax(-1), self.category)


class ClassifierOutputReST:
    """The logit of one class plus the logarithm of its probability (arXiv 2501.06261).

    Args:
        category: The class.
    """

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, model_output: Tensor) -> Tensor:
        """Scores of ``[classes]`` or of a batch ``[B, classes]``."""
        logits = _checked(model_output)
        return _of_class(logits + logits.log_softmax(-1), self.category)


class BinaryClassifierOutputTarget:
    """The output of a classifier that has one: for class 1 as it is, else negative.

    Args:
        category: The class, 0 or 1.
    """

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, model_output: Tensor) -> Tensor:
        """Scores like the output."""
        return model_output if self.category == 1 else -model_output


class SoftmaxOutputTarget:
    """The softmax probabilities of all classes."""

    def __call__(self, model_output: Tensor) -> Tensor:
        """Probabilities ``[..., classes]``."""
        return model_output.softmax(-1)


class RawScoresOutputTarget:
    """The output as it is."""

    def __call__(self, model_output: Tensor) -> Tensor:
        """Scores like the output."""
        return model_output


class SemanticSegmentationTarget:
    """The sum of one class's scores over the pixels of a mask.

    Args:
        category: The class.
        mask: What a pixel's score counts ``[H, W]``.
    """

    def __init__(self, category: int, mask: Array | Tensor) -> None:
        self.category = category
        self.mask = tensor_of(mask)

    def __call__(self, model_output: Tensor) -> Tensor:
        """The score of ``[classes, H, W]``.

        Raises:
            ValueError: If the output is no such tensor, or the mask of another size.
        """
        plane = _of_class(_checked(model_output), self.category, axis=0)
        if model_output.ndim != 3 or plane.shape != self.mask.shape:
            raise ValueError(
                f"mask: expected an output (classes, H, W) and a mask (H, W) of the same size, got "
                f"{tuple(model_output.shape)} and {tuple(self.mask.shape)}"
            )
        return (plane * self.mask.to(plane.device)).sum()


class FasterRCNNBoxScoreTarget:
    """How well detections match given boxes: overlap plus confidence, summed over the boxes.

    For each box only the detection counts that overlaps it most, if it is of the same class and
    overlaps by more than a threshold.

    Args:
        labels: Class of each box.
        bounding_boxes: ``[M, 4]`` (x1, y1, x2, y2).
        iou_threshold: Intersection over union that must be exceeded.

    Raises:
        ValueError: If there are not as many labels as boxes, or boxes are not four numbers.
    """

    def __init__(
        self,
        labels: Sequence[int] | Array | Tensor,
        bounding_boxes: Sequence[Sequence[float]] | Array | Tensor,
        iou_threshold: float = 0.5,
    ) -> None:
        self.labels = labels
        self.bounding_boxes = bounding_boxes
        self.iou_threshold = iou_threshold
        boxes = [torch.as_tensor(one) for one in bounding_boxes]
        self._boxes = torch.stack(boxes) if boxes else torch.empty(0, 4)
        if self._boxes.shape != (len(labels), 4):
            raise ValueError(
                f"bounding_boxes: expected ({len(labels)}, 4), a box per label, got "
                f"{tuple(self._boxes.shape)}"
            )

    def __call__(self, model_outputs: Mapping[str, Tensor]) -> Tensor:
        """The score ``[1]`` of one image's detections: ``boxes``, ``labels`` and ``scores``.

        It is attached to the graph also where nothing matches.
        """
        boxes, scores = model_outputs["boxes"], model_outputs["scores"]
        if not len(boxes):
            return (boxes.sum() + scores.sum())[None].to(boxes.dtype)
        overlaps, best = _iou(self._boxes.to(boxes.device), boxes).max(1)
        labels = torch.as_tensor(self.labels, device=boxes.device)
        hits = (overlaps > self.iou_threshold) & (model_outputs["labels"][best] == labels)
        found = torch.where(hits, overlaps + scores[best], 0)
        return found.sum(0, keepdim=True).to(boxes.dtype)


class FinerWeightedTarget:
    """How far a class is above others, weighted by their probabilities (Finer-CAM).

    Args:
        main_category: The class.
        comparison_categories: The others, at least one.
        alpha: How much of their scores is taken off.

    Raises:
        ValueError: If there is nothing to compare with.
    """

    def __init__(
        self, main_category: int, comparison_categories: Sequence[int], alpha: float
    ) -> None:
        if not len(comparison_categories):
            raise ValueError("comparison_categories: expected at least one class, got none")
        self.main_category = main_category
        self.comparison_categories = comparison_categories
        self.alpha = alpha

    def __call__(self, model_output: Tensor) -> Tensor:
        """Scores ``[...]`` of ``[..., classes]``."""
        others = list(self.comparison_categories)
        # f16 would lose the 1e-9 that keeps the quotient finite.
        scores = _checked(model_output).to(torch.promote_types(model_output.dtype, torch.float32))
        weights = scores.softmax(-1)[..., others]
        ahead = scores[..., self.main_category, None] - self.alpha * scores[..., others]
        return (weights * ahead).sum(-1) / (weights.sum(-1) + 1e-9)


def _of_class(model_output: Any, category: int, axis: int = 1) -> Tensor:
    scores = _checked(model_output)
    axis = min(axis, scores.ndim - 1)
    classes = scores.shape[axis]
    if isinstance(category, int) and not -classes <= category < classes:
        raise IndexError(f"category: expected a class in 0..{classes - 1}, got {category}")
    return scores[(slice(None),) * axis + (category,)]


def _checked(model_output: Any) -> Tensor:
    if not isinstance(model_output, Tensor) or model_output.ndim == 0:
        got = "a scalar" if isinstance(model_output, Tensor) else type(model_output).__name__
        raise ValueError(f"model_output: expected a tensor (classes, ...) of scores, got {got}")
    return model_output


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of all pairs of boxes ``[M, 4]``, ``[N, 4]``: ``[M, N]``, f32 up."""
    dtype = torch.promote_types(b.dtype, torch.float32)
    a, b = a.to(dtype)[:, None], b.to(dtype)
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    common = sides.clamp(min=0).prod(-1)
    first, second = ((one[..., 2:] - one[..., :2]).prod(-1) for one in (a, b))
    union = (first + second - common).clamp(min=torch.finfo(dtype).tiny)
    return common / union
