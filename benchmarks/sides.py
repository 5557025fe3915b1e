"""Extra memory of a work: measured in a process of its own, beyond what is loaded by then.

The process prepares (imports, model, input), and its resident memory is noted. Before each of two
calls the high-water mark is reset (5 written to /proc/self/clear_refs); extra memory is the mark
that the second call leaves, minus what was resident. That of the first is reported beside it.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

Argument = str | int

# glibc maps every tensor by itself, and hands its pages back with it: what remains is what tensors
# take at once. Left alone it keeps them in one heap, with holes where earlier ones lay.
NO_HOLES = {"MALLOC_MMAP_THRESHOLD_": "131072"}

_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Extra:
    """Extra memory in bytes: of a first call, and of a second."""

    first: int
    second: int


def extra_memory(
    prepare: str, *arguments: Argument, environment: Mapping[str, str] | None = None
) -> Extra:
    """Measures what a work needs beyond its model and input.

    Args:
        prepare: ``"module:function"``; called with the arguments, the function loads everything and
            returns the work, a callable without arguments.
        arguments: Given to it.
        environment: Variables that the process has besides ours.

    Raises:
        RuntimeError: If the process fails; with what it printed last.
    """
    command = [sys.executable, "-m", "benchmarks.sides", prepare, json.dumps(arguments)]
    variables = os.environ | (environment or {})
    done = subprocess.run(command, cwd=_ROOT, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{prepare}{arguments}: {done.stderr[-2000:]}")
    return Extra(*json.loads(done.stdout.splitlines()[-1]))


def measure(prepare: Callable[..., Callable[[], object]], *arguments: Argument) -> tuple[int, int]:
    """Bytes that the first and the second call need, in this process."""
    work = prepare(*arguments)
    loaded = _resident("VmRSS")
    needed = []
    for _ in range(2):
        Path("/proc/self/clear_refs").write_text("5")
        work()
        needed.append(_resident("VmHWM") - loaded)
    return needed[0], needed[1]


def _resident(key: str) -> int:
    """``VmRSS`` or ``VmHWM`` of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))


if __name__ == "__main__":
    place, given = sys.argv[1:]
    module, _, name = place.partition(":")
    function = getattr(importlib.import_module(module), name)
    print(json.dumps(measure(function, *json.loads(given))))
