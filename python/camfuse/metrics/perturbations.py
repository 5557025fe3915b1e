"""Random changes of images for which the map is asked what they should do to the score.

Each is drawn once, for all images alike: what an image scores does not depend on the batch it is
in, nor on the process that scores it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from camfuse.checks import expect_whole


class Perturbation(Protocol):
    """How fields are drawn, and what a field does to an image.

    A field says of each pixel how much of it is taken away; what a map says of a field is the sum
    of their product.
    """

    def check(self, height: int, width: int) -> None:
        """Raises ValueError if images of this size cannot be perturbed so."""

    def draw(self, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Fields ``[count, H, W]`` on the CPU, bool or f32."""

    def apply(self, images: Tensor, fields: Tensor, removed: Tensor) -> Tensor:
        """Images ``[n, C, H, W]`` after their fields ``[n, H, W]``.

        ``removed`` ``[n, C, H, W]`` is what stands where pixels are taken away.
        """


class _Removal:
    def apply(self, images: Tensor, fields: Tensor, removed: Tensor) -> Tensor:
        return torch.where(fields[:, None], removed, images)


@dataclass(frozen=True)
class RandomPixels(_Removal):
    """``n`` pixels, any of them, are replaced by a baseline.

    Args:
        n: How many, less than the image has.
    """

    n: int

    def check(self, height: int, width: int) -> None:
        """As :class:`Perturbation` has it."""
        expect_whole("n", self.n, of="pixels", at_least=1)
        if self.n >= height * width:
            raise ValueError(
                f"n: expected fewer than the {height * width} pixels of an image, or there is "
                f"nothing to choose, got {self.n}"
            )

    def draw(self, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """As :class:`Perturbation` has it."""
        chosen = torch.rand(count, height * width, generator=generator).topk(self.n).indices
        fields = torch.zeros(count, height * width, dtype=torch.bool).scatter_(1, chosen, True)
        return fields.view(count, height, width)


@dataclass(frozen=True)
class RemovedSquare(_Removal):
    """A square, anywhere inside the image, is replaced by a baseline.

    Args:
        side: Its side in pixels.
    """

    side: int

    def check(self, height: int, width: int) -> None:
        """As :class:`Perturbation` has it."""
        expect_whole("side", self.side, of="pixels", at_least=1)
        if self.side > min(height, width):
            raise ValueError(
                f"side: expected at most {min(height, width)}, as images are {height} x {width}, "
                f"got {self.side}"
            )

    def draw(self, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """As :class:`Perturbation` has it."""
        rows, columns = (
            self._covered(
                torch.randint(length - self.side + 1, (count, 1), generator=generator), length
            )
            for length in (height, width)
        )
        return rows[:, :, None] & columns[:, None]

    def _covered(self, first: Tensor, length: int) -> Tensor:
        places = torch.arange(length)
        return (places >= first) & (places < first + self.side)


@dataclass(frozen=True)
class GaussianNoise:
    """Noise is taken away from every pixel, the same from all its channels.

    A map has one number per pixel: it can only speak of what its channels do together.

    Args:
        std: Standard deviation, in units of the input.
    """

    std: float = 0.1

    def check(self, height: int, width: int) -> None:
        """As :class:`Perturbation` has it."""
        if not 0 < self.std < float("inf"):
            raise ValueError(f"std: expected a positive number, got {self.std}")

    def draw(self, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """As :class:`Perturbation` has it."""
        return torch.randn(count, height, width, generator=generator) * self.std

    def apply(self, images: Tensor, fields: Tensor, removed: Tensor) -> Tensor:
        """As :class:`Perturbation` has it."""
        return images - fields[:, None].to(images.dtype)
