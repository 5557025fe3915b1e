"""Predicted against measured memory of a pass: ``camfuse.predict_memory`` and the real thing.

Measured by :mod:`benchmarks.sides`: a first and a second pass. What libraries load and keep once
per process (code, oneDNN's kernels and workspaces) is not predicted: a plain forward pass over one
sample brings it in before. The ratio without that is reported beside it, and so is that of the
tensors alone, without the eighth that is added for holes between them.
"""

from __future__ import annotations

from functools import partial

import torch

import camfuse
from benchmarks.harness import Claim, Work, once
from benchmarks.models import BATCHES, MODELS, build, image
from benchmarks.sides import Extra, extra_memory

GOAL = "<= 1.25"  # of the larger of predicted and measured to the smaller


def run(quick: bool) -> list[Claim]:
    """A claim per model, batch size and pass."""
    claims = []
    for name in MODELS[:1] if quick else (*MODELS, "swin_t"):
        for batch in BATCHES[:1] if quick else BATCHES:
            claims += measured(name, batch, quick)
    return claims


def measured(name: str, batch: int, quick: bool) -> list[Claim]:
    """Both passes of one case."""
    warm, cold = (
        extra_memory(f"benchmarks.memory_prediction:{prepare}", name, batch)
        for prepare in ("with_libraries", "without_libraries")
    )
    predict = partial(camfuse.predict_memory, build(name), image(batch))
    seconds, predicted = once(predict), predict()
    claims = []
    for which, expected in (("first", predicted.first), ("later", predicted.later)):
        got, got_cold = (_of(which, extra) for extra in (warm, cold))
        ratio = expected / got
        detail: dict[str, float | str] = {
            "predicted_MiB": expected / 2**20,
            "measured_MiB": got / 2**20,
            "predicted_to_measured": ratio,
            "tensors_to_measured": expected * 8 / 9 / got,
            "with_libraries": expected / got_cold,
            "seconds_to_predict": seconds,
        }
        case = f"{name}, batch {batch}, {which} pass"
        error = max(ratio, 1 / ratio)
        claims.append(Claim("predicted memory, off by a factor of", case, error, GOAL, detail))
        print(f"{case}: predicted {ratio:.2f} of what was measured", flush=True)
    return claims


def with_libraries(name: str, batch: int) -> Work:
    """All layers' maps, ready to run, once libraries have loaded what they keep."""
    model, x = build(name), image(batch)
    with torch.no_grad():
        model(image(1))
    camfuse.layer_cams(torch.nn.Conv2d(3, 4, 3).eval(), x[:1], target=lambda y: y.mean((1, 2, 3)))
    return partial(camfuse.layer_cams, model, x)


def without_libraries(name: str, batch: int) -> Work:
    """All layers' maps, ready to run in a process that has run nothing yet."""
    return partial(camfuse.layer_cams, build(name), image(batch))


def _of(which: str, extra: Extra) -> float:
    return extra.first if which == "first" else extra.second
