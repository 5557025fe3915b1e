"""FullGrad: what the image and all biases of a network contribute to a score."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from camfuse.compat.pytorch_grad_cam.arrays import Array, as_array
from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.scores import Target
from camfuse.compat.pytorch_grad_cam.utils.image import (
    scale_accross_batch_and_channels,
    scale_cam_image,
)
from camfuse.compat.pytorch_grad_cam.utils.resizing import resized
from camfuse.compat.pytorch_grad_cam.utils.svd_on_activations import get_2d_projection
from camfuse.methods.base import wide


class FullGrad(BaseCAM):
    """FullGrad (Srinivas and Fleuret, NeurIPS 2019).

    The terms of each layer are added at its own resolution, and enlarged once: as enlarging is
    linear, the sum is that of the enlarged terms.

    Args:
        model: As for :class:`BaseCAM`.
        target_layers: Not used: it is all convolutions and batch normalizations of images with a
            bias. Best empty.
        reshape_transform: Of these layers' outputs to ``[B, C, h, w]``.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
    ) -> None:
        if len(target_layers):
            warnings.warn("target_layers: not used, as FullGrad is about all biases", stacklevel=2)
        layers = [module for module in model.modules() if _has_bias(module)]
        if not layers:
            raise ValueError("model: expected a Conv2d or BatchNorm2d with a bias in it, got none")
        super().__init__(model, layers, reshape_transform, compute_input_gradient=True)

    @property
    def bias_data(self) -> list[Array]:
        """What each layer adds to its channels ``[C]``."""
        return [as_array(self.get_bias_data(layer)) for layer in self.target_layers]

    def get_bias_data(self, layer: Any) -> Tensor:
        """What a layer adds to its channels ``[C]``: of a batch normalization, all but scaling."""
        bias: Tensor = layer.bias.detach()
        if isinstance(layer, nn.BatchNorm2d):
            if layer.running_mean is None or layer.running_var is None:
                raise ValueError("model: expected BatchNorm2d to have statistics, got one without")
            scale = layer.weight.detach() / (layer.running_var + layer.eps).sqrt()
            bias = bias - layer.running_mean * scale
        return bias

    def compute_cam_per_layer(
        self, input_tensor: Tensor, targets: Sequence[Target], eigen_smooth: bool
    ) -> list[Array]:
        """What the image and all layers contribute, added ``[B, 1, H, W]``."""
        size = self.get_target_width_height(input_tensor)
        gradient = input_tensor.grad
        if gradient is None:
            raise ValueError("targets: expected a score that depends on the image")
        image = _scaled(wide(gradient) * wide(input_tensor.detach()))
        maps = list(image.cpu().unbind(1))
        for layer in self.target_layers:
            terms = self._terms(layer)
            if terms:
                maps.append(resized(torch.stack(terms).sum(0).cpu().float(), size[::-1]))
        if not eigen_smooth:
            return [as_array(torch.stack(maps).sum(0)[:, None])]
        # Many layers make large matrices.
        small = (max(size[0] // 8, 1), max(size[1] // 8, 1))
        found = scale_accross_batch_and_channels(torch.stack(maps, 1), small)
        component = get_2d_projection(found)[:, None]
        return [scale_accross_batch_and_channels(component, size)]

    def aggregate_multi_layers(self, cam_per_target_layer: Sequence[Array]) -> Array:
        """The sum of the maps, by its own range ``[B, H, W]``."""
        joined = np.concatenate(cam_per_target_layer, axis=1)
        return scale_cam_image(joined.sum(axis=1))

    def _terms(self, layer: nn.Module) -> list[Tensor]:
        """What a layer contributes in each of its calls ``[B, h, w]``."""
        bias = wide(self.get_bias_data(layer))[:, None, None]
        gradients = self.activations_and_grads.gradients_of(layer)
        return [_scaled(bias * wide(gradient)).sum(1) for gradient in gradients]


def _has_bias(module: nn.Module) -> bool:
    return type(module) in (nn.Conv2d, nn.BatchNorm2d) and module.bias is not None


def _scaled(terms: Tensor) -> Tensor:
    """Magnitudes ``[B, C, h, w]``, each channel by its own range."""
    magnitudes = terms.abs()
    magnitudes = magnitudes - magnitudes.amin((2, 3), keepdim=True)
    return magnitudes / (1e-7 + magnitudes.amax((2, 3), keepdim=True))
