"""The native op ``fused_cam`` against the reference and against ``torch.nn.functional``."""

import pytest
import torch
import torch.nn.functional as F

from camfuse import ops, reference
from test_layer_cam import DTYPES, LAYOUTS, layer, same_bits

OUTPUTS = ((224, 224), (1, 1), (5, 9), (13, 17), (61, 30))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 7), (13, 17), (30, 30)])
@pytest.mark.parametrize("output", OUTPUTS)
def test_agrees_with_reference(dtype, layout, size, output):
    A, G, _ = layer((2, 31, *size), dtype)
    result = ops.fused_cam(LAYOUTS[layout](A), LAYOUTS[layout](G), "gradcam", output)
    expected = reference.fused_cam(A.double(), G.double(), "gradcam", output)
    assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(
        result.double(), expected, rtol=0, atol=1e-9 if dtype == torch.float64 else 2e-5
    )


@pytest.mark.parametrize("rule", ops.MAGNITUDE_OF)
@pytest.mark.parametrize("relu", [True, False])
def test_is_layer_cam_then_normalisation_then_interpolate(rule, relu):
    A, G, weights = layer((3, 20, 9, 12))
    weights = weights if "weighted" in rule else None
    result = ops.fused_cam(A, G, rule, (40, 31), weights=weights, relu=relu)
    map_ = ops.layer_cam(A, G, [rule], weights=weights)[0][0]
    map_ = map_.relu() if relu else map_
    low, high = map_.amin((1, 2), keepdim=True), map_.amax((1, 2), keepdim=True)
    expected = F.interpolate(((map_ - low) / (high - low))[:, None], (40, 31), mode="bilinear")[
        :, 0
    ]
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)
    assert 0 <= result.min() <= result.max() <= 1


@pytest.mark.parametrize("relu", [True, False])
def test_constant_maps_become_0(relu):
    A = torch.ones(2, 3, 4, 4)
    A[1] *= -1  # its map is negative: rectified to the constant 0
    result = ops.fused_cam(A, torch.ones_like(A), "hirescam", (9, 9), relu=relu)
    assert torch.equal(result, torch.zeros(2, 9, 9))


def test_a_map_with_nan_becomes_nan_and_stays_in_its_sample():
    A, G, _ = layer((3, 8, 6, 6))
    clean = ops.fused_cam(A, G, "gradcam", (10, 10))
    A[1, 2, 3, 3] = float("nan")
    result = ops.fused_cam(A, G, "gradcam", (10, 10))
    assert same_bits(result[::2], clean[::2])
    assert result[1].isnan().all()


def test_an_empty_batch_gives_an_empty_result():
    assert ops.fused_cam(
        torch.empty(0, 2, 3, 3), torch.empty(0, 2, 3, 3), "gradcam", (4, 5)
    ).shape == (
        0,
        4,
        5,
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_equal_bits_across_threads_and_batch_positions(layout):
    A, G, _ = layer((4, 40, 14, 14))
    A, G = LAYOUTS[layout](A), LAYOUTS[layout](G)
    before = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(ops.fused_cam(A, G, "xgradcam", (150, 140)))
    finally:
        torch.set_num_threads(before)
    assert all(same_bits(result, results[0]) for result in results)
    for b in range(4):
        alone = ops.fused_cam(A[b : b + 1], G[b : b + 1], "xgradcam", (150, 140))
        assert same_bits(alone, results[0][b : b + 1])


A = torch.zeros(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((A, A, "gradcam", (0, 5)), r"size must be two positive numbers \(H, W\), got \(0, 5\)"),
        ((A, A, "gradcam", (4, -5)), r"got \(4, -5\)"),
        ((A, A, "gradcam", (4,)), r"got \(4,\)"),
        ((A, A, "gradcam", (1 << 40, 1 << 40)), "size is too large"),
        ((A, A, "cam", (4, 5)), "rule: expected one of gradcam, .* got 'cam'"),
        ((A, A[:1], "gradcam", (4, 5)), "gradients must have the shape of activations"),
        ((A, None, "gradcam", (4, 5)), "gradients must be given"),
        ((A, None, "weighted", (4, 5)), "weights must be given"),
    ],
)
def test_bad_input_is_one_clear_line(args, message):
    with pytest.raises(ValueError, match=message):
        ops.fused_cam(*args)


def test_refuses_to_be_differentiated():
    A, G, _ = layer((1, 3, 4, 4))
    A.requires_grad_()
    with pytest.raises(RuntimeError, match="fused_cam is not differentiable"):
        ops.fused_cam(A, G, "gradcam", (8, 8))
    with torch.no_grad():
        assert not ops.fused_cam(A, G, "gradcam", (8, 8)).requires_grad


def test_opcheck():
    A, G, weights = layer((2, 3, 4, 4))
    op = torch.ops.camfuse.fused_cam.default
    torch.library.opcheck(op, (A, G, 0, [8, 9]))
    torch.library.opcheck(op, (A, None, 6, [8, 9], weights, False))
