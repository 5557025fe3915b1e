"""The CUDA kernels of ``render_frames``, emulated: equal bits to the CPU's, on any device."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from emulation import LARGE, SMALL
from render_frames_checks import (
    FORMATS,
    KINDS,
    MISALIGNED,
    TALL,
    TINY,
    assert_equal_frames,
    assert_same,
    check_render_frames,
    crowded,
    overlapping,
    render,
)
from test_render_frames import RAMP, assert_within, make_scene

DTYPES = (torch.float32, torch.float64)
SIZES = ((1, 1), (1, 7), (9, 1), (7, 7), (13, 17), (56, 56), (112, 112))


@pytest.fixture
def run(emulator):
    return emulator("render_frames")


def test_every_path_is_right(run):
    check_render_frames(run)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("panel", [(2, 2), (10, 34), (30, 16)], ids=str)
def test_maps_of_any_size_equal_the_cpus(run, panel, dtype, pixel_format):
    scene = make_scene(SIZES, panel, dtype=dtype, pixel_format=pixel_format)
    actual = render(run, scene)
    assert_same(actual, scene.native(), scene)
    assert_within(actual, scene.expected(), 1 if dtype == torch.float64 else 2)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("count", [2, 3])
def test_several_maps_a_frame_are_in_their_panels(run, count, pixel_format):
    scene = make_scene(SIZES[:6], (14, 20), count=count, pixel_format=pixel_format, seed=count)
    actual = render(run, scene, seeds=range(4))
    assert_same(actual, scene.native(), scene)
    assert_within(actual, scene.expected(), 1)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("device", [TINY, SMALL, LARGE], ids=["tiny", "small", "large"])
def test_frames_do_not_depend_on_the_device(run, device, pixel_format):
    scene = make_scene(TALL, (40, 26), dtype=torch.float32, gap=6, pixel_format=pixel_format)
    assert_equal_frames(run, scene, device=device)


@pytest.mark.parametrize("panel", [(35, 27), (1, 1), (7, 3), (20, 41)], ids=str)
@pytest.mark.parametrize("gap", [1, 5])
def test_rgb24_may_be_of_odd_size(run, panel, gap):
    scene = make_scene(((13, 17), (2, 3)), panel, dtype=torch.float32, gap=gap)
    assert_equal_frames(run, scene)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("name", MISALIGNED)
@pytest.mark.parametrize("offset", [1, 2, 4])
def test_arrays_need_no_alignment(run, offset, name, pixel_format):
    scene = make_scene(((3, 4), (5, 2)), (8, 16), gap=8, pixel_format=pixel_format)
    assert_equal_frames(run, scene, offsets={name: offset})


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("count", [1, 2])
def test_later_maps_cover_earlier_ones_and_any_map_the_source(run, count, pixel_format):
    scene = overlapping(make_scene(((13, 17), (4, 4)), (20, 26), count=2))
    scene = replace(scene, pixel_format=pixel_format)
    if count == 1:  # the same panels, all of one map
        ranges, global_ranges = scene.ranges.view(2, 1, 2), scene.global_ranges[:1]
        panels = [(kind, 0, *place) for kind, _, *place in scene.panels]
        scene = replace(scene, ranges=ranges, global_ranges=global_ranges, panels=panels)
    assert_equal_frames(run, scene)
    assert not torch.equal(scene.native(), replace(scene, panels=scene.panels[1:]).native())


@pytest.mark.parametrize("seed", range(6))
def test_panels_anywhere(run, seed):
    random = np.random.default_rng(seed)
    pixel_format, step = FORMATS[seed % 3], 1 if seed % 3 == 0 else 2
    Hp, Wp = (step * random.integers(1, 12, 2)).tolist()
    H, W = Hp + 20, Wp + 38
    scene = make_scene(((4, 5), (6, 3)), (Hp, Wp), count=2, pixel_format=pixel_format)
    panels = []
    for _ in range(9):
        kind = KINDS[random.integers(3)]
        shown = 0 if kind == "source" else int(random.integers(2))
        top, left = (
            step * random.integers(0, [(H - Hp) // step + 1, (W - Wp) // step + 1])
        ).tolist()
        panels.append((kind, shown, top, left))
    scene = replace(scene, canvas=(H, W), panels=panels, overlay=None, strips=())
    assert_equal_frames(run, scene)


def test_lists_too_long_for_one_launch(run):
    scene = crowded()
    assert_equal_frames(run, scene)
    without_last = replace(scene, panels=scene.panels[:-1])
    assert not torch.equal(scene.native(), without_last.native())


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("blend", [0.0, 0.01, 0.1, 0.3, 0.7, 1.0])
def test_any_blend_over_any_background(run, blend, pixel_format):
    scene = make_scene(((3, 3),), (8, 10), pixel_format=pixel_format, blend=blend)
    assert_equal_frames(run, replace(scene, background=int(250 * blend) + 3))


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
def test_nonfinite_values_stay_in_their_place(run, value, dtype, relu):
    scene = make_scene(((5, 5), (5, 5)), (20, 20), ("layer", "global"), dtype, relu=relu)
    maps = scene.maps.clone()
    maps[[0, 7]] = value
    actual = render(run, replace(scene, maps=maps))
    assert_same(actual, replace(scene, maps=maps).native(), scene)
    assert torch.equal(actual[1], render(run, scene)[1])


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_constant_and_empty_ranges_are_level_zero(run, dtype, pixel_format):
    limits = ((0.5, 0.5), (2.0, 1.0), (-3.0, -1.0), (float("nan"), 1.0), (1.0, float("nan")))
    scene = make_scene(((4, 5),) * 5, (8, 8), dtype=dtype, pixel_format=pixel_format)
    ranges = torch.tensor(limits, dtype=dtype).view(5, 1, 2)
    assert_equal_frames(run, replace(scene, ranges=ranges, global_ranges=ranges[0]))


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e30, 3e38])
def test_extreme_ranges(run, scale):
    scene = make_scene(((5, 5),), (8, 8), dtype=torch.float32, text=False, relu=False)
    maps = scene.maps / scene.maps.abs().max() * scale
    ranges = torch.stack(maps.aminmax())[None, None]
    scene = replace(scene, maps=maps, ranges=ranges, global_ranges=ranges[0], colours=RAMP)
    assert_equal_frames(run, scene)


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_text_of_any_opacity_over_any_level(run, pixel_format):
    """All pairs of alpha and level, greys at random; no panels."""
    alphas = torch.arange(256, dtype=torch.uint8)
    random = torch.Generator().manual_seed(0)
    overlay = torch.randint(256, (8, 2, 256, 2), generator=random, dtype=torch.uint8)
    overlay[..., 1] = alphas
    scene = make_scene(((1, 1),) * 8, (2, 2), kinds=(), text=False, pixel_format=pixel_format)
    for background in (0, 37, 128, 255):
        scene = replace(
            scene, canvas=(2, 256), background=background, overlay=overlay, strips=((0, 2),)
        )
        assert_equal_frames(run, scene, seeds=[0])


@pytest.mark.parametrize("count", [1, 3])
def test_no_frames(run, count):
    scene = make_scene((), (8, 8), count=count, pixel_format="i420")
    assert render(run, scene).shape == scene.native().shape
