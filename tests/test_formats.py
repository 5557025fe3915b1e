"""Every format: what players are told, colours that come back, chapters, limits, encoders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from fractions import Fraction

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from camfuse import ffmpeg_probe
from camfuse.formats import CODECS, FORMATS, preferred_pixel_format
from camfuse.video import VideoError
from videos import (
    HEIGHT,
    I420_BYTES,
    RGB_BYTES,
    WIDTH,
    assert_nothing_left,
    noise,
    wait_for,
    writer,
)

EACH_CODEC = {codec: ending for ending, container in FORMATS.items() for codec in container.codecs}
ALL = [(ending, codec) for ending, container in FORMATS.items() for codec in container.codecs]
YUV = [(ending, codec) for ending, codec in ALL if CODECS[codec].stores != "rgb"]
WITH_CHAPTERS = [ending for ending, container in FORMATS.items() if container.chapters]
BYTES = {"i420": I420_BYTES, "nv12": I420_BYTES, "rgb24": RGB_BYTES}
PROFILES = {"h264": "High", "vp9": "Profile 0", "av1": "Main"}


# What players are told


@pytest.mark.parametrize(
    ("ending", "codec", "pixel_format"),
    [(*format_, "i420") for format_ in YUV]
    + [
        (EACH_CODEC[codec], codec, other)
        for codec in CODECS
        if CODECS[codec].stores != "rgb"
        for other in ("nv12", "rgb24")
    ],
)
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


@pytest.mark.parametrize(("codec", "ending"), EACH_CODEC.items())
def test_the_small_effort_writes_every_frame_too(tmp_path, ffmpeg, ffprobe, codec, ending):
    path = tmp_path / f"out{ending}"
    with writer(path, codec=codec, effort="small", ffmpeg=ffmpeg) as out:
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
        out.write(noise(120, RGB_BYTES))  # more than what ffmpeg gathers for one write
        [unfinished] = tmp_path.iterdir()
        wait_for(lambda: unfinished.stat().st_size)


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


SIDE, COLUMNS = 64, 7


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


@pytest.mark.parametrize("pixel_format", BYTES)
@pytest.mark.parametrize(("codec", "ending"), EACH_CODEC.items())
def test_a_chart_comes_back_in_its_colours(tmp_path, ffmpeg, codec, ending, pixel_format):
    lossless = (codec, pixel_format) == ("ffv1", "rgb24")
    path = tmp_path / f"{'rgb' if lossless else 'chart'}{ending}"
    size = {"width": COLUMNS * SIDE, "height": len(chart_colours()) // COLUMNS * SIDE}
    with writer(path, **size, codec=codec, pixel_format=pixel_format, ffmpeg=ffmpeg) as out:
        for _ in range(2):
            out.write(chart(pixel_format))
    seen = first_frame(path)[SIDE // 2 :: SIDE, SIDE // 2 :: SIDE].reshape(-1, 3).astype(float)
    colours = chart_colours().astype(float)
    stores = CODECS[codec].stores
    in_rgb_throughout = stores != "yuv" and pixel_format == "rgb24"
    rounded = colours if in_rgb_throughout else from_bt709(np.rint(to_bt709(colours)))
    within = 2
    if codec == "av1":
        within = 3  # one of U, by which it misses at any quality, is 2.1 of blue
    elif stores == "rgb" and pixel_format != "rgb24":
        # WebP rounds once more; a GIF's palette has to serve the blurred edges of the chroma too.
        within = 3 if codec == "webp" else 12
    np.testing.assert_allclose(seen, rounded, atol=0 if lossless else within)
    np.testing.assert_allclose(seen, colours, atol=within + 1)


# Chapters

TITLES = [
    "12 layer4.2.conv3 (Conv2d, 2048 x 7 x 7)",
    "a=b;c#d\\e=#;",
    "'single' \"double\"",
    "слой 猫 ναί 😀",
    "-leading dash",
    "",
    "  spaces  ",
    "ends in a backslash\\",
    "[CHAPTER]",
    ";FFMETADATA1",
    "title=\\\\",
    "x" * 1000,
]


def chapters_of(path):
    """Titles, starts and ends in seconds, as ffprobe sees them."""
    if (executable := shutil.which("ffprobe")) is None:
        if os.environ.get("CAMFUSE_REQUIRE_FFPROBE") == "1":
            pytest.fail("ffprobe is required by CAMFUSE_REQUIRE_FFPROBE=1 and is not on PATH")
        pytest.skip("no ffprobe on PATH")
    command = [executable, "-v", "error", "-show_chapters", "-of", "json", path]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["chapters"]
    times = [
        [chapter[edge] * Fraction(chapter["time_base"]) for chapter in found]
        for edge in ("start", "end")
    ]
    return [chapter["tags"]["title"] for chapter in found], *times


@pytest.mark.parametrize(
    ("count", "fps"),
    [(count, fps) for count in (1, 3) for fps in (5, Fraction(24000, 1001), 1000)]
    + [(2000, Fraction(24000, 1001))]
    + [pytest.param(2000, fps, marks=pytest.mark.slow) for fps in (5, 1000)],
)
@pytest.mark.parametrize("ending", WITH_CHAPTERS)
def test_every_frame_is_a_chapter_of_exactly_its_time(tmp_path, ending, count, fps):
    path = tmp_path / f"out{ending}"
    given = [f"{TITLES[i % len(TITLES)]}" for i in range(count)]
    size = {"width": 16, "height": 16}
    with writer(path, **size, fps=fps, chapters=given) as out:
        out.write(np.zeros((count, 16 * 16 * 3 // 2), np.uint8))
    titles, starts, ends = chapters_of(path)
    assert titles == given
    # Matroska counts nanoseconds.
    rounding = 0 if ending == ".mp4" else Fraction(1, 2 * 10**9)
    for i in range(count):
        assert abs(starts[i] - i / Fraction(fps)) <= rounding
        assert abs(ends[i] - (i + 1) / Fraction(fps)) <= rounding
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", WITH_CHAPTERS)
def test_any_title_comes_back(tmp_path, ffmpeg, ending):
    with writer(tmp_path / f"out{ending}", chapters=TITLES, ffmpeg=ffmpeg) as out:
        out.write(noise(len(TITLES), I420_BYTES))
    assert chapters_of(tmp_path / f"out{ending}")[0] == TITLES


def test_mp4_has_no_second_list_of_chapters_that_could_only_hold_some(tmp_path):
    with writer(tmp_path / "out.mp4", chapters=["a", "b"]) as out:
        out.write(noise(2, I420_BYTES))
    assert b"chpl" not in (tmp_path / "out.mp4").read_bytes()


def test_a_title_is_one_line(tmp_path):
    path = tmp_path / "out.mp4"
    with writer(path, chapters=["a\nb", "\r\nc\r", "d\te\0f\x1b", "g\u2028h\x85"]) as out:
        out.write(noise(4, I420_BYTES))
    assert chapters_of(path)[0] == ["a b", " c ", "d e f ", "g h "]


@pytest.mark.parametrize("frames", [2, 4])
def test_as_many_chapters_as_frames_are_needed(tmp_path, frames):
    out = writer(tmp_path / "out.mp4", chapters=["a", "b", "c"])
    out.write(noise(frames, I420_BYTES))
    with pytest.raises(VideoError, match=f"3 titles, but {frames} frames .*out.mp4"):
        out.close()
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("name", "chapters", "message"),
    [
        ("out.gif", ["a"], r"chapters need a file that ends in \.mp4, \.webm or \.mkv, got .*gif"),
        ("out.webp", ["a"], "chapters need a file"),
        ("out.mp4", "abc", "chapters must be a sequence of titles, got str"),
        ("out.mp4", 3, "chapters must be a sequence of titles, got int"),
        ("out.mp4", [], "a title for each frame, got none"),
        ("out.mp4", ["a", None], r"chapters\[1\] must be a string, got NoneType"),
        ("out.mp4", ["a", "\ud800"], r"chapters\[1\] is no valid text: surrogates"),
        ("out.mp4", ["é" * 32768], r"chapters\[0\] must take at most 65535 bytes, got 65536"),
    ],
)
def test_wrong_chapters_are_refused(tmp_path, name, chapters, message):
    pixel_format = "i420" if name == "out.mp4" else "rgb24"
    with pytest.raises(ValueError, match=message):
        writer(tmp_path / name, chapters=chapters, pixel_format=pixel_format)
    assert_nothing_left(tmp_path)


# What is refused


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("out.mp4", {"codec": "vp9"}, r"codec must be h264 or av1 for \.mp4, got 'vp9'"),
        ("out.gif", {"codec": "webp"}, r"codec must be gif for \.gif, got 'webp'"),
        ("out.mp4", {"crf": 0}, r"crf must be an integer in \[1, 51\] for h264, got 0"),
        ("out.mp4", {"crf": 52}, r"\[1, 51\] for h264, got 52"),
        ("out.mp4", {"crf": 20.5}, r"crf must be an integer .* got 20.5"),
        ("out.webm", {"crf": 64}, r"crf must be an integer in \[0, 63\] for vp9, got 64"),
        ("out.mkv", {"crf": 20}, "crf means nothing for ffv1, got 20"),
        ("out.gif", {"crf": 20}, "crf means nothing for gif, got 20"),
        ("out.webp", {"crf": 20}, "crf means nothing for webp, got 20"),
        ("out.mp4", {"effort": "slow"}, "effort must be fast or small, got 'slow'"),
        ("out.gif", {"fps": 51}, r"fps must lie in \[1/655, 50\] for gif \(.*hundredths.*got 51"),
        ("out.gif", {"fps": Fraction(1, 656)}, "fps must lie in .* got 1/656"),
        ("out.webp", {"width": 16384}, r"width must lie in \[16, 16383\] for libwebp, got 16384"),
        ("out.mp4", {"height": 16386}, r"height must lie in \[16, 16384\] for libx264, got 16386"),
        ("out.webm", {"width": 16386}, r"width .* for libvpx-vp9, got 16386"),
        ("out.gif", {"width": 65536}, "width .* for gif, got 65536"),
        ("out.webm", {"pixel_format": "rgb24", "width": 63}, "width must be even for yuv420p"),
        ("out.mkv", {"pixel_format": "nv12", "height": 47}, "height must be even for yuv420p"),
    ],
)
def test_what_a_format_cannot_do_is_refused_before_ffmpeg_starts(
    tmp_path, script, name, options, message
):
    ran = tmp_path / "ran"
    folder = tmp_path / "videos"
    folder.mkdir()
    with pytest.raises(ValueError, match=message):
        writer(folder / name, ffmpeg=script(f"touch {ran}; exit 1"), **options)
    assert_nothing_left(folder)
    assert not ran.exists()


def test_another_encoder_takes_what_the_preferred_one_cannot(tmp_path, ffprobe):
    """SVT-AV1 ends at 240 frames a second and wants sides of 64."""
    for name, options in (("fps.webm", {"fps": 480, "height": 64}), ("side.webm", {})):
        size = {"width": 64, "height": 48} | options
        with writer(tmp_path / name, codec="av1", **size) as out:
            out.write(noise(3, 64 * size["height"] * 3 // 2))
        assert int(ffprobe(tmp_path / name)["nb_read_frames"]) == 3


@pytest.mark.parametrize("ending", [".gif", ".webp", ".mkv"])
def test_sides_may_be_odd_where_colours_are_whole(tmp_path, ffmpeg, ending):
    frame = noise(1, 17 * 19 * 3).reshape(19, 17, 3)
    path = tmp_path / f"rgb{ending}"
    with writer(path, width=17, height=19, pixel_format="rgb24", ffmpeg=ffmpeg) as out:
        out.write(frame)
    if ending == ".mkv":
        return
    with Image.open(path) as image:
        assert image.size == (17, 19)


# Which encoder

# A stand-in that has what is asked for; $FFMPEG encodes, by x264, what is asked of NVENC.
LISTS = 'case "$*" in *-encoders) echo asked >>"$0.log"; printf " ------\\n {}"; exit;; esac'
NVENC = """
case "$*" in *h264_nvenc*) echo "$*" >>"$0.log"; {};; esac
exec "$FFMPEG" "$@"
"""
BY_X264 = """
for a; do
  shift
  case "$a" in
    h264_nvenc) a=libx264;; p1) a=ultrafast;; -rc|vbr|-b:v|0) continue;; -cq) a=-crf;;
  esac
  set -- "$@" "$a"
done
exec "$FFMPEG" "$@"
"""


@pytest.fixture
def nvidia(tmp_path, monkeypatch):
    """As if there were an NVIDIA driver."""
    monkeypatch.setattr(ffmpeg_probe, "_NVIDIA_DEVICE", tmp_path)


@pytest.fixture
def stand_in(tmp_path_factory):
    def make(encoders, body):
        path = tmp_path_factory.mktemp("bin") / "ffmpeg"
        listing = LISTS.format("\\n ".join(f"V..... {name} words" for name in encoders))
        real = imageio_ffmpeg.get_ffmpeg_exe()
        path.write_text(f"#!/bin/sh\nFFMPEG='{real}'\n{listing}\n{body}\n")
        path.chmod(0o755)
        return path

    return make


def asked(stand_in):
    return stand_in.with_name("ffmpeg.log").read_text().splitlines()


def test_nvenc_is_used_where_it_opens(tmp_path, ffprobe, nvidia, stand_in):
    able = stand_in(["h264_nvenc", "libx264"], NVENC.format(BY_X264.strip()))
    path = tmp_path / "out.mp4"
    assert preferred_pixel_format(path, ffmpeg=able) == "nv12"
    size = {"width": 256, "height": 192}
    for _ in range(2):
        with writer(path, **size, pixel_format="nv12", ffmpeg=able, crf=23) as out:
            out.write(noise(2, 256 * 192 * 3 // 2))
    assert int(ffprobe(path)["nb_read_frames"]) == 2
    listing, probe, *encoded = asked(able)
    assert listing == "asked"
    assert "-f null" in probe
    assert len(encoded) == 2
    for command in encoded:
        for words in ("-pixel_format nv12", "-pix_fmt nv12", "-cq 23", "-profile high"):
            assert words in command


def test_what_is_too_small_for_nvenc_goes_to_x264(tmp_path, nvidia, stand_in):
    able = stand_in(["h264_nvenc", "libx264"], NVENC.format(BY_X264.strip()))
    with writer(tmp_path / "out.mp4", ffmpeg=able) as out:
        out.write(noise(2, I420_BYTES))
    assert len(asked(able)) == 2  # the listing and the probe


@pytest.mark.parametrize("woe", ["exit 1", "kill -SEGV $$"])
def test_nvenc_that_does_not_open_is_not_used(tmp_path, ffprobe, nvidia, stand_in, woe):
    listed_only = stand_in(["h264_nvenc", "libx264"], NVENC.format(woe))
    path = tmp_path / "out.mp4"
    assert preferred_pixel_format(path, ffmpeg=listed_only) == "i420"
    for _ in range(2):
        with writer(path, width=256, height=256, ffmpeg=listed_only) as out:
            out.write(noise(2, 256 * 256 * 3 // 2))
    assert int(ffprobe(path)["nb_read_frames"]) == 2
    assert len(asked(listed_only)) == 2  # each once


def test_without_a_driver_nvenc_is_not_even_tried(tmp_path, monkeypatch, stand_in):
    monkeypatch.setattr(ffmpeg_probe, "_NVIDIA_DEVICE", tmp_path / "nothing")
    able = stand_in(["h264_nvenc", "libx264"], NVENC.format(BY_X264.strip()))
    assert preferred_pixel_format("out.mp4", ffmpeg=able) == "i420"
    assert asked(able) == ["asked"]


def test_an_ffmpeg_is_asked_again_once_it_has_changed(stand_in):
    lacking = stand_in(["gif"], "exit 1")
    with pytest.raises(VideoError, match="lacks libx264"):
        preferred_pixel_format("out.mp4", ffmpeg=lacking)
    changed = lacking.read_text().replace("gif words", "libx264 words")
    lacking.write_text(changed)
    os.utime(lacking, ns=(0, 1))
    assert preferred_pixel_format("out.mp4", ffmpeg=lacking) == "i420"


@pytest.mark.parametrize(
    ("encoder", "codec"), [("libaom-av1", "av1"), ("librav1e", "av1"), ("libsvtav1", "av1")]
)
def test_any_encoder_of_av1_will_do(tmp_path, ffprobe, stand_in, encoder, codec):
    only = stand_in([encoder], 'exec "$FFMPEG" "$@"')
    path = tmp_path / "out.mp4"
    with writer(path, height=64, codec=codec, ffmpeg=only, chapters=["a", "b"]) as out:
        out.write(noise(2, 64 * 64 * 3 // 2))
    stream = ffprobe(path)
    assert (stream["codec_name"], stream["nb_read_frames"]) == ("av1", "2")
    assert stream["color_space"] == "bt709"


@pytest.mark.parametrize(
    ("ending", "codec", "lacks"),
    [
        (".mp4", "h264", "libx264"),
        (".mp4", "av1", "libsvtav1, libaom-av1 or librav1e"),
        (".webp", "webp", "libwebp"),
    ],
)
def test_a_lacking_encoder_is_named(tmp_path, stand_in, ending, codec, lacks):
    poor = stand_in(["h264_nvenc", "mpeg4"], "exit 1")
    for attempt in (
        lambda path: writer(path, codec=codec, ffmpeg=poor),
        lambda path: preferred_pixel_format(path, codec, poor),
    ):
        with pytest.raises(VideoError, match=f"'{poor}' cannot encode {codec}: it lacks {lacks}$"):
            attempt(tmp_path / f"out{ending}")
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("name", "codec", "expected"),
    [
        ("a.mp4", None, "i420"),
        ("a.mp4", "av1", "i420"),
        ("a.WEBM", None, "i420"),
        ("a.mkv", None, "i420"),
        ("a.gif", None, "rgb24"),
        ("a.webp", "webp", "rgb24"),
    ],
)
def test_what_to_render_for_a_file(monkeypatch, tmp_path, name, codec, expected):
    monkeypatch.setattr(ffmpeg_probe, "_NVIDIA_DEVICE", tmp_path / "nothing")
    assert preferred_pixel_format(name, codec) == expected


def test_what_to_render_needs_a_known_file():
    with pytest.raises(ValueError, match=r"path must end in \.mp4, .* got 'a.avi'"):
        preferred_pixel_format("a.avi")
    with pytest.raises(ValueError, match="codec must be"):
        preferred_pixel_format("a.gif", "h264")
