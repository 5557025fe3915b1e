"""Colors as OpenCV numbers and rounds them."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from camfuse.compat.optional import optional
from camfuse.compat.pytorch_grad_cam.arrays import Array

_JET = 2  # cv2.COLORMAP_JET


@functools.lru_cache(maxsize=32)
def palette(colormap: int) -> npt.NDArray[np.uint8]:
    """The 256 colors of a color map ``[256, 3]``, RGB; all but jet are asked of OpenCV.

    Raises:
        ImportError: If OpenCV is needed and missing.
    """
    levels = np.arange(256)
    if colormap != _JET:
        cv2 = optional("cv2", f"colormap {colormap}")
        table: npt.NDArray[np.uint8] = cv2.applyColorMap(levels.astype(np.uint8)[:, None], colormap)
        return table[:, 0, ::-1].copy()
    ramps = [(-382, 1148), (-128, 892), (128, 638)]
    jet = np.stack([np.minimum(4 * levels + up, down - 4 * levels) for up, down in ramps], 1)
    jet[159, 2] = 1  # 2 on the ramp: OpenCV's table has this one entry off it
    return jet.clip(0, 255).astype(np.uint8)


def shades(colors: Sequence[Array]) -> npt.NDArray[np.uint8]:
    """Each of n RGB colors in [0, 1] at 256 values, of equal hue and saturation ``[n, 256, 3]``.

    Raises:
        ImportError: If OpenCV is missing.
    """
    cv2 = optional("cv2", "shades of a color")
    full = np.array([np.asarray(color)[:3] * 255 for color in colors]).astype(np.uint8)
    table = cv2.cvtColor(full[:, None].repeat(256, 1), cv2.COLOR_RGB2HSV)
    table[..., 2] = np.arange(256)
    found: npt.NDArray[np.uint8] = cv2.cvtColor(table, cv2.COLOR_HSV2RGB)
    return found
