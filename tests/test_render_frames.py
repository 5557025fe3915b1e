"""The native op ``render_frames`` against its reference and against conversions not written here.

Two kinds of data keep comparisons sharp. In f64 a map value hardly ever falls within rounding of
the middle between two colours, so any colour table will do. In f32 it may: there the table is a
grey ramp, whose neighbours differ by one level.
"""

import os
import subprocess
import sys
from dataclasses import dataclass, replace

import imageio_ffmpeg
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from camfuse import _C, ops, reference

RAMP = torch.arange(256, dtype=torch.uint8)[:, None].repeat(1, 3)


@dataclass(frozen=True)
class Scene:
    """Arguments of ``render_frames``."""

    maps: torch.Tensor
    offsets: list
    sizes: list
    ranges: torch.Tensor
    global_ranges: torch.Tensor
    source: torch.Tensor
    colours: torch.Tensor
    panels: list
    canvas: tuple
    background: int = 16
    blend: float = 0.5
    relu: bool = True
    overlay: torch.Tensor | None = None
    strips: tuple = ()
    pixel_format: str = "rgb24"

    def native(self):
        return ops.render_frames(*self._positional(), **self._options())

    def expected(self):
        return reference.render_frames(*self._positional(), **self._options())

    def _positional(self):
        return list(vars(self).values())[:9]

    def _options(self):
        return dict(list(vars(self).items())[9:])


def make_scene(
    sizes=((13, 17), (1, 1), (7, 9)),
    panel=(48, 64),
    kinds=("source", "layer", "global"),
    dtype=torch.float64,
    seed=0,
    text=True,
    gap=4,
    count=1,
    **options,
):
    """Panels side by side under a strip of text that reaches two rows into them, and one below.

    Each frame shows ``count`` maps, each of them in panels of all ``kinds``.
    """
    generator = torch.Generator().manual_seed(seed)
    random_bytes = lambda *shape: torch.randint(  # noqa: E731
        256, shape, generator=generator, dtype=torch.uint8
    )
    maps = [torch.randn(h * w, generator=generator, dtype=dtype) for h, w in sizes]
    ranges = torch.stack([torch.stack(m.aminmax()) for m in maps]) if maps else torch.empty(0, 2)
    Hp, Wp = panel
    shown = [(kind, v) for v in range(count) for kind in kinds if kind != "source" or v == 0]
    canvas = (8 + Hp + 4, len(shown) * (Wp + gap) + gap)
    overlay = random_bytes(len(maps) // count, 10 + 2, canvas[1], 2)
    overlay[:, :, ::3, 1] = 0  # much of a text layer is empty
    return Scene(
        maps=torch.cat(maps) if maps else torch.empty(0, dtype=dtype),
        offsets=[sum(h * w for h, w in sizes[:n]) for n in range(len(sizes))],
        sizes=list(sizes),
        ranges=ranges.to(dtype).view(-1, count, 2),
        global_ranges=torch.tensor([[-2.0 - v, 3.0 + v] for v in range(count)], dtype=dtype),
        source=random_bytes(Hp, Wp, 3),
        colours=random_bytes(256, 3) if dtype == torch.float64 else RAMP,
        panels=[(kind, v, 8, gap + i * (Wp + gap)) for i, (kind, v) in enumerate(shown)],
        canvas=canvas,
        overlay=overlay if text else None,
        strips=((0, 10), (8 + Hp + 2, 2)) if text else (),
        **options,
    )


def assert_within(actual, expected, levels):
    assert actual.dtype == expected.dtype == torch.uint8
    assert actual.shape == expected.shape
    worst = max((actual.int() - expected.int()).abs().flatten().tolist(), default=0)
    assert worst <= levels, f"off by {worst}"


def as_nv12(frames, canvas):
    """Frames of i420 with their chroma laid out as in nv12."""
    luma, chroma = frames.split([canvas[0] * canvas[1], canvas[0] * canvas[1] // 2], 1)
    return torch.cat([luma, chroma.unflatten(1, (2, -1)).transpose(1, 2).flatten(1)], 1)


def has_tie(scene):
    """Whether a pixel lies in the middle between two colours, as half of a map's maximum does."""
    count, panel = len(scene.global_ranges), scene.source.shape[:2]
    for i, (offset, (h, w)) in enumerate(zip(scene.offsets, scene.sizes, strict=True)):
        map_ = scene.maps[offset : offset + h * w].view(h, w)
        for limits in (scene.ranges[i // count, i % count], scene.global_ranges[i % count]):
            levels = reference.map_levels(map_, limits, panel, relu=scene.relu)
            if ((levels.frac() - 0.5).abs() < 1e-9).any():
                return True
    return False


FORMATS = ["rgb24", "i420", "nv12"]
SIZES = [(1, 1), (1, 7), (9, 1), (13, 17), (112, 112)]
PANELS = [(2, 2), (4, 10), (48, 64), (300, 448)]


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("panel", PANELS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_frames_equal_the_reference(size, panel, pixel_format):
    scene = make_scene((size, (3, 5)), panel, pixel_format=pixel_format)
    assert_within(scene.native(), scene.expected(), 1)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("relu", [True, False])
def test_rgb24_without_text_is_exact(relu, count):
    sizes = ((13, 17), (1, 1), (7, 9), (2, 30), (40, 3), (5, 5))
    scene = make_scene(sizes, (31, 45), text=False, relu=relu, gap=3, count=count)
    assert torch.equal(scene.native(), scene.expected())


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_several_maps_a_frame_equal_the_reference(dtype, count, pixel_format):
    sizes = ((13, 17), (1, 1), (7, 9), (112, 112), (9, 1), (14, 14))
    for panel in ((48, 64), (150, 90)):  # the second is more than one band of rows
        scene = make_scene(sizes, panel, dtype=dtype, count=count, pixel_format=pixel_format)
        assert_within(scene.native(), scene.expected(), 1 if dtype == torch.float64 else 2)


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_each_of_several_maps_is_drawn_as_if_alone(pixel_format):
    sizes = ((13, 17), (1, 1), (7, 9), (20, 3), (2, 2), (56, 56))
    scene = make_scene(sizes, (48, 64), text=False, count=3, pixel_format=pixel_format)
    for v in range(3):
        panels = [panel for panel in scene.panels if panel[1] == v]
        alone = replace(
            scene,
            offsets=scene.offsets[v::3],
            sizes=scene.sizes[v::3],
            ranges=scene.ranges[:, v : v + 1],
            global_ranges=scene.global_ranges[v : v + 1],
            panels=[(kind, 0, top, left) for kind, _, top, left in panels],
        )
        assert torch.equal(alone.native(), replace(scene, panels=panels).native())


def test_maps_that_no_panel_shows_change_nothing():
    scene = make_scene(((13, 17), (1, 1), (7, 9), (20, 3)), kinds=("layer", "global"), count=2)
    panels = [panel for panel in scene.panels if panel[1] == 1]
    maps = scene.maps.clone()
    maps[: 13 * 17] = float("nan")
    hidden = replace(scene, panels=panels)
    assert torch.equal(hidden.native(), replace(hidden, maps=maps).native())
    assert_within(hidden.native(), hidden.expected(), 1)


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_later_maps_cover_earlier_ones_and_any_map_the_source(pixel_format):
    scene = make_scene(((13, 17), (4, 4), (7, 9), (20, 3)), count=2, pixel_format=pixel_format)
    panels = [("layer", 1, 8, 30), ("layer", 0, 10, 4), ("global", 0, 12, 50), ("source", 0, 8, 20)]
    scene = replace(scene, panels=panels)
    assert_within(scene.native(), scene.expected(), 1)
    shown = scene.native()
    covered = replace(scene, panels=[*panels[1:], panels[0]])
    assert torch.equal(covered.native(), shown)
    assert not torch.equal(replace(scene, panels=panels[1:]).native(), shown)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=2, max_size=2),
    half_panel=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    blend=st.floats(0, 1),
    background=st.integers(0, 255),
    text=st.booleans(),
    count=st.integers(1, 2),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**31),
)
def test_nv12_is_i420_laid_out_otherwise(sizes, half_panel, **options):
    panel = (2 * half_panel[0], 2 * half_panel[1])
    i420 = make_scene(tuple(sizes), panel, pixel_format="i420", **options)
    nv12 = replace(i420, pixel_format="nv12").native()
    assert torch.equal(nv12, as_nv12(i420.native(), i420.canvas))


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("kinds", [(), ("source",), ("layer",), ("global",), ("global", "layer")])
def test_any_panels_in_any_order(kinds, relu, pixel_format):
    for dtype in (torch.float32, torch.float64):
        scene = make_scene(kinds=kinds, dtype=dtype, relu=relu, pixel_format=pixel_format, gap=16)
        assert_within(scene.native(), scene.expected(), 1 if dtype == torch.float64 else 2)


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_panels_at_different_heights(pixel_format):
    sizes = ((13, 17), (1, 1), (7, 9), (20, 3))
    scene = replace(
        make_scene(sizes, kinds=("layer",) * 3, count=2, pixel_format=pixel_format),
        canvas=(190, 208),
        panels=[
            ("layer", 1, 2, 0),
            ("global", 0, 30, 70),
            ("layer", 0, 30, 140),
            ("layer", 0, 140, 0),
            ("global", 1, 142, 70),
            ("source", 0, 100, 140),
        ],
        overlay=None,
        strips=(),
    )
    assert_within(scene.native(), scene.expected(), 1)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=6),
    count=st.integers(1, 3),
    half_panel=st.tuples(st.integers(1, 35), st.integers(1, 35)),
    blend=st.floats(0, 1),
    background=st.integers(0, 255),
    relu=st.booleans(),
    text=st.booleans(),
    pixel_format=st.sampled_from(FORMATS),
    seed=st.integers(0, 2**31),
)
def test_any_shape(sizes, half_panel, count, **options):
    panel = (2 * half_panel[0], 2 * half_panel[1])
    whole_frames = tuple(sizes[: len(sizes) // count * count])
    scene = make_scene(whole_frames, panel, count=count, **options)
    assume(not has_tie(scene))
    assert_within(scene.native(), scene.expected(), 1)


@pytest.mark.parametrize("size", [(2, 1), (5, 3), (40, 30), (200, 150)], ids=str)
def test_upsampling_is_that_of_torch(size):
    scene = make_scene((size,), (60, 44), ("layer",), torch.float32, text=False, gap=0, blend=1.0)
    scene = replace(scene, canvas=(60, 44), panels=[("layer", 0, 0, 0)], relu=False)
    map_ = scene.maps.view(1, 1, *size).double()
    low, high = scene.ranges[0, 0].double()
    up = F.interpolate(map_, (60, 44), mode="bilinear", align_corners=False)[0, 0]
    grey = ((up - low) / (high - low)).nan_to_num(0.0) * 255
    actual = scene.native().view(60, 44, 3)[..., 0].double()
    assert (actual - grey).abs().max() <= 0.5 + 1e-3


def test_global_panel_uses_the_global_range():
    scene = make_scene(((1, 1),), (2, 2), ("global",), text=False, gap=0, blend=1.0)
    scene = replace(
        scene,
        maps=torch.tensor([0.5], dtype=torch.float64),
        global_ranges=torch.tensor([[-1.0, 2.0]], dtype=torch.float64),
        colours=RAMP,
        canvas=(2, 2),
        panels=[("global", 0, 0, 0)],
    )
    assert scene.native().unique().tolist() == [64]  # 0.5 / 2, negative evidence cut
    assert replace(scene, relu=False).native().unique().tolist() == [128]  # 1.5 / 3


@pytest.mark.parametrize(
    ("rgb", "yuv"),
    [
        ((0, 0, 0), (16, 128, 128)),
        ((255, 255, 255), (235, 128, 128)),
        ((0, 170, 0), (120.42, 70.44, 60.18)),
        ((255, 0, 0), (62.56, 102.34, 240)),
        ((0, 0, 255), (31.81, 240, 117.73)),
    ],
    ids=["black", "white", "green 170", "red", "blue"],
)
def test_known_colours_in_bt709(rgb, yuv):
    """Worked out by hand; the photograph, the map and both blended."""
    colour = torch.tensor(rgb, dtype=torch.uint8)
    for blend in (0.0, 0.3, 0.5, 1.0):
        scene = make_scene(((3, 4),), (4, 6), text=False, gap=0, blend=blend, pixel_format="i420")
        scene = replace(scene, source=colour.repeat(4, 6, 1), colours=colour.repeat(256, 1))
        scene = replace(scene, canvas=(4, 18), panels=[(k, 0, 0, x) for k, *_, x in scene.panels])
        luma, u, v = scene.native()[0].split([72, 18, 18])
        for plane, level in zip((luma, u, v), yuv, strict=True):
            assert (plane - level).abs().max() <= 0.5 + 1 / 8, blend


@pytest.mark.parametrize(("pixel_format", "ffmpegs_name"), [("i420", "yuv420p"), ("nv12", "nv12")])
def test_yuv_agrees_with_ffmpeg(pixel_format, ffmpegs_name):
    """The photograph alone, converted by swscale with accurate rounding."""
    picture = np.asarray(Image.effect_mandelbrot((64, 48), (-2, -1.5, 1, 1.5), 40).convert("RGB"))
    ramp = np.arange(64, dtype=np.uint8) * 4
    picture = np.stack([picture[..., 0], picture[..., 1] // 2, np.tile(ramp, (48, 1))], -1)
    scene = make_scene(((1, 1),), (48, 64), ("source",), text=False, pixel_format=pixel_format)
    scene = replace(scene, source=torch.from_numpy(picture), canvas=(48, 64))
    scene = replace(scene, panels=[("source", 0, 0, 0)])
    scale = "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int+area"
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-s",
        "64x48",
    ]
    command += ["-i", "-", "-vf", f"{scale},format={ffmpegs_name}", "-f", "rawvideo", "-"]
    converted = subprocess.run(command, input=picture.tobytes(), capture_output=True, check=True)
    expected = torch.frombuffer(bytearray(converted.stdout), dtype=torch.uint8)[None]
    assert_within(scene.native(), expected, 2)  # swscale rounds its intermediates


def test_opaque_text_covers_and_clear_text_leaves():
    scene = make_scene(((3, 3),), kinds=("layer",), pixel_format="i420")
    plain = replace(scene, overlay=None, strips=()).native()
    clear = scene.overlay.clone()
    clear[..., 1] = 0
    assert torch.equal(replace(scene, overlay=clear).native(), plain)
    opaque = torch.full_like(scene.overlay, 255)
    luma = replace(scene, overlay=opaque).native()[0, : scene.canvas[0] * scene.canvas[1]]
    luma = luma.view(scene.canvas)
    assert (luma[:10] == 235).all()
    assert (luma[-2:] == 235).all()


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_and_empty_ranges_are_level_zero(dtype, pixel_format):
    for low, high in ((0.5, 0.5), (2.0, 1.0), (-3.0, -1.0), (float("nan"), 1.0)):
        scene = make_scene(((4, 5),), kinds=("layer",), dtype=dtype, pixel_format=pixel_format)
        scene = replace(scene, ranges=torch.tensor([[[low, high]]], dtype=dtype))
        zero = replace(scene, maps=torch.zeros(20, dtype=dtype), ranges=scene.ranges.clone())
        zero.ranges[:] = torch.tensor([0.0, 1.0])
        assert torch.equal(scene.native(), zero.native())


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nonfinite_values_stay_in_their_place(dtype, value, relu):
    """NaN, also inf - inf next to an infinity, is level 0; far pixels and frames do not change."""
    scene = make_scene(((9, 9), (9, 9)), (36, 36), ("layer", "global"), dtype, relu=relu)
    broken = scene.maps.clone()
    broken[0] = value
    actual = replace(scene, maps=broken)
    assert_within(actual.native(), actual.expected(), 2)
    clean = scene.native()
    assert torch.equal(actual.native()[1], clean[1])
    rows = slice(8 + 8, 8 + 36)  # beyond the reach of the corner
    view = (2, *scene.canvas, 3)
    assert torch.equal(actual.native().view(view)[0, rows], clean.view(view)[0, rows])


def test_nan_is_level_zero():
    scene = make_scene(((4, 4),), (16, 16), ("layer",), text=False, blend=1.0)
    nan = replace(scene, maps=torch.full_like(scene.maps, float("nan")), colours=RAMP)
    zero = replace(nan, maps=torch.full_like(scene.maps, -1e30))
    assert torch.equal(nan.native(), zero.native())


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e30, 3e38])
@pytest.mark.parametrize("relu", [True, False])
def test_extreme_ranges(scale, relu):
    scene = make_scene(((5, 5),), dtype=torch.float32, relu=relu, text=False)
    maps = scene.maps / scene.maps.abs().max() * scale
    ranges = torch.stack(maps.aminmax())[None, None]
    scaled = replace(scene, maps=maps, ranges=ranges, global_ranges=ranges[0])
    if scale == 1e-42:  # 255 / range overflows f32: the same as an empty range
        maps = torch.zeros_like(maps)
        flat = replace(scaled, maps=maps, ranges=ranges * 0, global_ranges=ranges[0] * 0)
        assert torch.equal(scaled.native(), flat.native())
    elif scale == 3e38:  # high - low overflows f32: some pixels saturate
        assert scaled.native().shape == scaled.expected().shape
    else:
        assert_within(scaled.native(), scaled.expected(), 2)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_no_frames(pixel_format, count):
    scene = make_scene((), pixel_format=pixel_format, count=count)
    size = scene.canvas[0] * scene.canvas[1] * 3 // (1 if pixel_format == "rgb24" else 2)
    assert scene.native().shape == (0, size)


def test_maps_in_any_order_and_strided_small_inputs():
    scene = make_scene(((13, 17), (7, 9)))
    expected = scene.native()
    swapped = replace(
        scene,
        offsets=scene.offsets[::-1],
        sizes=scene.sizes[::-1],
        ranges=scene.ranges.flip(0),
        overlay=scene.overlay.flip(0),
    )
    assert torch.equal(swapped.native().flip(0), expected)
    strided = replace(
        scene,
        ranges=scene.ranges.mT.contiguous().mT,
        source=scene.source.permute(2, 0, 1).contiguous().permute(1, 2, 0),
        colours=scene.colours.T.contiguous().T,
        overlay=scene.overlay.transpose(1, 2).contiguous().transpose(1, 2),
    )
    assert torch.equal(strided.native(), expected)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_equal_bits_for_any_number_of_threads_and_any_chunk(pixel_format, count):
    sizes = ((13, 17), (112, 112), (7, 7), (1, 9), (20, 20), (3, 5))[: 3 * count]
    scene = make_scene(
        sizes, (150, 170), dtype=torch.float32, pixel_format=pixel_format, count=count
    )
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(scene.native())
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    for n in range(3):
        maps = slice(n * count, (n + 1) * count)
        one = replace(
            scene,
            offsets=scene.offsets[maps],
            sizes=scene.sizes[maps],
            ranges=scene.ranges[n : n + 1],
            overlay=scene.overlay[n : n + 1],
        )
        assert torch.equal(one.native()[0], results[0][n])


def check_this_isa():
    """Runs in a process of its own, whose CAMFUSE_ISA is set."""
    assert _C.build_info()["isa"] == os.environ["CAMFUSE_ISA"]
    for dtype, tolerance in ((torch.float32, 2), (torch.float64, 1)):
        for panel, count in (((2, 2), 1), ((48, 66), 3), ((130, 150), 1)):
            scene = make_scene(panel=panel, dtype=dtype, count=count)
            frames = {name: replace(scene, pixel_format=name).native() for name in FORMATS}
            for name in ("rgb24", "i420"):
                expected = replace(scene, pixel_format=name).expected()
                assert_within(frames[name], expected, tolerance)
            assert torch.equal(frames["nv12"], as_nv12(frames["i420"], scene.canvas))


@pytest.mark.parametrize("isa", str(_C.build_info()["isa_supported"]).split(","))
def test_every_instruction_set(isa):
    code = "import test_render_frames as t; t.check_this_isa()"
    environment = {**os.environ, "CAMFUSE_ISA": isa, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_opcheck(pixel_format, count, monkeypatch):
    scene = make_scene(dtype=torch.float32, pixel_format=pixel_format, count=count)
    calls = []
    op = torch.ops.camfuse.render_frames.default
    monkeypatch.setattr(ops, "_call", lambda _, *args: calls.append(args))
    scene.native()
    torch.library.opcheck(op, calls[0])


def test_refuses_to_be_differentiated():
    scene = make_scene()
    maps = scene.maps.clone().requires_grad_()
    with pytest.raises(RuntimeError, match="render_frames is not differentiable"):
        replace(scene, maps=maps).native()
    with torch.no_grad():
        assert torch.equal(replace(scene, maps=maps).native(), scene.native())


BIG = 2**62
NONE = torch.empty(0, dtype=torch.uint8)
INVALID = [
    ({"maps": torch.zeros(400)}, "ranges must have the dtype of maps"),
    ({"maps": torch.zeros(400, dtype=torch.float16)}, "maps must be float64 or float32|maps must"),
    ({"maps": torch.zeros(20, 20, dtype=torch.float64)}, "maps must be 1-D and contiguous"),
    ({"maps": torch.zeros(800, dtype=torch.float64)[::2]}, "maps must be 1-D and contiguous"),
    ({"offsets": [0, 221]}, "sizes must hold"),
    ({"offsets": [0, -1, 222]}, r"offsets\[1\]"),
    ({"offsets": [0, 221, BIG]}, r"offsets\[2\]"),
    ({"offsets": [0, 221, 223]}, r"offsets\[2\]: a map of \(7, 9\) at 223"),
    ({"sizes": [(13, 17), (1, 1), (7, 10)]}, r"offsets\[2\]: a map of \(7, 10\)"),
    ({"sizes": [(0, 17), (1, 1), (7, 9)]}, r"sizes\[0\]"),
    ({"sizes": [(13, 17), (1, -1), (7, 9)]}, r"sizes\[1\]"),
    ({"sizes": [(2**32, 2**32), (1, 1), (7, 9)]}, r"sizes\[0\]"),
    ({"sizes": [(32768, 32768), (1, 1), (7, 9)]}, r"offsets\[0\]"),
    ({"ranges": torch.zeros(2, 2, dtype=torch.float64)}, r"ranges .*expected \(3, 1, 2\), got"),
    ({"ranges": torch.zeros(3, 1, 2)}, "ranges must have the dtype of maps"),
    ({"global_ranges": torch.zeros(2, dtype=torch.float64)}, r"global_ranges .*got \(2,\)"),
    ({"global_ranges": torch.zeros(1, 3, dtype=torch.float64)}, r"global_ranges .*got \(1, 3\)"),
    ({"global_ranges": torch.zeros(0, 2, dtype=torch.float64)}, r"global_ranges .*got \(0, 2\)"),
    ({"global_ranges": torch.zeros(1, 2)}, "global_ranges must have the dtype of maps"),
    ({"global_ranges": torch.zeros(2, 2, dtype=torch.float64)}, "offsets must hold 2 for each"),
    ({"global_ranges": torch.zeros(3, 2, dtype=torch.float64)}, r"ranges .*expected \(1, 3, 2\)"),
    ({"source": torch.zeros(48, 64, 3)}, "source must be uint8"),
    ({"source": torch.zeros(48, 64, 4, dtype=torch.uint8)}, "source must have the shape"),
    ({"source": torch.zeros(0, 64, 3, dtype=torch.uint8)}, "source must not be empty"),
    ({"colours": torch.zeros(255, 3, dtype=torch.uint8)}, r"colours .*got \(255, 3\)"),
    ({"colours": torch.zeros(256, 3)}, "colours must be uint8"),
    ({"canvas": (60, BIG)}, "canvas: expected sides from 1 to 32768"),
    ({"canvas": (0, 0)}, "canvas: expected sides"),
    ({"canvas": (60, 208, 3)}, "canvas must be"),
    ({"panels": [("layer", 0, 14, 0)]}, r"panels\[0\]: 48 x 64 at \(14, 0\)"),
    ({"panels": [("layer", 0, -2, 0)]}, r"panels\[0\]: 48 x 64 at \(-2, 0\)"),
    ({"panels": [("source", 0, 0, BIG)]}, r"panels\[0\]: 48 x 64 at"),
    ({"panels": [("layer", 0, 0, 0), ("layer", 1, 0, 0)]}, r"panels\[1\]: expected map 0 to 0"),
    ({"panels": [("global", -1, 0, 0)]}, r"panels\[0\]: expected map 0 to 0, got -1"),
    ({"panels": [("layer", BIG, 0, 0)]}, r"panels\[0\]: expected map 0 to 0"),
    ({"panels": [("source", 1, 0, 0)]}, r"panels\[0\]: expected map 0 for a source panel, got 1"),
    ({"panels": [("photo", 0, 0, 0)]}, "panels: expected one of source, layer, global, got"),
    ({"pixel_format": "yuv444"}, "pixel_format: expected one of rgb24, i420, nv12, got 'yuv444'"),
    ({"background": 256}, "background: expected 0 to 255, got 256"),
    ({"background": -1}, "background: expected 0 to 255, got -1"),
    ({"blend": 1.5}, "blend: expected 0 to 1, got 1.5"),
    ({"blend": float("nan")}, "blend: expected 0 to 1"),
    ({"overlay": None}, "strips need an overlay"),
    ({"overlay": NONE.new_zeros(3, 12, 206, 2)}, r"overlay .*got \(3, 12, 206, 2\)"),
    ({"overlay": NONE.new_zeros(2, 12, 208, 2)}, r"overlay .*got \(2, 12, 208, 2\)"),
    ({"overlay": torch.zeros(3, 12, 208, 2)}, "overlay must be uint8"),
    ({"strips": [(0, 8)]}, r"overlay .*expected \(3, 8, 208, 2\)"),
    ({"strips": [(0, 8), (6, 2)]}, r"strips\[1\] overlaps another at row 6"),
    ({"strips": [(0, 8), (60, 2)]}, r"strips\[1\]: 2 rows at 60"),
    ({"strips": [(0, 8), (BIG, BIG)]}, r"strips\[1\]"),
    ({"strips": [(0, 8), (0, -2)]}, r"strips\[1\]"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), INVALID, ids=[next(iter(c)) for c, _ in INVALID])
def test_bad_arguments_are_named(change, message):
    scene = replace(make_scene(pixel_format="i420"), **change)
    with pytest.raises(ValueError, match=message):
        scene.native()


@pytest.mark.parametrize("name", ["ranges", "global_ranges", "source", "colours", "overlay"])
def test_a_tensor_on_another_device_is_named(name):
    scene = make_scene()
    scene = replace(scene, **{name: getattr(scene, name).to("meta")})
    message = f"{name} must be on the device of maps: expected cpu, got meta"
    with pytest.raises(ValueError, match=message):
        scene.native()


@pytest.mark.parametrize("pixel_format", ["i420", "nv12"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"canvas": (61, 208)}, r"canvas must be even for {}, got \(61, 208\)"),
        ({"canvas": (60, 207)}, r"canvas must be even for {}, got \(60, 207\)"),
        ({"source": NONE.new_zeros(47, 64, 3)}, r"source must be even for {}, got \(47, 64, 3\)"),
        ({"source": NONE.new_zeros(48, 63, 3)}, r"source must be even for {}, got \(48, 63, 3\)"),
        (
            {"panels": [("layer", 0, 0, 0), ("layer", 0, 1, 2)]},
            r"panels\[1\] must be at an even position for {}, got \(1, 2\)",
        ),
        ({"panels": [("source", 0, 2, 1)]}, r"panels\[0\] must be at an even position for {}"),
        ({"strips": [(0, 7), (8, 3)]}, r"strips\[0\] must be even for {}, got \(0, 7\)"),
    ],
)
def test_odd_numbers_are_refused_where_chroma_is_halved(change, message, pixel_format):
    scene = replace(make_scene(pixel_format=pixel_format), **change)
    with pytest.raises(ValueError, match=message.format(pixel_format)):
        scene.native()


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (7, [3, 0, 0, 0], r"panels\[0\]: expected kind"),
        (7, [0, 0, 0], "panels must be quadruples"),
        (8, [60], "canvas must be"),
        (13, [0], "strips must be pairs"),
        (14, 3, "pixel_layout: expected"),
        (14, -1, "pixel_layout: expected"),
    ],
)
def test_bad_codes_of_the_raw_op(position, value, message, monkeypatch):
    calls = []
    with monkeypatch.context() as patch:
        patch.setattr(ops, "_call", lambda _, *args: calls.append(list(args)))
        make_scene().native()
    calls[0][position] = value
    with pytest.raises((ValueError, RuntimeError), match=message):
        torch.ops.camfuse.render_frames.default(*calls[0])
