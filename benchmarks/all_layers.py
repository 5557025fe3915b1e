"""All layers' maps against the least work that they need.

Compared: ``camfuse.layer_cams`` from its second pass on, with bare forward and backward passes plus
hooks, the copies that in-place modules force, and one ``sum`` of every activation and gradient
(:class:`benchmarks.models.Floor`). Beside it: the first pass, and the ratio to the bare passes.

Usage: python -m benchmarks.all_layers [--quick]
"""

from __future__ import annotations

import sys
import time
from functools import partial

import torch

import camfuse
from benchmarks.harness import Claim, compare, report
from benchmarks.models import Floor, bare_passes, build, image

MODELS = ("resnet50", "densenet121", "vgg16", "mobilenet_v3_large", "efficientnet-lite0")


def main(quick: bool) -> None:
    """Prints one claim per model and group of layers."""
    claims = []
    print(f"{torch.get_num_threads()} threads, batch 1, 224 x 224, gradcam")
    for name in MODELS[:1] if quick else MODELS:
        for layers in ("conv", "leaf"):
            model, x = build(name), image(1)
            floor = Floor(model, layers)
            floor(x)  # both sides warm, so that the first pass shows what learning costs

            ours = partial(camfuse.layer_cams, model, x, layers=layers)
            start = time.perf_counter()
            ours()
            first = time.perf_counter() - start
            rounds = 7 if quick else 15
            pair = compare(ours, partial(floor, x), rounds, seconds=0.1)
            bare = compare(ours, partial(bare_passes, model, x), rounds, seconds=0.1)
            claims.append(
                Claim(
                    f"{name} {layers}: all maps / floor",
                    1 / pair.ratio,
                    "<= 1.05",
                    {
                        "ours_ms": 1e3 * pair.ours,
                        "floor_ms": 1e3 * pair.theirs,
                        "lowest": 1 / pair.high,
                        "highest": 1 / pair.low,
                        "first_pass_ms": 1e3 * first,
                        "to_bare_passes": 1 / bare.ratio,
                    },
                )
            )
            print(claims[-1].name, {k: round(v, 2) for k, v in claims[-1].detail.items()})
    report("all_layers", claims)


if __name__ == "__main__":
    main("--quick" in sys.argv)
