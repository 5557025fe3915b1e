"""The native op ``impute`` on CUDA devices, against the reference in f64 and against the CPU."""

import pytest
import torch

from camfuse import ops, reference
from imputation import masks, photograph
from test_cuda_layer_cam import DEVICE, on_device
from test_layer_cam import same_bits

pytestmark = pytest.mark.cuda

LIMITS = {torch.float64: (1e-9, 1e-7), torch.float32: (1e-4, 5e-4)}  # tolerance, error
SIZES = ((1, 1), (1, 2), (2, 1), (2, 2), (3, 5), (1, 40), (40, 1), (17, 31), (33, 64), (90, 61))
LAYOUTS = {
    "channels last": lambda x: x.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    "transposed": lambda x: x.mT.contiguous().mT,
    "every other": lambda x: x.repeat_interleave(2, -1)[..., ::2],
}


def every_mask(height, width):
    return torch.stack(list(masks(height, width).values()))


def span(image):
    return (image.amax((1, 2)) - image.amin((1, 2)))[:, None, None]


def imputed(image, removed, **options):
    found = ops.impute(*on_device(image, removed), **options)
    assert found.device == DEVICE
    return found.cpu()


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_agrees_with_the_reference(dtype, size, share):
    tolerance, limit = LIMITS[dtype]
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(3, *size, generator=generator, dtype=torch.float64)
    removed = torch.rand(5, *size, generator=generator) < share
    found = imputed(image.to(dtype), removed, tolerance=tolerance)
    assert (found - reference.impute(image, removed)).abs().max() < 10 * limit


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("size", [(61, 70), (224, 224), (333, 500)])
def test_is_as_close_to_the_cpu_as_asked(dtype, size):
    tolerance, limit = LIMITS[dtype]
    image, removed = photograph(3, *size), every_mask(*size)
    found = imputed(image.to(dtype), removed, tolerance=tolerance)
    expected = ops.impute(image.to(dtype), removed, tolerance=tolerance)
    assert ((found.double() - expected.double()) / span(image)).abs().max() < limit


def test_what_is_kept_keeps_its_bits():
    image, removed = photograph(3, 30, 30).float(), every_mask(30, 30)
    found = imputed(image, removed)
    assert torch.equal(found, torch.where(removed[:, None], found, image))


def test_an_image_removed_whole_becomes_0():
    assert not imputed(photograph(2, 12, 12), torch.ones(2, 12, 12, dtype=torch.bool)).any()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_reads_any_strides_in_any_dtype(layout, dtype):
    image, removed = photograph(3, 21, 34).to(dtype), every_mask(21, 34)
    found = imputed(LAYOUTS[layout](image), LAYOUTS[layout](removed))
    assert torch.equal(found, imputed(image, removed))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_pixels_that_are_not_finite_stay_in_their_channel_and_mask(bad):
    image = photograph(3, 20, 20).float()
    removed = torch.stack([masks(20, 20)["half"]] * 2)
    removed[1, 3, 15] = True
    clean = imputed(image, removed)
    image[1, 3, 15] = bad
    found = imputed(image, removed)
    assert same_bits(found[1], clean[1])  # it is removed here
    assert same_bits(found[0, ::2].contiguous(), clean[0, ::2].contiguous())
    assert found[0, 1][removed[0]].isnan().all()
    assert same_bits(found[0, 1][~removed[0]], image[1][~removed[0]])


def test_equal_bits_across_runs_and_positions():
    image = photograph(3, 50, 45).float()
    removed = every_mask(50, 45).repeat(6, 1, 1)  # more systems than multiprocessors
    results = [imputed(image, removed) for _ in range(3)]
    results.append(torch.cat([imputed(image, one[None]) for one in removed]))
    results.append(torch.cat([imputed(one[None], removed) for one in image], 1))
    assert all(same_bits(one.contiguous(), results[0]) for one in results[1:])


def test_says_so_where_the_bound_on_iterations_is_too_low():
    image, removed = photograph(1, 40, 40), masks(40, 40)["all but two"][None]
    with pytest.raises(ArithmeticError, match="mask 0 was not solved"):
        imputed(image, removed, tolerance=1e-30)


def test_no_masks_give_no_images():
    assert imputed(torch.rand(3, 4, 5), torch.zeros(0, 4, 5, dtype=torch.bool)).shape[0] == 0


def test_refuses_to_be_differentiated():
    image, removed = on_device(photograph(1, 4, 4), masks(4, 4)["half"][None])
    with pytest.raises(RuntimeError, match="impute is not differentiable"):
        ops.impute(image.requires_grad_(), removed)
