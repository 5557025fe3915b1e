"""The ffmpeg pipe: what went in comes out, whole."""

from __future__ import annotations

import os
import stat
import sys
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from camfuse import video
from camfuse.formats import FORMATS
from camfuse.video import VideoError, find_ffmpeg
from videos import HEIGHT, I420_BYTES, RGB_BYTES, WIDTH, assert_nothing_left, decode, noise, writer

# What comes out


@pytest.mark.parametrize("pixel_format", ["i420", "rgb24"])
def test_mp4_has_the_promised_properties(tmp_path, ffmpeg, ffprobe, pixel_format):
    path = tmp_path / "out.mp4"
    frame_bytes = I420_BYTES if pixel_format == "i420" else RGB_BYTES
    with writer(path, pixel_format=pixel_format, ffmpeg=ffmpeg) as out:
        out.write(noise(7, frame_bytes))
        out.write(noise(1, frame_bytes)[0])
    stream = ffprobe(path)
    assert (stream["codec_name"], stream["profile"]) == ("h264", "High")
    assert stream["pix_fmt"] == "yuv420p"
    assert (stream["width"], stream["height"]) == (WIDTH, HEIGHT)
    assert int(stream["nb_read_frames"]) == out.frames_written == 8
    assert stream["color_range"] == "tv"
    for tag in ("color_space", "color_primaries", "color_transfer"):
        assert stream[tag] == "bt709"
    assert out.bytes_written == path.stat().st_size > 0
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (5, "5/1"),
        (Fraction(24000, 1001), "24000/1001"),
        (24000 / 1001, "24000/1001"),
        (29.97, "2997/100"),
        (0.5, "1/2"),
        (240, "240/1"),
    ],
)
def test_fps_is_exact(tmp_path, ffprobe, ending, fps, expected):
    path = tmp_path / f"out.{ending}"
    with writer(path, fps=fps) as out:
        out.write(noise(5, I420_BYTES))
    stream = ffprobe(path)
    assert stream["r_frame_rate"] == expected
    assert int(stream["nb_read_frames"]) == 5


def test_mp4_is_ready_for_streaming(tmp_path):
    path = tmp_path / "out.mp4"
    with writer(path) as out:
        out.write(noise(3, I420_BYTES))
    data, position, boxes = path.read_bytes(), 0, []
    while position < len(data):
        boxes.append(data[position + 4 : position + 8])
        position += int.from_bytes(data[position : position + 4])
    assert boxes.index(b"moov") < boxes.index(b"mdat")


@pytest.mark.parametrize(("width", "height"), [(64, 48), (63, 47), (17, 16), (16, 17)])
def test_rgb24_in_mkv_comes_back_exactly(tmp_path, ffmpeg, width, height):
    frames = noise(4, width * height * 3).reshape(4, height, width, 3)
    path = tmp_path / "out.mkv"
    with writer(path, width=width, height=height, pixel_format="rgb24", ffmpeg=ffmpeg) as out:
        out.write(torch.from_numpy(frames[:3]))
        out.write(frames[3])
    np.testing.assert_array_equal(decode(path, "rgb24"), frames.ravel())


def test_i420_in_mkv_comes_back_exactly(tmp_path, ffmpeg):
    frames = noise(4, I420_BYTES)
    path = tmp_path / "out.MKV"
    with writer(path, ffmpeg=ffmpeg) as out:
        out.write(frames)
    np.testing.assert_array_equal(decode(path, "yuv420p"), frames.ravel())


@pytest.mark.parametrize("pixel_format", ["i420", "rgb24"])
def test_colours_of_mp4_are_those_of_bt709(tmp_path, ffmpeg, pixel_format):
    """A chart of 27 colours, converted here by the standard's own equations (ITU-R BT.709-6)."""
    levels = np.array([0, 85, 170, 255]).reshape(-1, 1)
    colours = np.stack(np.meshgrid(levels[:3], levels[:3], levels[1:]), -1).reshape(-1, 3)
    r, g, b = colours.T / 255
    luma = 0.2126 * r + 0.7152 * g + 0.0722 * b
    chroma = [(b - luma) / 1.8556, (r - luma) / 1.5748]
    expected = np.stack([16 + 219 * luma, *(128 + 224 * c for c in chroma)])  # [3, 27]

    side, count = 32, len(colours)
    width = side * count
    if pixel_format == "rgb24":
        row = np.repeat(colours.astype(np.uint8), side, axis=0)
        frame = np.broadcast_to(row, (side, width, 3))
    else:
        y, u, v = np.rint(expected).astype(np.uint8)
        planes = [np.repeat(y, side), np.repeat(u, side // 2), np.repeat(v, side // 2)]
        heights = [side, side // 2, side // 2]
        frame = np.concatenate([np.tile(p, n) for p, n in zip(planes, heights, strict=True)])

    path = tmp_path / "chart.mp4"
    with writer(path, width=width, height=side, pixel_format=pixel_format, ffmpeg=ffmpeg) as out:
        out.write(frame)
    y, u, v = np.split(decode(path, "yuv420p"), [width * side, width * side * 5 // 4])
    centre = np.arange(count) * side + side // 2
    actual = [
        y.reshape(side, width)[side // 2, centre],
        u.reshape(side // 2, width // 2)[side // 4, centre // 2],
        v.reshape(side // 2, width // 2)[side // 4, centre // 2],
    ]
    np.testing.assert_allclose(actual, expected, atol=3)


@pytest.mark.parametrize(
    "name",
    [
        "with space.mp4",
        'quote\'s "double".mp4',
        "new\nline.mp4",
        "-leading.mp4",
        "%d %03d.mp4",
        "猫 кот ναί.mp4",
        "a:b;c|d=e,f[g].mp4",
        "http:x.mp4",
        "n" * 251 + ".mp4",
    ],
)
def test_any_file_name_works(tmp_path, monkeypatch, ffprobe, name):
    folder = tmp_path / Path(name).stem
    folder.mkdir()
    with writer(folder / name) as out:
        out.write(noise(2, I420_BYTES))
    assert [path.name for path in folder.iterdir()] == [name]
    assert int(ffprobe(folder / name)["nb_read_frames"]) == 2

    monkeypatch.chdir(folder)
    with writer(name) as out:  # relative: "-leading.mp4" is then all that ffmpeg would see
        out.write(noise(3, I420_BYTES))
    assert int(ffprobe(folder / name)["nb_read_frames"]) == 3


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("stem", ["%d %03d", "-a:b\n猫'\"", "n" * 250])
def test_any_file_name_works_in_every_format(tmp_path, ending, stem):
    with writer(tmp_path / f"{stem}{ending}") as out:
        out.write(noise(2, I420_BYTES))
    [(name, size)] = [(path.name, path.stat().st_size) for path in tmp_path.iterdir()]
    assert name == f"{stem}{ending}"
    assert size == out.bytes_written > 0


def test_an_old_video_is_replaced_only_by_a_complete_one(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")
    with pytest.raises(VideoError):
        writer(path).close()
    assert path.read_bytes() == b"old"
    with writer(path) as out:
        out.write(noise(2, I420_BYTES))
    assert path.stat().st_size == out.bytes_written > 3


def test_permissions_follow_the_umask(tmp_path):
    path = tmp_path / "out.mp4"
    previous = os.umask(0o027)
    try:
        with writer(path) as out:
            out.write(noise(1, I420_BYTES))
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


# What goes in


@pytest.mark.parametrize("container", [torch.from_numpy, memoryview, bytes, np.asfortranarray])
def test_any_buffer_of_bytes_is_taken(tmp_path, container):
    frames = noise(3, RGB_BYTES)
    path = tmp_path / "out.mkv"
    with writer(path, pixel_format="rgb24") as out:
        if container is bytes:
            for frame in frames:
                out.write(bytes(frame))
        else:
            out.write(container(frames))
        out.write(frames[:0])
    assert out.frames_written == 3
    np.testing.assert_array_equal(decode(path, "rgb24"), frames.ravel())


def test_contiguous_frames_are_not_copied(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(video.Encoder, "put", lambda _, chunk: seen.append(chunk))
    frames = torch.zeros(2, I420_BYTES, dtype=torch.uint8)
    out = writer(tmp_path / "out.mkv")
    out.write(frames)
    frames[1, -1] = 7
    assert seen[0].nbytes == 2 * I420_BYTES
    assert seen[0][-1] == 7


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((2, RGB_BYTES), np.float32), "must be uint8, got float32"),
        (torch.zeros(RGB_BYTES, dtype=torch.bfloat16), "must be uint8, got torch.bfloat16"),
        (np.zeros((2, RGB_BYTES - 1), np.uint8), r"got \(2, 9215\)"),
        (np.zeros((WIDTH, HEIGHT, 3), np.uint8), r"or \(48, 64, 3\) .* got \(64, 48, 3\)"),
        (np.zeros((1, 2, HEIGHT, WIDTH, 3), np.uint8), r"got \(1, 2, 48, 64, 3\)"),
        (np.uint8(3), r"got \(\)"),
        ("text", "a tensor, an array or a buffer, got str"),
    ],
)
def test_wrong_frames_are_refused(tmp_path, frames, message):
    with (
        pytest.raises(ValueError, match=message),
        writer(tmp_path / "out.mkv", pixel_format="rgb24") as out,
    ):
        out.write(frames)
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 15}, "width must be at least 16, got 15"),
        ({"width": 63}, "width must be even for yuv420p, got 63"),
        ({"height": 47, "pixel_format": "rgb24"}, "height must be even for yuv420p, got 47"),
        ({"fps": 0}, r"fps must lie in \(0, 1000\], got 0"),
        ({"fps": 1e-9}, "fps must lie in"),
        ({"fps": 1001}, "fps must lie in"),
        ({"fps": float("nan")}, "fps must be a finite number, got nan"),
        ({"fps": float("inf")}, "fps must be a finite number, got inf"),
        ({"fps": None}, "fps must be a finite number, got None"),
        ({"pixel_format": "nv21"}, "pixel_format must be i420, nv12 or rgb24, got 'nv21'"),
        ({"fps": Fraction(2**31, 2**31 - 1)}, "fps must be a fraction of numbers up to 2147483647"),
        ({"ffmpeg": "/no/such/ffmpeg"}, "'/no/such/ffmpeg' does not exist"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        writer(tmp_path / "out.mp4", **options)
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize("name", ["out.avi", "out", ".mp4", "out.mp4.txt"])
def test_other_endings_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"path must end in \.mp4, \.webm, \.mkv, \.gif or \.webp"):
        writer(tmp_path / name)


def test_a_bad_place_is_refused(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(ValueError, match=r"got the folder '.*folder\.mp4'"):
        writer(tmp_path / "folder.mp4")
    with pytest.raises(ValueError, match=r"folder of path does not exist: '.*missing'"):
        writer(tmp_path / "missing" / "out.mp4")


@pytest.mark.parametrize("trust_access", [False, True], ids=["foreseen", "met"])
def test_a_read_only_folder_is_refused(monkeypatch, trust_access):
    if trust_access:
        monkeypatch.setattr(os, "access", lambda *_: True)
    with pytest.raises(OSError, match="cannot write to the folder '/sys'"):  # even by root
        writer("/sys/out.mp4")


# Which ffmpeg


def test_ffmpeg_is_the_explicit_then_the_systems_then_the_bundled_one(monkeypatch, script):
    explicit = script("exit 0")
    assert find_ffmpeg(explicit) == str(explicit)
    monkeypatch.setenv("PATH", str(explicit.parent))
    assert find_ffmpeg() == find_ffmpeg("ffmpeg") == str(explicit)
    monkeypatch.setenv("PATH", "")
    assert find_ffmpeg() == imageio_ffmpeg.get_ffmpeg_exe()
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(VideoError, match="no ffmpeg found: install it"):
        find_ffmpeg()


def test_an_explicit_ffmpeg_must_be_executable(tmp_path):
    (tmp_path / "ffmpeg").write_text("")
    for path in (tmp_path / "ffmpeg", tmp_path):
        with pytest.raises(ValueError, match="is not executable"):
            find_ffmpeg(path)
