"""RefineCAM: what the maps of several layers agree on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from camfuse.compat.pytorch_grad_cam.activations_and_gradients import ActivationsAndGradients
from camfuse.compat.pytorch_grad_cam.arrays import Array
from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.grad_cam_plusplus import GradCAMPlusPlus
from camfuse.compat.pytorch_grad_cam.scores import Target
from camfuse.compat.pytorch_grad_cam.utils.image import scale_cam_image

# What may differ between methods that are otherwise the same, each for a layer of its own.
_OWN = {"target_layers", "activations_and_grads", "outputs"}
_PLAIN = (int, float, str, torch.device)


class RefineCAM:
    """The product of the layers' finished maps (arXiv 2605.14641), by any method.

    Methods of this package take one pass for all layers, others one for each.

    Args:
        model: As for :class:`BaseCAM`, likewise the next two.
        target_layers: Some of its modules.
        reshape_transform: From a layer's output to ``[B, C, *grid]``.
        base_method: The method; anything that is called like :class:`BaseCAM` and makes maps.
        kwargs: More arguments of the method's.

    Attributes:
        base_cam_per_layer: The method, for each layer alone.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
        base_method: Callable[..., Any] = GradCAMPlusPlus,
        **kwargs: Any,
    ) -> None:
        self.base_cam_per_layer = [
            base_method(model, [layer], reshape_transform, **kwargs) for layer in target_layers
        ]
        if not self.base_cam_per_layer:
            raise ValueError("target_layers: expected at least one, got none")

    def __call__(
        self,
        input_tensor: Tensor,
        targets: Sequence[Target] | None = None,
        eigen_smooth: bool = False,
    ) -> Array:
        """The maps of the images; arguments as for :class:`BaseCAM`.

        Returns:
            ``[B, H, W]``, f32 in [0, 1], each map by its own range.
        """
        return self.forward(input_tensor, targets, eigen_smooth)

    def forward(
        self,
        input_tensor: Tensor,
        targets: Sequence[Target] | None = None,
        eigen_smooth: bool = False,
    ) -> Array:
        """The same."""
        joined = _joined(self.base_cam_per_layer)
        if joined is None:
            maps = [
                cam(input_tensor, targets, eigen_smooth=eigen_smooth)
                for cam in self.base_cam_per_layer
            ]
        else:
            layers = joined._layers_maps(input_tensor, targets, eigen_smooth)
            maps = [joined.aggregate_multi_layers([one]) for one in layers]
        return scale_cam_image(np.prod(maps, axis=0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        for cam in self.base_cam_per_layer:
            cam.activations_and_grads.release()


def _joined(cams: Sequence[Any]) -> BaseCAM | None:
    """One method for all layers, if that makes the maps of those for one layer each."""
    first = cams[0]
    if not all(isinstance(cam, BaseCAM) and cam._is_apart() for cam in cams):
        return None
    if not all(type(cam) is type(first) and _alike(vars(cam), vars(first)) for cam in cams):
        return None
    joined: BaseCAM = copy.copy(first)
    joined.target_layers = [layer for cam in cams for layer in cam.target_layers]
    joined.activations_and_grads = ActivationsAndGradients(
        first.model, joined.target_layers, first.reshape_transform, first.detach
    )
    return joined


def _alike(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether two methods have the same options."""
    if found.keys() - _OWN != expected.keys() - _OWN:
        return False
    return all(
        found[name] is expected[name]
        or (isinstance(found[name], _PLAIN) and found[name] == expected[name])
        for name in found.keys() - _OWN
    )
