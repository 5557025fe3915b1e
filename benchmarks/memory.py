"""Extra memory of the maps of all layers against that of the bare passes.

Measured by :mod:`benchmarks.sides`, as a process finds it and once more without the holes that
malloc leaves. The first pass, which copies every activation, is reported beside it. That both see
the same layers is checked by :mod:`benchmarks.all_layers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import camfuse
from benchmarks.harness import Claim, Work
from benchmarks.models import BATCHES, MODELS, bare_passes, build, image
from benchmarks.sides import NO_HOLES, extra_memory

# VGG's convolutions are all overwritten in place and must be copied.
GOALS = {"conv": "<= 1.1", "leaf": "<= 1.6"}
OVERWRITTEN = {"vgg19": "<= 1.6"}


def run(quick: bool) -> list[Claim]:
    """Both claims for each model, group of layers and batch size."""
    claims = []
    for name in MODELS[:1] if quick else MODELS:
        for batch in BATCHES[:1] if quick else BATCHES:
            claims += measured(name, batch, "extra memory / bare passes", {}, goals=True)
            claims += measured(
                name, batch, "extra memory / bare passes, no holes", NO_HOLES, goals=False
            )
    return claims


def measured(
    name: str, batch: int, claim: str, environment: Mapping[str, str], *, goals: bool
) -> list[Claim]:
    """The claims of one model and batch size."""
    bare = extra_memory("benchmarks.memory:bare", name, batch, environment=environment)
    claims = []
    for layers, goal in GOALS.items():
        ours = extra_memory("benchmarks.memory:maps", name, layers, batch, environment=environment)
        case = f"{name} {layers}, batch {batch}"
        ratio = ours.second / bare.second
        detail = {
            "ours_MiB": ours.second / 2**20,
            "bare_MiB": bare.second / 2**20,
            "first_pass": ours.first / bare.first,
        }
        goal = OVERWRITTEN.get(name, goal)
        claims.append(Claim(claim, case, ratio, goal if goals else None, detail))
        print(f"{claim}, {case}: {ratio:.2f}, first pass {detail['first_pass']:.2f}", flush=True)
    return claims


def bare(name: str, batch: int) -> Work:
    """The bare passes, ready to run."""
    return partial(bare_passes, build(name), image(batch))


def maps(name: str, layers: str, batch: int) -> Work:
    """All layers' maps, ready to run."""
    return partial(camfuse.layer_cams, build(name), image(batch), layers=layers)
