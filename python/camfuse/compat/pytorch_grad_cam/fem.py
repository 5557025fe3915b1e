"""FEM: channels weighted by how much of them stands out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from camfuse.compat.native_maps import weighted_map
from camfuse.compat.pytorch_grad_cam.arrays import Array, as_array
from camfuse.compat.pytorch_grad_cam.gradient_free import GradientFreeCAM
from camfuse.compat.pytorch_grad_cam.scores import Target
from camfuse.methods.features import share_of_peaks


class FEM(GradientFreeCAM):
    """Feature Explanation Method (Fuad et al., IPTA 2020).

    Args:
        model: As for :class:`BaseCAM`, likewise the next two.
        target_layers: Some of its modules.
        reshape_transform: From a layer's output to ``[B, C, *grid]``.
        k: By how many standard deviations a position must exceed its channel's mean to stand out.
    """

    _method = "fem"

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
        k: float = 2,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform)
        self.k = k

    def get_cam_image(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        activations: Any,
        grads: Any,
        eigen_smooth: bool = False,
    ) -> Array:
        """``sum_k w_k A_k`` ``[B, h, w]``, ``w`` the part of a channel's positions that stand out.

        ``eigen_smooth`` changes nothing.
        """
        found: Array = as_array(self._image(torch.as_tensor(activations)))
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
        return self._image(A)

    def _image(self, A: Tensor) -> Tensor:
        return weighted_map(A, share_of_peaks(A.detach(), self.k))
