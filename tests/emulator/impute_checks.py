"""Short checks of impute's kernel, each of a part of it: what mutations are put to.

The tests of test_impute_emulated.py ask more; these are quick, all in f64, and still no fault of
mutations_impute.py gets past the one it is named with.
"""

import torch

from camfuse import reference
from emulation import LARGE, SMALL, Emulator
from imputation import masks, photograph
from imputed import emulated_impute

SEEDS = (0, 1)


def check_solution(run: Emulator) -> None:
    """Odd and even sides, single lines."""
    for size, names in (
        ((9, 14), ("noise", "blobs")),
        ((6, 7), ("all but two", "all but the border")),
        ((1, 9), ("stripes",)),
        ((5, 1), ("dense stripes",)),
        ((2, 2), ("one",)),
    ):
        _check(run, photograph(2, *size), _masks(size, *names))


def check_rows(run: Emulator) -> None:
    """More columns than a warp has lanes, more rows than a block has warps."""
    for size in ((3, 35), (35, 2)):
        _check(run, photograph(1, *size), _masks(size, "noise"))


def check_steps(run: Emulator) -> None:
    """The preconditioner is the CPU's: steps leave what they leave there."""
    for size in ((9, 14), (1, 12)):
        image, removed = photograph(2, *size), _masks(size, "noise", "most of the blobs")
        for tolerance in (0.1, 1e-2, 1e-4):
            _, found = emulated_impute(run, image, removed, tolerance=tolerance, seeds=SEEDS)
            _, expected = torch.ops.camfuse.impute.default(image, removed, tolerance)
            torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-7)


def check_range(run: Emulator) -> None:
    """Values far from 0, of any size."""
    removed = _masks((6, 5), "blobs")
    for scale, offset in ((1e-200, 0), (1e200, 0), (1, 1e6)):
        _check(run, photograph(2, 6, 5) * scale + offset, removed, tolerance=1e-8, limit=1e-6)


def check_strides(run: Emulator) -> None:
    """Pixels and masks that do not lie together, nor begin where vectors would."""
    image, removed = photograph(3, 5, 6), _masks((5, 6), "noise", "half")
    expected = emulated_impute(run, image, removed, seeds=(0,))
    for lay_out in (
        lambda x: x.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        lambda x: x.mT.contiguous().mT,
        lambda x: x.repeat_interleave(2, -1)[..., ::2],
    ):
        found = emulated_impute(run, lay_out(image), lay_out(removed), offset=1, seeds=(0,))
        assert all(map(torch.equal, found, expected))
    _check(run, image[:1].expand(2, 5, 6), removed[:1].expand(2, 5, 6))


def check_bounds(run: Emulator) -> None:
    """Removed whole, not at all, from an image of one value."""
    image = photograph(2, 4, 5)
    image[1] = 7
    removed = torch.stack([torch.ones(4, 5), torch.zeros(4, 5), torch.eye(5)[:4]]).bool()
    images, residuals = emulated_impute(run, image, removed, seeds=SEEDS)
    assert not images[0].any()
    assert torch.equal(images[1], image)
    assert (images[2, 1] == 7).all()
    assert not residuals[:2].any()


def check_not_finite(run: Emulator) -> None:
    """What is not finite spoils the removed pixels of its channel, where it is kept."""
    removed = _masks((5, 5), "half", "half")
    removed[1, 2, 4] = True
    clean, _ = emulated_impute(run, photograph(3, 5, 5), removed, seeds=(0,))
    for bad in (float("nan"), float("inf"), -float("inf")):
        image = photograph(3, 5, 5)
        image[1, 2, 4] = bad
        images, residuals = emulated_impute(run, image, removed, seeds=SEEDS)
        assert torch.equal(images[1], clean[1])
        assert torch.equal(images[0, ::2], clean[0, ::2])
        assert images[0, 1][removed[0]].isnan().all()
        kept = images[0, 1][~removed[0]], image[1][~removed[0]]
        torch.testing.assert_close(*kept, rtol=0, atol=0, equal_nan=True)
        assert (residuals <= 1e-4).all()


def check_blocks(run: Emulator) -> None:
    """Blocks that solve one system after another give what each gives alone."""
    size = (6, 6)
    image = photograph(3, *size)
    removed = torch.cat(
        [torch.ones(1, *size, dtype=torch.bool), _masks(size, "noise", "blobs", "all but two")]
    )
    images, residuals = emulated_impute(run, image, removed, device=SMALL, seeds=SEEDS)
    for n, mask in enumerate(removed):
        alone = [
            emulated_impute(run, one[None], mask[None], device=LARGE, seeds=(0,)) for one in image
        ]
        assert torch.equal(images[n], torch.cat([one[0] for one, _ in alone]))
        assert residuals[n] == max(one for _, one in alone)


def _masks(size, *names):
    every = masks(*size)
    return torch.stack([every[name] for name in names])


def _check(run, image, removed, *, tolerance=1e-9, limit=1e-8):
    """Against the reference, in units of each channel's range."""
    images, residuals = emulated_impute(run, image, removed, tolerance=tolerance, seeds=SEEDS)
    assert (residuals <= tolerance).all()
    low = image.amin((1, 2), keepdim=True)
    span = image.amax((1, 2), keepdim=True) - low
    expected = reference.impute((image - low) / span, removed)
    assert ((images - low) / span - expected).abs().max() < limit
    assert torch.equal(images, torch.where(removed[:, None], images, image))
