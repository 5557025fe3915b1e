"""The native ops ``layer_cam`` and ``fused_cam`` on CUDA devices, against reference and CPU."""

import pytest
import torch

from camfuse import ops
from test_fused_cam import OUTPUTS
from test_layer_cam import DTYPES, GRADIENT_RULES, LAYOUTS, _inputs, layer, same_bits, spread
from tolerances import assert_maps_close

pytestmark = pytest.mark.cuda
DEVICE = torch.device("cuda", 0)

SIZES = ((1, 1), (1, 7), (3, 3), (7, 7), (13, 17), (28, 28), (56, 56), (7, 130))


def on_device(*tensors):
    """Copies there, strides and all."""
    return tuple(x if x is None else _like(x) for x in tensors)


def _like(x):
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=DEVICE).copy_(x)


def assert_agrees(A, G, rules, weights=None):
    """With the reference in f64; ranges are those of the maps to the bit."""
    a, g, w = on_device(A, G, weights)
    assert a.stride() == A.stride()
    maps, ranges = ops.layer_cam(a, g, rules, weights=w)
    assert maps.device == ranges.device == DEVICE
    assert_maps_close(maps.cpu(), ranges.cpu(), A, G, rules, weights)
    return maps, ranges


# ---- agreement


@pytest.mark.parametrize(
    ("dtype", "layout", "size", "channels"),
    spread(DTYPES, list(LAYOUTS), SIZES, [1, 3, 31, 64, 130]),
)
def test_all_rules_at_once_agree_with_reference(dtype, layout, size, channels):
    A, G, weights = layer((2, channels, *size), dtype)
    assert_agrees(LAYOUTS[layout](A), LAYOUTS[layout](G), ops.RULES, weights)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", ops.RULES)
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("shape", [(2, 64, 13, 17), (1, 130, 7, 7), (1, 24, 56, 56), (2, 9, 3, 3)])
def test_a_rule_alone_agrees_with_the_cpu(dtype, rule, layout, shape):
    A, G, weights = layer(shape, dtype)
    A, G = LAYOUTS[layout](A), LAYOUTS[layout](G)
    assert_agrees(A, G, [rule], weights if "weighted" in rule else None)


@pytest.mark.parametrize(
    "shape", [(2, 64, 112, 112), (2, 2048, 7, 7), (1, 768, 14, 14), (1, 64, 224, 224), (8, 3, 5, 5)]
)
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_of_real_networks_agree_with_reference(dtype, layout, shape):
    A, G, weights = layer(shape, dtype)
    assert_agrees(LAYOUTS[layout](A), LAYOUTS[layout](G), ops.RULES, weights)


@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("second", LAYOUTS)
def test_activations_and_gradients_may_differ_in_layout(first, second):
    A, G, weights = layer((2, 19, 9, 11))
    assert_agrees(LAYOUTS[first](A), LAYOUTS[second](G), ops.RULES, weights)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_of_a_mean_are_expanded_planes_of_stride_0(layout):
    A, G, weights = layer((2, 33, 7, 7))
    mean = G.mean((2, 3), keepdim=True)
    (there,) = on_device(mean)
    a, w = on_device(LAYOUTS[layout](A), weights)
    maps, ranges = ops.layer_cam(a, there.expand_as(a), ops.RULES, weights=w)
    assert_maps_close(maps.cpu(), ranges.cpu(), A, mean.expand_as(A), ops.RULES, weights)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("offset", [1, 2, 3, 5])
def test_tensors_may_begin_anywhere_in_their_memory(dtype, layout, offset):
    A, G, weights = layer((2, 48, 12, 12), dtype)
    A, G = LAYOUTS[layout](A), LAYOUTS[layout](G)

    def moved(x):
        room = torch.empty(x.numel() + offset, dtype=dtype, device=DEVICE)
        return room.as_strided(x.shape, x.stride(), offset).copy_(x)

    maps, ranges = ops.layer_cam(moved(A), moved(G), ops.RULES, weights=weights.to(DEVICE))
    assert_maps_close(maps.cpu(), ranges.cpu(), A, G, ops.RULES, weights)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("size", [(2, 2), (6, 6)])
def test_batches_beyond_65535_samples(layout, size):
    """The limit of a grid's second and third axis."""
    B = 66_000
    A, G, weights = layer((B, 3, *size))
    a, g, w = on_device(LAYOUTS[layout](A), LAYOUTS[layout](G), weights)
    maps, ranges = ops.layer_cam(a, g, ops.RULES, weights=w)
    last = slice(B - 100, B)
    assert_maps_close(
        maps[:, last].cpu(), ranges[:, last].cpu(), A[last], G[last], ops.RULES, weights[last]
    )
    expected, _ = ops.layer_cam(A, G, ["layercam"])
    torch.testing.assert_close(
        maps[ops.RULES.index("layercam")].cpu(), expected[0], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("scale", [1e-10, 1e8, 1e30])
def test_gradcam_plus_plus_holds_far_from_1(layout, scale):
    A, G, _ = layer((2, 40, 14, 14))
    assert_agrees(LAYOUTS[layout](A), LAYOUTS[layout](G * scale), ["gradcam++"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_every_half_precision_value_is_read_exactly(dtype, layout):
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)
    A = LAYOUTS[layout](every.reshape(64, 1, 32, 32))
    maps, _ = ops.layer_cam(
        *on_device(A, None), ["weighted"], weights=torch.ones(64, 1, dtype=dtype, device=DEVICE)
    )
    assert torch.equal(maps[0].cpu().nan_to_num(7e9), A[:, 0].float().nan_to_num(7e9))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("shape", [(3, 5, 2, 3), (3, 64, 40, 40)])
def test_values_that_are_not_finite_stay_in_their_sample_and_show_in_ranges(value, layout, shape):
    A, G, weights = layer(shape)
    (w,) = on_device(weights)
    clean, _ = ops.layer_cam(
        *on_device(LAYOUTS[layout](A), LAYOUTS[layout](G)), ops.RULES, weights=w
    )
    A[1, 3, -1, -2] = value
    maps, ranges = ops.layer_cam(
        *on_device(LAYOUTS[layout](A), LAYOUTS[layout](G)), ops.RULES, weights=w
    )
    for b in (0, 2):
        assert same_bits(maps[:, b], clean[:, b])
    finite = maps.isfinite().flatten(2).all(-1)
    assert torch.equal(ranges.isfinite().all(-1), finite)
    assert not finite[:, 1].any() or value == value


def test_an_empty_batch_gives_empty_results():
    empty = torch.empty(0, 4, 5, 6, device=DEVICE)
    maps, ranges = ops.layer_cam(empty, empty, GRADIENT_RULES)
    assert maps.shape == (len(GRADIENT_RULES), 0, 5, 6)
    assert ranges.shape == (len(GRADIENT_RULES), 0, 2)
    assert ops.fused_cam(empty, empty, "gradcam", (8, 9)).shape == (0, 8, 9)


# ---- equal bits


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(3, 130, 28, 28), (2, 512, 7, 7), (1, 24, 112, 112)])
def test_equal_bits_over_runs(layout, shape):
    A, G, weights = layer(shape)
    A, G, weights = on_device(LAYOUTS[layout](A), LAYOUTS[layout](G), weights)
    maps, ranges = ops.layer_cam(A, G, ops.RULES, weights=weights)
    for _ in range(20):
        again = ops.layer_cam(A, G, ops.RULES, weights=weights)
        assert same_bits(again[0], maps)
        assert same_bits(again[1], ranges)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(5, 70, 13, 17), (3, 512, 7, 7), (4, 20, 3, 3), (3, 16, 56, 56)])
def test_equal_bits_at_every_batch_position(layout, shape):
    A, G, weights = layer(shape)
    A, G, weights = on_device(LAYOUTS[layout](A), LAYOUTS[layout](G), weights)
    maps, ranges = ops.layer_cam(A, G, ops.RULES, weights=weights)
    for b in range(shape[0]):
        one = slice(b, b + 1)
        map_, range_ = ops.layer_cam(_like(A[one]), _like(G[one]), ops.RULES, weights=weights[one])
        assert same_bits(map_, maps[:, one])
        assert same_bits(range_, ranges[:, one])


# ---- finished maps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("size", [(1, 1), (7, 7), (13, 17), (30, 30)])
@pytest.mark.parametrize("output", OUTPUTS)
def test_finished_maps_agree_with_the_cpu(dtype, layout, size, output):
    A, G, _ = layer((2, 31, *size), dtype)
    A, G = LAYOUTS[layout](A), LAYOUTS[layout](G)
    result = ops.fused_cam(*on_device(A, G), "gradcam", output)
    assert result.device == DEVICE
    expected = ops.fused_cam(A, G, "gradcam", output)
    limit = 1e-9 if dtype == torch.float64 else 4e-5
    torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=limit)


@pytest.mark.parametrize("rule", ops.MAGNITUDE_OF)
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("shape", [(3, 20, 9, 12), (2, 64, 28, 28), (2, 16, 3, 3)])
def test_every_rule_is_finished_as_on_the_cpu(rule, relu, shape):
    A, G, weights = layer(shape)
    weights = weights if "weighted" in rule else None
    a, g, w = on_device(A, G, weights)
    result = ops.fused_cam(a, g, rule, (40, 31), weights=w, relu=relu)
    expected = ops.fused_cam(A, G, rule, (40, 31), weights=weights, relu=relu)
    torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=4e-5)


def test_constant_maps_become_0():
    A = torch.ones(2, 3, 4, 4, device=DEVICE)
    A[1] *= -1
    result = ops.fused_cam(A, torch.ones_like(A), "hirescam", (9, 9))
    assert torch.equal(result, torch.zeros(2, 9, 9, device=DEVICE))


# ---- bad input, derivatives, registration


@pytest.mark.parametrize("op", ["layer_cam", "fused_cam"])
def test_tensors_on_two_devices_are_refused(op):
    A = torch.zeros(2, 3, 4, 5, device=DEVICE)
    call = {
        "layer_cam": lambda *args, **kwargs: ops.layer_cam(*args, ["gradcam"], **kwargs),
        "fused_cam": lambda *args, **kwargs: ops.fused_cam(*args, "gradcam", (8, 8), **kwargs),
    }[op]
    with pytest.raises(ValueError, match=r"gradients .* expected cuda:0, got cpu"):
        call(A, A.cpu())
    with pytest.raises(ValueError, match=r"gradients .* expected cpu, got cuda:0"):
        call(A.cpu(), A)
    with pytest.raises(ValueError, match=r"weights .* expected cuda:0, got cpu"):
        ops.layer_cam(A, None, ["weighted"], weights=torch.zeros(2, 3))


def test_bad_input_is_the_same_clear_line_as_on_the_cpu():
    A = torch.zeros(2, 3, 4, 5, device=DEVICE)
    for args in ((A[0], A[0]), (A, A[:, :2]), (A, A.double()), (A.int(), A.int()), (A, None)):
        with pytest.raises(ValueError) as there:  # noqa: PT011 - compared below
            ops.layer_cam(*args, ["gradcam"])
        with pytest.raises(ValueError) as here:  # noqa: PT011
            ops.layer_cam(*(None if x is None else x.cpu() for x in args), ["gradcam"])
        assert str(there.value) == str(here.value)


@pytest.mark.parametrize("rule", ops.RULES)
def test_maps_are_differentiable_twice(rule):
    A, G, weights = (x.detach().to(DEVICE).requires_grad_() for x in _inputs())

    def maps(A, G, weights):
        return ops.layer_cam(A, G, [rule], weights=weights if "weighted" in rule else None)[0]

    assert torch.autograd.gradcheck(maps, (A, G, weights))
    assert torch.autograd.gradgradcheck(maps, (A, G, weights))


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("rules", [[0, 1, 2, 3, 4, 5], [6]])
def test_opcheck(requires_grad, rules):
    A, G, weights = (x.detach().to(DEVICE).requires_grad_(requires_grad) for x in _inputs())
    args = (A, None, rules, weights) if rules == [6] else (A, G, rules)
    torch.library.opcheck(torch.ops.camfuse.layer_cam.default, args)
    if not requires_grad:
        torch.library.opcheck(torch.ops.camfuse.fused_cam.default, (A, G, 0, [8, 9]))
