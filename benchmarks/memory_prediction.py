"""Predicted against measured memory of a pass: ``camfuse.predict_memory`` and the real thing.

Measured in a process of its own as in :mod:`benchmarks.memory`: the high-water mark of a first and
of a second pass, minus the resident memory before. What libraries load and keep once per process
(code, oneDNN's kernels and workspaces) is not predicted: a plain forward pass over one sample
brings it in before. The ratio without that deduction is reported beside it, and so is that of the
tensors alone, without the eighth that is added for holes between them.

Usage: python -m benchmarks.memory_prediction [--quick]
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import Claim, report
from benchmarks.memory import resident

MODELS = ("resnet50", "vgg16", "densenet121", "efficientnet-lite0", "convnext_tiny", "swin_t")
GOAL = "<= 1.25"  # of the larger of predicted and measured to the smaller


def main(quick: bool) -> None:
    """Prints one claim per model, batch size and pass."""
    claims = []
    for name in MODELS[:2] if quick else MODELS:
        for batch in (1, 8):
            command = [sys.executable, "-m", "benchmarks.memory_prediction", "--one", name]
            done = subprocess.run(
                [*command, str(batch)], check=True, capture_output=True, text=True
            ).stdout
            found = json.loads(done)
            for which in ("first", "later"):
                predicted, measured = found["predicted"][which], found["measured"][which]
                ratio = predicted / measured
                claims.append(
                    Claim(
                        f"{name}, batch {batch}, {which} pass: off by a factor of",
                        max(ratio, 1 / ratio),
                        GOAL,
                        {
                            "predicted_MiB": predicted / 2**20,
                            "measured_MiB": measured / 2**20,
                            "predicted_to_measured": ratio,
                            "tensors_to_measured": predicted * 8 / 9 / measured,
                            "with_libraries": predicted / (measured + found["libraries"]),
                            "seconds_to_predict": found["seconds"],
                        },
                    )
                )
                print(claims[-1].name, {k: round(v, 2) for k, v in claims[-1].detail.items()})
    report("memory_prediction", claims)


def one(name: str, batch: int) -> None:
    """Measures in this process, then predicts, and prints both in bytes."""
    import time

    import torch

    import camfuse
    from benchmarks.models import build, image

    model, x = build(name), image(batch)
    loaded = resident("VmRSS")
    with torch.no_grad():
        model(image(1))
    camfuse.layer_cams(torch.nn.Conv2d(3, 4, 3).eval(), x[:1], target=lambda y: y.mean((1, 2, 3)))
    before = resident("VmRSS")
    measured = {}
    for which in ("first", "later"):
        Path("/proc/self/clear_refs").write_text("5")
        camfuse.layer_cams(model, x)
        measured[which] = resident("VmHWM") - before
    start = time.perf_counter()
    predicted = camfuse.predict_memory(model, x)
    print(
        json.dumps(
            {
                "predicted": {"first": predicted.first, "later": predicted.later},
                "measured": measured,
                "libraries": before - loaded,
                "seconds": time.perf_counter() - start,
            }
        )
    )


if __name__ == "__main__":
    if "--one" in sys.argv:
        name, batch = sys.argv[sys.argv.index("--one") + 1 :]
        one(name, int(batch))
    else:
        main("--quick" in sys.argv)
