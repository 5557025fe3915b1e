"""The native ``impute`` against pytorch-grad-cam's imputer: 8 masks of a photograph, 224 x 224 x 3.

The peer assembles a sparse system per mask and factorizes it on one thread. Both fill in the same
masks, those of ROAD for one smooth map (20 to 80 %, most and least relevant first) and for noise;
first they are seen to agree.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from torch import Tensor

from benchmarks.harness import Claim, compare
from benchmarks.photographs import cat
from camfuse import ops
from camfuse.metrics.ranking import removal_masks

SIZE = 224
PERCENTAGES = (20, 40, 60, 80)
AGREEMENT = 1e-3  # of the image's range


def run(quick: bool) -> list[Claim]:
    """A claim per kind of map that the masks come from."""
    image, peer = cat(SIZE)[0], NoisyLinearImputer(noise=0)
    span = float(image.max() - image.min())
    claims = []
    for name, grid in (("7 x 7 map", 7), ("28 x 28 map", 28), ("noise", SIZE)):
        removed = masks(grid)
        kept = (~removed).float()

        def theirs(kept: Tensor = kept) -> Tensor:
            return torch.stack([peer(image, one) for one in kept])

        def ours(removed: Tensor = removed) -> Tensor:
            return ops.impute(image, removed)

        error = float((ours() - theirs()).abs().max()) / span
        if error > AGREEMENT:
            raise AssertionError(f"{name}: expected the peer's images, got {error:.2g} off")
        pair = compare(ours, theirs, quick=quick, seconds=0)
        detail = pair.detail() | {"error": error}
        claims.append(Claim("pytorch-grad-cam / impute", name, pair.ratio, ">= 100", detail))
        print(f"{name:12} theirs {pair.theirs * 1e3:8.1f} ms, ours {pair.ours * 1e3:6.2f} ms")
    return claims


def masks(grid: int) -> Tensor:
    """ROAD's ``[8, 224, 224]`` for a random map of ``grid`` x ``grid``."""
    coarse = torch.randn(1, 1, grid, grid, generator=torch.Generator().manual_seed(0))
    map_ = F.interpolate(coarse, (SIZE, SIZE), mode="bilinear")[0]
    return torch.cat(removal_masks(map_, PERCENTAGES), 1)[0]
