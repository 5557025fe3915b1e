"""Nothing piles up: neither over many calls, nor over many models that come and go."""

from __future__ import annotations

import gc

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
    """By how many bytes and tensors ``times`` repetitions grow the process, once warmed up."""
    for _ in range(max(4, times // 10)):
        repeat()
    before = resident(), tensors()
    for _ in range(times):
        repeat()
    after = resident(), tensors()
    return after[0] - before[0], after[1] - before[1]


def explain(model: torch.nn.Module, methods: list[str]) -> None:
    x = torch.rand(2, 3, 12, 10)
    camfuse.layer_cams(model, x, method=methods, target=camfuse.Each([None, 1]))


def check(repeat, times: int) -> None:
    growth, more = grown(repeat, times)
    assert more <= 0  # what earlier tests left may go meanwhile
    # Pages come and go; a leak of one activation, 2 KB, for each layer would show in 1000 times.
    assert times < 1000 or growth < 2**22


@pytest.mark.parametrize("times", [12, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("methods", [ONE_PASS, OWN_PASSES], ids=["one pass", "own passes"])
def test_calls_leave_nothing_behind(methods: list[str], times: int) -> None:
    model = Residual().eval()
    check(lambda: explain(model, methods), times)


@pytest.mark.parametrize("times", [12, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("methods", [ONE_PASS, OWN_PASSES], ids=["one pass", "own passes"])
def test_models_leave_nothing_behind(methods: list[str], times: int) -> None:
    check(lambda: explain(Residual().eval(), methods), times)
