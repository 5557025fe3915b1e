"""Every format: what players are told, colours that come back, chapters, limits, encoders."""

from __future__ import annotations

import subprocess
from fractions import Fraction

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from camfuse.formats import CODECS, FORMATS
from videos import (
    HEIGHT,
    I420_BYTES,
    RGB_BYTES,
    WIDTH,
    noise,
    wait_for,
    writer,
)

ALL = [(ending, codec) for ending, container in FORMATS.items() for codec in container.codecs]
YUV = [(ending, codec) for ending, codec in ALL if CODECS[codec].stores != "rgb"]
WITH_CHAPTERS = [ending for ending, container in FORMATS.items() if container.chapters]
BYTES = {"i420": I420_BYTES, "nv12": I420_BYTES, "rgb24": RGB_BYTES}
PROFILES = {"h264": "High", "vp9": "Profile 0", "av1": "Main"}


# What players are told


@pytest.mark.parametrize("pixel_format", BYTES)
@pytest.mark.parametrize(("ending", "codec"), YUV)
def test_ffprobe_sees_what_is_promised(tmp_path, ffmpeg, ffprobe, ending, codec, pixel_format):
    path = tmp_path / f"out{ending}"
    fps = Fraction(24000, 1001)
    with writer(path, codec=codec, pixel_format=pixel_format, fps=fps, ffmpeg=ffmpeg) as out:
        out.write(noise(5, BYTES[pixel_format]))
    stream = ffprobe(path)
    assert stream["codec_name"] == codec
    assert stream.get("profile") == PROFILES.get(codec, stream.get("profile"))
    assert (stream["width"], stream["height"]) == (WIDTH, HEIGHT)
    assert stream["r_frame_rate"] == "24000/1001"
    assert int(stream["nb_read_frames"]) == 5
    if (codec, pixel_format) == ("ffv1", "rgb24"):
        assert stream["pix_fmt"] == "bgr0"
        return
    assert stream["pix_fmt"] == "yuv420p"
    assert stream["color_range"] == "tv"
    for tag in ("color_space", "color_primaries", "color_transfer"):
        assert stream[tag] == "bt709"


@pytest.mark.parametrize("effort", ["fast", "small"])
@pytest.mark.parametrize(("ending", "codec"), ALL)
def test_both_efforts_write_every_frame(tmp_path, ffmpeg, ffprobe, ending, codec, effort):
    path = tmp_path / f"out{ending}"
    with writer(path, codec=codec, effort=effort, ffmpeg=ffmpeg) as out:
        out.write(noise(4, I420_BYTES))
    if CODECS[codec].stores == "rgb":
        assert Image.open(path).n_frames == 4
    else:
        assert int(ffprobe(path)["nb_read_frames"]) == 4


@pytest.mark.parametrize(
    ("ending", "codec"), [(".mp4", "h264"), (".webm", "vp9"), (".mkv", "ffv1")]
)
def test_small_is_smaller(tmp_path, ending, codec):
    """Of a gradient that moves, as between the frames of a real video."""
    row = np.arange(256, dtype=np.uint8)
    frames = np.stack([np.add.outer(row, row // 2 + 3 * i).astype(np.uint8) for i in range(8)])
    chroma = np.full((8, 256 * 128), 128, np.uint8)
    frames = np.concatenate([frames.reshape(8, -1), chroma], axis=1)
    sizes = {}
    for effort in ("fast", "small"):
        path = tmp_path / f"{effort}{ending}"
        with writer(path, width=256, height=256, codec=codec, effort=effort) as out:
            out.write(frames)
        sizes[effort] = out.bytes_written
    assert sizes["small"] < sizes["fast"]


@pytest.mark.parametrize(
    ("fps", "gif", "webp"),
    [
        (5, [200] * 7, [200] * 7),
        (50, [20] * 7, [20] * 7),
        (30, [30, 40, 30, 30, 40, 30, 30], [33, 34, 33, 33, 34, 33, 33]),
        (Fraction(1, 3), [3000] * 7, [3000] * 7),
    ],
)
@pytest.mark.parametrize("ending", [".gif", ".webp"])
def test_gif_and_webp_loop_and_keep_time(tmp_path, ffmpeg, ending, fps, gif, webp):
    path = tmp_path / f"out{ending}"
    with writer(path, pixel_format="rgb24", fps=fps, ffmpeg=ffmpeg) as out:
        out.write(noise(7, RGB_BYTES))
    with Image.open(path) as image:
        assert image.size == (WIDTH, HEIGHT)
        assert image.n_frames == 7
        assert image.info["loop"] == 0
        durations = []
        for i in range(7):
            image.seek(i)
            image.load()
            durations.append(image.info["duration"])
    expected = gif if ending == ".gif" else webp
    assert sum(durations[:-1]) == pytest.approx(sum(expected[:-1]), abs=10)
    assert sorted(durations) == sorted(expected)


@pytest.mark.parametrize("ending", [".gif", ".webp"])
def test_equal_frames_of_gif_and_webp_keep_their_time(tmp_path, ffmpeg, ending):
    path = tmp_path / f"out{ending}"
    frames = np.repeat(noise(2, RGB_BYTES), 3, axis=0)
    with writer(path, pixel_format="rgb24", fps=10, ffmpeg=ffmpeg) as out:
        out.write(frames)
    with Image.open(path) as image:
        total = 0
        for i in range(image.n_frames):
            image.seek(i)
            image.load()
            total += image.info["duration"]
    assert total == 600


@pytest.mark.parametrize("ending", [".gif", ".webp"])
def test_gif_and_webp_are_written_as_they_come(tmp_path, ending):
    with writer(tmp_path / f"out{ending}", pixel_format="rgb24") as out:
        out.write(noise(60, RGB_BYTES))
        [unfinished] = tmp_path.iterdir()
        wait_for(lambda: unfinished.stat().st_size > 10 * RGB_BYTES / 4)


# Colours


def chart_colours():
    """The eight corners of the cube and 27 colours between them."""
    levels = [40, 128, 215]
    corners = np.stack(np.meshgrid([0, 255], [0, 255], [0, 255]), -1).reshape(-1, 3)
    between = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3)
    return np.concatenate([corners, between])  # [35, 3]


def to_bt709(rgb):
    """ITU-R BT.709-6, 8 bits, limited range: the standard's own equations. [..., 3] float"""
    r, g, b = np.moveaxis(rgb / 255, -1, 0)
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    cb, cr = (b - y) / 1.8556, (r - y) / 1.5748
    return np.stack([16 + 219 * y, 128 + 224 * cb, 128 + 224 * cr], -1)


def from_bt709(yuv):
    y, cb, cr = np.moveaxis((yuv - [16, 128, 128]) / [219, 224, 224], -1, 0)
    r, b = y + 1.5748 * cr, y + 1.8556 * cb
    g = (y - 0.2126 * r - 0.0722 * b) / 0.7152
    return np.clip(255 * np.stack([r, g, b], -1), 0, 255)


SIDE, COLUMNS = 32, 7


def chart(pixel_format):
    colours = chart_colours().reshape(-1, COLUMNS, 3)
    rgb = colours.repeat(SIDE, 0).repeat(SIDE, 1).astype(np.uint8)  # [H, W, 3]
    if pixel_format == "rgb24":
        return rgb
    y, u, v = np.moveaxis(np.rint(to_bt709(rgb.astype(float))).astype(np.uint8), -1, 0)
    u, v = u[::2, ::2], v[::2, ::2]
    if pixel_format == "i420":
        return np.concatenate([y.ravel(), u.ravel(), v.ravel()])
    return np.concatenate([y.ravel(), np.stack([u, v], -1).ravel()])


def first_frame(path):
    if path.suffix in (".gif", ".webp"):
        return np.asarray(Image.open(path).convert("RGB"))
    probe = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-frames:v", "1"]
    if path.stem != "rgb":
        probe += ["-vf", "scale=in_color_matrix=bt709:in_range=tv:flags=accurate_rnd,format=gbrp"]
    raw = subprocess.run(
        [*probe, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True
    ).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, COLUMNS * SIDE, 3)


@pytest.mark.parametrize("effort", ["fast", "small"])
@pytest.mark.parametrize("pixel_format", ["rgb24", "i420", "nv12"])
@pytest.mark.parametrize(("ending", "codec"), ALL)
def test_a_chart_comes_back_in_its_colours(tmp_path, ffmpeg, ending, codec, pixel_format, effort):
    lossless = (codec, pixel_format) == ("ffv1", "rgb24")
    path = tmp_path / f"{'rgb' if lossless else 'chart'}{ending}"
    size = {"width": COLUMNS * SIDE, "height": len(chart_colours()) // COLUMNS * SIDE}
    options = {"codec": codec, "pixel_format": pixel_format, "effort": effort, "ffmpeg": ffmpeg}
    with writer(path, **size, **options) as out:
        for _ in range(2):
            out.write(chart(pixel_format))
    seen = first_frame(path)[SIDE // 2 :: SIDE, SIDE // 2 :: SIDE].reshape(-1, 3).astype(float)
    colours = chart_colours().astype(float)
    in_rgb_throughout = CODECS[codec].stores != "yuv" and pixel_format == "rgb24"
    rounded = colours if in_rgb_throughout else from_bt709(np.rint(to_bt709(colours)))
    np.testing.assert_allclose(seen, rounded, atol=0 if lossless else 2)
    np.testing.assert_allclose(seen, colours, atol=3)
