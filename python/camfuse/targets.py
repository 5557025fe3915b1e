"""What score is explained: a class, a class per sample, a function of the output, or several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from camfuse.devices import upload
from camfuse.structures import tensors_in

TargetFunction = Callable[[Any], Tensor]
"""From the model's output to one score per sample ``[B]`` (or one for the batch, if B is 1)."""


@dataclass(frozen=True)
class Each:
    """Several targets, explained from one forward pass, one after another.

    Args:
        targets: Anything that is a target by itself: ``None``, a class index, one index per sample,
            or a function of the output.
    """

    targets: Sequence[Target]


Target = None | int | Sequence[int] | Tensor | TargetFunction | Each
"""``None`` explains each sample's arg-max class; a tensor may be ``[B]`` or ``[T, B]``."""


@dataclass(frozen=True)
class Scores:
    """Resolved targets.

    Attributes:
        values: T tensors ``[B]``, attached to the graph.
        indices: Class indices ``[T, B]``, int64; -1 where a function was given.
        probabilities: Softmax of the output at those classes ``[T, B]``, f32; NaN where a function
            was given.

    All are where the output is: nothing has waited for them yet.
    """

    values: tuple[Tensor, ...]
    indices: Tensor
    probabilities: Tensor


def resolve_targets(target: Target, output: Any, batch: int) -> Scores:
    """Turns ``target`` into scores of this ``output``.

    Raises:
        ValueError: If the target does not fit the output: wrong count, class out of range, an
            output without exactly one ``[B, classes]`` tensor, a function that returns no ``[B]``
            tensor.
    """
    resolved = [_resolve_one(one, output, batch) for one in _split(target)]
    if not resolved:
        raise ValueError("target: expected at least one target, got none")
    values, indices, probabilities = zip(*resolved, strict=True)
    return Scores(values, torch.stack(indices), torch.stack(probabilities).float())


def count_targets(target: Any) -> int:
    """T, the number of targets."""
    return len(_split(target))


def on_host(target: Target) -> Target:
    """The same target with its classes on the CPU, where they can be checked without waiting."""
    if isinstance(target, Each):
        return Each([on_host(one) for one in target.targets])
    return target.cpu() if isinstance(target, Tensor) else target


def part_of_target(target: Target, batch: int, part: slice) -> Target:
    """``target`` for some samples of a batch; functions see only these samples' output.

    Raises:
        ValueError: If there is not one class per sample.
    """
    if isinstance(target, Each):
        return Each([part_of_target(one, batch, part) for one in target.targets])
    if isinstance(target, _SegmentationMean):
        return target.part(batch, part)
    if target is None or callable(target) or isinstance(target, int):
        return target
    try:
        indices = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError):
        raise _not_a_target(target) from None
    if indices.ndim == 0:
        return target
    if indices.ndim > 2 or indices.shape[-1] != batch:
        raise _not_per_sample(indices, batch)
    return indices[..., part]


def segmentation_mean(
    category: int, mask: Tensor | None = None, *, output: str = "out"
) -> TargetFunction:
    """Mean logit of one class of a segmentation output ``[B, classes, *grid]``.

    Args:
        category: The class.
        mask: Optional ``[*grid]`` or ``[B, *grid]``; the mean is taken over its non-zero pixels.
        output: Which output of a model that returns several by name, as torchvision's return
            ``out`` and ``aux``.
    """
    return _SegmentationMean(category, mask, output)


@dataclass(frozen=True, eq=False)
class _SegmentationMean:
    category: int
    mask: Tensor | None
    output: str

    def __call__(self, output: Any) -> Tensor:
        logits = self._logits(output)
        plane = logits[:, self.category]
        places = tuple(range(1, plane.ndim))
        if self.mask is None:
            return plane.mean(places)
        if self.mask.ndim not in (plane.ndim - 1, plane.ndim):
            raise ValueError(
                f"mask: expected {tuple(plane.shape[1:])}, with or without the batch before it, "
                f"got shape {tuple(self.mask.shape)}"
            )
        weight = (self.mask != 0).to(plane, non_blocking=True).expand_as(plane)
        return (plane * weight).sum(places) / weight.sum(places).clamp(min=1)

    def _logits(self, output: Any) -> Tensor:
        if isinstance(output, Mapping):
            if self.output not in output:
                names = ", ".join(map(repr, output))
                raise ValueError(f"output: expected one of {names}, got {self.output!r}")
            output = output[self.output]
        if not isinstance(output, Tensor) or output.ndim < 3:
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"target: expected logits (B, classes, H, W) to take means of, got {got}"
            )
        if not 0 <= self.category < output.shape[1]:
            raise ValueError(
                f"category: expected a class in 0..{output.shape[1] - 1}, got {self.category}"
            )
        return output

    def part(self, batch: int, part: slice) -> _SegmentationMean:
        """The same for some samples of a batch."""
        if self.mask is None or self.mask.ndim < 3 or len(self.mask) == 1:
            return self
        if len(self.mask) != batch:
            raise ValueError(
                f"mask: expected [H, W] or [{batch}, H, W], got shape {tuple(self.mask.shape)}"
            )
        return replace(self, mask=self.mask[part])


def box_score(label: int, box: Sequence[float], min_iou: float = 0.5) -> TargetFunction:
    """Summed confidence of detections of ``label`` that overlap ``box``.

    For detectors that return one dict per image with ``boxes`` ``[N, 4]`` (x1, y1, x2, y2 in
    pixels), ``labels`` ``[N]`` and ``scores`` ``[N]``, as torchvision's do.

    Args:
        label: The class.
        box: ``(x1, y1, x2, y2)`` in pixels.
        min_iou: Least intersection over union, in [0, 1].
    """
    wanted = torch.tensor(box, dtype=torch.float32)

    def score(output: Any) -> Tensor:
        return torch.stack([_overlapping(one, label, wanted, min_iou) for one in output])

    return score


def _overlapping(detections: dict[str, Tensor], label: int, box: Tensor, min_iou: float) -> Tensor:
    boxes = detections["boxes"].detach()
    box = box.to(boxes)
    sides = torch.minimum(boxes[:, 2:], box[2:]) - torch.maximum(boxes[:, :2], box[:2])
    intersection = sides.clamp(min=0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    hits = (intersection / (areas - intersection) >= min_iou) & (detections["labels"] == label)
    return detections["scores"][hits].sum()


def _split(target: Target) -> list[Target]:
    if isinstance(target, Each):
        return [one for inner in target.targets for one in _split(inner)]
    if isinstance(target, Tensor) and target.ndim == 2:
        return list(target)
    return [target]


def _resolve_one(target: Target, output: Any, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, indices and probabilities, each ``[B]``."""
    if callable(target):
        scores = _function_scores(target, output, batch)
        return (
            scores,
            torch.full((batch,), -1, device=scores.device),
            torch.full((batch,), torch.nan, device=scores.device, dtype=torch.float64),
        )
    output = _class_scores(output, batch)
    indices = _class_indices(target, output, batch)
    columns = indices[:, None]
    probabilities = output.detach().double().softmax(1).gather(1, columns)[:, 0]
    return output.gather(1, columns)[:, 0], indices, probabilities


def _class_scores(output: Any, batch: int) -> Tensor:
    """The one tensor ``[B, classes]`` that a model returned, alone or among others."""
    if isinstance(output, Tensor) and (output.ndim != 2 or output.shape[0] != batch):
        raise ValueError(
            f"target: a class needs an output of shape ({batch}, classes), got "
            f"{tuple(output.shape)}; pass a function of the output, such as segmentation_mean()"
        )
    tensors = list({id(one): one for one in tensors_in(output)}.values())
    found = [
        one
        for one in tensors
        if one.is_floating_point() and one.ndim == 2 and one.shape[0] == batch
    ]
    if len(found) != 1:
        came = ", ".join(f"{str(one.dtype)[6:]} {tuple(one.shape)}" for one in tensors[:6])
        more = f" and {len(tensors) - 6} more" if len(tensors) > 6 else ""
        raise ValueError(
            f"target: a class needs exactly one floating tensor ({batch}, classes) in what the "
            f"model returns, got {len(found)} in {_kind(output)} of {came or 'no tensors'}{more}; "
            "pass a function of the output that returns one score per sample"
        )
    return found[0]


def _kind(output: Any) -> str:
    return f"a {type(output).__name__}" if output is not None else "None"


def _class_indices(target: Any, output: Tensor, batch: int) -> Tensor:
    if target is None:
        return output.detach().argmax(1)
    try:
        indices = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError):
        raise _not_a_target(target) from None
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise ValueError(f"target: expected class indices, got {indices.dtype}")
    if indices.ndim == 0:
        indices = indices.expand(batch)
    if indices.shape != (batch,):
        raise _not_per_sample(indices, batch)
    classes = output.shape[1]
    if batch and not (int(indices.min()) >= 0 and int(indices.max()) < classes):
        bad = next(int(i) for i in indices if not 0 <= int(i) < classes)
        raise ValueError(f"target: expected a class in 0..{classes - 1}, got {bad}")
    return upload(indices.long(), output.device)


def _not_a_target(target: Any) -> ValueError:
    return ValueError(
        f"target: expected None, a class index, one per sample or a function, got {target!r}"
    )


def _not_per_sample(indices: Tensor, batch: int) -> ValueError:
    return ValueError(
        f"target: expected one class or one per sample ({batch}), got shape {tuple(indices.shape)}"
    )


def _function_scores(target: TargetFunction, output: Any, batch: int) -> Tensor:
    scores = target(output)
    if not isinstance(scores, Tensor):
        raise ValueError(f"target: the function must return a tensor, got {type(scores).__name__}")
    if scores.ndim == 0 and batch == 1:
        scores = scores[None]
    if scores.shape != (batch,) or not scores.is_floating_point():
        raise ValueError(
            f"target: the function must return one floating score per sample ({batch},), got "
            f"{scores.dtype} {tuple(scores.shape)}"
        )
    return scores
