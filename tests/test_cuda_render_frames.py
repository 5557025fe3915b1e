"""The native op ``render_frames`` on CUDA devices: the frames of the CPU, bit by bit."""

from dataclasses import replace

import pytest
import torch

from camfuse import ops
from test_render_frames import FORMATS, make_scene

pytestmark = pytest.mark.cuda

SIZES = ((13, 17), (1, 1), (7, 9), (112, 112), (9, 1), (56, 56))
TENSORS = ("maps", "ranges", "global_ranges", "source", "colours", "overlay")


def moved(scene, device="cuda"):
    """The scene with its tensors on another device."""
    held = {name: getattr(scene, name) for name in TENSORS}
    return replace(scene, **{n: x if x is None else x.to(device) for n, x in held.items()})


@pytest.fixture
def second_device():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    return torch.device("cuda", 1)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("panel", [(2, 2), (48, 64), (150, 90), (448, 336)], ids=str)
def test_frames_equal_the_cpus(panel, count, dtype, pixel_format):
    for gap, relu in ((8, True), (6, False)):  # panels aligned to 8 pixels, and not
        options = {"dtype": dtype, "count": count, "gap": gap, "relu": relu}
        scene = make_scene(SIZES, panel, pixel_format=pixel_format, **options)
        actual = moved(scene).native()
        assert actual.is_cuda
        assert torch.equal(actual.cpu(), scene.native())


@pytest.mark.parametrize("panel", [(1, 1), (7, 3), (35, 27), (133, 255)], ids=str)
def test_rgb24_may_be_of_odd_size(panel):
    scene = make_scene(SIZES, panel, dtype=torch.float32, gap=5)
    assert torch.equal(moved(scene).native().cpu(), scene.native())


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_later_maps_cover_earlier_ones_and_any_map_the_source(pixel_format):
    scene = make_scene(((13, 17), (4, 4), (7, 9), (20, 3)), count=2, pixel_format=pixel_format)
    panels = [("layer", 1, 8, 30), ("layer", 0, 10, 4), ("global", 0, 12, 50), ("source", 0, 8, 20)]
    scene = replace(scene, panels=panels)
    assert torch.equal(moved(scene).native().cpu(), scene.native())


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_more_maps_than_one_launch_holds(pixel_format):
    scene = make_scene(((2, 3), (5, 4)) * 1500, (8, 8), count=2, pixel_format=pixel_format)
    assert torch.equal(moved(scene).native().cpu(), scene.native())


def test_nonfinite_values_and_empty_ranges():
    for dtype in (torch.float32, torch.float64):
        scene = make_scene(((9, 9),) * 4, (36, 36), dtype=dtype, relu=False)
        maps, ranges = scene.maps.clone(), scene.ranges.clone()
        maps[::17], maps[5::31] = float("nan"), float("inf")
        ranges[1:] = torch.tensor([[[2.0, 1.0]], [[1.0, 1.0]], [[float("nan"), 1.0]]])
        scene = replace(scene, maps=maps, ranges=ranges)
        assert torch.equal(moved(scene).native().cpu(), scene.native())


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("offset", [1, 2, 4])
def test_arrays_need_no_alignment(offset, pixel_format):
    def shifted(tensor):
        buffer = tensor.new_zeros(tensor.numel() + offset)
        buffer[offset:] = tensor.flatten()
        return buffer[offset:].view(tensor.shape)

    scene = moved(make_scene(((13, 17), (5, 2)), pixel_format=pixel_format))
    expected = scene.native()
    shifts = {name: shifted(getattr(scene, name)) for name in TENSORS}
    assert shifts["overlay"].data_ptr() % 8 == offset
    assert torch.equal(replace(scene, **shifts).native(), expected)


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_no_frames(pixel_format):
    scene = make_scene((), pixel_format=pixel_format)
    assert moved(scene).native().shape == scene.native().shape


def test_work_is_on_the_current_stream():
    """The maps arrive late, on a stream of their own: only there does the op wait for them."""
    scene = make_scene(SIZES, (48, 64), dtype=torch.float32, pixel_format="nv12")
    on_device = moved(scene)
    late = replace(on_device, maps=torch.zeros_like(on_device.maps))
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        late.native()  # so that nothing is loaded or allocated below
        torch.cuda._sleep(50_000_000)
        late.maps.copy_(on_device.maps)
        frames = late.native()
    stream.synchronize()
    assert torch.equal(frames.cpu(), scene.native())


def test_a_captured_call_renders_what_its_tensors_hold_when_it_is_replayed():
    first, second = (make_scene(SIZES, (48, 64), dtype=torch.float32, seed=n) for n in range(2))
    scene = moved(first)
    scene.native()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # in which a synchronisation is an error
        frames = scene.native()
    for now in (second, first):
        for name in TENSORS:
            getattr(scene, name).copy_(getattr(now, name))
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(frames.cpu(), now.native())


def test_frames_beyond_two_gigabytes():
    frames, side = 180, 2048
    size = 3 * side * side
    if torch.cuda.mem_get_info()[0] < 1.5 * frames * size:
        pytest.skip("needs 3.4 GB of free device memory")
    scene = make_scene(((3, 4),) * frames, (side, side), ("layer",), torch.float32, text=False)
    scene = replace(scene, canvas=(side, side), panels=[("layer", 0, 0, 0)])
    assert frames * size > 2**31
    actual = moved(scene).native()
    for n in (0, frames - 1):
        ranges = scene.ranges[n : n + 1]
        one = replace(scene, offsets=[scene.offsets[n]], sizes=[(3, 4)], ranges=ranges)
        assert torch.equal(actual[n].cpu(), one.native()[0])


def test_a_device_that_is_not_the_current_one(second_device):
    scene = make_scene(SIZES, (48, 64), pixel_format="i420")
    frames = moved(scene, second_device).native()
    assert frames.device == second_device
    assert torch.cuda.current_device() == 0
    assert torch.equal(frames.cpu(), scene.native())


@pytest.mark.parametrize("name", TENSORS[1:])
def test_a_tensor_on_another_device_is_named(name):
    scene = make_scene()
    mixed = replace(moved(scene), **{name: getattr(scene, name)})
    message = f"{name} must be on the device of maps: expected cuda:0, got cpu"
    with pytest.raises(ValueError, match=message):
        mixed.native()


def test_maps_on_another_device_are_named():
    scene = make_scene()
    with pytest.raises(ValueError, match="must be on the device of maps: expected cpu, got cuda:0"):
        replace(moved(scene), maps=scene.maps).native()


def test_a_tensor_on_a_second_device_is_named(second_device):
    scene = moved(make_scene())
    mixed = replace(scene, source=scene.source.to(second_device))
    message = "source must be on the device of maps: expected cuda:0, got cuda:1"
    with pytest.raises(ValueError, match=message):
        mixed.native()


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_opcheck(pixel_format, monkeypatch):
    scene = moved(make_scene(dtype=torch.float32, pixel_format=pixel_format))
    calls = []
    op = torch.ops.camfuse.render_frames.default
    monkeypatch.setattr(ops, "_call", lambda _, *args: calls.append(args))
    scene.native()
    torch.library.opcheck(op, calls[0])
