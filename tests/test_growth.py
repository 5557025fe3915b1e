"""Nothing piles up: neither over many calls, nor over many models that come and go."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest
import torch

import camfuse
from registry import ONE_PASS, OWN_PASSES
from small_models import Residual


def resident() -> int:
    """Bytes of memory that the process occupies."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * 4096


def tensors() -> int:
    gc.collect()
    return sum(isinstance(one, torch.Tensor) for one in gc.get_objects())


def grown(repeat, times: int) -> tuple[int, int]:
    """By how many bytes and tensors a third of ``times`` repetitions grow the process.

    After a warm-up, the least of three: a heap that grows once is no leak, which shows in all.
    """
    for _ in range(max(4, times // 10)):
        repeat()
    growths = []
    for _ in range(3):
        before = resident(), tensors()
        for _ in range(times // 3):
            repeat()
        growths.append((resident() - before[0], tensors() - before[1]))
    return min(growths)


def explain(model: torch.nn.Module, methods: list[str]) -> None:
    x = torch.rand(2, 3, 12, 10)
    camfuse.layer_cams(model, x, method=methods, target=camfuse.Each([None, 1]))


def check(kind: str, times: int, methods: list[str]) -> None:
    """In a process of its own, where nothing else comes and goes."""
    command = [sys.executable, __file__, kind, str(times), *methods]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    growth, more = map(int, done.stdout.split())
    assert more == 0
    # Pages come and go; a leak of one activation, 2 KB, for each layer would show in 1000 times.
    assert 3 * growth < 2**22


@pytest.mark.parametrize("times", [12, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("methods", [ONE_PASS, OWN_PASSES], ids=["one pass", "own passes"])
@pytest.mark.parametrize("kind", ["calls", "models"])
def test_nothing_is_left_behind(kind: str, methods: list[str], times: int) -> None:
    check(kind, times, methods)


if __name__ == "__main__":
    kind, times, *methods = sys.argv[1:]
    model = Residual().eval()
    if kind == "calls":
        print(*grown(lambda: explain(model, methods), int(times)))
    else:
        print(*grown(lambda: explain(Residual().eval(), methods), int(times)))
