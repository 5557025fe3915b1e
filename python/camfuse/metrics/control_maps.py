"""Maps that know nothing of the model, for scores of its maps to be held against."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from camfuse.devices import upload
from camfuse.stack import resize

_RANDOM_GRID = 7
_SOBEL = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]]) / 8


def random_maps(count: int, size: tuple[int, int], *, seed: int = 0) -> Tensor:
    """Uniform noise on a coarse grid of 7 x 7, upsampled bilinearly: ``[count, H, W]``, f32.

    Metrics that remove pixels favor blurry maps (On pitfalls of RemOve-And-Retrain, arXiv
    2304.13836). Noise at the images' own resolution takes as little from an image first as last,
    for the neighbors of scattered pixels tell what these were: its score hardly leaves 0. Noise as
    coarse as the maps of deep layers removes whole parts, and its spread shows how far a map that
    knows nothing gets by luck.

    Args:
        count: How many.
        size: ``(H, W)``.
        seed: Of the noise.
    """
    grid = (min(_RANDOM_GRID, size[0]), min(_RANDOM_GRID, size[1]))
    noise = torch.rand(count, *grid, generator=torch.Generator().manual_seed(seed))
    return resize(noise, size, leading=1)


def sobel_maps(images: Tensor) -> Tensor:
    """How strong the edges of images are: Sobel's gradient magnitude ``[B, H, W]``, f32.

    What any map of a model should beat, as it looks at the image alone (Adebayo et al., Sanity
    checks for saliency maps, NeurIPS 2018, compare with an edge detector as well).

    Args:
        images: As a model is given them ``[B, C, H, W]``; the mean of their channels is taken for
            gray. Edges are replicated at the border.
    """
    gray = F.pad(images.float().mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    kernels = upload(torch.stack([_SOBEL, _SOBEL.T])[:, None], images.device)
    return F.conv2d(gray, kernels).square().sum(1).sqrt()
