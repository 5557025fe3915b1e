"""The native op ``principal_map`` against SVDs that others wrote, and its promises."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

from camfuse import ops, reference
from principal import arguments, assert_equal_map, assert_principal, spectrum, with_means
from test_layer_cam import DTYPES, LAYOUTS, layer, same_bits, spread, threads

__all__ = ["threads"]

SIZES = ((1, 1), (1, 7), (2, 3), (7, 7), (14, 14), (43, 3))
CHANNELS = (1, 2, 3, 14, 129)


# ---- agreement


@pytest.mark.parametrize(
    ("dtype", "layout", "size", "channels"), spread(DTYPES, list(LAYOUTS), SIZES, CHANNELS)
)
def test_agrees_with_an_svd(dtype, layout, size, channels):
    for terms in ops.TERMS:
        A, G, weights = arguments(terms, layer((2, channels, *size), dtype))
        A = LAYOUTS[layout](A)
        G = None if G is None else LAYOUTS[layout](G)
        assert_principal(ops.principal_map(A, G, terms, weights=weights), A, G, terms, weights)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 64, 56, 56), (1, 256, 28, 28), (3, 512, 7, 7)])
def test_agrees_with_an_svd_at_the_sizes_of_networks(layout, shape):
    A, G, _ = layer(shape)
    A, G = LAYOUTS[layout](A), LAYOUTS[layout](G)
    assert_principal(ops.principal_map(A), A)
    assert_principal(ops.principal_map(A, G, "product"), A, G, "product")


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(*(st.integers(1, most) for most in (3, 40, 12, 12))),
    dtype=st.sampled_from(DTYPES),
    terms=st.sampled_from(ops.TERMS),
    layouts=st.tuples(st.sampled_from(list(LAYOUTS)), st.sampled_from(list(LAYOUTS))),
    seed=st.integers(0, 1000),
)
def test_agrees_with_an_svd_for_any_shape(shape, dtype, terms, layouts, seed):
    A, G, weights = arguments(terms, layer(shape, dtype, seed))
    A = LAYOUTS[layouts[0]](A)
    G = None if G is None else LAYOUTS[layouts[1]](G)
    assert_principal(ops.principal_map(A, G, terms, weights=weights), A, G, terms, weights)


def test_is_the_projection_of_numpys_svd():
    A, _, _ = layer((1, 20, 9, 8))
    rows = A[0].flatten(1).T.double().numpy()
    rows -= rows.mean(0)
    _, _, Vt = np.linalg.svd(rows, full_matrices=False)
    expected = torch.from_numpy(rows @ Vt[0]).view(9, 8)
    found = ops.principal_map(A)[0][0].double()
    assert min((found - expected).abs().max(), (found + expected).abs().max()) < 1e-5


def test_is_pytorch_grad_cams_projection_up_to_sign():
    A, _, _ = layer((2, 30, 6, 11))
    expected = torch.from_numpy(get_2d_projection(A.numpy()))
    found = ops.principal_map(A)[0]
    for one, other in zip(found, expected, strict=True):
        assert min((one - other).abs().max(), (one + other).abs().max()) < 1e-4


@pytest.mark.parametrize("terms", ops.TERMS)
def test_the_reference_is_a_singular_vector_times_its_value(terms):
    A, G, weights = arguments(terms, layer((2, 12, 5, 4), torch.float64))
    maps, _, scales = reference.principal_map(A, G, terms, weights=weights)
    rows = reference.principal_rows(terms, A, G, weights)
    for map_, row, scale in zip(maps, rows, scales, strict=True):
        centred = row - row.mean(0)
        u = map_.flatten()
        value = np.linalg.norm(centred.numpy(), 2)
        torch.testing.assert_close(u.norm().item(), value)
        torch.testing.assert_close(centred @ (centred.T @ u), value**2 * u)
        torch.testing.assert_close(scale.item(), row.norm(dim=1).max().item())


# ---- spectra


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("ratio", [1.01, 1.1, 3.0])
@pytest.mark.parametrize("size", [(64, 20, 20), (400, 8, 8), (200, 30, 30)])
def test_a_close_second_component_stays_out(dtype, layout, ratio, size):
    A = LAYOUTS[layout](spectrum(size, [ratio, 1.0, *np.linspace(0.99, 0.1, 50)]).to(dtype))
    assert_principal(ops.principal_map(A), A)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("ratio", [1, 1 + 1e-7, 1 + 1e-5, 1.001])
@pytest.mark.parametrize("others", [[], [1.0, 1.0], list(np.linspace(0.999, 0.5, 60))])
def test_components_that_nearly_coincide_give_a_combination_of_them(layout, ratio, others):
    A = LAYOUTS[layout](spectrum((100, 15, 15), [ratio, 1.0, *others]).float())
    assert_principal(ops.principal_map(A), A)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_a_start_orthogonal_to_the_component_still_finds_it(layout):
    """All rows have the same energy, and so the energies say nothing."""
    signs = torch.randn(1, 40, 12, 12, generator=torch.Generator().manual_seed(0)).sign()
    A = LAYOUTS[layout](torch.cat([signs, -signs], 2))
    assert_principal(ops.principal_map(A), A)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mean", [1e3, 1e6])
def test_large_means_do_not_hide_the_component(layout, mean):
    A, _, _ = layer((1, 32, 10, 10))
    A = LAYOUTS[layout](A + mean * torch.linspace(1, 2, 32)[:, None, None])
    assert_principal(ops.principal_map(A), A)
    A = LAYOUTS[layout](with_means(mean).repeat(1, 3, 1, 1))
    assert_equal_map(ops.principal_map(A), A)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e18])
def test_squares_of_terms_leave_no_range(layout, size):
    A, G, _ = layer((1, 32, 10, 10))
    A, G = LAYOUTS[layout](A * size), LAYOUTS[layout](G)
    maps = ops.principal_map(A, G, "product")
    torch.testing.assert_close(
        maps[0] / size, ops.principal_map(A / size, G, "product")[0], rtol=1e-3, atol=1e-4
    )
    assert_principal(maps, A, G, "product")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_constant_layer_gives_0(layout, dtype):
    A = torch.rand(2, 30, 1, 1, dtype=torch.float64).expand(2, 30, 7, 8).to(dtype)
    G = (torch.rand(2, 30, 1, 1, dtype=torch.float64) - 0.5).expand(2, 30, 7, 8).to(dtype)
    maps, ranges, scales = ops.principal_map(LAYOUTS[layout](A), LAYOUTS[layout](G), "product")
    assert (maps.abs().amax((1, 2)) < 1e-5 * scales).all()
    assert (ranges.abs() < 1e-5 * scales[:, None]).all()
    torch.testing.assert_close(
        scales.double(), (A * G).double()[..., 0, 0].norm(dim=1), rtol=1e-2, atol=0
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_zeros_and_single_positions_give_exactly_0(layout):
    for A in (torch.zeros(1, 20, 5, 5), torch.rand(2, 40, 1, 1)):
        maps, ranges, scales = ops.principal_map(LAYOUTS[layout](A))
        assert not maps.any()
        assert not ranges.any()
        torch.testing.assert_close(scales, A.flatten(2).norm(dim=1).amax(1))


# ---- promises


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_terms_that_are_not_finite_stay_in_their_sample(layout, bad):
    A, G, _ = layer((3, 24, 6, 6))
    A, G = LAYOUTS[layout](A), LAYOUTS[layout](G)
    clean = ops.principal_map(A, G, "gradient_magnitude")
    A[1, 2, 3, 3] = bad
    found = ops.principal_map(A, G, "gradient_magnitude")
    expected = reference.principal_map(A.double(), G.double(), "gradient_magnitude")
    for one, before, twin in zip(found, clean, expected, strict=True):
        assert same_bits(one[::2].contiguous(), before[::2].contiguous())
        assert one[1].isnan().all()
        assert twin[1].isnan().all()


def test_what_rectification_makes_finite_counts_as_finite():
    A, G, _ = layer((1, 24, 6, 6))
    A[0, 0, 0, 0], G[0, 0, 0, 0] = float("inf"), -1
    assert ops.principal_map(A, G, "positive_product")[0].isfinite().all()
    assert ops.principal_map(A, G, "product")[0].isnan().all()


@pytest.mark.parametrize("channels_last", [False, True])
def test_an_empty_batch_gives_empty_results(channels_last):
    A = torch.empty(0, 20, 3, 4)
    A = LAYOUTS["channels_last"](A) if channels_last else A
    shapes = [x.shape for x in ops.principal_map(A)]
    assert shapes == [(0, 3, 4), (0, 2), (0,)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(4, 40, 14, 14), (2, 128, 60, 60)])
def test_equal_bits_across_threads_and_batch_positions(layout, shape, threads):
    A, G, _ = layer(shape)
    A, G = LAYOUTS[layout](A), LAYOUTS[layout](G)
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(ops.principal_map(A, G, "product"))
    alone = [ops.principal_map(A[b : b + 1], G[b : b + 1], "product") for b in range(shape[0])]
    results.append([torch.cat(parts) for parts in zip(*alone, strict=True)])
    for result in results[1:]:
        assert all(same_bits(x, y) for x, y in zip(result, results[0], strict=True))


A = torch.zeros(2, 3, 4, 5)
W = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("args", "weights", "message"),
    [
        ((A[0],), None, r"activations must have 4 dimensions \[B, C, h, w\], got \(3, 4, 5\)"),
        ((A[:, :0],), None, r"activations must have channels and positions, got \(2, 0, 4, 5\)"),
        ((A.int(),), None, "activations must be float64 or .*, got int32"),
        ((A, A), None, "gradients must be None for terms 'activation' and 'weighted', got a"),
        ((A, A, "weighted"), W, "gradients must be None for terms 'activation' and 'weighted'"),
        ((A, None, "product"), None, "gradients must be given for these terms, got None"),
        ((A, A[:1], "product"), None, r"gradients must have the shape of activations: expected \("),
        ((A, A.double(), "product"), None, "gradients must have the dtype of activations: expect"),
        ((A, None, "weighted"), None, "weights must be given for terms 'weighted', got None"),
        ((A,), W, "weights must be None unless terms are 'weighted', got a tensor"),
        ((A, None, "weighted"), W.T, r"weights must have the shape of batch and channels: exp.*\("),
        ((A, None, "weighted"), W.half(), "weights must have the dtype of activations: expected f"),
        ((A, None, "svd"), None, "terms: expected one of activation, .* got 'svd'"),
    ],
)
def test_bad_input_is_one_clear_line(args, weights, message):
    with pytest.raises(ValueError, match=message):
        ops.principal_map(*args, weights=weights)


def test_an_unknown_number_of_terms_is_an_error():
    with pytest.raises(Exception, match="terms must be a number from 0 to 5, got 6"):
        torch.ops.camfuse.principal_map(A, None, 6)


def test_refuses_to_be_differentiated():
    x = layer((1, 3, 4, 4))[0].requires_grad_()
    with pytest.raises(RuntimeError, match="principal_map is not differentiable"):
        ops.principal_map(x)
    with torch.no_grad():
        assert not ops.principal_map(x)[0].requires_grad


def test_opcheck():
    activations, gradients, weights = layer((2, 3, 4, 4))
    op = torch.ops.camfuse.principal_map.default
    torch.library.opcheck(op, (activations, None, 0))
    torch.library.opcheck(op, (activations, gradients, 1))
    torch.library.opcheck(op, (activations.double(), None, 5, weights.double()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_fake_kernel_gives_the_shapes_and_dtypes_of_the_op(dtype):
    activations, _, _ = layer((2, 3, 4, 5), dtype)
    real = ops.principal_map(activations)
    fake = ops.principal_map(activations.to("meta"))
    assert [(x.shape, x.dtype) for x in fake] == [(x.shape, x.dtype) for x in real]


def test_compiles_without_a_break():
    activations, gradients, _ = layer((2, 20, 6, 6))

    def twice(a, g):
        return 2 * ops.principal_map(a, g, "product")[0]

    compiled = torch.compile(twice, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(activations, gradients), twice(activations, gradients))
