"""What methods without gradients share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM


class GradientFreeCAM(BaseCAM):
    """A method that uses no gradients, so that there is no backward pass.

    Args:
        model: As for :class:`BaseCAM`, likewise the next two.
        target_layers: Some of its modules.
        reshape_transform: From a layer's output to ``[B, C, *grid]``.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, uses_gradients=False)
