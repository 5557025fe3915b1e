"""The native op ``impute`` against SciPy's direct solver, and its promises."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from camfuse import ops, reference
from imputation import masks, photograph, solved_directly
from test_layer_cam import same_bits, threads

__all__ = ["threads"]

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
SIZES = ((1, 1), (1, 2), (2, 1), (2, 2), (3, 5), (1, 40), (40, 1), (16, 16), (17, 31), (33, 64))
LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    "transposed": lambda x: x.mT.contiguous().mT,
    "every other": lambda x: x.repeat_interleave(2, -1)[..., ::2],
}


def worst(found: Tensor, expected: Tensor, image: Tensor) -> float:
    """The largest error in units of the range of each of the image's channels."""
    span = image.double().amax((-2, -1)) - image.double().amin((-2, -1))
    error = (found.double() - expected).abs().amax((-2, -1))
    return float((error / span).max())


# ---- agreement


@pytest.mark.parametrize("name", masks(9, 9))
def test_agrees_with_a_direct_solver(name):
    image, mask = photograph(3, 61, 70), masks(61, 70)[name]
    expected = solved_directly(image, mask) if mask.any() else image
    assert worst(ops.impute(image.float(), mask[None])[0], expected, image) < 2e-4
    assert worst(ops.impute(image, mask[None], tolerance=1e-10)[0], expected, image) < 1e-9


def test_agrees_with_the_peer():
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    image = photograph(3, 40, 33).float()
    for name, mask in masks(40, 33).items():
        if mask.any():
            expected = NoisyLinearImputer(noise=0)(image, (~mask).float())
            assert worst(ops.impute(image, mask[None])[0], expected.double(), image) < 2e-4, name


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_agrees_with_the_reference_at_awkward_sizes(size, share):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, *size, generator=generator, dtype=torch.float64)
    removed = torch.rand(5, *size, generator=generator) < share
    found = ops.impute(image, removed, tolerance=1e-10)
    assert (found - reference.impute(image, removed)).abs().max() < 1e-8


@settings(deadline=None, max_examples=40)
@given(
    channels=st.integers(1, 4),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    share=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_agrees_with_the_reference_for_any_shape(channels, height, width, share, seed):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(channels, height, width, generator=generator, dtype=torch.float64)
    removed = torch.rand(2, height, width, generator=generator) < share
    found = ops.impute(image, removed, tolerance=1e-8)
    assert (found - reference.impute(image, removed)).abs().max() < 1e-6


def test_the_reference_is_the_direct_solution():
    image = photograph(2, 20, 23)
    for name, mask in masks(20, 23).items():
        if mask.any():
            found = reference.impute(image, mask[None])[0]
            assert worst(found, solved_directly(image, mask), image) < 1e-10, name


@pytest.mark.slow
@pytest.mark.parametrize("size", [(224, 224), (333, 500)])
def test_agrees_with_the_reference_at_the_sizes_of_photographs(size):
    image, named = photograph(1, *size), masks(*size)
    every = torch.stack([named[name] for name in ("blobs", "noise", "stripes", "all but two")])
    expected = reference.impute(image, every)
    for found, one in zip(ops.impute(image.float(), every), expected, strict=True):
        assert worst(found, one, image) < 5e-4
    for found, one in zip(ops.impute(image, every, tolerance=1e-9), expected, strict=True):
        assert worst(found, one, image) < 1e-7


# ---- by hand


def test_a_single_pixel_is_the_weighted_mean_of_its_neighbors():
    image = torch.arange(9.0).view(1, 3, 3) ** 2
    removed = torch.zeros(3, 3, 3, dtype=torch.bool)
    removed[0, 1, 1] = removed[1, 0, 1] = removed[2, 0, 0] = True
    found = ops.impute(image, removed, tolerance=1e-9)[:, 0]
    expected = [
        (1 + 9 + 25 + 49) / 6 + (0 + 4 + 36 + 64) / 12,
        ((0 + 4 + 16) / 6 + (9 + 25) / 12) / (3 / 6 + 2 / 12),
        ((1 + 9) / 6 + 16 / 12) / (2 / 6 + 1 / 12),
    ]
    values = found[[0, 1, 2], [1, 0, 0], [1, 1, 0]]
    torch.testing.assert_close(values, torch.tensor(expected))


def test_what_is_kept_keeps_its_bits():
    image = photograph(3, 30, 30).float()
    for mask in masks(30, 30).values():
        found = ops.impute(image, mask[None])[0]
        assert torch.equal(found[:, ~mask], image[:, ~mask])


def test_a_line_between_two_pixels_is_straight():
    image = torch.zeros(1, 1, 9)
    image[..., -1] = 8
    removed = torch.ones(1, 1, 9, dtype=torch.bool)
    removed[..., [0, -1]] = False
    found = ops.impute(image, removed, tolerance=1e-8)
    torch.testing.assert_close(found[0, 0, 0], torch.arange(9.0))


def test_one_pixel_that_is_left_fills_the_image():
    image = photograph(3, 25, 40).float()
    mask = masks(25, 40)["all but one"]
    found = ops.impute(image, mask[None])[0]
    torch.testing.assert_close(found, image[:, ~mask][..., None].expand_as(image))


def test_an_image_removed_whole_becomes_0():
    image = photograph(2, 12, 12)
    assert not ops.impute(image, torch.ones(2, 12, 12, dtype=torch.bool)).any()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_leaves_no_range(scale):
    image, mask = photograph(2, 30, 30).float(), masks(30, 30)["blobs"][None]
    found = ops.impute(image * scale, mask) / scale
    torch.testing.assert_close(found, ops.impute(image, mask), rtol=1e-4, atol=1e-3)


def test_a_large_offset_costs_only_its_own_rounding():
    image, mask = photograph(1, 30, 30), masks(30, 30)["half"][None]
    found = ops.impute((image + 1e6).float(), mask) - 1e6
    assert (found - ops.impute(image, mask)).abs().max() < 0.1


# ---- promises


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_any_strides_in_any_dtype(layout, dtype):
    image = photograph(3, 21, 34).to(dtype)
    every = torch.stack(list(masks(21, 34).values()))
    expected = ops.impute(image, every)
    assert expected.dtype == dtype
    found = ops.impute(LAYOUTS[layout](image), LAYOUTS[layout](every))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_pixels_that_are_not_finite_stay_in_their_channel_and_mask(bad):
    image = photograph(3, 20, 20).float()
    removed = torch.stack([masks(20, 20)["half"]] * 2)
    removed[1, 3, 15] = True
    clean = ops.impute(image, removed)
    image[1, 3, 15] = bad
    found = ops.impute(image, removed)
    assert same_bits(found[1], clean[1])  # it is removed here
    assert same_bits(found[0, ::2].contiguous(), clean[0, ::2].contiguous())
    assert found[0, 1][removed[0]].isnan().all()
    assert same_bits(found[0, 1][~removed[0]], image[1][~removed[0]])


def test_equal_bits_across_threads_and_positions(threads):
    image = photograph(3, 50, 45).float()
    every = torch.stack(list(masks(50, 45).values()))
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(ops.impute(image, every))
    results.append(torch.cat([ops.impute(image, one[None]) for one in every]))
    results.append(torch.cat([ops.impute(one[None], every) for one in image], 1))
    assert all(same_bits(one, results[0]) for one in results[1:])


def test_no_masks_give_no_images():
    assert ops.impute(torch.rand(3, 4, 5), torch.zeros(0, 4, 5, dtype=torch.bool)).shape == (
        0, 3, 4, 5,
    )  # fmt: skip


def test_says_so_where_the_bound_on_iterations_is_too_low():
    image, mask = photograph(1, 40, 40), masks(40, 40)["all but two"][None]
    with pytest.raises(
        ArithmeticError, match="mask 0 was not solved: expected pixels within 1e-30"
    ):
        ops.impute(image, mask, tolerance=1e-30)


image = torch.zeros(3, 4, 5)
mask = torch.zeros(2, 4, 5, dtype=torch.bool)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((image[0], mask), r"image must have 3 dimensions \[C, H, W\], got \(4, 5\)"),
        ((image[:0], mask), r"image must have channels and pixels, got \(0, 4, 5\)"),
        ((image.int(), mask), "image must be float64 or float32, got int32"),
        ((image, mask[0]), r"masks must have 3 dimensions \[N, H, W\], got \(4, 5\)"),
        ((image, mask[..., :4]), r"masks must have .*: expected \(2, 4, 5\), got \(2, 4, 4\)"),
        ((image, mask.float()), "masks must be bool, got float32"),
        ((image, mask.to("meta")), "masks must be on the device of image: expected cpu, got meta"),
    ],
)
def test_bad_input_is_one_clear_line(args, message):
    with pytest.raises(ValueError, match=message):
        ops.impute(*args)


@pytest.mark.parametrize("tolerance", [0, 1, -1e-3, float("nan")])
def test_a_tolerance_out_of_range_is_an_error(tolerance):
    with pytest.raises(ValueError, match=r"tolerance must be in \(0, 1\), got"):
        ops.impute(image, mask, tolerance=tolerance)


def test_refuses_to_be_differentiated():
    x = image.clone().requires_grad_()
    with pytest.raises(RuntimeError, match="impute is not differentiable"):
        ops.impute(x, mask)
    with torch.no_grad():
        assert not ops.impute(x, mask).requires_grad


def test_opcheck():
    op = torch.ops.camfuse.impute.default
    torch.library.opcheck(op, (photograph(2, 9, 8), masks(9, 8)["half"][None], 1e-4))
