"""The native op ``principal_map`` on CUDA devices, against an SVD in f64 and against the CPU."""

import pytest
import torch

from camfuse import ops
from principal import arguments, assert_equal_map, assert_principal, spectrum, with_means
from test_cuda_layer_cam import DEVICE, on_device
from test_layer_cam import DTYPES, LAYOUTS, layer, same_bits, spread

pytestmark = pytest.mark.cuda

SIZES = ((1, 1), (2, 3), (7, 7), (43, 3), (56, 56))


@pytest.mark.parametrize(
    ("dtype", "layout", "size", "channels"),
    spread(DTYPES, list(LAYOUTS), SIZES, [1, 3, 14, 129, 520]),
)
def test_agrees_with_an_svd(dtype, layout, size, channels):
    for terms in ops.TERMS:
        A, G, weights = arguments(terms, layer((2, channels, *size), dtype))
        A = LAYOUTS[layout](A)
        G = None if G is None else LAYOUTS[layout](G)
        a, g, w = on_device(A, G, weights)
        found = ops.principal_map(a, g, terms, weights=w)
        assert all(x.device == DEVICE for x in found)
        assert_principal(found, A, G, terms, weights)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("shape", [(2, 64, 112, 112), (2, 512, 28, 28), (2, 2048, 7, 7)])
def test_is_within_1e_4_of_the_cpu(layout, shape):
    first = spectrum(shape[1:], [3.0, 1.0, 0.5]).float()
    A = LAYOUTS[layout](torch.cat([first, first.flip(1)]))
    for one, other in zip(ops.principal_map(*on_device(A)), ops.principal_map(A), strict=True):
        limit = 1e-4 * other.abs().max().item()
        torch.testing.assert_close(one.cpu(), other, rtol=1e-4, atol=limit)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("ratio", [1.01, 1.1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_close_second_component_stays_out(layout, ratio, dtype):
    values = [ratio, 1.0, *torch.linspace(0.99, 0.1, 50).tolist()]
    A = LAYOUTS[layout](spectrum((64, 20, 20), values).to(dtype))
    assert_principal(ops.principal_map(*on_device(A)), A)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_large_means_do_not_hide_the_component(layout):
    A = LAYOUTS[layout](with_means(1e6))
    assert_equal_map([x.cpu() for x in ops.principal_map(*on_device(A))], A)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_equal_bits_across_runs_and_batch_positions(layout):
    (A,) = on_device(LAYOUTS[layout](layer((4, 40, 14, 14))[0]))
    results = [ops.principal_map(A) for _ in range(3)]
    alone = [ops.principal_map(A[b : b + 1]) for b in range(4)]
    results.append([torch.cat(parts) for parts in zip(*alone, strict=True)])
    for result in results[1:]:
        assert all(same_bits(x, y) for x, y in zip(result, results[0], strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_terms_that_are_not_finite_stay_in_their_sample(bad):
    A = layer((3, 24, 6, 6))[0]
    A[1, 2, 3, 3] = bad
    for one in ops.principal_map(*on_device(A)):
        assert one[1].isnan().all()
        assert one[::2].isfinite().all()


def test_an_empty_batch_gives_empty_results():
    shapes = [x.shape for x in ops.principal_map(torch.empty(0, 20, 3, 4, device=DEVICE))]
    assert shapes == [(0, 3, 4), (0, 2), (0,)]


def test_refuses_to_be_differentiated():
    (A,) = on_device(layer((1, 3, 4, 4))[0])
    with pytest.raises(RuntimeError, match="principal_map is not differentiable"):
        ops.principal_map(A.requires_grad_())
