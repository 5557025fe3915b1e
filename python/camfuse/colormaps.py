"""Colour tables: how a value in [0, 1] becomes a colour."""

from __future__ import annotations

import importlib.util
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from camfuse.checks import expect

Colormap: TypeAlias = str | Tensor | npt.NDArray[Any]
"""A name, or a table of one's own."""

# Every fifth of the 256 colours; the others are interpolated, within 1 level of the originals.
# Turbo: A. Mikhailov 2019 (Google). Viridis and magma: S. van der Walt and N. Smith 2015, CC0.
_STEP = 5
_KEY_COLOURS = {
    "turbo": """
        30123b 36215f 3b2f80 3f3e9c 424bb5 4559cb 4666dd 4773eb 4680f6 458cfd 4099ff 38a5fb 2fb2f4
        27bee9 1fc9dd 1ad4d0 18ddc2 1ae4b6 22ebaa 2ff19b 3ff68a 52fa7a 65fd69 79fe59 8bff4b 9cfe40
        a9fb39 b7f735 c3f134 d0ea34 dbe236 e5d938 eecf3a f5c53a faba39 fdae35 fea130 fe932a fc8423
        f9751d f46617 ef5811 e84b0c e14109 d83706 ce2d04 c32503 b71d02 a91601 9b0f01 8b0902 7a0403
    """,
    "viridis": """
        440154 46085c 471063 481769 481d6f 482475 472a7a 46307e 453781 433d84 414287 3f4889 3d4e8a
        3a538b 38598c 355e8d 33638d 31688e 2e6d8e 2c718e 2a768e 297b8e 27808e 25848e 23898e 218e8d
        20928c 1f978b 1e9c89 1fa188 21a585 24aa83 28ae80 2eb37c 35b779 3dbc74 46c06f 50c46a 5ac864
        65cb5e 70cf57 7cd250 89d548 95d840 a2da37 b0dd2f bddf26 cae11f d8e219 e5e419 f1e51d fde725
    """,
    "magma": """
        000004 02020b 050416 090720 0e0b2b 140e36 1a1042 21114e 29115a 311165 390f6e 420f75 4a1079
        52137c 5a167e 621980 6a1c81 721f81 792282 812581 892881 912b81 992d80 a1307e aa337d b2357b
        ba3878 c23b75 ca3e72 d2426f d9466b e04c67 e75263 ec5860 f1605d f4695c f7725c f97b5d fb8560
        fc8e64 fd9869 fea16e feaa74 feb47b febd82 fec68a fecf92 fed89a fde2a3 fdebac fcf4b6 fcfdbf
    """,
}
COLORMAPS: tuple[str, ...] = ("turbo", "jet", "viridis", "magma")
"""Names that need no other package."""


def color_table(colormap: Colormap) -> Tensor:
    """The colour table of a colour map.

    Args:
        colormap: One of ``turbo``, ``jet``, ``viridis`` and ``magma``; where matplotlib is
            installed, the name of any of its colour maps; or a table of your own, ``[256, 3]``,
            uint8 RGB.

    Returns:
        ``[256, 3]``, uint8 RGB, from the lowest value to the highest.

    Raises:
        TypeError: If it is neither a name nor a table.
        ValueError: If there is no colour map of this name, or the table is of another shape.
    """
    if isinstance(colormap, Tensor | np.ndarray):
        return _own_table(colormap)
    expect("colormap", colormap, str, Tensor, np.ndarray)
    name = colormap
    if name in _KEY_COLOURS:
        return _interpolated(_KEY_COLOURS[name])
    if name == "jet":
        return _jet()
    return _from_matplotlib(name)


def _own_table(table: Tensor | npt.NDArray[Any]) -> Tensor:
    colours = torch.as_tensor(table).detach().cpu()
    if colours.shape != (256, 3) or colours.dtype != torch.uint8:
        raise ValueError(
            f"colormap: expected [256, 3] of uint8, got {list(colours.shape)} of {colours.dtype}"
        )
    return colours.clone()


def _interpolated(key_colours: str) -> Tensor:
    keys = torch.tensor([list(bytes.fromhex(key)) for key in key_colours.split()])
    position = torch.arange(256)
    lower = (position // _STEP).clamp(max=len(keys) - 2)
    weight = (position - _STEP * lower)[:, None] / _STEP
    return (
        torch.lerp(keys[lower].double(), keys[lower + 1].double(), weight.double()).round().byte()
    )


def _jet() -> Tensor:
    """Three trapezia, as MATLAB defines them: slope 4, centred at 3/4, 1/2 and 1/4."""
    x = torch.linspace(0, 1, 256, dtype=torch.float64)[:, None]
    centre = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    return ((1.5 - (4 * x - centre).abs()).clamp(0, 1) * 255).round().byte()


def _from_matplotlib(name: str) -> Tensor:
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError(
            f"colormap: expected one of {', '.join(COLORMAPS)} (more with matplotlib installed), "
            f"got {name!r}"
        )
    import matplotlib

    try:
        colormap = matplotlib.colormaps[name]
    except KeyError:
        raise ValueError(
            f"colormap: expected one of {', '.join(COLORMAPS)} or a name matplotlib knows, "
            f"got {name!r}"
        ) from None
    levels = torch.linspace(0, 1, 256, dtype=torch.float64).numpy()
    return torch.from_numpy(colormap(levels)[:, :3] * 255).round().byte()
