"""The CUDA kernels of layer_cam and fused_cam, run on the CPU, against the f64 reference.

Every call runs with several seeds, hence orders of threads and blocks, and must give equal bits.
"""

import itertools

import pytest
import torch

from camfuse import ops, reference
from emulation import LARGE, SMALL, Device
from layers import emulated_fused_cam, emulated_layer_cam
from test_layer_cam import DTYPES, LAYOUTS, layer, same_bits
from tolerances import assert_maps_close

SMALL_SIZES = ((1, 1), (1, 7), (7, 7), (13, 17))
LARGE_SIZES = ((56, 56), (112, 112), (1, 1025), (33, 35))
FEW_RULES = ("|gradcam|", "gradcam++", "xgradcam", "layercam", "hirescam", "gradcam")


@pytest.fixture(scope="module")
def run(emulator):
    return emulator("layer_cam")


def check(run, A, G, rules, weights=None, **options):
    maps, ranges = emulated_layer_cam(run, A, G, rules, weights, **options)
    assert_maps_close(maps, ranges, A, G, rules, weights)
    return maps


def laid_out(shape, dtype, layout, seed=0):
    A, G, weights = layer(shape, dtype, seed)
    return LAYOUTS[layout](A), LAYOUTS[layout](G), weights


# ---- agreement with the reference


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("size", "channels", "batch"),
    [
        (size, channels, (1, 2, 5)[(i + j) % 3])
        for (i, size), (j, channels) in itertools.product(
            enumerate(SMALL_SIZES), enumerate((1, 3, 31, 64))
        )
    ],
)
def test_all_rules_of_small_layers(run, dtype, layout, size, channels, batch):
    A, G, weights = laid_out((batch, channels, *size), dtype, layout)
    check(run, A, G, ops.RULES, weights)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(1, 1), (7, 7)])
def test_many_channels(run, dtype, layout, size):
    A, G, _ = laid_out((1, 2208, *size), dtype, layout)
    check(run, A, G, FEW_RULES, seeds=(0, 1))


@pytest.mark.parametrize(
    ("dtype", "layout", "size", "channels"),
    [
        pytest.param(*case, marks=[] if place % 5 == 0 else [pytest.mark.slow])
        for place, case in enumerate(itertools.product(DTYPES, LAYOUTS, LARGE_SIZES, (1, 3, 20)))
    ],
)
def test_large_layers(run, dtype, layout, size, channels):
    A, G, _ = laid_out((1, channels, *size), dtype, layout)
    check(run, A, G, FEW_RULES, seeds=(0, 1))


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 2208, 13, 17), (5, 64, 56, 56), (2, 31, 112, 112)])
def test_layers_as_networks_have_them(run, shape, layout):
    A, G, _ = laid_out(shape, torch.float32, layout)
    check(run, A, G, FEW_RULES, seeds=(0,))


@pytest.mark.parametrize("shape", [(1, 40, 7, 7), (1, 20, 40, 30)])
@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("second", LAYOUTS)
def test_activations_and_gradients_may_differ_in_layout(run, shape, first, second):
    A, G, _ = layer(shape)
    check(run, LAYOUTS[first](A), LAYOUTS[second](G), FEW_RULES, seeds=(0, 1))


@pytest.mark.parametrize("shape", [(2, 33, 7, 7), (1, 20, 40, 30)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_of_a_mean_are_expanded_planes_of_stride_0(run, shape, layout):
    A, G, _ = layer(shape)
    G = G.mean((2, 3), keepdim=True).expand_as(A)
    check(run, LAYOUTS[layout](A), G, FEW_RULES, seeds=(0, 1))


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 32, 7, 7), (1, 32, 40, 26)])
@pytest.mark.parametrize("offset", [1, 3])
def test_tensors_may_begin_anywhere(run, dtype, layout, shape, offset):
    A, G, _ = laid_out(shape, dtype, layout)
    check(run, A, G, FEW_RULES, offset=offset, seeds=(0, 1))


@pytest.mark.parametrize("shape", [(3, 40, 6, 6), (3, 20, 40, 30)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_alone_need_no_gradients_and_may_be_strided(run, shape, layout):
    A, _, _ = layer(shape)
    for weights in (torch.randn(shape[1], 3).T, torch.randn(3, 2 * shape[1])[:, ::2]):
        check(run, LAYOUTS[layout](A), None, ["weighted", "|weighted|"], weights, seeds=(0, 1))


# ---- devices, batches, rules: which bits may depend on what


@pytest.mark.parametrize("shape", [(1, 20, 31, 31), (1, 20, 40, 30)])
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("device", [SMALL, Device(24, 99 << 10)])
def test_devices_with_less_shared_memory_take_turns_at_rules(run, shape, layout, device):
    A, G, weights = laid_out(shape, torch.bfloat16, layout)
    expected = check(run, A, G, ops.RULES * 2, weights, device=LARGE, seeds=(0,))
    maps = check(run, A, G, ops.RULES * 2, weights, device=device, seeds=(0, 1))
    assert same_bits(maps, expected)


@pytest.mark.parametrize("shape", [(5, 31, 7, 7), (3, 20, 40, 30)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sample_has_the_bits_it_has_alone(run, shape, layout):
    A, G, _ = laid_out(shape, torch.float32, layout)
    maps = check(run, A, G, FEW_RULES, seeds=(0,))
    alone, _ = emulated_layer_cam(
        run, LAYOUTS[layout](A[2:3]), LAYOUTS[layout](G[2:3]), FEW_RULES, seeds=(0, 1)
    )
    assert same_bits(alone, maps[:, 2:3])


@pytest.mark.parametrize("shape", [(1, 40, 7, 7), (1, 20, 40, 30)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_rule_alone_has_the_bits_it_has_among_others(run, shape, layout):
    A, G, weights = laid_out(shape, torch.float32, layout)
    maps, _ = emulated_layer_cam(run, A, G, ops.RULES, weights, seeds=(0,))
    for r, rule in enumerate(ops.RULES):
        given = weights if "weighted" in rule else None
        alone, _ = emulated_layer_cam(run, A, G, [rule], given, seeds=(0,))
        assert same_bits(alone[0], maps[r]), rule


# ---- numbers that are hard on f32


@pytest.mark.parametrize("size", [(14, 14), (40, 30)])
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_nearly_cancelling_denominators(run, size, layout):
    """2 G^2 + G^3 sum(A), and sum(A), pass through 0 where the sum of A is negative."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(2, 64, *size, generator=generator) - 0.3
    G = torch.randn(2, 64, *size, generator=generator) * 0.05
    A[:, ::2] -= A[:, ::2].mean((2, 3), keepdim=True)
    check(run, LAYOUTS[layout](A), LAYOUTS[layout](G), ["gradcam++", "xgradcam"], seeds=(0,))


@pytest.mark.parametrize("size", [(7, 7), (40, 30)])
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e-4, 1e3, 1e12, 1e25])
def test_gradients_of_any_scale(run, size, layout, scale):
    A, G, _ = layer((1, 20, *size))
    rules = ["gradcam", "xgradcam", "hirescam"]
    if scale > 1e-13:  # the cube of smaller ones is no number in f32
        rules.append("gradcam++")
    check(run, LAYOUTS[layout](A), LAYOUTS[layout](G * scale), rules, seeds=(0,))


@pytest.mark.parametrize("size", [(7, 7), (40, 30)])
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_products_beyond_f32_in_the_weights_of_gradcam_plus_plus(run, size, layout):
    """G^3 sum(A) overflows f32, but the weight, about 1 / sum(A), does not."""
    A, G, _ = layer((1, 20, *size))
    A, G = LAYOUTS[layout](A * 1e8), LAYOUTS[layout](G * 1e30)
    check(run, A, G, ["gradcam++"], seeds=(0,))


@pytest.mark.parametrize("size", [(7, 7), (40, 30)])
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["activations", "gradients"])
def test_what_is_not_finite_stays_in_its_sample(run, size, layout, bad, where):
    A, G, _ = layer((3, 20, *size))
    rules = ["gradcam", "gradcam++", "hirescam", "layercam"]
    clean, _ = emulated_layer_cam(run, LAYOUTS[layout](A), LAYOUTS[layout](G), rules, seeds=(0,))
    {"activations": A, "gradients": G}[where][1, 3, 2, 5] = bad
    maps, ranges = emulated_layer_cam(
        run, LAYOUTS[layout](A), LAYOUTS[layout](G), rules, seeds=(0, 1)
    )
    assert same_bits(maps[:, ::2], clean[:, ::2])
    expected, _ = reference.layer_cam(A[1:2], G[1:2], rules)
    assert torch.equal(maps[:, 1:2].isfinite(), expected.isfinite())
    planes = maps.flatten(2)
    assert torch.equal(
        torch.stack([planes.amin(-1), planes.amax(-1)], -1).nan_to_num(7), ranges.nan_to_num(7)
    )


# ---- fused_cam


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(1, 1), (7, 7), (13, 17), (40, 30)])
@pytest.mark.parametrize("output", [(5, 9), (61, 30)])
def test_fused_cam_agrees_with_reference(run, dtype, layout, size, output):
    A, G, _ = laid_out((2, 20, *size), dtype, layout)
    result = emulated_fused_cam(run, A, G, "gradcam", output, seeds=(0, 1))
    expected = reference.fused_cam(A.double(), G.double(), "gradcam", output)
    torch.testing.assert_close(
        result.double(), expected, rtol=0, atol=1e-9 if dtype == torch.float64 else 2e-5
    )
    assert 0 <= result.min() <= result.max() <= 1


@pytest.mark.parametrize("rule", ops.RULES)
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("size", [(9, 12), (40, 30)])
def test_fused_cam_of_every_rule(run, rule, relu, size):
    A, G, weights = layer((2, 20, *size))
    weights = weights if "weighted" in rule else None
    result = emulated_fused_cam(run, A, G, rule, (33, 41), weights, relu=relu, seeds=(0, 1))
    given = None if weights is None else weights.double()
    expected = reference.fused_cam(A.double(), G.double(), rule, (33, 41), weights=given, relu=relu)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("size", [(4, 4), (40, 30)])
def test_constant_maps_become_0_and_nan_stays(run, relu, size):
    A = torch.ones(3, 3, *size)
    A[1] *= -1  # its map is negative: rectified to the constant 0
    A[2, 0, 1, 1] = float("nan")
    result = emulated_fused_cam(run, A, torch.ones_like(A), "hirescam", (9, 9), relu=relu)
    assert torch.equal(result[:2], torch.zeros(2, 9, 9))
    assert result[2].isnan().all()
