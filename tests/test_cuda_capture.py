"""Maps of models on a CUDA device: those of the CPU, without waiting, within the memory left."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import camfuse
from camfuse import split
from camfuse.capture import capture
from camfuse.collect import MapCollector
from camfuse.methods import find_methods
from oracle import relative_error
from registry import PLAIN
from small_models import Branches, DeadEnd, Head, OverwrittenView, Residual, SkipOverIdentity
from test_capture import assert_agrees, assert_same, snapshot

pytestmark = pytest.mark.cuda
DEVICE = torch.device("cuda", 0)


class Small(nn.Module):
    """A little residual network with all that real ones have: strides, skips, in-place modules."""

    class Block(nn.Module):
        def __init__(self, inside: int, outside: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outside)
            self.relu = nn.ReLU(inplace=True)
            self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outside)
            self.shortcut = nn.Conv2d(inside, outside, 1, stride, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            y += self.shortcut(x)
            return self.relu(y)

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(self.Block(16, 32, 1), self.Block(32, 64, 2))
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def make(kind: type[nn.Module] = Small, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return kind().to(dtype).eval()


def image(batch: int = 2, side: int = 48, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, side, side, generator=generator, dtype=dtype)


@contextmanager
def no_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("kind", [Small, Branches, Residual, OverwrittenView, SkipOverIdentity])
def test_maps_are_those_of_the_cpu(kind: type[nn.Module]) -> None:
    model, x = make(kind), image()
    options = {"method": PLAIN, "layers": "all", "target": camfuse.Each([None, 1])}
    expected = camfuse.layer_cams(model, x, **options)
    model.to(DEVICE)
    for _ in range(2):  # the first pass learns
        stack = camfuse.layer_cams(model, x.to(DEVICE), **options)
    assert stack.flat.device == stack.ranges.device == stack.global_ranges.device == DEVICE
    assert stack.layers == expected.layers
    assert stack.skipped == expected.skipped
    assert torch.equal(stack.targets, expected.targets)
    here = stack.cpu()
    assert {one.device.type for one in (here.flat, here.ranges, here.scores)} == {"cpu"}
    for name in expected.names:
        assert relative_error(here.maps(name), expected.maps(name)) < 1e-8, name
    assert relative_error(here.ranges, expected.ranges) < 1e-8
    assert relative_error(here.probabilities, expected.probabilities) < 1e-6
    shown = stack.normalized(0, "global", size=(20, 30)).cpu()
    assert relative_error(shown, expected.normalized(0, "global", size=(20, 30))) < 1e-7


@pytest.mark.parametrize("kind", [Small, Branches, Residual, OverwrittenView, DeadEnd])
def test_pairs_agree_with_independent_autograd(kind: type[nn.Module]) -> None:
    torch.backends.cudnn.deterministic, before = True, torch.backends.cudnn.deterministic
    try:
        assert_agrees(make(kind).to(DEVICE), image().to(DEVICE))
    finally:
        torch.backends.cudnn.deterministic = before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_precisions_and_layouts_are_followed(
    dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    model = make(dtype=dtype).to(DEVICE, memory_format=memory_format)
    stack = camfuse.layer_cams(model, image(dtype=dtype).to(DEVICE, memory_format=memory_format))
    assert stack.flat.dtype == torch.float32
    assert stack.flat.isfinite().all()
    with torch.autocast("cuda", torch.float16):
        mixed = camfuse.layer_cams(model.float(), image(dtype=torch.float32).to(DEVICE))
    assert mixed.names == stack.names


@pytest.mark.parametrize("method", [["gradcam"], PLAIN], ids=["one", "all"])
@pytest.mark.parametrize("target", [None, 3, [1, 2], camfuse.Each([1, None])], ids=str)
def test_no_pass_waits_for_the_device(method: list[str], target: object) -> None:
    model, x = make(dtype=torch.float32).to(DEVICE), image(dtype=torch.float32).to(DEVICE)
    for _ in range(3):
        collector = MapCollector(find_methods(method), seed=0)
        with no_waiting():
            found = capture(model, x, collector, target=target)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning, match="called a synchronizing CUDA operation") as caught:
            collector.stack(found, "model", "raise")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(caught) == 1


def test_a_one_layer_map_is_that_of_the_cpu() -> None:
    model, x = make(), image()
    expected = camfuse.cam(model, x, "blocks.1", method="xgradcam")
    heat = camfuse.cam(model.to(DEVICE), x.to(DEVICE), "blocks.1", method="xgradcam")
    assert heat.device == DEVICE
    torch.testing.assert_close(heat.cpu(), expected, rtol=0, atol=1e-8)


def test_classes_may_be_given_from_either_device() -> None:
    model, x = make().to(DEVICE), image().to(DEVICE)
    here = camfuse.layer_cams(model, x, target=torch.tensor([1, 2]))
    there = camfuse.layer_cams(model, x, target=torch.tensor([1, 2], device=DEVICE))
    assert torch.equal(here.flat, there.flat)
    with pytest.raises(ValueError, match=r"expected a class in 0\.\.9, got 10"):
        camfuse.layer_cams(model, x, target=torch.tensor([1, 10], device=DEVICE))


class Checkpointed(Head):
    """Runs modules again during the backward pass, which torch would give a thread of its own."""

    def __init__(self) -> None:
        super().__init__(4)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Tanh())

    def body(self, x: Tensor) -> Tensor:
        return checkpoint(self.block, self.first(x), use_reentrant=False)


@pytest.mark.parametrize("layer", ["block.0", "block.1", "leaf"])
def test_a_root_inside_a_checkpoint_survives_recomputation(layer: str) -> None:
    assert_agrees(make(Checkpointed).to(DEVICE), image().to(DEVICE), layer)


class Dropping(Residual):
    """Draws from the device's generator."""

    def body(self, x: Tensor) -> Tensor:
        return super().body(x + torch.rand_like(x))


def test_the_model_and_the_generators_are_as_before() -> None:
    model, x = make(Dropping).to(DEVICE), image().to(DEVICE)
    before, generator = snapshot(model), torch.cuda.get_rng_state(DEVICE)
    first = camfuse.layer_cams(model, x)
    assert_same(before, snapshot(model))
    assert torch.equal(torch.cuda.get_rng_state(DEVICE), generator)
    assert torch.equal(camfuse.layer_cams(model, x).flat, first.flat)


def test_maps_on_a_side_stream_need_no_other() -> None:
    model, x = make().to(DEVICE), image().to(DEVICE)
    expected = camfuse.layer_cams(model, x).flat.cpu()
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(100_000_000)
        flat = camfuse.layer_cams(model, x * 1.0).flat.cpu()
    torch.testing.assert_close(flat, expected, rtol=1e-9, atol=1e-12)


def test_create_graph_lets_a_map_stand_in_a_loss() -> None:
    model, x = make(), image()

    def gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
        stack = camfuse.layer_cams(model, x, layers="blocks.0", create_graph=True)
        stack["blocks.0"].square().mean().backward()
        found = [p.grad.cpu() for p in model.parameters() if p.grad is not None]
        model.zero_grad()
        return found

    expected = gradients(model, x)
    for got, wanted in zip(gradients(model.to(DEVICE), x.to(DEVICE)), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-7, atol=1e-12)


def test_nonfinite_maps_are_named_or_skipped() -> None:
    model, x = make().to(DEVICE), image(3).to(DEVICE)
    x[1, 0, 0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"stem\.0: the map of sample 1 is not finite"):
        camfuse.layer_cams(model, x, target=0)


# ---- memory


@pytest.fixture
def little_memory() -> Iterator[int]:
    """Bytes that this process may have on the device besides what it has already."""
    gc.collect()
    torch.cuda.empty_cache()
    allowed = 512 * 2**20
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    reserved = torch.cuda.memory_reserved(DEVICE)
    torch.cuda.set_per_process_memory_fraction((reserved + allowed) / total, DEVICE)
    yield allowed
    torch.cuda.set_per_process_memory_fraction(1.0, DEVICE)


def test_a_pass_beyond_what_the_process_may_have_is_refused_at_once(little_memory: int) -> None:
    model, calls = make(dtype=torch.float32).to(DEVICE), []
    model.register_forward_pre_hook(lambda module, args: calls.append(type(args[0]).__name__))
    with pytest.raises(MemoryError, match=r"maps of 64 samples need .* are left; max_memory="):
        camfuse.layer_cams(model, image(64, 384, torch.float32).to(DEVICE))
    assert set(calls) == {"FakeTensor"}  # the rehearsal's, without elements


def test_running_out_of_memory_leaves_nothing_and_a_smaller_batch_fits(
    little_memory: int, monkeypatch
) -> None:
    monkeypatch.setattr(split, "available_memory", lambda device: None)  # would refuse it
    model = make(dtype=torch.float32).to(DEVICE)
    many = image(64, 384, torch.float32).to(DEVICE)  # its first layer takes 144 MiB
    camfuse.layer_cams(model, many[:1])  # libraries take what they keep
    before, allocated = snapshot(model), torch.cuda.memory_allocated(DEVICE)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        camfuse.layer_cams(model, many)
    assert any("max_memory=" in note for note in caught.value.__notes__)
    assert torch.cuda.memory_allocated(DEVICE) == allocated  # while the error is there still
    assert_same(before, snapshot(model))
    stack = camfuse.layer_cams(model, many[:4])
    assert stack.flat.isfinite().all()


def test_a_limit_splits_a_batch_that_would_not_fit(little_memory: int) -> None:
    model, sizes = make(dtype=torch.float32).to(DEVICE), []
    many = image(32, 256, torch.float32).to(DEVICE)
    with pytest.raises(MemoryError):
        camfuse.layer_cams(model, many, layers="conv")
    model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    stack = camfuse.layer_cams(model, many, layers="conv", max_memory=little_memory // 2)
    assert max(sizes[-3:]) < 32
    assert stack.axes == (1, 1, 32)
    assert stack.flat.device == DEVICE
    alone = camfuse.layer_cams(model, many[-1:], layers="conv")
    assert relative_error(stack["blocks.1.conv2"][-1:], alone["blocks.1.conv2"]) < 1e-3


def test_memory_does_not_grow() -> None:
    model, x = make(dtype=torch.float32).to(DEVICE), image(dtype=torch.float32).to(DEVICE)
    for _ in range(3):
        camfuse.layer_cams(model, x)
    gc.collect()
    before = torch.cuda.memory_allocated(DEVICE)
    gc.disable()
    try:
        for _ in range(200):
            camfuse.layer_cams(model, x)
        assert torch.cuda.memory_allocated(DEVICE) == before
    finally:
        gc.enable()


def test_a_stack_file_is_that_of_the_cpu(tmp_path) -> None:
    stack = camfuse.layer_cams(make().to(DEVICE), image().to(DEVICE))
    camfuse.save_stack(stack, tmp_path / "there.safetensors")
    camfuse.save_stack(stack.cpu(), tmp_path / "here.safetensors")
    files = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("there", "here")]
    assert files[0] == files[1]
    assert torch.equal(
        camfuse.load_stack(tmp_path / "there.safetensors").flat, stack.cpu().flat.float()
    )
