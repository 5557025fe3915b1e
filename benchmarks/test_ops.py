"""Microbenchmarks of the native ops by pytest-benchmark, in groups: ``make bench-ops``.

They tell how long an op takes over the layers of a network and over formats of frames, to compare
two builds of camfuse (``--benchmark-autosave``, ``--benchmark-compare``). Claims against others are
the business of ``python -m benchmarks``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest
import torch
from torch import Tensor

from benchmarks.gpu import frames_call
from benchmarks.impute import masks
from benchmarks.layer_cam import GRADIENT_RULES, SHAPES
from benchmarks.photographs import cat
from camfuse import ops

pytest.importorskip("pytest_benchmark")

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

LAYERS = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
LAYOUTS = pytest.mark.parametrize("channels_last", [False, True], ids=["nchw", "nhwc"])


def layer(shape: tuple[int, ...], *, channels_last: bool) -> tuple[Tensor, Tensor]:
    """An activation behind a ReLU and its gradient ``[1, C, h, w]``."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    A, G = (torch.randn(1, *shape).contiguous(memory_format=layout) for _ in range(2))
    return A.relu(), G


@pytest.mark.benchmark(group="layer_cam")
@LAYERS
@LAYOUTS
@pytest.mark.parametrize("rule", GRADIENT_RULES)
def test_layer_cam(
    benchmark: BenchmarkFixture, rule: ops.Rule, channels_last: bool, shape: tuple[int, ...]
) -> None:
    A, G = layer(shape, channels_last=channels_last)
    maps, _ = benchmark(ops.layer_cam, A, G, [rule])
    assert maps.shape == (1, 1, *shape[1:])


@pytest.mark.benchmark(group="fused_cam")
@LAYERS
@LAYOUTS
def test_fused_cam(
    benchmark: BenchmarkFixture, channels_last: bool, shape: tuple[int, ...]
) -> None:
    A, G = layer(shape, channels_last=channels_last)
    maps = benchmark(ops.fused_cam, A, G, "gradcam", (224, 224))
    assert maps.shape == (1, 224, 224)


@pytest.mark.benchmark(group="principal_map")
@LAYERS
@LAYOUTS
def test_principal_map(
    benchmark: BenchmarkFixture, channels_last: bool, shape: tuple[int, ...]
) -> None:
    A, _ = layer(shape, channels_last=channels_last)
    maps = benchmark(ops.principal_map, A)[0]
    assert maps.shape == (1, *shape[1:])


@pytest.mark.benchmark(group="render_frames")
@pytest.mark.parametrize("pixel_format", get_args(ops.PixelFormat))
def test_render_frames(benchmark: BenchmarkFixture, pixel_format: ops.PixelFormat) -> None:
    frames = benchmark(frames_call(torch.device("cpu"), pixel_format, 16))
    assert len(frames) == 16


@pytest.mark.benchmark(group="impute")
@pytest.mark.parametrize("grid", [7, 28, 224])
def test_impute(benchmark: BenchmarkFixture, grid: int) -> None:
    image, removed = cat(224)[0], masks(grid)
    images = benchmark(ops.impute, image, removed)
    assert images.shape == (8, 3, 224, 224)
