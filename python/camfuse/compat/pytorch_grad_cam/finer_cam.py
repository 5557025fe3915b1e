"""Finer-CAM: what tells a class from those that look like it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from camfuse.compat.pytorch_grad_cam.arrays import Array
from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.grad_cam import GradCAM
from camfuse.compat.pytorch_grad_cam.scores import Target
from camfuse.compat.pytorch_grad_cam.utils.model_targets import FinerWeightedTarget

DEFAULT_COMPARISON_CATEGORIES = (1, 2, 3)


class FinerCAM:
    """Finer-CAM (Zhang et al., CVPR 2025), by any method that explains a score.

    Args:
        model: As for :class:`BaseCAM`, likewise the next two.
        target_layers: Some of its modules.
        reshape_transform: From a layer's output to ``[B, C, *grid]``.
        base_method: A subclass of :class:`BaseCAM`.

    Attributes:
        base_cam: The method, for this model.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
        base_method: Callable[..., BaseCAM] = GradCAM,
    ) -> None:
        self.base_cam = base_method(model, target_layers, reshape_transform)
        if not isinstance(self.base_cam, BaseCAM):
            raise ValueError(
                "base_method: expected a subclass of BaseCAM, got one that makes a "
                f"{type(self.base_cam).__name__}"
            )
        self.compute_input_gradient = self.base_cam.compute_input_gradient
        self.uses_gradients = self.base_cam.uses_gradients

    def __call__(
        self,
        input_tensor: Tensor,
        targets: Sequence[Target] | None = None,
        eigen_smooth: bool = False,
        alpha: float = 1,
        comparison_categories: Sequence[int] | None = None,
        target_idx: int | None = None,
    ) -> Array:
        """The maps of the images; arguments and errors as for :meth:`forward`."""
        return self.forward(
            input_tensor, targets, eigen_smooth, alpha, comparison_categories, target_idx
        )

    def forward(
        self,
        input_tensor: Tensor,
        targets: Sequence[Target] | None = None,
        eigen_smooth: bool = False,
        alpha: float = 1,
        comparison_categories: Sequence[int] | None = None,
        target_idx: int | None = None,
    ) -> Array:
        """One forward pass, one backward pass, and the maps from them.

        Args:
            input_tensor: ``[B, C, H, W]``.
            targets: One per image, which are explained as they are; None for those of Finer-CAM.
            eigen_smooth: As for :class:`BaseCAM`.
            alpha: How much of the other classes' scores is taken off.
            comparison_categories: Which other classes, by their rank: classes are ordered by how
                near their score is to the explained one's, which has rank 0. Ranks that do not
                exist are left out.
            target_idx: The class that is explained; that of the highest output by default.

        Returns:
            ``[B, H, W]``, f32 in [0, 1].

        Raises:
            ValueError: If an argument does not fit, or the model returns no ``[B, classes]``.
        """

        def choose(outputs: Any) -> Sequence[Target]:
            return _finer(outputs, alpha, comparison_categories, target_idx)

        base = self.base_cam
        return base.aggregate_multi_layers(
            base._layers_maps(input_tensor, targets, eigen_smooth, choose)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.base_cam.activations_and_grads.release()


def _finer(
    outputs: Any, alpha: float, ranks: Sequence[int] | None, target_idx: int | None
) -> list[Target]:
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"model: expected outputs [B, classes], got {got}")
    scores = outputs.detach()
    count = scores.shape[1]
    wanted = DEFAULT_COMPARISON_CATEGORIES if ranks is None else ranks
    chosen = [one for one in wanted if one < count]
    explained = scores.amax(1) if target_idx is None else scores[:, target_idx]
    nearest = torch.argsort((scores - explained[:, None]).abs(), dim=1, stable=True).tolist()
    return [FinerWeightedTarget(own[0], [own[i] for i in chosen], alpha) for own in nearest]
