"""Images of every kind become the RGB a viewer shows; what cannot be read is one clear error."""

from __future__ import annotations

import json
import os
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from torchvision import transforms
from torchvision.transforms.functional import InterpolationMode

import camfuse
from camfuse.images import IMAGENET_MEAN, IMAGENET_STD, ImageError, Preprocessing, read_image
from small_models import Residual

ORIENTATION = 0x0112  # EXIF tag
# What the viewer must do to the stored pixels, by the EXIF specification's table.
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}


def rgb(height=6, width=9):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pixels(source, **options):
    image = read_image(source, **options)
    assert image.mode == "RGB"
    return np.asarray(image)


def save(path, image, **options):
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def png(width, height, lines=b"", depth=8, kind=2):
    """A PNG of ``width x height`` pixels; without ``lines`` it only promises them."""

    def chunk(name, body):
        checksum = zlib.crc32(name + body).to_bytes(4)
        return len(body).to_bytes(4) + name + body + checksum

    head = width.to_bytes(4) + height.to_bytes(4) + bytes([depth, kind, 0, 0, 0])
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


# Files


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "ppm", "webp"])
@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["str", "Path"])
def test_files_of_lossless_formats_are_read_exactly(tmp_path, ending, kind):
    path = save(tmp_path / f"image.{ending}", rgb(), lossless=True)
    np.testing.assert_array_equal(pixels(kind(path)), rgb())


@pytest.mark.parametrize("name", ["no ending", "wrong.png", "new\nline.jpg", "猫.jpg", "-%d.jpg"])
def test_the_content_decides_the_format(tmp_path, name):
    path = save(tmp_path / name, rgb(), format="BMP")
    np.testing.assert_array_equal(pixels(path), rgb())


@pytest.mark.parametrize("ending", ["jpg", "tiff"])
def test_cmyk_keeps_its_colours(tmp_path, ending):
    red = Image.new("RGB", (16, 16), (200, 30, 40))
    path = save(tmp_path / f"cmyk.{ending}", red.convert("CMYK"), quality=95)
    assert Image.open(path).mode == "CMYK"
    # Adobe, whose marker this is, stores inverted values in JPEG.
    assert (b"\xff\xee\0\x0eAdobe" in path.read_bytes()) == (ending == "jpg")
    np.testing.assert_allclose(pixels(path).reshape(-1, 3), [[200, 30, 40]] * 256, atol=3)


def test_a_palette_is_looked_up(tmp_path):
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3), mode="L").convert("P")
    image.putpalette([c for i in range(6) for c in (i * 40, 255 - i * 40, 7)])
    path = save(tmp_path / "palette.png", image)
    assert Image.open(path).mode == "P"
    expected = [(i * 40, 255 - i * 40, 7) for i in range(6)]
    np.testing.assert_array_equal(pixels(path).reshape(-1, 3), expected)


def test_grey_and_black_and_white_spread_to_three_channels(tmp_path):
    grey = rgb()[..., 0]
    np.testing.assert_array_equal(
        pixels(save(tmp_path / "grey.png", grey)), np.repeat(grey[..., None], 3, 2)
    )
    binary = Image.fromarray(grey > 127)
    assert binary.mode == "1"
    expected = np.repeat(np.where(grey > 127, 255, 0)[..., None], 3, 2)
    np.testing.assert_array_equal(pixels(save(tmp_path / "binary.png", binary)), expected)


@pytest.mark.parametrize("alpha", [0, 100, 255])
def test_transparency_is_laid_over_white(tmp_path, alpha):
    layers = np.dstack([rgb(), np.full((6, 9), alpha, np.uint8)])
    expected = rgb() * (alpha / 255) + 255 * (1 - alpha / 255)
    np.testing.assert_allclose(pixels(save(tmp_path / "rgba.png", layers)), expected, atol=1)
    grey = layers[..., [0, 3]]
    np.testing.assert_allclose(
        pixels(save(tmp_path / "la.png", Image.fromarray(grey))), expected[..., [0] * 3], atol=1
    )


def test_a_transparent_colour_becomes_white_without_a_warning(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for transparency in (0, b"\x00\xff"):
            path = save(tmp_path / "palette.png", palette, transparency=transparency)
            assert pixels(path).tolist() == [[[255, 255, 255], [0, 0, 255]]]
        path = save(tmp_path / "rgb.png", palette.convert("RGB"), transparency=(255, 0, 0))
        assert pixels(path).tolist() == [[[255, 255, 255], [0, 0, 255]]]


@pytest.mark.parametrize("ending", ["png", "tiff", "pgm"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path, ending):
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    path = save(tmp_path / f"deep.{ending}", values)
    np.testing.assert_array_equal(pixels(path)[0, :, 0], [0, 0, 1, 1, 128, 255])


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (4, 2), (6, 4)], ids=["RGB", "LA", "RGBA"])
def test_sixteen_bit_colour_and_transparency_lose_their_lower_bits(tmp_path, kind, channels):
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, channels), dtype=np.uint16)
    if channels in (2, 4):
        values[..., -1] = 65535  # opaque
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    path = tmp_path / "deep.png"
    path.write_bytes(png(7, 5, lines, depth=16, kind=kind))
    expected = values[..., [0, 0, 0] if channels == 2 else [0, 1, 2]] / 257
    np.testing.assert_allclose(pixels(path), expected, atol=1)


def test_float_files_hold_0_to_1(tmp_path):
    path = save(tmp_path / "float.tiff", np.array([[0, 0.25, 1]], np.float32))
    np.testing.assert_array_equal(pixels(path)[0, :, 0], [0, 64, 255])
    save(path, np.array([[0, 200]], np.float32))
    with pytest.raises(ImageError, match=r"float\.tiff' must lie in \[0, 1\], got .* to 200\.0"):
        read_image(path)
    save(path, np.array([[-1000, 200]], np.int32))
    with pytest.raises(ImageError, match=r"must lie in \[0, 65535\], got values from -1000 to 200"):
        read_image(path)


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tiff"])
def test_an_animation_gives_its_first_frame(tmp_path, ending):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    path = save(
        tmp_path / f"moving.{ending}",
        frames[0],
        save_all=True,
        append_images=frames[1:],
        lossless=True,
    )
    assert Image.open(path).n_frames == 3
    assert (pixels(path) == [255, 0, 0]).all()


@settings(max_examples=60, deadline=None)
@given(
    stored=hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))),
    orientation=st.integers(1, 8),
)
def test_exif_orientation_is_applied(tmp_path_factory, stored, orientation):
    path = tmp_path_factory.mktemp("exif") / "image.png"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(stored).save(path, exif=exif)
    expected = UPRIGHT[orientation](stored)
    np.testing.assert_array_equal(pixels(path), expected)
    with Image.open(path) as image:
        np.testing.assert_array_equal(pixels(image), expected)


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "I;16"])
def test_exif_orientation_is_applied_in_every_mode(tmp_path, mode):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image = Image.new(mode, (20, 10))
    path = save(tmp_path / "image.tiff", image, exif=exif)
    assert read_image(path).size == (10, 20)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"garbage", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff"])
def test_unreadable_exif_data_does_not_hide_the_image(tmp_path, exif):
    path = save(tmp_path / "image.jpg", rgb(8, 16), exif=b"Exif\0\0" + exif)
    assert read_image(path).size == (16, 8)


# PIL images, arrays, tensors


def test_a_pil_image_is_read_and_left_as_it_is():
    image = Image.fromarray(np.dstack([rgb(), np.full((6, 9), 128, np.uint8)]))
    before = image.tobytes()
    result = read_image(image)
    result.paste((0, 0, 0), (0, 0, 9, 6))
    assert (image.mode, image.tobytes()) == ("RGBA", before)

    plain = Image.fromarray(rgb())
    read_image(plain).paste((0, 0, 0), (0, 0, 9, 6))
    np.testing.assert_array_equal(np.asarray(plain), rgb())


def test_a_pil_image_stays_on_its_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = save(tmp_path / "moving.gif", frames[0], save_all=True, append_images=frames[1:])
    with Image.open(path) as image:
        image.seek(1)
        assert (pixels(image) == [0, 0, 255]).all()
        assert image.tell() == 1


def as_uint8(array):
    return array


def as_float(dtype):
    return lambda array: (array / 255).astype(dtype)


@pytest.mark.parametrize(
    "convert", [as_uint8, as_float(np.float16), as_float(np.float32), as_float(np.float64)]
)
@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_arrays(convert, channels):
    array = np.dstack([rgb(), np.full((6, 9), 255, np.uint8)])
    array = array[..., 0] if channels is None else array[..., :channels]
    expected = rgb() if channels in (3, 4) else rgb()[..., [0] * 3]
    np.testing.assert_array_equal(pixels(convert(array)), expected)
    np.testing.assert_array_equal(pixels(convert(array)[::-1, ::2]), expected[::-1, ::2])


@pytest.mark.parametrize("convert", [as_uint8, as_float(np.float32), as_float(np.float64)])
@pytest.mark.parametrize("channels", [None, 1, 3, 4])
@pytest.mark.parametrize("batch", [False, True])
def test_tensors(convert, channels, batch):
    array = np.dstack([rgb(), np.full((6, 9), 255, np.uint8)])
    tensor = torch.from_numpy(convert(array)).permute(2, 0, 1)
    tensor = tensor[0] if channels is None else tensor[:channels]
    expected = rgb() if channels in (3, 4) else rgb()[..., [0] * 3]
    if batch:  # of [H, W], it makes the one channel of [1, H, W]
        tensor = tensor[None]
    if tensor.is_floating_point():
        tensor.requires_grad_()
    np.testing.assert_array_equal(pixels(tensor), expected)


def test_half_precision_tensors_are_read_to_their_precision():
    tensor = torch.from_numpy(rgb()).permute(2, 0, 1) / 255
    np.testing.assert_allclose(pixels(tensor.half()), rgb(), atol=0)
    np.testing.assert_allclose(pixels(tensor.bfloat16()), rgb(), atol=1)


def test_rounding_errors_outside_of_0_to_1_are_forgiven():
    assert pixels(np.array([[-1e-6, 1 + 1e-6]]))[0, :, 0].tolist() == [0, 255]


# What is refused


def test_missing_files_folders_and_pipes(tmp_path):
    with pytest.raises(ImageError, match=r"^image '.*cat\.jpg' does not exist$"):
        read_image(tmp_path / "cat.jpg")
    with pytest.raises(ImageError, match=r"^image '.*' is a folder$"):
        read_image(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match=r"^image '.*pipe' is no file$"):
        read_image(tmp_path / "pipe")
    with pytest.raises(ImageError, match="File name too long"):
        read_image("n" * 300)
    with pytest.raises(ImageError, match=r"^image 'a\\nb' does not exist$"):
        read_image("a\nb")


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"<svg></svg>"])
def test_files_that_are_no_images(tmp_path, content):
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"^image '.*image\.png' is empty or of no known format$"):
        read_image(path)


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "webp", "tiff", "bmp"])
def test_truncated_files(tmp_path, ending):
    path = save(tmp_path / f"image.{ending}", rgb(64, 64))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=rf"^image '.*image\.{ending}' ") as error:
        read_image(path)
    assert "\n" not in str(error.value)
    try:
        image = Image.open(path)
    except OSError:
        return  # already the header is damaged
    with image, pytest.raises(ImageError, match=r"^image given as a PIL image cannot be read: "):
        read_image(image)


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "webp", "tiff", "bmp", "ppm"])
def test_files_cut_anywhere_are_refused_or_whole_and_nothing_is_warned_of(tmp_path, ending):
    path = save(tmp_path / f"image.{ending}", rgb(64, 64))
    content, expected = path.read_bytes(), pixels(path)
    lengths = {
        *range(0, len(content), len(content) // 100),
        *range(len(content) - 30, len(content)),
    }
    refused = 0
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for length in sorted(lengths):
            path.write_bytes(content[:length])
            try:
                np.testing.assert_array_equal(pixels(path), expected)
            except ImageError as error:
                assert str(error).startswith(f"image '{path}' ")  # noqa: PT017
                refused += 1
    assert refused >= 100
    assert [str(one.message) for one in seen] == []


@settings(max_examples=200, deadline=None)
@given(data=st.data(), ending=st.sampled_from(["png", "jpg", "gif", "webp", "tiff", "bmp"]))
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_refused_but_never_crash(tmp_path_factory, data, ending):
    path = tmp_path_factory.mktemp("damaged") / f"image.{ending}"
    content = bytearray(save(path, rgb(16, 16)).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        image = read_image(path, max_pixels=100_000)
    except ImageError as error:
        assert str(path) in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert image.mode == "RGB"


@pytest.mark.parametrize(
    ("side", "message"),
    [
        (9_900, "10000 x 9900 pixels, more than 98999999"),  # under the default limit, so ours
        (10_001, "is too large: 10000 x 10001 pixels, more than 98999999$"),  # Pillow warns
        (40_000, "exceeds limit .* could be decompression bomb"),  # Pillow refuses
    ],
)
def test_large_images_are_refused_by_their_header_without_a_warning(tmp_path, side, message):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(10_000, side))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(ImageError, match=rf"^image '.*bomb\.png' .*{message}"):
            read_image(path, max_pixels=98_999_999)
    assert seen == []


def test_the_limit_of_pixels_holds_for_every_source(tmp_path):
    for source in (
        save(tmp_path / "image.png", rgb()),
        Image.fromarray(rgb()),
        rgb(),
        torch.from_numpy(rgb()).permute(2, 0, 1),
    ):
        assert read_image(source, max_pixels=54).size == (9, 6)
        with pytest.raises(ImageError, match="is too large: 9 x 6 pixels, more than 53"):
            read_image(source, max_pixels=53)


def test_postscript_is_not_run(tmp_path):
    path = save(tmp_path / "image.eps", rgb())
    with pytest.raises(ImageError, match="is EPS, a program that would have to be run"):
        read_image(path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((0, 3)), "image array is empty: 3 x 0 pixels"),
        (torch.zeros(3, 4, 0), "image tensor is empty: 0 x 4 pixels"),
        (Image.new("RGB", (0, 5)), "is empty: 0 x 5 pixels"),
        (np.zeros(3), r"shape \[H, W\] or \[H, W, C\] with C in \(1, 3, 4\), got \(3,\)"),
        (np.zeros((3, 8, 8)), r"got \(3, 8, 8\)"),
        (np.zeros((1, 8, 8, 3)), r"got \(1, 8, 8, 3\)"),
        (torch.zeros(8, 8, 3), r"\[1, C, H, W\] with C in \(1, 3, 4\), got \(8, 8, 3\)"),
        (torch.zeros(2, 3, 8, 8), r"got \(2, 3, 8, 8\)"),
        (np.full((2, 2), np.nan), "image array holds NaN or infinity"),
        (torch.full((3, 2, 2), float("inf")), "image tensor holds NaN or infinity"),
        (np.array([[0.0, 255.0]]), r"must lie in \[0, 1\], got values from 0\.0 to 255\.0"),
        (torch.tensor([[-1.0, 1.0]]), r"must lie in \[0, 1\], got values from -1\.0 to 1\.0"),
        (np.zeros((2, 2), np.int64), r"must hold uint8 or floats in \[0, 1\], got int64"),
        (np.zeros((2, 2), bool), "got bool"),
        (torch.zeros(2, 2, dtype=torch.int16), "got int16"),
        (torch.zeros(2, 2, dtype=torch.complex64), "got complex64"),
        (None, "must be a path, a PIL image, an array or a tensor, got NoneType"),
        (b"cat.jpg", "got bytes"),
    ],
)
def test_other_sources(source, message):
    with pytest.raises(ImageError, match=message):
        read_image(source)


def test_threads_read_at_the_same_time(tmp_path):
    path = save(tmp_path / "image.png", rgb(64, 64))
    filters = list(warnings.filters)
    barrier = threading.Barrier(8)

    def read(_):
        barrier.wait(timeout=30)
        return [pixels(path) for _ in range(25)]

    with ThreadPoolExecutor(8) as pool:
        for results in pool.map(read, range(8)):
            assert all((result == rgb(64, 64)).all() for result in results)
    assert list(warnings.filters) == filters


# Preprocessing


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize("size", [(7, 5), (40, 60), (31, 64), (1, 1)])
def test_preprocessing_equals_torchvisions(interpolation, size):
    image = Image.fromarray(rgb(40, 60))
    mean, std = (0.1, 0.5, 0.9), (0.3, 0.2, 1.5)
    reference = transforms.Compose(
        [
            transforms.Resize(size, InterpolationMode(interpolation)),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )
    actual = Preprocessing(size, mean, std, interpolation)(image)
    assert (actual.shape, actual.dtype) == ((1, 3, *size), torch.float32)
    assert actual.is_contiguous()
    torch.testing.assert_close(actual[0], reference(image), rtol=0, atol=0)


def test_preprocessing_describes_itself_in_json():
    described = json.loads(json.dumps(Preprocessing((224, 192)).as_dict()))
    assert described == {
        "size": [224, 192],
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "interpolation": "bilinear",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (224,)}, r"size must be \(height, width\), both positive, got \(224,\)"),
        ({"size": (0, 5)}, "size must be"),
        ({"size": (2.5, 5)}, "size must be"),
        ({"mean": (0.5,)}, r"mean must be three finite numbers, got \(0\.5,\)"),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean must be three finite numbers"),
        ({"std": (1, 1)}, "std must be three finite numbers"),
        ({"std": (1, 0, 1)}, r"std must be positive, got \(1, 0, 1\)"),
        ({"interpolation": "cubic"}, "bilinear, bicubic, lanczos, nearest, got 'cubic'"),
    ],
)
def test_wrong_preprocessing_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**({"size": (8, 8)} | options))


def test_preprocessing_takes_rgb_only():
    with pytest.raises(ValueError, match=r"image must be RGB \(see read_image\), got mode L"):
        Preprocessing((8, 8))(Image.new("L", (8, 8)))


# All the way


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 7), (31, 33)])
def test_any_size_becomes_a_video(tmp_path, ffprobe, size):
    height, width = size
    path = save(tmp_path / "image.png", rgb(*size))
    assert read_image(path).size == (width, height)
    torch.manual_seed(0)
    result = camfuse.animate(Residual().eval(), path, tmp_path / "video.mp4")
    stream = ffprobe(tmp_path / "video.mp4")
    assert int(stream["nb_read_frames"]) == len(result.stack.shown())
    # Three panels of the photograph's aspect, 448 on their longer and at least 2 on their shorter
    # side, with 8 between and around them.
    panel_height, panel_width = (max(2 * round(224 * n / max(size)), 2) for n in size)
    assert stream["width"] == 3 * panel_width + 4 * 8
    assert stream["height"] > panel_height + 8
