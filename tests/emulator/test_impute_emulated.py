"""The CUDA kernel of impute, run on the CPU, against the reference in f64.

Every call runs with several seeds, hence orders of threads and blocks, and must give equal bits.
"""

import pytest
import torch

import impute_checks
from camfuse import reference
from emulation import LARGE, SMALL
from imputation import masks, photograph
from imputed import emulated_impute

LIMITS = {torch.float64: (1e-9, 1e-8), torch.float32: (1e-4, 3e-4)}  # tolerance, error
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def run(emulator):
    return emulator("impute")


def span(image):
    return (image.amax((1, 2)) - image.amin((1, 2)))[:, None, None]


@pytest.mark.parametrize("name", masks(9, 9))
@pytest.mark.parametrize("dtype", LIMITS)
def test_agrees_with_the_reference(run, dtype, name):
    tolerance, limit = LIMITS[dtype]
    image, removed = photograph(2, 19, 14), masks(19, 14)[name][None]
    images, residuals = emulated_impute(
        run, image.to(dtype), removed, tolerance=tolerance, seeds=SEEDS
    )
    assert residuals.item() <= tolerance
    assert ((images - reference.impute(image, removed)) / span(image)).abs().max() < limit
    kept = ~removed.expand(2, -1, -1)
    assert torch.equal(images[0][kept], image.to(dtype)[kept])


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (2, 2), (3, 5), (1, 33), (33, 1), (4, 8)])
def test_agrees_at_awkward_sizes(run, size):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, *size, generator=generator, dtype=torch.float64)
    removed = (
        torch.rand(3, *size, generator=generator) < torch.tensor([0.2, 0.5, 0.9])[:, None, None]
    )
    images, _ = emulated_impute(run, image, removed, tolerance=1e-9, seeds=SEEDS)
    assert (images - reference.impute(image, removed)).abs().max() < 1e-7


@pytest.mark.parametrize(
    "check", [name for name in dir(impute_checks) if name.startswith("check_")]
)
def test_passes_the_checks_that_find_faults(run, check):
    getattr(impute_checks, check)(run)


def test_more_rows_than_warps_and_columns_than_lanes(run):
    image, removed = photograph(1, 40, 41), masks(40, 41)["blobs"][None]
    images, _ = emulated_impute(run, image, removed, seeds=SEEDS)
    assert ((images - reference.impute(image, removed)) / span(image)).abs().max() < 1e-3


@pytest.mark.parametrize("dtype", LIMITS)
def test_equal_bits_whatever_the_device_and_the_other_masks(run, dtype):
    image = photograph(2, 10, 9).to(dtype)
    removed = torch.stack([masks(10, 9)[name] for name in ("blobs", "noise", "half")])
    images, residuals = emulated_impute(run, image, removed, device=LARGE)
    on_small, _ = emulated_impute(run, image, removed, device=SMALL)
    alone, residual = emulated_impute(run, image, removed[1:2])
    assert torch.equal(images, on_small)
    assert torch.equal(images[1:2], alone)
    assert torch.equal(residuals[1:2], residual)


def test_is_close_to_the_op_on_the_cpu(run):
    image, removed = photograph(2, 18, 21).float(), masks(18, 21)["thin rings"][None]
    found, residuals = emulated_impute(run, image, removed, seeds=(0,))
    expected, limits = torch.ops.camfuse.impute.default(image, removed, 1e-4)
    assert ((found - expected) / span(image)).abs().max() < 1e-5
    torch.testing.assert_close(residuals, limits, rtol=0.01, atol=0)


def test_gives_a_residual_above_a_tolerance_that_is_out_of_reach(run):
    image, removed = photograph(1, 5, 6), masks(5, 6)["noise"][None]
    images, residuals = emulated_impute(run, image, removed, tolerance=1e-30, seeds=SEEDS)
    assert 1e-30 < residuals.item() < 1e-12
    assert ((images - reference.impute(image, removed)) / span(image)).abs().max() < 1e-10
