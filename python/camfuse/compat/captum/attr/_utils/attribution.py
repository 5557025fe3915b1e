"""What an attribution of a layer can be asked besides its values."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F


class LayerAttribution:
    """Attributions of one layer.

    Attributes:
        forward_func: From the inputs to scores.
        layer: The layer.
        device_ids: Devices of a ``DataParallel``, which is looked through: of no effect.
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        layer: nn.Module,
        device_ids: list[int] | None = None,
    ) -> None:
        self.forward_func, self.layer, self.device_ids = forward_func, layer, device_ids

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether the inputs are a factor, which may be left out."""
        return False

    def has_convergence_delta(self) -> bool:
        """Whether attributions are to add up to the score."""
        return False

    @classmethod
    def get_name(cls) -> str:
        """The class in words."""
        return re.sub("(?<!^)(?=[^a-z])", " ", cls.__name__)

    @staticmethod
    def interpolate(
        layer_attribution: Tensor,
        interpolate_dims: int | tuple[int, ...],
        interpolate_mode: str = "nearest",
    ) -> Tensor:
        """Attributions at another size.

        Args:
            layer_attribution: ``[N, C, *grid]`` of one to three axes.
            interpolate_dims: The size of each axis of the grid, or one for all.
            interpolate_mode: As for :func:`torch.nn.functional.interpolate`.

        Returns:
            ``[N, C, *interpolate_dims]``.
        """
        return F.interpolate(layer_attribution, interpolate_dims, mode=interpolate_mode)
