"""The photograph that benchmarks look at: a cat, which scikit-image carries."""

from __future__ import annotations

import torch
from PIL import Image
from skimage import data
from torch import Tensor
from torch.nn import functional as F

from camfuse.images import IMAGENET_MEAN, IMAGENET_STD


def cat_image() -> Image.Image:
    """As it is: 451 x 300 pixels."""
    return Image.fromarray(data.chelsea())


def cat(size: int) -> Tensor:
    """``[1, 3, size, size]``, normalized as for ImageNet."""
    picture = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None].float() / 255
    picture = F.interpolate(picture, (size, size), mode="bilinear", antialias=True)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return (picture - mean.view(3, 1, 1)) / std.view(3, 1, 1)
