"""What sets a class apart from those that resemble it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from camfuse.compat.torchcam.methods._delegate import Delegate
from camfuse.compat.torchcam.methods._gradcam import GradCAM, GradCAMpp, LayerCAM
from camfuse.compat.torchcam.methods._targets import ClassIdx
from camfuse.compat.torchcam.methods.core import TargetLayer

Comparison = int | list[int] | list[list[int]] | None


class FinerCAM(Delegate):
    """Finer-CAM (Zhang et al., CVPR 2025, arXiv 2501.11309).

    The score that is differentiated is ``y_c - gamma mean_d y_d``, d the references: classes whose
    scores are the closest, unless others are given.

    Args:
        model: Any module.
        target_layer: As for the base method.
        input_shape: As for the base method.
        base_method: ``GradCAM``, ``GradCAMpp`` or ``LayerCAM``.
        gamma: How much the references count.
        num_references: How many there are.
        base_kwargs: Further arguments for the base method.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If ``gamma`` is negative or not finite, or there are no references.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: TargetLayer = None,
        input_shape: tuple[int, ...] = (3, 224, 224),
        *,
        base_method: type[GradCAM] | type[GradCAMpp] | type[LayerCAM] = GradCAM,
        gamma: float = 0.6,
        num_references: int = 3,
        **base_kwargs: Any,
    ) -> None:
        if base_method not in (GradCAM, GradCAMpp, LayerCAM):
            raise TypeError(
                f"base_method: expected GradCAM, GradCAMpp or LayerCAM, got {base_method!r}"
            )
        if isinstance(gamma, bool) or not isinstance(gamma, int | float):
            raise TypeError(f"gamma: expected a number, got {gamma!r}")
        if not math.isfinite(gamma) or gamma < 0:
            raise ValueError(f"gamma: expected a finite number of at least 0, got {gamma}")
        if not _is_whole(num_references):
            raise TypeError(f"num_references: expected an integer, got {num_references!r}")
        if num_references < 1:
            raise ValueError(f"num_references: expected at least 1, got {num_references}")
        self.gamma, self.num_references = float(gamma), num_references
        super().__init__(base_method(model, target_layer, input_shape=input_shape, **base_kwargs))

    def __call__(
        self,
        class_idx: ClassIdx,
        scores: Tensor | None = None,
        comparison_idx: Comparison = None,
        normalized: bool = True,
        **kwargs: Any,
    ) -> list[Tensor]:
        """The maps of the last pass.

        Args:
            class_idx: The class, or one for each sample.
            scores: What the model returned ``[B, classes]``.
            comparison_idx: The references: one, several, or several for each sample.
            normalized: Whether each map is divided by its own range, to [0, 1].
            kwargs: For the base method.

        Returns:
            ``[B, *grid]`` for each target layer, in the dtype of its activations.

        Raises:
            TypeError: If an argument is of the wrong type.
            ValueError: If one does not fit.
        """
        contrast = self._contrast(class_idx, scores, comparison_idx, kwargs)
        return self.base_cam([0] * len(contrast), contrast, normalized, **kwargs)

    def compute_cams(
        self,
        class_idx: ClassIdx,
        scores: Tensor | None = None,
        comparison_idx: Comparison = None,
        normalized: bool = True,
        **kwargs: Any,
    ) -> list[Tensor]:
        """As a call, without the base method's checks."""
        contrast = self._contrast(class_idx, scores, comparison_idx, kwargs)
        return self.base_cam.compute_cams([0] * len(contrast), contrast, normalized, **kwargs)

    def fuse_cams(self, cams: list[Tensor], target_shape: Any = None) -> Tensor:
        """One map of several layers, as the base method has it."""
        return self.base_cam.fuse_cams(cams, target_shape)

    def _contrast(
        self,
        class_idx: ClassIdx,
        scores: Tensor | None,
        comparison_idx: Comparison,
        kwargs: dict[str, Any],
    ) -> Tensor:
        """What is differentiated ``[B, 1]``."""
        if kwargs.get("targets") is not None:
            raise ValueError("targets: FinerCAM explains classes only")
        if scores is None:
            raise ValueError("scores: expected what the model returned, got None")
        if not isinstance(scores, Tensor):
            raise TypeError(f"scores: expected a tensor, got {type(scores).__name__}")
        if scores.ndim != 2 or not len(scores) or scores.shape[1] < 2:
            raise ValueError(
                f"scores: expected [B, classes] of two classes or more, got {tuple(scores.shape)}"
            )
        batch, count = scores.shape
        classes = _each(class_idx, batch)
        _check_range("class_idx", classes, count)
        column = torch.tensor(classes, device=scores.device)[:, None]
        if comparison_idx is None:
            references = self._closest(scores.detach(), column)
        else:
            rows = _reference_rows(comparison_idx, batch)
            for own, row in zip(classes, rows, strict=True):
                _check_range("comparison_idx", row, count)
                if len({own, *row}) <= len(row):
                    raise ValueError(
                        f"comparison_idx: expected classes other than {own}, each once, got {row}"
                    )
            references = torch.tensor(rows, device=scores.device)
        with torch.inference_mode(False), torch.enable_grad():
            mean = scores.gather(1, references).mean(1, keepdim=True)
            contrast: Tensor = scores.gather(1, column) - self.gamma * mean
        return contrast

    def _closest(self, scores: Tensor, column: Tensor) -> Tensor:
        """The references by score ``[B, n]``."""
        distances = (scores - scores.gather(1, column)).abs().scatter(1, column, torch.inf)
        count = min(self.num_references, scores.shape[1] - 1)
        return distances.topk(count, dim=1, largest=False).indices

    def __repr__(self) -> str:
        return (
            f"FinerCAM(base_method={type(self.base_cam).__name__}, "
            f"target_layer={self.target_names}, gamma={self.gamma}, "
            f"num_references={self.num_references})"
        )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _each(class_idx: Any, batch: int) -> list[int]:
    """The class of each sample."""
    if _is_whole(class_idx):
        return [class_idx] * batch
    if not isinstance(class_idx, list) or not all(map(_is_whole, class_idx)):
        raise TypeError(f"class_idx: expected an integer or a list of integers, got {class_idx!r}")
    if len(class_idx) != batch:
        raise ValueError(f"class_idx: expected one per sample, {batch}, got {len(class_idx)}")
    return class_idx


def _check_range(what: str, classes: list[int], count: int) -> None:
    if any(not 0 <= one < count for one in classes):
        raise ValueError(f"{what}: expected classes below {count}, got {classes}")


def _reference_rows(comparison_idx: Any, batch: int) -> list[list[int]]:
    """The references of each sample, as many for all."""
    given = [comparison_idx] if _is_whole(comparison_idx) else comparison_idx
    if not isinstance(given, list):
        raise TypeError(f"comparison_idx: expected classes, got {comparison_idx!r}")
    shared = all(map(_is_whole, given))
    rows = [given] * batch if shared else given
    for row in rows:
        if not isinstance(row, list) or not all(map(_is_whole, row)):
            raise TypeError(f"comparison_idx: expected classes, got {comparison_idx!r}")
    if len(rows) != batch or len({len(row) for row in rows}) > 1 or not all(rows):
        raise ValueError(
            f"comparison_idx: expected as many classes for each of {batch} samples, at least one, "
            f"got {comparison_idx!r}"
        )
    return rows
