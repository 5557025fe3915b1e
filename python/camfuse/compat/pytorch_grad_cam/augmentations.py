"""What ``aug_smooth`` averages over, unless something else was asked for."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """One variation of images, and the way back for their maps.

    Attributes:
        mirror: Whether the last axis is turned round.
        factor: Of all values.
    """

    mirror: bool
    factor: float

    def augment_image(self, images: Tensor) -> Tensor:
        """The variation of ``[B, C, H, W]``."""
        varied = images.flip(-1) if self.mirror else images
        return varied * self.factor

    def deaugment_mask(self, maps: Tensor) -> Tensor:
        """Maps ``[B, 1, H, W]`` of the variation, as they lie over the images themselves."""
        return maps.flip(-1) if self.mirror else maps


AUGMENTATIONS = tuple(
    Augmentation(mirror, factor)
    for mirror, factor in itertools.product((False, True), (0.9, 1.0, 1.1))
)
