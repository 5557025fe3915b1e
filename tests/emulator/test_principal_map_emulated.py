"""The CUDA kernel of principal_map, run on the CPU, against an SVD in f64.

Every call runs with several seeds, hence orders of threads and blocks, and must give equal bits.
"""

import pytest
import torch

import principal_map_checks
from camfuse import ops
from principal import arguments, assert_principal
from principal_layers import emulated_principal_map
from test_layer_cam import DTYPES, LAYOUTS, layer, same_bits


@pytest.fixture(scope="module")
def run(emulator):
    return emulator("principal_map")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "terms"),
    [
        ((2, 3, 1, 1), "activation"),
        ((1, 1, 1, 7), "product"),
        ((3, 14, 7, 7), "weighted"),
        ((1, 33, 5, 3), "gradient_magnitude"),
        ((2, 2, 14, 14), "positive_product"),
        ((1, 130, 2, 3), "positive_gradient"),
    ],
)
def test_agrees_with_an_svd(run, layout, dtype, shape, terms):
    A, G, weights = arguments(terms, layer(shape, dtype))
    A = LAYOUTS[layout](A)
    G = None if G is None else LAYOUTS[layout](G)
    found = emulated_principal_map(run, A, G, terms, weights, seeds=(0, 1))
    assert_principal(found, A, G, terms, weights)


@pytest.mark.parametrize(
    "check", [name for name in dir(principal_map_checks) if name.startswith("check_")]
)
def test_passes_the_checks_that_find_faults(run, check):
    getattr(principal_map_checks, check)(run)


@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("second", LAYOUTS)
def test_activations_and_gradients_may_differ_in_layout(run, first, second):
    A, G, _ = layer((2, 9, 4, 5))
    A, G = LAYOUTS[first](A), LAYOUTS[second](G)
    found = emulated_principal_map(run, A, G, "product", offset=1, seeds=(0, 1))
    assert_principal(found, A, G, "product")


def test_gradients_of_a_mean_are_expanded_planes_of_stride_0(run):
    A, G, _ = layer((2, 9, 4, 5))
    G = G.mean((2, 3), keepdim=True).expand_as(A)
    found = emulated_principal_map(run, A, G, "product", seeds=(0, 1))
    assert_principal(found, A, G, "product")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sample_has_the_bits_it_has_alone(run, layout):
    A = LAYOUTS[layout](layer((3, 12, 5, 5))[0])
    maps, *_ = emulated_principal_map(run, A, seeds=(0,))
    alone, *_ = emulated_principal_map(run, LAYOUTS[layout](A[2:].contiguous()), seeds=(0, 1))
    assert same_bits(alone, maps[2:].contiguous())


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_is_close_to_the_op_on_the_cpu(run, layout):
    A = LAYOUTS[layout](layer((1, 40, 9, 9))[0])
    found, expected = emulated_principal_map(run, A, seeds=(0,)), ops.principal_map(A)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
