"""Scores of a model's output: functions of one sample's output, and classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

OutputTarget = Callable[[Any], Tensor]
"""From what the model returned for one sample to its score, a tensor of one number."""

Targets = OutputTarget | list[OutputTarget]
ClassIdx = int | list[int]


def per_sample(targets: Targets, batch: int) -> list[OutputTarget]:
    """One target for each sample.

    Raises:
        TypeError: If ``targets`` is neither a function nor a list of functions.
        ValueError: If there are not as many as samples.
    """
    if callable(targets):
        return [targets] * batch
    if not isinstance(targets, list) or not all(map(callable, targets)):
        raise TypeError(f"targets: expected a function or a list of functions, got {targets!r}")
    if len(targets) != batch:
        raise ValueError(f"targets: expected one per sample, {batch}, got {len(targets)}")
    return targets


def target_scores(output: Any, targets: Targets) -> Tensor:
    """The score of each sample ``[B]``.

    Raises:
        TypeError: If the output is neither a tensor nor a list, or a target returns no tensor.
        ValueError: If the output has no batch axis, or a score is more than a number.
    """
    if not isinstance(output, Tensor | list):
        raise TypeError(
            f"scores: expected a tensor or a list with an item per sample, got "
            f"{type(output).__name__}"
        )
    if isinstance(output, Tensor) and not output.ndim:
        raise ValueError("scores: expected a batch axis, got a number")
    chosen = per_sample(targets, len(output))
    values = [target(sample) for target, sample in zip(chosen, output, strict=True)]
    for value in values:
        if not isinstance(value, Tensor):
            raise TypeError(f"targets: expected a tensor from each, got {type(value).__name__}")
        if value.numel() != 1:
            raise ValueError(f"targets: expected a number from each, got {tuple(value.shape)}")
    return torch.stack([value.reshape(()) for value in values])


def class_scores(output: Tensor, class_idx: int | Sequence[int]) -> Tensor:
    """``[B, ...]``, of one class or of one per sample."""
    if isinstance(class_idx, int):
        return output[:, class_idx]
    rows = torch.arange(len(class_idx), device=output.device)
    return output[rows, torch.tensor(class_idx, device=output.device)]
