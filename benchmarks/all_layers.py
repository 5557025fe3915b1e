"""Maps of all layers against the least work that they need.

Compared: ``camfuse.layer_cams`` from its second pass on, with bare forward and backward passes plus
hooks, the copies that in-place modules force, and one ``sum`` of every activation and gradient
(:class:`benchmarks.models.Floor`). Beside it: the first pass, and the ratio to the bare passes.
Before, the maps are seen to be those that follow from what the floor reads.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

import camfuse
from benchmarks.harness import Claim, Pair, Work, alternate, once
from benchmarks.models import BATCHES, MODELS, Call, Floor, bare_passes, build, image


def run(quick: bool) -> list[Claim]:
    """A claim per model, group of layers and batch size, and the ratio to bare passes."""
    claims = []
    for name in MODELS[:1] if quick else MODELS:
        for layers in ("conv", "leaf"):
            for batch in BATCHES[:1] if quick else BATCHES:
                claims += measured(name, layers, batch, quick)
    return claims


def measured(name: str, layers: str, batch: int, quick: bool) -> list[Claim]:
    """Both claims of one case."""
    model, x = build(name), image(batch)
    floor = Floor(model, layers)
    floor(x)  # warm, so that our first pass shows what learning costs

    ours = partial(camfuse.layer_cams, model, x, layers=layers)
    first = once(ours)
    check_same(ours(), floor, x)
    works: list[Work] = [ours, partial(floor, x), partial(bare_passes, model, x)]
    times = alternate(works, quick=quick, seconds=0.1)
    case = f"{name} {layers}, batch {batch}"
    pair, bare = (Pair.of(times[0], others).inverse for others in times[1:])
    detail = pair.detail("floor", "ours") | {"first_pass_ms": 1e3 * first}
    claims = [
        Claim("maps of all layers / floor", case, pair.ratio, "<= 1.05", detail),
        Claim("maps of all layers / bare passes", case, bare.ratio, None, bare.detail("bare")),
    ]
    print(f"{case}: {pair.ratio:.2f} of the floor, {bare.ratio:.2f} of bare passes", flush=True)
    return claims


def check_same(stack: camfuse.CamStack, floor: Floor, x: Tensor) -> None:
    """What the floor reads of layers ``[B, C, h, w]`` gives camfuse's maps of these layers."""
    shapes = {layer.name: layer.shape for layer in stack.layers}
    compared = 0

    def compare(call: Call, A: Tensor, G: Tensor) -> None:
        nonlocal compared
        name = floor.name(call)
        if shapes.get(name) != A.shape[1:] or len(A.shape) != 4:
            return
        terms = G.mean((2, 3), keepdim=True) * A
        scale = float(terms.abs().sum(1).max())
        torch.testing.assert_close(stack[name], terms.sum(1), rtol=0, atol=1e-4 * scale)
        compared += 1

    floor(x, compare)
    if compared == 0:
        raise AssertionError("expected layers that both sides see, got none")
