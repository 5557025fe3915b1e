"""KPCA-CAM: the first kernel principal component of the activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from camfuse.compat.pytorch_grad_cam.arrays import Array
from camfuse.compat.pytorch_grad_cam.gradient_free import GradientFreeCAM
from camfuse.compat.pytorch_grad_cam.scores import Target
from camfuse.compat.pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_kernel


class KPCA_CAM(GradientFreeCAM):  # noqa: N801 (the name that users know)
    """KPCA-CAM (Karmani et al., 2024); the value furthest from 0 is positive.

    Args:
        model: As for :class:`BaseCAM`, likewise the next two.
        target_layers: Some of its modules.
        reshape_transform: From a layer's output to ``[B, C, *grid]``.
        kernel: As for ``get_2d_projection_kernel``, likewise ``gamma``.
        gamma: The kernel's factor; one over the number of channels by default.
    """

    _method = "kpcacam"

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
        kernel: str = "sigmoid",
        gamma: float | None = None,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform)
        self.kernel = kernel
        self.gamma = gamma

    def get_cam_image(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        activations: Any,
        grads: Any,
        eigen_smooth: bool = False,
    ) -> Array:
        """The component of ``A`` ``[B, h, w]``; ``eigen_smooth`` changes nothing."""
        found: Array = get_2d_projection_kernel(activations, self.kernel, self.gamma)
        return found

    def _native_image(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        A: Tensor,
        G: Tensor | None,
        eigen_smooth: bool,
    ) -> Tensor:
        return torch.from_numpy(get_2d_projection_kernel(A, self.kernel, self.gamma))
