"""Short checks of layer_cam's kernels, each of a part of them: what mutations are put to.

The grids of test_layer_cam_emulated.py ask more; these are quick, and still no fault of
mutations_layer_cam.py gets past the one it is named with.
"""

import torch

from camfuse import ops, reference
from emulation import SMALL, Emulator
from layers import emulated_fused_cam, emulated_layer_cam
from test_layer_cam import LAYOUTS, layer
from tolerances import assert_maps_close

SEEDS = range(4)


def check_small(run: Emulator) -> None:
    """Layers whose planes fit shared memory; the last has more rules than a small device holds."""
    for shape, layout, offset in (
        ((2, 37, 7, 7), "nchw", 1),
        ((1, 40, 7, 7), "channels_last", 0),
        ((1, 18, 13, 17), "sliced", 0),
    ):
        _check(run, shape, layout, ops.RULES, offset=offset)
    _check(run, (1, 20, 31, 31), "nchw", ops.RULES * 2, device=SMALL)


def check_planes(run: Emulator) -> None:
    """Large layers, plane by plane, with wide loads and narrow ones."""
    for shape, offset in (((2, 21, 40, 30), 0), ((1, 18, 33, 35), 0), ((1, 17, 40, 30), 1)):
        _check(run, shape, "nchw", ops.RULES, offset=offset)


def check_rows(run: Emulator) -> None:
    """Large layers with their channels together, with wide loads and narrow ones."""
    for shape in ((2, 36, 40, 30), (1, 19, 33, 35)):
        _check(run, shape, "channels_last", ops.RULES)


def check_order(run: Emulator) -> None:
    """Many partial maps and sums, whose order shows in the last bits."""
    _check(run, (1, 300, 7, 7), "nchw", ["hirescam", "gradcam"], seeds=range(12))


def check_arrival(run: Emulator) -> None:
    """Several blocks to a tile, of which the last must find what the others wrote."""
    _check(run, (1, 64, 40, 26), "nchw", ["hirescam"], seeds=range(48))


def check_numbers(run: Emulator) -> None:
    """What cancels, what is large, and what is no number."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(1, 32, 14, 14, generator=generator) - 0.3
    G = torch.randn(1, 32, 14, 14, generator=generator) * 0.05
    A[:, ::2] -= A[:, ::2].mean((2, 3), keepdim=True)
    for scale in (1.0, 1e25):
        rules = ["gradcam", "gradcam++", "xgradcam"]
        maps, ranges = emulated_layer_cam(run, A, G * scale, rules, seeds=SEEDS)
        assert_maps_close(maps, ranges, A, G * scale, rules)
    A[0, 3, 2, 2] = float("nan")
    _, ranges = emulated_layer_cam(run, A, G, ["hirescam"], seeds=SEEDS)
    assert ranges.isnan().all()


def check_fused(run: Emulator) -> None:
    """Finished pictures: by a launch of their own, and by the last block of a sample."""
    for shape in ((2, 20, 7, 9), (2, 10, 40, 30)):
        A, G, _ = layer(shape)
        result = emulated_fused_cam(run, A, G, "gradcam", (35, 50), seeds=SEEDS)
        expected = reference.fused_cam(A.double(), G.double(), "gradcam", (35, 50))
        torch.testing.assert_close(result.double(), expected, rtol=0, atol=2e-5)


def _check(run, shape, layout, rules, *, offset=0, **options):
    A, G, weights = layer(shape)
    A, G = LAYOUTS[layout](A), LAYOUTS[layout](G)
    given = weights if any("weighted" in rule for rule in rules) else None
    options = {"seeds": SEEDS, **options}
    maps, ranges = emulated_layer_cam(run, A, G, rules, given, offset=offset, **options)
    assert_maps_close(maps, ranges, A, G, rules, given)
