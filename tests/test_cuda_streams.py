"""The native ops run on the caller's stream and device: side streams, graphs, several devices."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from camfuse import ops
from test_layer_cam import LAYOUTS, layer, same_bits

pytestmark = pytest.mark.cuda
DEVICE = torch.device("cuda", 0)
two_devices = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")

# A shape for each way that the kernels go about it, and each layout that has one of its own.
SHAPES = [
    ("nchw", (2, 64, 28, 28)),
    ("channels_last", (2, 64, 28, 28)),
    ("nchw", (2, 32, 3, 3)),
    ("transposed", (2, 19, 9, 11)),
]


def both(A: Tensor, G: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    maps, ranges = ops.layer_cam(A, G, ops.RULES, weights=weights)
    return maps, ranges, ops.fused_cam(A, G, "gradcam++", (50, 40))


def inputs(layout: str, shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    A, G, weights = layer(shape, seed=seed)
    return LAYOUTS[layout](A), LAYOUTS[layout](G), weights


def to(device: torch.device, tensors: tuple[Tensor, ...]) -> list[Tensor]:
    return [
        torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=device).copy_(x)
        for x in tensors
    ]


def assert_same(got: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    assert all(same_bits(x.cpu(), y.cpu()) for x, y in zip(got, expected, strict=True))


def keep_busy(stream: torch.cuda.Stream) -> None:
    """Work that keeps a stream from what is queued next for about a second."""
    with torch.cuda.stream(stream):
        torch.cuda._sleep(2_000_000_000)


@pytest.mark.parametrize(("layout", "shape"), SHAPES)
def test_a_side_stream_is_followed_and_others_are_not_waited_for(layout, shape):
    values = inputs(layout, shape)
    expected = both(*to(DEVICE, values))
    torch.cuda.synchronize()
    # Whatever else may wait for the device (new memory, pinning) is done beforehand.
    side = torch.cuda.Stream()
    pinned = [value.pin_memory() for value in values]
    arrived = to(DEVICE, tuple(torch.full_like(x, float("nan")) for x in values))
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        both(*arrived)
    torch.cuda.synchronize()
    keep_busy(torch.cuda.default_stream())
    behind, done = torch.cuda.Event(), torch.cuda.Event()
    behind.record(torch.cuda.default_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)  # the values come late: an op elsewhere would read NaN
        for there, value in zip(arrived, pinned, strict=True):
            there.copy_(value, non_blocking=True)
        got = both(*arrived)
        done.record()
    done.synchronize()
    assert not behind.query()  # the default stream is at work still
    torch.cuda.synchronize()
    assert_same(got, expected)


def test_no_call_waits_for_the_device():
    values = to(DEVICE, inputs(*SHAPES[0]))
    both(*values)
    torch.cuda.synchronize()
    keep_busy(torch.cuda.current_stream())
    torch.cuda.set_sync_debug_mode("error")
    try:
        both(*values)
        done = torch.cuda.Event()
        done.record()
        assert not done.query()
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()


@pytest.mark.parametrize(("layout", "shape"), SHAPES)
def test_a_graph_of_both_ops_replays_on_new_values(layout, shape):
    values = to(DEVICE, inputs(layout, shape))
    both(*values)  # warm: modules are loaded lazily, which a capture forbids
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = both(*values)
    for seed in range(1, 4):
        new = to(DEVICE, inputs(layout, shape, seed))
        for old, value in zip(values, new, strict=True):
            old.copy_(value)
        graph.replay()
        expected = both(*new)
        torch.cuda.synchronize()
        assert_same(captured, expected)


def test_threads_on_streams_of_their_own_do_not_disturb_each_other():
    values = [to(DEVICE, inputs("nchw", (2, 48, 20, 20), seed)) for seed in range(4)]
    expected = [both(*one) for one in values]
    torch.cuda.synchronize()
    wrong: list[int] = []

    def work(i: int) -> None:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(50):
                got = both(*values[i])
                stream.synchronize()
                if not all(same_bits(x, y) for x, y in zip(got, expected[i], strict=True)):
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@two_devices
@pytest.mark.parametrize("current", [0, 1])
def test_ops_run_where_their_tensors_are_and_leave_the_current_device(current):
    values = inputs(*SHAPES[0])
    expected = both(*values)
    with torch.cuda.device(current):
        for index in (1, 0):
            device = torch.device("cuda", index)
            got = both(*to(device, values))
            assert {one.device for one in got} == {device}
            assert torch.cuda.current_device() == current
            for x, y in zip(got, expected, strict=True):
                torch.testing.assert_close(x.cpu(), y, rtol=1e-4, atol=1e-4)


@two_devices
def test_tensors_on_two_cuda_devices_are_refused():
    A, G, _ = inputs(*SHAPES[0])
    with pytest.raises(ValueError, match=r"gradients .* expected cuda:0, got cuda:1"):
        ops.layer_cam(A.to("cuda:0"), G.to("cuda:1"), ["gradcam"])
    assert torch.cuda.current_device() == 0
