"""A window that slides over images at several sizes, and the blur that hides its edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

BLUR, _SIGMA = 11, 5.0


@dataclass(frozen=True)
class Place:
    """Where a window lies: in which sample, enlarged to which size, and its upper left corner."""

    sample: int
    size: tuple[int, int]
    top: int
    left: int


@dataclass(frozen=True)
class Grid:
    """Sizes that images are enlarged to, and how the window slides over them."""

    sizes: Sequence[tuple[int, int]]
    window: int
    step: int

    def places(self, samples: int) -> list[Place]:
        """All of them, one size after another."""
        return [
            Place(sample, size, top, left)
            for size in self.sizes
            for sample in range(samples)
            for top in self._starts(size[0])
            for left in self._starts(size[1])
        ]

    def _starts(self, length: int) -> list[int]:
        """Where windows begin; the last is moved back into the image."""
        last = length - self.window
        return [*range(0, last, self.step), last]

    def cut(self, image: Tensor, places: Sequence[Place]) -> Tensor:
        """The windows at these places ``[n, C, window, window]``."""
        images = {size: enlarged(image, size) for size in {place.size for place in places}}
        return torch.stack(
            [
                images[place.size][place.sample][
                    :, place.top : place.top + self.window, place.left : place.left + self.window
                ]
                for place in places
            ]
        )


def blurred(heat: Tensor) -> Tensor:
    """Maps ``[B, H, W]`` blurred along both axes; beyond an edge is what lies before it."""
    far = BLUR // 2
    kernel = [math.exp(-(offset**2) / (2 * _SIGMA**2)) for offset in range(-far, far + 1)]
    heat = F.pad(heat[:, None], (far,) * 4, mode="reflect")[:, 0]
    # Not a convolution, for which CUDA would round to fewer bits.
    for axis in (1, 2):
        length = heat.shape[axis] - 2 * far
        heat = torch.stack([k * heat.narrow(axis, i, length) for i, k in enumerate(kernel)]).sum(0)
    return heat / sum(kernel) ** 2


def enlarged(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Images ``[B, C, H, W]`` at another size, as torchvision resizes tensors."""
    if tuple(image.shape[2:]) == size:
        return image
    wide = image if image.dtype == torch.float64 else image.float()
    return F.interpolate(wide, size, mode="bilinear", antialias=True).to(image.dtype)
