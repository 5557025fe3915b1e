"""The native op ``layer_cam`` against the reference, and its promises: bits, strides, errors."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from camfuse import ops
from tolerances import assert_maps_close

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
LAYOUTS = {
    "nchw": lambda x: x.contiguous(),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.mT.contiguous().mT,
    "sliced": lambda x: (
        torch.stack([x, x], 1).flatten(1, 2)[:, 1::2] if x.shape[1] == 1 else _gap(x)
    ),
}
SIZES = ((1, 1), (1, 7), (7, 7), (13, 17), (56, 56))
GRADIENT_RULES = tuple(rule for rule in ops.RULES if "weighted" not in rule)


def _gap(x):
    """``x`` as a part of a larger tensor, in every dimension."""
    B, C, h, w = x.shape
    room = x.new_full((B + 1, C + 2, h + 1, w + 3), float("nan"))
    room[1:, 1:-1, 1:, 2:-1] = x
    return room[1:, 1:-1, 1:, 2:-1]


def layer(shape, dtype=torch.float32, seed=0):
    """Activations as a ReLU leaves them, gradients small and of both signs, weights."""
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(shape, generator=generator, dtype=torch.float64).relu()
    G = torch.randn(shape, generator=generator, dtype=torch.float64) * 0.1
    weights = torch.rand(shape[:2], generator=generator, dtype=torch.float64) * 2 - 1
    return A.to(dtype), G.to(dtype), weights.to(dtype)


def spread(*axes):
    """The product of ``axes``; one case in four is fast, and these hold every combination of all
    axes but one (the first, of four values)."""
    return [
        pytest.param(
            *(axis[place] for axis, place in zip(axes, places, strict=True)),
            marks=[pytest.mark.slow] if sum(places) % 4 else [],
        )
        for places in itertools.product(*(range(len(axis)) for axis in axes))
    ]


def same_bits(x, y):
    return x.shape == y.shape and torch.equal(x.view(torch.uint8), y.view(torch.uint8))


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# ---- agreement with the reference


@pytest.mark.parametrize(
    ("dtype", "layout", "size", "channels"),
    spread(DTYPES, list(LAYOUTS), SIZES, [1, 3, 31, 64, 130]),
)
def test_all_rules_at_once_agree_with_reference(dtype, layout, size, channels):
    A, G, weights = layer((2, channels, *size), dtype)
    A, G = LAYOUTS[layout](A), LAYOUTS[layout](G)
    maps, ranges = ops.layer_cam(A, G, ops.RULES, weights=weights)
    assert_maps_close(maps, ranges, A, G, ops.RULES, weights)


@pytest.mark.parametrize(
    ("layout", "rule", "shape"),
    spread(list(LAYOUTS), ops.RULES, [(2, 64, 13, 17), (1, 130, 7, 7), (1, 24, 112, 112)]),
)
def test_a_rule_alone_has_the_bits_it_has_among_others(rule, layout, shape):
    A, G, weights = layer(shape)
    A, G = LAYOUTS[layout](A), LAYOUTS[layout](G)
    alone, _ = ops.layer_cam(A, G, [rule], weights=weights if "weighted" in rule else None)
    maps, _ = ops.layer_cam(A, G, ops.RULES, weights=weights)
    assert same_bits(alone[0], maps[ops.RULES.index(rule)])


def test_rules_may_repeat_and_keep_their_order():
    A, G, _ = layer((2, 8, 5, 5))
    maps, ranges = ops.layer_cam(A, G, ["layercam", "gradcam", "layercam"])
    assert_maps_close(maps, ranges, A, G, ["layercam", "gradcam", "layercam"])


@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("second", LAYOUTS)
def test_activations_and_gradients_may_differ_in_layout(first, second):
    A, G, weights = layer((2, 19, 9, 11))
    A, G = LAYOUTS[first](A), LAYOUTS[second](G)
    maps, ranges = ops.layer_cam(A, G, ops.RULES, weights=weights)
    assert_maps_close(maps, ranges, A, G, ops.RULES, weights)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_of_a_mean_are_expanded_planes_of_stride_0(layout):
    A, G, weights = layer((2, 33, 7, 7))
    G = G.mean((2, 3), keepdim=True).expand_as(A)
    maps, ranges = ops.layer_cam(LAYOUTS[layout](A), G, ops.RULES, weights=weights)
    assert_maps_close(maps, ranges, A, G, ops.RULES, weights)


def test_weights_may_be_strided_or_expanded():
    A, _, _ = layer((3, 40, 6, 6))
    for weights in (
        torch.randn(40, 3).T,
        torch.randn(1, 40).expand(3, 40),
        torch.randn(3, 80)[:, ::2],
    ):
        for layout in LAYOUTS.values():
            maps, ranges = ops.layer_cam(layout(A), None, ["weighted"], weights=weights)
            assert_maps_close(maps, ranges, A, None, ["weighted"], weights)


def test_nearly_cancelling_denominators_of_gradcam_plus_plus():
    """2 G^2 + G^3 sum(A) passes through 0 where the sum of A is negative."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(2, 64, 14, 14, generator=generator) - 0.3
    G = torch.randn(2, 64, 14, 14, generator=generator) * 0.05
    for layout in (LAYOUTS["nchw"], LAYOUTS["channels_last"]):
        maps, ranges = ops.layer_cam(layout(A), layout(G), ["gradcam++", "xgradcam"])
        assert_maps_close(maps, ranges, A, G, ["gradcam++", "xgradcam"])


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("scale", [1e-10, 1e-3, 1e8, 1e12, 1e30])
@pytest.mark.parametrize("activation", [1e-3, 1e6])
def test_gradcam_plus_plus_holds_far_from_1(layout, scale, activation):
    """Its cubes of gradients would leave the range of f32, at both ends."""
    A, G, _ = layer((2, 40, 14, 14))
    A, G = LAYOUTS[layout](A * activation), LAYOUTS[layout](G * scale)
    maps, ranges = ops.layer_cam(A, G, ["gradcam++"])
    assert_maps_close(maps, ranges, A, G, ["gradcam++"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_every_half_precision_value_is_read_exactly(dtype, layout):
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)
    A = LAYOUTS[layout](every.reshape(64, 32, 32, 1).permute(0, 3, 1, 2))  # one channel: a copy
    B = LAYOUTS[layout](every.reshape(64, 32, 32).reshape(64, 1024, 1, 1))
    for x in (A, B[:, :16].repeat(1, 1, 4, 4)):
        one_hot = torch.zeros(x.shape[:2], dtype=dtype)
        one_hot[:, 0] = 1
        finite = torch.where(x.isfinite(), x, 0) if x.shape[1] > 1 else x
        maps, _ = ops.layer_cam(LAYOUTS[layout](finite), None, ["weighted"], weights=one_hot)
        assert torch.equal(maps[0].nan_to_num(7e9), finite[:, 0].float().nan_to_num(7e9))


@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(*(st.integers(1, n) for n in (3, 40, 20, 20))),
    order=st.permutations(range(4)),
    steps=st.tuples(*(st.integers(1, 3) for _ in range(4))),
    dtype=st.sampled_from(DTYPES),
    rules=st.lists(st.sampled_from(GRADIENT_RULES), min_size=1, max_size=3),
    seed=st.integers(0, 2**16),
)
def test_any_shape_and_strides_agree_with_reference(shape, order, steps, dtype, rules, seed):
    def arrange(x):
        stored = x.permute(order)
        room = x.new_full([n * s for n, s in zip(stored.shape, steps, strict=True)], float("nan"))
        view = room[tuple(slice(None, None, s) for s in steps)]
        view.copy_(stored)
        return view.permute([order.index(i) for i in range(4)])

    A, G, _ = layer(shape, dtype, seed)
    strided = arrange(A)
    maps, ranges = ops.layer_cam(strided, arrange(G), rules)
    assert_maps_close(maps, ranges, A, G, rules)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "shape", [(2, 64, 112, 112), (2, 2048, 7, 7), (1, 768, 14, 14), (1, 64, 224, 224)]
)
def test_large_layers_agree_with_reference(dtype, layout, shape):
    A, G, weights = layer(shape, dtype)
    A, G = LAYOUTS[layout](A), LAYOUTS[layout](G)
    maps, ranges = ops.layer_cam(A, G, ops.RULES, weights=weights)
    assert_maps_close(maps, ranges, A, G, ops.RULES, weights)


# ---- equal bits


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(3, 130, 28, 28), (2, 512, 7, 7), (1, 24, 112, 112)])
def test_equal_bits_across_threads_and_runs(threads, layout, shape):
    A, G, weights = layer(shape)
    A, G = LAYOUTS[layout](A), LAYOUTS[layout](G)
    results = []
    for count in (1, 2, 3, 3):
        threads(count)
        results.append(ops.layer_cam(A, G, ops.RULES, weights=weights))
    for maps, ranges in results[1:]:
        assert same_bits(maps, results[0][0])
        assert same_bits(ranges, results[0][1])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(5, 70, 13, 17), (3, 512, 7, 7), (4, 20, 3, 3)])
def test_equal_bits_at_every_batch_position(layout, shape):
    A, G, weights = layer(shape)
    A, G = LAYOUTS[layout](A), LAYOUTS[layout](G)
    maps, ranges = ops.layer_cam(A, G, ops.RULES, weights=weights)
    for b in range(shape[0]):
        one = slice(b, b + 1)
        alone = (LAYOUTS[layout](A[one].clone()), LAYOUTS[layout](G[one].clone()))
        for a, g in (alone, (A[one], G[one])):
            map_, range_ = ops.layer_cam(a, g, ops.RULES, weights=weights[one])
            assert same_bits(map_, maps[:, one])
            assert same_bits(range_, ranges[:, one])


# ---- values that are not finite, and empty batches


@pytest.mark.parametrize(
    ("layout", "value", "where", "shape"),
    spread(
        list(LAYOUTS),
        [float("nan"), float("inf"), -float("inf")],
        ["activations", "gradients"],
        [(3, 20, 5, 5), (3, 5, 2, 3), (3, 64, 40, 40)],
    ),
)
def test_values_that_are_not_finite_stay_in_their_sample_and_show_in_ranges(
    layout, value, where, shape
):
    A, G, weights = layer(shape)
    clean, clean_ranges = ops.layer_cam(
        LAYOUTS[layout](A), LAYOUTS[layout](G), ops.RULES, weights=weights
    )
    (A if where == "activations" else G)[1, 3, -1, -2] = value
    A, G = LAYOUTS[layout](A), LAYOUTS[layout](G)
    maps, ranges = ops.layer_cam(A, G, ops.RULES, weights=weights)
    for b in (0, 2):
        assert same_bits(maps[:, b], clean[:, b])
        assert same_bits(ranges[:, b], clean_ranges[:, b])
    finite = maps.isfinite().flatten(2).all(-1)
    assert torch.equal(ranges.isfinite().all(-1), finite)
    planes = maps.flatten(2)
    expected = torch.stack([planes.amin(-1), planes.amax(-1)], -1)
    torch.testing.assert_close(ranges, expected, rtol=0, atol=0, equal_nan=True)
    if value != value:
        reads = [where == "activations" or "weighted" not in rule for rule in ops.RULES]
        assert torch.equal(finite[:, 1], ~torch.tensor(reads))


def test_an_empty_batch_gives_empty_results():
    maps, ranges = ops.layer_cam(torch.empty(0, 4, 5, 6), torch.empty(0, 4, 5, 6), GRADIENT_RULES)
    assert maps.shape == (len(GRADIENT_RULES), 0, 5, 6)
    assert ranges.shape == (len(GRADIENT_RULES), 0, 2)


# ---- bad input

A = torch.zeros(2, 3, 4, 5)
W = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("args", "weights", "message"),
    [
        ((A[0], A[0], ["gradcam"]), None, r"activations must have 4 dimensions .* got \(3, 4, 5\)"),
        ((A[:, :0], A[:, :0], ["gradcam"]), None, r"channels and positions, got \(2, 0, 4, 5\)"),
        (
            (A[..., :0], A[..., :0], ["gradcam"]),
            None,
            r"channels and positions, got \(2, 3, 4, 0\)",
        ),
        ((A.int(), A.int(), ["gradcam"]), None, "activations must be float64 or .* got int32"),
        (
            (A, A[:, :2], ["gradcam"]),
            None,
            r"gradients .* shape of activations: expected \(2, 3, 4, 5\), got \(2, 2, 4, 5\)",
        ),
        ((A, A[0], ["gradcam"]), None, r"expected \(2, 3, 4, 5\), got \(3, 4, 5\)"),
        ((A, A.double(), ["gradcam"]), None, "gradients .* expected float32, got float64"),
        ((A, A.to("meta"), ["gradcam"]), None, "gradients must be on the device .* cpu, got meta"),
        ((A, None, ["weighted", "gradcam"]), W, "gradients must be given .* got None"),
        ((A, A, []), None, "rules must name at least one rule"),
        ((A, A, ["eigencam"]), None, "rules: expected one of gradcam, .* got 'eigencam'"),
        ((A, None, ["weighted"]), None, "weights must be given for rule 'weighted', got None"),
        ((A, A, ["gradcam"]), W, "weights must be None unless"),
        ((A, None, ["weighted"]), W[:, :2], r"weights .* expected \(2, 3\), got \(2, 2\)"),
        ((A, None, ["weighted"]), W.half(), "weights .* expected float32, got float16"),
        ((A, None, ["weighted"]), W.to("meta"), "weights must be on the device .* got meta"),
        (
            (torch.zeros(1).expand(1 << 20, 1 << 20, 1 << 10, 1 << 10), None, ["weighted"]),
            torch.zeros(1).expand(1 << 20, 1 << 20),
            "activations is too large",
        ),
    ],
)
def test_bad_input_is_one_clear_line(args, weights, message):
    with pytest.raises(ValueError, match=message) as caught:
        ops.layer_cam(*args, weights=weights)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("code", [-1, 12, 1 << 40])
def test_unknown_rule_numbers_are_refused(code):
    with pytest.raises(ValueError, match=f"rules must be numbers from 0 to 11, got {code}"):
        torch.ops.camfuse.layer_cam(A, A, [code])


# ---- derivatives and registration


def _inputs(requires_grad=True):
    generator = torch.Generator().manual_seed(1)
    make = [
        torch.randn(*s, generator=generator, dtype=torch.float64)
        for s in [(2, 3, 3, 4)] * 2 + [(2, 3)]
    ]
    # Away from the kinks at 0 of A, G and A * G.
    return [(x.sign() * (x.abs() + 0.2)).requires_grad_(requires_grad) for x in make]


@pytest.mark.parametrize("rule", ops.RULES)
def test_maps_are_differentiable_twice(rule):
    A, G, weights = _inputs()

    def maps(A, G, weights):
        return ops.layer_cam(A, G, [rule], weights=weights if "weighted" in rule else None)[0]

    assert torch.autograd.gradcheck(maps, (A, G, weights))
    assert torch.autograd.gradgradcheck(maps, (A, G, weights))


def test_gradients_flow_only_where_they_are_needed():
    A, G, weights = _inputs(requires_grad=False)
    maps, ranges = ops.layer_cam(A, G.requires_grad_(), ["gradcam++", "weighted"], weights=weights)
    assert not ranges.requires_grad
    maps.sum().backward()
    assert A.grad is None
    assert weights.grad is None
    assert G.grad.abs().sum() > 0


def test_weighted_without_gradients_is_differentiable():
    A, _, weights = _inputs()
    maps, _ = ops.layer_cam(A, None, ["weighted"], weights=weights)
    maps.sum().backward()
    assert torch.allclose(weights.grad, A.detach().sum((2, 3)))


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("rules", [[0, 1, 2, 3, 4, 5], [6]])
def test_opcheck(requires_grad, rules):
    A, G, weights = _inputs(requires_grad)
    args = (A, None, rules, weights) if rules == [6] else (A, G, rules)
    torch.library.opcheck(torch.ops.camfuse.layer_cam.default, args)


def test_traces_into_one_graph():
    A, G, _ = layer((2, 8, 5, 5))
    compiled = torch.compile(
        lambda a, g: ops.layer_cam(a, g, ["gradcam", "layercam"]),
        backend="aot_eager",
        fullgraph=True,
    )
    for got, want in zip(compiled(A, G), ops.layer_cam(A, G, ["gradcam", "layercam"]), strict=True):
        assert same_bits(got, want)
