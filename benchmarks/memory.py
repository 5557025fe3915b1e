"""Extra memory of the maps of all layers against that of the bare passes.

Measured by :mod:`benchmarks.sides`. The first pass, which copies every activation, is reported
beside it. That both see the same layers is checked by :mod:`benchmarks.all_layers`.
"""

from __future__ import annotations

from functools import partial

import camfuse
from benchmarks.harness import Claim, Work
from benchmarks.models import BATCHES, MODELS, bare_passes, build, image
from benchmarks.sides import extra_memory

# VGG's convolutions are all overwritten in place and must be copied.
GOALS = {"conv": "<= 1.1", "leaf": "<= 1.6"}
OVERWRITTEN = {"vgg19": "<= 1.6"}


def run(quick: bool) -> list[Claim]:
    """A claim per model, group of layers and batch size."""
    claims = []
    for name in MODELS[:1] if quick else MODELS:
        for batch in BATCHES[:1] if quick else BATCHES:
            bare = extra_memory("benchmarks.memory:bare", name, batch)
            for layers, goal in GOALS.items():
                ours = extra_memory("benchmarks.memory:maps", name, layers, batch)
                case = f"{name} {layers}, batch {batch}"
                ratio = ours.second / bare.second
                detail = {
                    "ours_MiB": ours.second / 2**20,
                    "bare_MiB": bare.second / 2**20,
                    "first_pass": ours.first / bare.first,
                }
                goal = OVERWRITTEN.get(name, goal)
                claims.append(Claim("extra memory / bare passes", case, ratio, goal, detail))
                print(f"{case}: {ratio:.2f}, first pass {detail['first_pass']:.2f}", flush=True)
    return claims


def bare(name: str, batch: int) -> Work:
    """The bare passes, ready to run."""
    return partial(bare_passes, build(name), image(batch))


def maps(name: str, layers: str, batch: int) -> Work:
    """All layers' maps, ready to run."""
    return partial(camfuse.layer_cams, build(name), image(batch), layers=layers)
