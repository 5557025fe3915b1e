"""Short checks of principal_map's kernel, each of a part of it: what mutations are put to.

The grids of test_principal_map_emulated.py ask more; these are quick, and still no fault of
mutations_principal_map.py gets past the one it is named with.
"""

import torch

from camfuse import ops
from emulation import Emulator
from principal import arguments, assert_equal_map, assert_principal, spectrum, with_means
from principal_layers import emulated_principal_map
from test_layer_cam import LAYOUTS, layer

SEEDS = range(3)


def check_planes(run: Emulator) -> None:
    """Planes shorter than a block, with groups of threads, and longer."""
    for shape in ((2, 7, 5, 6), (1, 3, 24, 23)):
        _check(run, shape, "nchw", "product")
    _check(run, (1, 6, 3, 4), "sliced", "activation")
    _check(run, (1, 1, 10, 10), "nchw", "activation")


def check_rows(run: Emulator) -> None:
    """Channels that lie together."""
    for shape in ((2, 7, 5, 6), (1, 520, 2, 2)):
        _check(run, shape, "channels_last", "product")


def check_uneven_rows(run: Emulator) -> None:
    """Channels that lie together, in a part of a larger layer."""
    A = LAYOUTS["channels_last"](layer((2, 7, 5, 9))[0])[..., 1:7]
    assert_principal(emulated_principal_map(run, A, seeds=SEEDS), A)


def check_terms(run: Emulator) -> None:
    """Each kind of terms."""
    for terms in ops.TERMS:
        _check(run, (1, 5, 4, 4), "nchw", terms)


def check_spectrum(run: Emulator) -> None:
    """A second component close to the first, which takes many steps."""
    for layout in ("nchw", "channels_last"):
        A = LAYOUTS[layout](spectrum((40, 7, 7), [1.02, *torch.linspace(1, 0.5, 30)]).float())
        assert_principal(emulated_principal_map(run, A, seeds=SEEDS), A)


def check_means(run: Emulator) -> None:
    """Means far larger than what differs from them."""
    for layout in ("nchw", "channels_last"):
        A = LAYOUTS[layout](with_means(1e6))
        assert_equal_map(emulated_principal_map(run, A, seeds=SEEDS), A)


def check_noise(run: Emulator) -> None:
    """Single positions and constant layers, where only rounding is left."""
    for layout in ("nchw", "channels_last"):
        for shape in ((2, 9, 1, 1), (3, 40, 1, 1)):
            A = torch.rand(shape, generator=torch.Generator().manual_seed(0))
            assert not emulated_principal_map(run, A, seeds=SEEDS)[0].any()
            A = LAYOUTS[layout](A.expand(*shape[:2], 6, 5).contiguous())
            assert_principal(emulated_principal_map(run, A, seeds=SEEDS), A)


def check_size(run: Emulator) -> None:
    """Terms whose squares f32 does not hold."""
    for layout in ("nchw", "channels_last"):
        for size in (1e-25, 1e25):
            A = LAYOUTS[layout](layer((1, 8, 5, 5))[0] * size)
            assert_principal(emulated_principal_map(run, A, seeds=SEEDS), A)


def check_not_finite(run: Emulator) -> None:
    """NaN and infinities stay in their sample."""
    for bad in (float("nan"), float("inf"), -float("inf")):
        A = layer((3, 6, 4, 4))[0]
        A[1, 5, 3, 3] = bad
        maps, ranges, scales = emulated_principal_map(run, A, seeds=SEEDS)
        for result in (maps, ranges, scales):
            assert result[1].isnan().all()
            assert result[::2].isfinite().all()


def _check(run, shape, layout, terms):
    A, G, weights = arguments(terms, layer(shape))
    A = LAYOUTS[layout](A)
    G = None if G is None else LAYOUTS[layout](G)
    found = emulated_principal_map(run, A, G, terms, weights, seeds=SEEDS)
    assert_principal(found, A, G, terms, weights)
