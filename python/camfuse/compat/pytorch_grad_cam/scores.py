"""From a model's output and the caller's targets to the one score that is differentiated."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from camfuse.compat.pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

Target = Callable[[Any], Tensor]
"""From what a model returns for one image to a score."""


def classes(outputs: Any) -> list[Target]:
    """A target for the highest output of each image.

    Raises:
        ValueError: If the model returns no tensor ``[B, ..., classes]``.
    """
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"targets: expected one per image, since the model returns no tensor of classes but "
            f"{type(outputs).__name__}, got None"
        )
    return [ClassifierOutputTarget(one) for one in outputs.argmax(-1).cpu().numpy()]


def total_score(targets: Sequence[Target], outputs: Any, batch: int) -> Tensor:
    """The sum of all images' scores: in eval mode, none depends on another's image.

    Raises:
        ValueError: If there are fewer targets than images, whose maps would be 0, or one returns no
            number that depends on the model.
    """
    images = min(len(outputs), batch)
    check_targets(targets, images, others=not isinstance(outputs, Tensor))
    return scores_of(targets, outputs).sum()


def check_targets(targets: Sequence[Target], images: int, *, others: bool = False) -> None:
    """Checks that there is a target for each image.

    Args:
        targets: The targets.
        images: How many images there are.
        others: Whether more targets are in order, as for outputs that are no tensor.

    Raises:
        ValueError: If there are too few.
    """
    if len(targets) < images:
        raise ValueError(f"targets: expected one per image, {images}, got {len(targets)}")
    if len(targets) > images and not others:
        warnings.warn(
            f"targets: expected one per image, {images}; {len(targets) - images} more are not used",
            stacklevel=6,
        )


def scores_of(targets: Sequence[Target], outputs: Any) -> Tensor:
    """The score ``[n]`` of each output by its own target.

    Raises:
        ValueError: If a target returns no number.
    """
    scores = [target(output) for target, output in zip(targets, outputs, strict=False)]
    for target, score in zip(targets, scores, strict=False):
        if not isinstance(score, Tensor) or score.numel() != 1:
            got = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
            raise ValueError(
                f"targets: expected a number from {type(target).__name__}, as a tensor, got {got}"
            )
    return torch.stack([score.reshape(()) for score in scores])
