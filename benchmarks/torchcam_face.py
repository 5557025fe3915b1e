"""One late layer's maps as torchcam's users ask for them: its own package against camfuse's face.

Both sides run the same code, with parameters that require grad, as people load models: extractor,
forward pass, maps. Times alternate in one process. Extra memory is that of a fresh process each:
the high-water mark of a second call (5 written to /proc/self/clear_refs before it) less the
resident memory with model and images loaded.

Usage: python -m benchmarks.torchcam_face [--quick]   (needs `pip install camfuse[peers]`)
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.harness import Claim, compare, report
from benchmarks.memory import resident
from benchmarks.models import build, image

BATCH = 8
MODEL, LAYER = "resnet50", "layer4"
METHODS = ("GradCAM", "LayerCAM")
SIDES = {"torchcam": "torchcam.methods", "face": "camfuse.compat.torchcam.methods"}
ROUNDS = 3


def main(quick: bool) -> None:
    """Prints two claims per method."""
    claims = []
    print(f"{torch.get_num_threads()} threads, {MODEL} {LAYER}, batch {BATCH}, 224 x 224")
    for method in METHODS[: 1 if quick else None]:
        claims += [_time(method, 3 if quick else 9), _memory(method, 1 if quick else ROUNDS)]
    report("torchcam_face", claims)


def _time(method: str, rounds: int) -> Claim:
    model, x = _loaded()
    ours, theirs = (maker(side, method, model, x) for side in ("face", "torchcam"))
    torch.testing.assert_close(ours(), theirs(), atol=1e-4, rtol=0)
    pair = compare(ours, theirs, rounds, seconds=0)
    detail = {
        "ours_ms": 1e3 * pair.ours,
        "theirs_ms": 1e3 * pair.theirs,
        "lowest": pair.low,
        "highest": pair.high,
    }
    claim = Claim(f"{method}: time, torchcam / face", pair.ratio, ">= 1", detail)
    print(claim.name, {k: round(v, 2) for k, v in detail.items()})
    return claim


def _memory(method: str, rounds: int) -> Claim:
    extra = {}
    for side in SIDES:
        command = [sys.executable, "-m", "benchmarks.torchcam_face", "--side", side, method]
        found = [
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for _ in range(rounds)
        ]
        extra[side] = sorted(found)[rounds // 2]
    detail = {f"{side}_MiB": one / 2**20 for side, one in extra.items()}
    ratio = extra["face"] / extra["torchcam"]
    claim = Claim(f"{method}: extra memory, face / torchcam", ratio, "<= 0.5", detail)
    print(claim.name, {k: round(v, 2) for k, v in detail.items()})
    return claim


def maker(side: str, method: str, model: nn.Module, x: Tensor) -> Callable[[], list[Tensor]]:
    """What a user of one side calls."""
    kind = getattr(importlib.import_module(SIDES[side]), method)
    classes = list(range(len(x)))

    def make() -> list[Tensor]:
        with kind(model, LAYER) as extractor:
            scores = model(x)
            maps: list[Tensor] = extractor(classes, scores)
        return maps

    return make


def one_side(side: str, method: str) -> None:
    """Runs one side in this process and prints its extra memory in bytes."""
    model, x = _loaded()
    make = maker(side, method, model, x)
    loaded = resident("VmRSS")
    make()
    Path("/proc/self/clear_refs").write_text("5")
    make()
    print(resident("VmHWM") - loaded)


def _loaded() -> tuple[nn.Module, Tensor]:
    return build(MODEL).requires_grad_(True), image(BATCH)


if __name__ == "__main__":
    if "--side" in sys.argv:
        one_side(*sys.argv[sys.argv.index("--side") + 1 :])
    else:
        main("--quick" in sys.argv)
