"""A pass over a model on a GPU waits for it once, at the end, and nowhere between.

Tried on the ``meta`` device, whose tensors have no elements: what would make the host wait for a
GPU is an operation that reads elements, or a copy between devices that is not said not to wait.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import camfuse
from camfuse import collect, devices
from camfuse.capture import capture
from camfuse.collect import MapCollector
from camfuse.methods import METHODS
from camfuse.targets import count_targets, segmentation_mean
from registry import PLAIN
from small_models import Branches, DeadEnd, OverwrittenView, Residual

aten = torch.ops.aten


class NoWaiting(TorchDispatchMode):
    """Refuses copies between devices for which the host would wait; meta tensors refuse reads."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in (aten._to_copy.default, aten.copy_.default):
            source = args[1] if func is aten.copy_.default else args[0]
            waits = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
            assert not waits or source.device.type == result.device.type, f"{func} waits"
        # A list of indices is copied there, out of sight.
        assert func is not aten.index.Tensor or result.device.type == "cpu", f"{func} waits"
        return result


@pytest.fixture(autouse=True)
def kernels_everywhere(monkeypatch):
    monkeypatch.setattr(devices, "runs_on", lambda op, device: True)


def make(kind: type[nn.Module]) -> tuple[nn.Module, Tensor]:
    return kind().eval().to("meta"), torch.empty(2, 3, 12, 10, device="meta")


TARGETS = {
    "none": pytest.param(None),
    "one": pytest.param(1, marks=pytest.mark.slow),
    "per sample": pytest.param([1, 2], marks=pytest.mark.slow),
    "several": pytest.param(torch.tensor([[0, 1], [2, 3]])),
}


@pytest.mark.parametrize("kind", [Branches, Residual, OverwrittenView, DeadEnd])
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_nothing_waits_during_a_pass(kind, target):
    model, x = make(kind)
    collector = MapCollector([METHODS[name] for name in PLAIN], 0, targets=count_targets(target))
    for _ in range(2):  # the first pass learns
        with NoWaiting():
            found = capture(model, x, collector, target=target)
        assert {one.name for one in found.layers} >= {"used"} or len(found.layers) > 2
        assert all(one in collector._found for one in found.layers)
    assert {one.device.type for one in (*found.scores.values, found.scores.indices)} == {"meta"}


def test_the_mean_over_a_mask_waits_for_nothing():
    model, x = make(Branches)
    seen = []
    with NoWaiting():
        capture(
            model,
            x,
            lambda layer, target, A, G: seen.append(layer.name),
            layers="conv",
            target=lambda out: segmentation_mean(0, torch.ones(2, 1, 1))(out[:, :, None, None]),
        )
    assert sorted(seen) == ["left.0", "right.0"]


@pytest.mark.parametrize("method", [["gradcam"], ["xgradcam", "randomcam", "layercam"]])
@pytest.mark.parametrize("target", [None, camfuse.Each([1, None])], ids=["one", "two"])
def test_a_stack_is_laid_out_after_a_single_read(method, target, monkeypatch):
    model, x = make(Residual)
    methods = [METHODS[name] for name in method]
    collector = MapCollector(methods, 0, targets=count_targets(target))
    found = capture(model, x, collector, target=target)
    reads = []

    def to_host(tensors: list[Tensor]) -> list[Tensor]:
        reads.append([one.device.type for one in tensors])
        return [torch.ones(one.shape, dtype=one.dtype) for one in tensors]

    monkeypatch.setattr(collect, "to_host", to_host)
    with NoWaiting():
        stack = collector.stack(found, "model", "raise").select(layers=["conv", "stem"])
    assert reads == [["meta"] * 3]
    assert {one.device.type for one in (stack.flat, stack.ranges, stack.scores)} == {"meta"}
    assert {one.device.type for one in (stack.targets, stack.probabilities)} == {"cpu"}
    assert stack.flat.numel() == sum(stack.maps(name).numel() for name in stack.names)
