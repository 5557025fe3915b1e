"""Principal components of activations, as the peer finds them up to their sign."""

import numpy as np
import pytest
import pytorch_grad_cam.utils.svd_on_activations as peer
import torch

from camfuse.compat.pytorch_grad_cam.utils import svd_on_activations as face

SHAPES = [(2, 16, 7, 7), (1, 3, 5, 9), (3, 40, 2, 3), (2, 8, 3, 4, 5), (1, 12, 17, 15)]


def activations(*shape, dtype=np.float32):
    values = np.random.default_rng(0).standard_normal(shape)
    # One direction stands out: where singular values coincide, so do maps of many directions.
    direction = np.random.default_rng(1).standard_normal((shape[0], shape[1]))
    strength = np.random.default_rng(2).standard_normal((shape[0], *shape[2:]))
    return (values + 3 * np.einsum("bc,b...->bc...", direction, strength)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_projections_are_the_peers_up_to_their_sign(shape, dtype):
    batch = activations(*shape, dtype=dtype)

    found, expected = face.get_2d_projection(batch), peer.get_2d_projection(batch)

    assert found.dtype == np.float32
    assert found.shape == expected.shape
    for one, other in zip(found, expected, strict=True):
        sign = np.sign((one * other).sum())
        np.testing.assert_allclose(one, sign * other, atol=1e-4 * np.abs(other).max())


def test_a_projection_goes_along_with_the_energy_of_the_activations():
    batch = activations(3, 16, 7, 7)

    maps = face.get_2d_projection(batch)

    assert ((maps * (batch**2).sum(1)).sum((1, 2)) > 0).all()


@pytest.mark.parametrize(
    "project", [face.get_2d_projection, face.get_2d_projection_kernel], ids=["linear", "kernel"]
)
def test_nan_count_as_0_and_stay_in_the_argument(project):
    batch = activations(2, 6, 5, 5)
    batch[0, 2, 3, 1] = np.nan
    cleared = np.nan_to_num(batch)

    maps = project(batch)

    np.testing.assert_array_equal(maps, project(cleared))
    assert np.isnan(batch[0, 2, 3, 1])


def test_half_precision_and_tensors_are_projected():
    batch = torch.from_numpy(activations(2, 6, 5, 5)).bfloat16().requires_grad_()

    found = face.get_2d_projection(batch)

    expected = face.get_2d_projection(batch.detach().float().numpy())
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("shape", SHAPES)
def test_the_sign_of_seg_eigen_cam_is_the_peers(shape):
    batch = activations(*shape)

    found = face.get_2d_projection_with_sign_correction(batch)

    expected = peer.get_2d_projection_with_sign_correction(batch)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("gamma", [None, 0.02])
@pytest.mark.parametrize("kernel", ["linear", "poly", "rbf", "sigmoid", "cosine"])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_projections_are_the_peers_with_their_sign(shape, kernel, gamma):
    batch = activations(*shape)

    found = face.get_2d_projection_kernel(batch, kernel, gamma)

    expected = peer.get_2d_projection_kernel(batch, kernel, gamma)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_a_sigmoid_kernel_is_the_default():
    batch = activations(1, 6, 5, 5)

    np.testing.assert_array_equal(
        face.get_2d_projection_kernel(batch), face.get_2d_projection_kernel(batch, "sigmoid", 1 / 6)
    )


def test_an_unknown_kernel_is_refused():
    with pytest.raises(ValueError, match=r"^kernel: expected one of linear, poly"):
        face.get_2d_projection_kernel(activations(1, 6, 5, 5), "quintic")


@pytest.mark.parametrize("batch", [np.ones((4, 4)), np.ones((1, 4, 4, 4), int)])
def test_what_are_no_activations_is_refused(batch):
    with pytest.raises(ValueError, match=r"^activation_batch: expected"):
        face.get_2d_projection(batch)
