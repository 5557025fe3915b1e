"""Targets: from what a model says of one sample to the score that is explained."""

from __future__ import annotations

import torch
from torch import Tensor


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
        return _of_class(torch.softmax(_scores(model_output), dim=-1), self.category)


def _of_class(model_output: Tensor, category: int) -> Tensor:
    scores = _scores(model_output)
    return scores[category] if scores.ndim == 1 else scores[:, category]


def _scores(model_output: Tensor) -> Tensor:
    if not isinstance(model_output, Tensor) or model_output.ndim == 0:
        got = "a scalar" if isinstance(model_output, Tensor) else type(model_output).__name__
        raise ValueError(f"model_output: expected a tensor (classes,) of scores, got {got}")
    return model_output
