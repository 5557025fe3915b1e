"""Extra memory of all layers' maps against that of the bare passes.

Each side runs in a process of its own: one warm pass, then the high-water mark is reset (5 written
to /proc/self/clear_refs) and read again after a second pass; the resident memory with model and
input loaded is subtracted. The first pass, which copies every activation, is reported beside it.

Usage: python -m benchmarks.memory [--quick]
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import Claim, report

# VGG's convolutions are all overwritten in place and must be copied.
GOALS = {
    ("resnet50", "conv"): "<= 1.1",
    ("resnet50", "leaf"): "<= 1.6",
    ("vgg16", "conv"): "<= 1.6",
}
ROUNDS = 3


def main(quick: bool) -> None:
    """Prints one claim per model and group of layers; batch 8, so that activations dominate."""
    claims = []
    for (name, layers), goal in GOALS.items():
        for batch in (8,) if quick else (1, 8):
            bare = _median("bare", name, layers, batch, 1 if quick else ROUNDS)
            ours = _median("camfuse", name, layers, batch, 1 if quick else ROUNDS)
            claims.append(
                Claim(
                    f"{name} {layers}, batch {batch}: extra memory / bare",
                    ours["second"] / bare["second"],
                    goal,
                    {
                        "ours_MiB": ours["second"] / 2**20,
                        "bare_MiB": bare["second"] / 2**20,
                        "first_pass_ratio": ours["first"] / bare["first"],
                    },
                )
            )
            print(claims[-1].name, {k: round(v, 2) for k, v in claims[-1].detail.items()})
    report("memory", claims)


def _median(side: str, name: str, layers: str, batch: int, rounds: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.memory", "--side", side, name, layers, str(batch)]
    results = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(rounds)
    ]
    return {key: sorted(one[key] for one in results)[rounds // 2] for key in results[0]}


def one_side(side: str, name: str, layers: str, batch: int) -> None:
    """Runs one side in this process and prints its extra memory in bytes."""
    import camfuse
    from benchmarks.models import bare_passes, build, image

    model, x = build(name), image(batch)

    def run() -> None:
        if side == "bare":
            bare_passes(model, x)
        else:
            camfuse.layer_cams(model, x, layers=layers)

    loaded = resident("VmRSS")
    extra = {}
    for which in ("first", "second"):
        Path("/proc/self/clear_refs").write_text("5")
        run()
        extra[which] = resident("VmHWM") - loaded
    print(json.dumps(extra))


def resident(key: str) -> int:
    """``VmRSS`` or ``VmHWM`` of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))


if __name__ == "__main__":
    if "--side" in sys.argv:
        side, name, layers, batch = sys.argv[sys.argv.index("--side") + 1 :]
        one_side(side, name, layers, int(batch))
    else:
        main("--quick" in sys.argv)
