"""From what layers return to images ``[B, C, h, w]``."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def fasterrcnn_reshape_transform(x: Mapping[str, Tensor]) -> Tensor:
    """Magnitudes of all levels of a feature pyramid, resized to the one named ``"pool"``.

    Args:
        x: Levels ``[B, C, h, w]``.

    Returns:
        ``[B, sum of C, h, w]``.
    """
    size = x["pool"].shape[-2:]
    levels = [F.interpolate(level.abs(), size, mode="bilinear") for level in x.values()]
    return torch.cat(levels, 1)


def swinT_reshape_transform(tensor: Tensor, height: int = 7, width: int = 7) -> Tensor:  # noqa: N802
    """Tokens of a Swin transformer, as an image.

    Args:
        tensor: ``[B, height * width, C]`` or ``[B, height, width, C]``.
        height: Rows of the grid.
        width: Columns of the grid.

    Returns:
        ``[B, C, height, width]``, a view.
    """
    return _as_image(tensor, height, width, special=0)


def vit_reshape_transform(tensor: Tensor, height: int = 14, width: int = 14) -> Tensor:
    """Tokens of a vision transformer, as an image, less the first one: the class's.

    Args:
        tensor: ``[B, 1 + height * width, C]``.
        height: Rows of the grid.
        width: Columns of the grid.

    Returns:
        ``[B, C, height, width]``, a view.
    """
    return _as_image(tensor, height, width, special=1)


def _as_image(tensor: Tensor, height: int, width: int, special: int) -> Tensor:
    expected = f"(B, {special} + {height} * {width}, C)" if special else f"(B, {height * width}, C)"
    if tensor.ndim == 4 and not special and tensor.shape[1:3] == (height, width):
        tensor = tensor.flatten(1, 2)
    if tensor.ndim != 3 or tensor.shape[1] != special + height * width:
        raise ValueError(
            f"tensor: expected {expected}, got {tuple(tensor.shape)}; other grids need their "
            "height and width"
        )
    grid = tensor[:, special:].reshape(len(tensor), height, width, tensor.shape[2])
    return grid.movedim(-1, 1)
