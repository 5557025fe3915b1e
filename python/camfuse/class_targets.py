"""Targets of a class that take more than its own logit: what sets it apart from other classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from camfuse.devices import upload

if TYPE_CHECKING:
    from camfuse.targets import Target


@dataclass(frozen=True, eq=False)
class ClassTarget:
    """A score of a class that takes more than the class's own logit.

    Attributes:
        target: The class: ``None`` (each sample's arg-max), an index, one per sample, or several
            in :class:`camfuse.Each`.
    """

    target: Target = None

    def __post_init__(self) -> None:
        if callable(self.target) or isinstance(self.target, ClassTarget):
            got = type(self.target).__name__
            raise ValueError(f"target: {type(self).__name__} needs a class, got a {got}")

    def of(self, target: Target) -> Self:
        """The same of another class."""
        return replace(self, target=target)

    def with_indices(self, index_of: Callable[[str], int]) -> Self:
        """The same, with indices in place of the names of classes other than the target."""
        return self

    def score(self, output: Tensor, indices: Tensor) -> Tensor:
        """The scores ``[B]`` of the classes ``indices`` ``[B]`` in an output ``[B, classes]``."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Contrast(ClassTarget):
    """What speaks for a class rather than for those that resemble it, as Finer-CAM explains.

    The logit of the class, less ``alpha`` times the mean logit of the others: Zhang et al.,
    Finer-CAM, CVPR 2025, arXiv 2501.11309, whose map is the mean over the comparisons before ReLU.
    All comparisons count the same, as in the paper; pytorch-grad-cam weighs them by their
    probabilities, and differentiates these as well.

    Args:
        target: The class, as for any method; several in :class:`camfuse.Each`.
        others: How many of the classes nearest in logit to compare with (all, if there are fewer),
            or which classes; where the target is among them, it is left out. Where a target may
            be a name, they may be, too.
        alpha: How much of the others is taken off, 0 or more: 0 explains the class alone. The
            paper calls it gamma, and uses 0.6 by default.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If it does not fit: the target is a function, or there is nothing to compare.
    """

    others: int | Sequence[int | str] = 3
    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        others, alpha = self.others, self.alpha
        if isinstance(others, Tensor) and not (others.is_floating_point() or others.is_complex()):
            object.__setattr__(self, "others", others.tolist())
            others = self.others
        if isinstance(others, str) or not isinstance(others, Sequence | Integral):
            raise TypeError(f"others: expected a number or a sequence of classes, got {others!r}")
        if isinstance(others, Sequence):
            for one in others:
                if isinstance(one, bool) or not isinstance(one, str | Integral):
                    raise TypeError(f"others: expected classes, got {one!r}")
            if len(set(others)) < len(others):
                raise ValueError(f"others: expected each class once, got {others!r}")
            if not set(others) - {self.target if isinstance(self.target, int | str) else None}:
                raise ValueError(f"others: expected a class other than the target, got {others!r}")
        elif isinstance(others, bool) or others < 1:
            raise ValueError(f"others: expected at least 1, got {others!r}")
        if isinstance(alpha, bool) or not isinstance(alpha, Real):
            raise TypeError(f"alpha: expected a number, got {alpha!r}")
        if not 0 <= alpha < float("inf"):
            raise ValueError(f"alpha: expected a finite number of at least 0, got {alpha!r}")

    def with_indices(self, index_of: Callable[[str], int]) -> Self:
        """The same, with indices in place of the names of classes other than the target."""
        if not isinstance(self.others, Sequence):
            return self
        others = [index_of(one) if isinstance(one, str) else one for one in self.others]
        return replace(self, others=others)

    def score(self, output: Tensor, indices: Tensor) -> Tensor:
        """The scores ``[B]`` of the classes ``indices`` ``[B]`` in an output ``[B, classes]``."""
        target = indices[:, None]
        others = self._others(output.detach(), target)
        # Not a product with 0 or 1: what is left out may be infinite.
        logits = torch.where(others == target, 0, output.gather(1, others))
        count = (others != target).sum(1).clamp(min=1)
        return output.gather(1, target)[:, 0] - self.alpha * logits.sum(1) / count

    def _others(self, output: Tensor, target: Tensor) -> Tensor:
        """Classes to compare with ``[B, n]``, perhaps with the target ``[B, 1]`` among them."""
        batch, classes = output.shape
        if classes < 2:
            raise ValueError("target: Contrast needs another class, but the model has only one")
        if isinstance(self.others, Sequence):
            for one in self.others:
                if isinstance(one, str) or not 0 <= one < classes:
                    raise ValueError(f"others: expected classes in 0..{classes - 1}, got {one!r}")
            return upload(torch.tensor(self.others), output.device).expand(batch, -1)
        distances = (output - output.gather(1, target)).abs()
        # Also of classes that tie with it, the target is the nearest to itself.
        nearest = distances.scatter(1, target, -1).sort(dim=1, stable=True).indices
        return nearest[:, 1 : 1 + self.others]


@dataclass(frozen=True, eq=False)
class ReST(ClassTarget):
    """A class's logit plus the logarithm of its probability: residual softmax target-class.

    What ShapleyCAM explains (Cai, 2025, arXiv 2501.06261): the logit tells of the class alone, the
    probability how it stands against the others, and the logarithm keeps its gradient from
    vanishing for sure predictions.

    Args:
        target: The class, as for any method; several in :class:`camfuse.Each`.
    """

    def score(self, output: Tensor, indices: Tensor) -> Tensor:
        """The scores ``[B]`` of the classes ``indices`` ``[B]`` in an output ``[B, classes]``."""
        return (output + output.log_softmax(1)).gather(1, indices[:, None])[:, 0]
