"""From a CamStack to frames: the right map of the right method, target and sample, in its place."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from camfuse import reference
from camfuse.colormaps import color_table
from camfuse.render import render
from camfuse.stack import CamStack, LayerInfo, pack

SIZES = ((9, 12), (1, 1), (5, 3), (20, 30), (7, 7))
IMAGE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


def make_stack(methods=("gradcam",), targets=1, batch=1, dtype=torch.float64, model=""):
    generator = torch.Generator().manual_seed(0)
    axes = (len(methods), targets, batch)
    maps = [torch.randn(*axes, *size, generator=generator, dtype=dtype) for size in SIZES]
    flat, offsets = pack(maps)
    planes = [m.flatten(3) for m in maps]
    ranges = torch.stack([torch.stack([p.amin(-1), p.amax(-1)], -1) for p in planes])
    return CamStack(
        layers=tuple(
            LayerInfo(f"block.{i}", "Conv2d", (8, *size), i, degenerate=("gradcam",) * (i == 2))
            for i, size in enumerate(SIZES)
        ),
        flat=flat,
        offsets=offsets,
        ranges=ranges,
        global_ranges=torch.stack([ranges[..., 0].amin(0), ranges[..., 1].amax(0)], -1),
        methods=methods,
        targets=torch.zeros(targets, batch, dtype=torch.long),
        scores=torch.zeros(targets, batch),
        probabilities=torch.zeros(targets, batch),
        input_size=(60, 90),
        model=model,
    )


def panel(frames, index, position):
    """One panel ``[Hp, Wp, 3]`` of one frame."""
    canvas = frames.canvas
    _, _, top, left = canvas.panels[position]
    image = frames.frame(index)
    return image[top : top + canvas.panel_height, left : left + canvas.panel_width]


def expected_panel(frames, map_, display_range, blend=0.5, relu=True):
    """The same from the reference and the photograph that the first panel shows."""
    photograph = panel(frames, 0, 0).double()
    size = photograph.shape[:2]
    levels = reference.map_levels(map_, display_range, size, relu=relu)
    heat = color_table("turbo")[(levels + 0.5).long()].double()
    return ((1 - blend) * photograph + blend * heat + 0.5).floor().byte()


def test_one_frame_per_layer_in_chunks():
    frames = render(make_stack(), IMAGE, size=90, chunk=2)
    assert len(frames) == 5
    chunks = list(frames)
    assert [len(chunk) for chunk in chunks] == [2, 2, 1]
    assert all(chunk.dtype == torch.uint8 for chunk in chunks)
    together = torch.cat(chunks).view(5, frames.height, frames.width, 3)
    for i in range(5):
        assert torch.equal(together[i], frames.frame(i))
    assert torch.equal(frames.frame(-1), together[4])
    with pytest.raises(IndexError):
        frames.frame(5)


@pytest.mark.parametrize("pixel_format", ["rgb24", "i420", "nv12"])
def test_chunks_do_not_change_the_frames(pixel_format):
    one, all_ = (
        render(make_stack(), IMAGE, size=64, chunk=n, pixel_format=pixel_format) for n in (1, 99)
    )
    assert torch.equal(torch.cat(list(one)), torch.cat(list(all_)))
    size = one.height * one.width * 3 // (1 if pixel_format == "rgb24" else 2)
    assert next(iter(one)).shape == (1, size)


def test_panels_show_photograph_layer_range_and_global_range():
    stack = make_stack(("gradcam", "layercam"), targets=2, batch=3)
    choice = {"method": "layercam", "target": 1, "sample": 2}
    for relu in (True, False):
        frames = render(stack, IMAGE, size=90, relu=relu, blend=0.25, **choice)
        for i in range(5):
            map_ = stack.maps(i)[1, 1, 2]
            for position, limits in (
                (1, stack.ranges[i, 1, 1, 2]),
                (2, stack.global_ranges[1, 1, 2]),
            ):
                expected = expected_panel(frames, map_, limits, blend=0.25, relu=relu)
                assert torch.equal(panel(frames, i, position), expected)


def test_methods_and_targets_are_shown_side_by_side():
    stack = make_stack(("gradcam", "layercam"), targets=2, batch=2)
    frames = render(stack, IMAGE, size=90, panels=["source", "layer"], sample=1)
    for i in range(5):
        for position, (r, t) in enumerate(itertools.product((0, 1), (0, 1)), 1):
            expected = expected_panel(frames, stack.maps(i)[r, t, 1], stack.ranges[i, r, t, 1])
            # A value in the middle between two colours may round either way.
            assert (panel(frames, i, position) != expected).float().mean() < 1e-3


def test_models_are_shown_side_by_side_at_the_same_relative_depth():
    deep = make_stack(model="A")
    shallow = make_stack(dtype=torch.float32, model="B").select(layers=["block.1", "block.3"])
    frames = render([deep, shallow], IMAGE, size=90, panels=["source", "global"])
    assert len(frames) == 5
    for i, (ours, theirs) in enumerate([(0, 0), (1, 0), (2, 0), (3, 1), (4, 1)]):
        for position, stack, layer in ((1, deep, ours), (2, shallow, theirs)):
            map_, limits = stack.maps(layer)[0, 0, 0], stack.global_ranges[0, 0, 0]
            assert torch.equal(panel(frames, i, position), expected_panel(frames, map_, limits))
    assert frames.titles[3] == "A: 4/5 · block.3 | B: 2/2 · block.3"


def test_a_curve_needs_room_and_follows_the_layers():
    stack = dataclasses.replace(make_stack(), series={"road": torch.arange(5.0).view(5, 1, 1, 1)})
    plain, curved = (render(stack, IMAGE, size=90, curve=curve) for curve in (None, "road"))
    assert curved.height > plain.height
    below = slice(-(curved.height - plain.height), None)
    assert not torch.equal(curved.frame(0)[below], curved.frame(4)[below])
    with pytest.raises(ValueError, match="curve: expected one of road, evidence, got 'ybroad'"):
        render(stack, IMAGE, curve="ybroad")


def test_photograph_is_shown_as_it_is_at_its_own_size():
    frames = render(make_stack(), IMAGE, size=90, panels=["source"])
    assert torch.equal(panel(frames, 3, 0), torch.from_numpy(IMAGE))


def test_images_may_be_arrays_or_pil():
    picture = Image.fromarray(IMAGE)
    expected = render(make_stack(), IMAGE, size=64).frame(0)
    assert torch.equal(render(make_stack(), picture, size=64).frame(0), expected)
    transparent = picture.convert("RGBA")
    assert torch.equal(render(make_stack(), transparent, size=64).frame(0), expected)
    transparent.putalpha(0)
    white = Image.new("RGB", picture.size, "white")
    shown = render(make_stack(), transparent, size=64).frame(0)
    assert torch.equal(shown, render(make_stack(), white, size=64).frame(0))


def test_a_large_photograph_is_averaged_not_sampled():
    board = np.indices((512, 512)).sum(0) % 2 * np.uint8(255)
    frames = render(make_stack(), np.stack([board] * 3, -1).astype(np.uint8), size=64)
    assert (panel(frames, 0, 0).int() - 127).abs().max() <= 3


def test_text_changes_with_the_layer_and_marks_degenerate_ones():
    stack = make_stack()
    frames = render(stack, IMAGE, size=448, title="resnet50")
    header = frames.canvas.header_height
    assert not torch.equal(frames.frame(0)[:header], frames.frame(3)[:header])
    healthy = tuple(dataclasses.replace(layer, degenerate=()) for layer in stack.layers)
    unmarked = render(dataclasses.replace(stack, layers=healthy), IMAGE, size=448, title="resnet50")
    assert not torch.equal(frames.frame(2)[:header], unmarked.frame(2)[:header])
    assert torch.equal(frames.frame(1), unmarked.frame(1))


def test_maps_that_carry_a_gradient_and_f32_are_rendered():
    stack = make_stack(dtype=torch.float32)
    carrying = dataclasses.replace(stack, flat=stack.flat.clone().requires_grad_())
    expected = render(stack, IMAGE, size=64).frame(0)
    assert torch.equal(render(carrying, IMAGE, size=64).frame(0), expected)


def test_background_and_empty_stacks():
    frames = render(make_stack(), IMAGE, size=64, background=77)
    assert frames.frame(0)[-1].unique().tolist() == [77]
    empty = make_stack().select(layers=[])
    assert list(render(dataclasses.replace(empty, ranges=make_stack().ranges[:0]), IMAGE)) == []


def test_frame_needs_rgb():
    with pytest.raises(ValueError, match="frame\\(\\) needs pixel_format 'rgb24', got 'i420'"):
        render(make_stack(), IMAGE, pixel_format="i420").frame(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "foo"}, "method: expected one of gradcam, layercam, got 'foo'"),
        ({"target": 2}, r"target: expected 0\.\.1, got 2"),
        ({"sample": 1}, r"sample: expected 0\.\.0, got 1"),
        ({"sample": -1}, r"sample: expected 0\.\.0, got -1"),
        ({"panels": ["photo"]}, "panels: expected some of"),
        ({"size": 4}, "size: expected 16 to 8192, got 4"),
        ({"colormap": "rainbowish"}, "colormap: expected one of"),
        ({"blend": 2}, "blend: expected 0 to 1, got 2"),
        ({"background": 300}, "background: expected 0 to 255, got 300"),
        ({"pixel_format": "nv21"}, "pixel_format: expected one of rgb24, i420, nv12, got 'nv21'"),
        ({"chunk": 0}, "chunk: expected at least 1, got 0"),
    ],
)
def test_bad_options_are_named_before_any_frame(options, message):
    stack = make_stack(("gradcam", "layercam"), targets=2)
    with pytest.raises(ValueError, match=message):
        render(stack, IMAGE, **{"method": "gradcam", "target": 0, **options})


@pytest.mark.parametrize("image", [IMAGE.astype(int), IMAGE[:0], IMAGE.transpose(2, 0, 1), "x.png"])
def test_bad_images_are_named(image):
    with pytest.raises(ValueError, match="image "):
        render(make_stack(), image)


def test_a_large_frame_is_not_rendered_many_at_once():
    stack = make_stack()
    assert render(stack, IMAGE, size=64).chunk == 16
    assert render(stack, IMAGE, size=2000).chunk < 5
    assert render(stack, IMAGE, size=8192).chunk == 1
