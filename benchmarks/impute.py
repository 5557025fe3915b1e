"""The native ``impute`` against pytorch-grad-cam's imputer: 8 masks of a photograph, 224 x 224 x 3.

Run: ``python -m benchmarks.impute [--quick] [--threads N]``. The peer assembles a sparse system per
mask and factorizes it on one thread. Both fill in the same masks, those of ROAD for one smooth map
(20 to 80 %, most and least relevant first) and for noise; first they are seen to agree.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from skimage import data
from torch import Tensor

from benchmarks.harness import Claim, compare, report
from camfuse import ops
from camfuse.metrics.ranking import removal_masks

SIZE = 224
PERCENTAGES = (20, 40, 60, 80)
AGREEMENT = 1e-3  # of the image's range


def photograph() -> Tensor:
    """``[3, 224, 224]``, normalized as ImageNet's are."""
    image = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None].float() / 255
    image = F.interpolate(image, (SIZE, SIZE), mode="bilinear", antialias=True)[0]
    return (image - 0.45) / 0.225


def masks(grid: int) -> Tensor:
    """ROAD's ``[8, 224, 224]`` for a random map of ``grid`` x ``grid``."""
    coarse = torch.randn(1, 1, grid, grid, generator=torch.Generator().manual_seed(0))
    map_ = F.interpolate(coarse, (SIZE, SIZE), mode="bilinear")[0]
    return torch.cat(removal_masks(map_, PERCENTAGES), 1)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    image, peer = photograph(), NoisyLinearImputer(noise=0)
    span = float(image.max() - image.min())
    ratios, detail = {}, {}
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
        pair = compare(ours, theirs, 3 if options.quick else 7, seconds=0)
        ratios[name] = pair.ratio
        detail |= {
            f"{name}, ours ms": round(pair.ours * 1e3, 2),
            f"{name}, theirs ms": round(pair.theirs * 1e3, 1),
            f"{name}, error": float(f"{error:.2g}"),
        }
        print(f"{name:12} theirs {pair.theirs * 1e3:8.1f} ms, ours {pair.ours * 1e3:6.2f} ms")
    print(f"{options.threads} threads")
    report("impute", [Claim("peer / ours, worst", min(ratios.values()), ">= 100", detail)])


if __name__ == "__main__":
    main()
