"""A baseline that knows no model: the edges of the image."""

from __future__ import annotations

import numpy as np

from camfuse.compat.pytorch_grad_cam.arrays import Array

# What red, green and blue weigh: of 2 ** 15 in whole numbers.
_WHOLE = np.array([9798, 19235, 3735])
_SHIFT = 15
_PARTS = np.array([0.299, 0.587, 0.114], np.float32)


def sobel_cam(img: Array) -> Array:
    """The mean magnitude of the two Sobel derivatives of an image's gray values.

    Args:
        img: ``[H, W, 3]``, RGB, uint8 or f32.

    Returns:
        ``[H, W]``, uint8; above 255 it is 255.

    Raises:
        ValueError: If the image has another shape or type.
    """
    if img.ndim != 3 or img.shape[2] != 3 or img.dtype not in (np.uint8, np.float32):
        raise ValueError(
            f"img: expected (H, W, 3) of uint8 or float32, got {img.shape} of {img.dtype}"
        )
    if img.dtype == np.uint8:
        gray = (img @ _WHOLE + (1 << (_SHIFT - 1)) >> _SHIFT).astype(np.float64)
    else:
        gray = (img @ _PARTS).astype(np.float64)
    padded = np.pad(gray, 1, mode="reflect")
    slope = [_smoothed(padded[:, 2:] - padded[:, :-2], 0), _smoothed(padded[2:] - padded[:-2], 1)]
    magnitudes = [np.minimum(np.rint(np.abs(one)), 255) for one in slope]
    edges: Array = np.rint(0.5 * (magnitudes[0] + magnitudes[1])).astype(np.uint8)
    return edges


def _smoothed(values: Array, axis: int) -> Array:
    before, here, after = (
        np.take(values, range(i, values.shape[axis] - 2 + i), axis) for i in range(3)
    )
    found: Array = before + 2 * here + after
    return found
