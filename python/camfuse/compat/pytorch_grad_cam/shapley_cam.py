"""ShapleyCAM: channels weighted by their gradients and what these change by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from camfuse.compat.native_maps import weighted_map
from camfuse.compat.pytorch_grad_cam.arrays import Array, as_array
from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.scores import Target
from camfuse.methods.base import wide


class ShapleyCAM(BaseCAM):
    """ShapleyCAM (Cai, 2025, arXiv 2501.06261).

    Activations and gradients come as the layer returned them, attached to the graph, and are
    reshaped afterwards.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, detach=False)

    def compute_cam_per_layer(
        self, input_tensor: Tensor, targets: Sequence[Target], eigen_smooth: bool
    ) -> list[Array]:
        """Finished maps ``[B, 1, H, W]`` of each target layer; the graph is let go of then."""
        try:
            return super().compute_cam_per_layer(input_tensor, targets, eigen_smooth)
        finally:
            let_go = getattr(self.activations_and_grads, "let_go", self.activations_and_grads.clear)
            let_go()

    def get_cam_image(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        activations: Any,
        grads: Any,
        eigen_smooth: bool = False,
    ) -> Array:
        """The weighted sum of the activations ``[B, h, w]``."""
        weights = self.get_cam_weights(input_tensor, target_layer, targets, activations, grads)
        A = self._reshaped(activations.detach())
        raw = weighted_map(A, torch.as_tensor(weights), eigen_smooth=eigen_smooth)
        found: Array = as_array(raw)
        return found

    def get_cam_weights(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        activations: Any,
        grads: Any,
    ) -> Array:
        """The mean of ``G - H A / 2`` ``[B, C]``, ``H`` the Hessian of the score in ``A``.

        Raises:
            ValueError: If torch does not know the second derivative of a module.
        """
        G = self._reshaped(grads.detach())
        slope = wide(G)
        if grads.requires_grad:
            with torch.inference_mode(False):
                product = _hessian_product(activations, grads)
            if product is not None:
                slope = slope - 0.5 * wide(self._reshaped(product))
        found: Array = as_array(slope.mean(tuple(range(2, slope.ndim))))
        return found

    def _reshaped(self, tensor: Tensor) -> Tensor:
        return tensor if self.reshape_transform is None else self.reshape_transform(tensor)


def _hessian_product(A: Tensor, G: Tensor) -> Tensor | None:
    """``H A``; None if the score is linear in ``A``."""
    try:
        # Other layers' gradients may hang on the same graph.
        (product,) = torch.autograd.grad(G, A, A.detach(), retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        if "is not implemented" not in str(error):
            raise
        raise ValueError(f"model: torch cannot differentiate it twice: {error}") from error
    found: Tensor | None = product
    return found
