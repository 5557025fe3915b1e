"""Image helpers of pytorch-grad-cam's face, byte for byte those of the peer."""

import subprocess
import sys

import cv2
import matplotlib
import numpy as np
import pytest
import pytorch_grad_cam.utils.image as peer
import torch
from matplotlib import pyplot
from PIL import Image
from scipy.ndimage import zoom

from camfuse.compat.pytorch_grad_cam.utils import image as face

COLORMAPS = {getattr(cv2, name) for name in dir(cv2) if name.startswith("COLORMAP_")}


def picture(height=37, width=53, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).random((height, width, 3)).astype(dtype)


def cams(*shape, dtype=np.float32, seed=1):
    return np.random.default_rng(seed).random(shape).astype(dtype)


@pytest.mark.parametrize("use_rgb", [False, True])
@pytest.mark.parametrize("colormap", sorted(COLORMAPS))
def test_every_colormap_gives_the_same_bytes(colormap, use_rgb):
    img, mask = picture(), np.linspace(0, 1, 37 * 53, dtype=np.float32).reshape(37, 53)

    found = face.show_cam_on_image(img, mask, use_rgb, colormap)

    np.testing.assert_array_equal(found, peer.show_cam_on_image(img, mask, use_rgb, colormap))


@pytest.mark.parametrize("weight", [0, 0.1, 0.5, np.float64(0.7), 1])
@pytest.mark.parametrize("mask_dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_weight_and_type_gives_the_same_bytes(dtype, mask_dtype, weight):
    img, mask = picture(dtype=dtype), cams(37, 53, dtype=mask_dtype)

    found = face.show_cam_on_image(img, mask, image_weight=weight)

    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, peer.show_cam_on_image(img, mask, image_weight=weight))


def test_an_overlay_leaves_its_arguments_alone():
    img, mask = picture(), cams(37, 53)
    before = img.copy(), mask.copy()

    face.show_cam_on_image(img, mask)

    np.testing.assert_array_equal(img, before[0])
    np.testing.assert_array_equal(mask, before[1])


def test_values_outside_the_range_count_as_its_ends_and_nan_as_0():
    mask = np.array([[1.5, -0.5, np.nan]])
    img = picture(1, 3)

    found = face.show_cam_on_image(img, mask)

    np.testing.assert_array_equal(found, face.show_cam_on_image(img, np.array([[1.0, 0, 0]])))


def test_black_over_black_is_black():
    found = face.show_cam_on_image(np.zeros((4, 5, 3)), np.zeros((4, 5)), image_weight=1)

    assert not found.any()


@pytest.mark.parametrize(
    ("img", "mask", "weight", "argument"),
    [
        (2 * picture(), cams(37, 53), 0.5, "img"),
        (picture(), cams(37, 53), 1.1, "image_weight"),
        (picture(), cams(37, 53), -0.1, "image_weight"),
        (picture(), cams(53, 37), 0.5, "mask"),
    ],
)
def test_an_overlay_of_what_does_not_fit_is_refused(img, mask, weight, argument):
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        face.show_cam_on_image(img, mask, image_weight=weight)


@pytest.mark.parametrize(
    ("size", "target"),
    [
        ((7, 7), (224, 224)),
        ((7, 5), (33, 17)),
        ((1, 6), (9, 9)),
        ((13, 9), (13, 9)),
        ((13, 9), (9, 13)),
        ((112, 112), (97, 113)),
        ((300, 200), (7, 301)),
        ((64, 64), (16, 16)),
        ((14, 14), (777, 1000)),
        ((6, 6), None),
    ],
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_maps_are_scaled_as_opencv_does(size, target, dtype):
    maps = cams(3, *size, dtype=dtype) * 5 - 2

    found = face.scale_cam_image(maps, target)

    expected = peer.scale_cam_image(maps, target)
    assert found.dtype == expected.dtype == np.float32
    # In f16, the peer rounds every step.
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3 if dtype is np.float16 else 3e-7)


@pytest.mark.parametrize("depth", [1, 2, 4, 9])
@pytest.mark.parametrize(
    ("size", "target"), [((7, 5), (33, 17)), ((20, 1), (6, 3)), ((3, 3), (3, 1))]
)
def test_volumes_are_scaled_by_splines(depth, size, target):
    maps = cams(2, depth, *size)

    found = face.scale_cam_image(maps, (*target, 8))

    expected = peer.scale_cam_image(maps, (*target, 8))
    assert found.shape == (2, 8, *target[::-1])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_the_last_plane_of_a_volume_is_there_where_scipy_loses_it():
    maps = np.linspace(0, 1, 8, dtype=np.float32)[None, :, None, None].repeat(2, 2).repeat(2, 3)
    assert zoom(maps[0], [26 / 8, 1, 1])[-1].max() == 0

    found = face.scale_cam_image(maps, (2, 2, 26))

    np.testing.assert_allclose(found[0, -1], 1, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 7, 7), (2, 1, 1), (2, 4, 7, 7), (2, 1, 1, 1)])
def test_a_constant_map_becomes_0(shape):
    target = (16,) * (len(shape) - 1)

    for value in (0, 3, -2):
        assert not face.scale_cam_image(np.full(shape, value, np.float32), target).any()


def test_maps_of_any_strides_or_tensors_are_scaled():
    maps = cams(3, 8, 6)[::-1, :, ::-2]
    expected = face.scale_cam_image(maps.copy(), (12, 12))

    np.testing.assert_array_equal(face.scale_cam_image(maps, (12, 12)), expected)
    np.testing.assert_array_equal(face.scale_cam_image(list(maps), (12, 12)), expected)
    tensor = torch.from_numpy(maps.copy())
    np.testing.assert_array_equal(face.scale_cam_image(tensor, (12, 12)), expected)


@pytest.mark.parametrize("size", [(61,), (59, 58)])
def test_maps_are_scaled_on_the_cpu_whatever_the_default_device(size):
    with torch.device("meta"):
        found = face.scale_cam_image(cams(1, *(9 for _ in (0, *size))), (*size, 57))

    assert np.isfinite(found).all()


def test_no_maps_are_scaled_to_no_maps():
    assert face.scale_cam_image(np.zeros((0, 7, 7), np.float32), (20, 10)).shape == (0, 10, 20)


@pytest.mark.parametrize(("shape", "target"), [((7, 7), (8, 8)), ((1, 7, 7), (8, 8, 8))])
def test_maps_and_sizes_of_different_dimensions_are_refused(shape, target):
    with pytest.raises(ValueError, match=r"^cam: expected \(B, h, w\)"):
        face.scale_cam_image(np.zeros(shape), target)


def test_channels_are_scaled_one_by_one():
    maps = cams(2, 3, 5, 7)

    found = face.scale_accross_batch_and_channels(maps, (20, 10))

    expected = peer.scale_accross_batch_and_channels(maps, (20, 10))
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-7)
    assert face.scale_accross_batch_and_channels(cams(2, 3, 4, 5, 7), (20, 10, 6)).shape == (
        *(2, 3),
        *(6, 10, 20),
    )


@pytest.mark.parametrize(
    "img",
    [
        np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8),
        picture(9, 7),
        picture(9, 7, np.float64),
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)),
        picture(9, 7)[:, ::-1],
    ],
    ids=["uint8", "f32", "f64", "PIL", "mirrored"],
)
def test_photographs_become_the_same_tensors(img):
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

    for arguments in ((), (mean, std)):
        found = face.preprocess_image(img, *arguments)
        assert torch.equal(found, peer.preprocess_image(img, *arguments))


@pytest.mark.parametrize(
    ("img", "std", "argument"),
    [
        (np.zeros((4, 4, 3), np.int64), [1.0] * 3, "img"),
        (np.zeros((2, 4, 4, 3), np.uint8), [1.0] * 3, "img"),
        (np.zeros((4, 4, 3), np.uint8), [1.0, 0.0, 1.0], "std"),
    ],
)
def test_what_is_no_photograph_is_refused(img, std, argument):
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        face.preprocess_image(img, std=std)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_become_the_same_images(dtype):
    gradient = np.random.default_rng(0).normal(3, 20, (9, 7, 3)).astype(dtype)

    np.testing.assert_array_equal(face.deprocess_image(gradient), peer.deprocess_image(gradient))


def test_legends_say_the_same():
    scores = np.random.default_rng(0).random((3, 5))
    labels = {i: f"class {i}, also, known, as, this" for i in range(5)}

    for k in (1, 2, 5):
        found = face.create_labels_legend(scores, labels, top_k=k)
        assert found == peer.create_labels_legend(scores, labels, top_k=k)


# OpenCV truncates colors in whole vectors of 32 and rounds those of the pixels that are left.
@pytest.mark.parametrize(("width", "apart"), [(64, 0), (57, 1)])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("count", [1, 4])
def test_concepts_are_shown_in_the_same_bytes(count, weight, width, apart):
    img, maps = picture(33, width), cams(count, 33, width)
    colors = list(np.random.default_rng(2).random((count, 4)))

    found = face.show_factorization_on_image(img, maps, colors, weight)

    expected = peer.show_factorization_on_image(img, maps.copy(), colors, weight)
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found.astype(int), expected, rtol=0, atol=apart)


def test_concepts_have_the_colors_of_a_rainbow_by_default():
    img, maps = picture(8, 32), cams(3, 8, 32)
    rainbow = matplotlib.colormaps["gist_rainbow"]

    found = face.show_factorization_on_image(img, maps)

    expected = peer.show_factorization_on_image(
        img, maps.copy(), [np.array(rainbow(i / 3)) for i in range(3)]
    )
    np.testing.assert_array_equal(found, expected)


def test_showing_concepts_leaves_the_maps_alone():
    maps = cams(3, 8, 8)
    before = maps.copy()

    face.show_factorization_on_image(picture(8, 8), maps)

    np.testing.assert_array_equal(maps, before)


def test_a_legend_is_drawn_like_the_peers():
    img, maps, labels = picture(128, 160), cams(2, 128, 160), ["cat:0.9\ndog:0.1", "tree:0.7"]
    colors = [np.array([1, 0, 0, 1.0]), np.array([0, 0.5, 1, 1.0])]

    found = face.show_factorization_on_image(img, maps, colors, concept_labels=labels)

    with matplotlib.rc_context():
        expected = peer.show_factorization_on_image(img, maps, colors, concept_labels=labels)
    assert found.shape == expected.shape == (128, 320, 3)
    assert np.abs(found.astype(int) - expected).mean() < 1


@pytest.mark.parametrize("size", [(57, 157), (101, 233)])
def test_a_legend_has_the_size_of_the_image_and_leaves_pyplot_alone(size):
    figures, settings = pyplot.get_fignums(), dict(matplotlib.rcParams)

    found = face.show_factorization_on_image(picture(*size), cams(1, *size), concept_labels=["cat"])

    assert found.shape == (size[0], 2 * size[1], 3)
    assert pyplot.get_fignums() == figures
    assert dict(matplotlib.rcParams) == settings


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"colors": [np.ones(3)]}, "colors"), ({"concept_labels": ["a"] * 3}, "concept_labels")],
)
def test_another_number_of_colors_or_labels_is_refused(arguments, name):
    with pytest.raises(ValueError, match=f"^{name}: expected 2, one per map"):
        face.show_factorization_on_image(picture(8, 8), cams(2, 8, 8), **arguments)


WITHOUT = """
import sys
for name in ("cv2", "scipy", "sklearn", "torchvision", "matplotlib"):
    sys.modules[name] = None
import numpy as np
from camfuse.compat.pytorch_grad_cam.utils import find_layers, image
from camfuse.compat.pytorch_grad_cam.metrics import arcc, cam_mult_image, road
image.show_cam_on_image(np.ones((4, 4, 3)), np.ones((4, 4)))
image.scale_cam_image(np.ones((1, 4, 4, 4)), (8, 8, 8))
try:
    image.show_cam_on_image(np.ones((4, 4, 3)), np.ones((4, 4)), colormap=20)
except ImportError as error:
    print(error)
"""


def test_neither_opencv_nor_scipy_is_needed_but_for_other_colormaps():
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True
    )

    assert ran.stdout.startswith("colormap 20: needs cv2")
    assert "pip install camfuse[compat]" in ran.stdout
