"""kpcacam: the first component of kernel PCA, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam import KPCA_CAM
from sklearn.decomposition import KernelPCA
from torch import Tensor, nn

import camfuse
from camfuse.methods import METHODS, kernel
from camfuse.methods.base import MapMethod, Pair
from oracle import autograd_pairs, relative_error
from small_models import Residual


class Pooled(Residual):
    """A quarter of the positions, so that scikit-learn's decompositions take no time."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, stride=4)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Pooled().double().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(
        2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


def make(A: Tensor) -> tuple[Tensor, Tensor]:
    method = METHODS["kpcacam"]
    assert isinstance(method, MapMethod)
    return method.make(Pair(None, A, None))  # type: ignore[arg-type]


def by_sklearn(A: Tensor) -> Tensor:
    """With the full decomposition, and the sign of the documented convention."""
    maps = []
    for sample in A.double().numpy():
        rows = sample.reshape(len(sample), -1).T
        energy = (rows**2).sum(1)
        pca = KernelPCA(1, kernel="sigmoid", eigen_solver="dense")
        component = pca.fit_transform(rows - rows.mean(0))[:, 0]
        maps.append((component * np.sign(component @ energy)).reshape(sample.shape[1:]))
    return torch.from_numpy(np.stack(maps))


def test_every_layer_is_decomposed_as_by_sklearn(model: nn.Module, x: Tensor) -> None:
    stack = camfuse.layer_cams(model, x, method="kpcacam")
    for name in stack.names:
        expected = by_sklearn(autograd_pairs(model, x)[name][0])
        assert relative_error(stack[name], expected) <= 1e-7, name


def test_maps_are_those_of_pytorch_grad_cam_but_for_the_sign(model: nn.Module, x: Tensor) -> None:
    peer = KPCA_CAM(model, [])
    got = camfuse.layer_cams(model, x, method="kpcacam", layers="conv")["conv"]
    A = autograd_pairs(model, x)["conv"][0].numpy()
    for ours, theirs in zip(
        got, torch.from_numpy(peer.get_cam_image(x, None, None, A, None, False)), strict=True
    ):
        sign = (ours * theirs).sum().sign()
        assert relative_error(ours, sign * theirs) <= 1e-5  # theirs is f32


@pytest.mark.parametrize("shape", [(8, 1, 2), (3, 2, 2), (4, 5, 7), (2, 20, 30), (64, 14, 14)])
def test_few_positions_and_few_channels(shape: tuple[int, int, int]) -> None:
    A = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert relative_error(make(A)[0], by_sklearn(A)) <= 1e-6


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e3])
def test_single_precision_is_enough_for_activations_of_any_size(size: float) -> None:
    # Rectified ones, whose kernel has rows that are equal; large ones saturate it.
    A = torch.randn(2, 16, 12, 12, generator=torch.Generator().manual_seed(3)).relu() * size
    assert relative_error(make(A)[0], by_sklearn(A)) <= 1e-3


def test_an_eigenvalue_of_larger_magnitude_below_zero_is_not_taken() -> None:
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(90, 90, generator=generator, dtype=torch.float64))[0]
    spectrum = torch.linspace(-5, 1, 90, dtype=torch.float64)
    matrix = turn @ spectrum.diag() @ turn.T
    value, vector = kernel.largest_eigenpair(matrix)
    assert float(value) == pytest.approx(1, abs=1e-3)
    assert float((vector @ turn[:, -1]).abs()) == pytest.approx(1, abs=1e-2)


def test_a_nan_stays_in_its_sample() -> None:
    A = torch.randn(2, 4, 5, 5)
    A[0, 0, 0, 0] = torch.nan
    maps, _ = make(A)
    assert maps[0].isnan().all()
    assert maps[1].isfinite().all()


@pytest.mark.parametrize("value", [0.0, 5.3])
def test_a_layer_without_differences_shows_nothing(value: float) -> None:
    A = torch.full((1, 16, 6, 6), value)
    maps, scales = make(A + torch.randn(A.shape) * 1e-7 * value)
    assert (maps.abs() <= 1e-4 * scales).all()


def test_too_many_positions_are_refused_with_the_reason() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 1, 1), nn.MaxPool2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    stack = camfuse.layer_cams(model.eval(), torch.rand(1, 3, 160, 160), method="kpcacam")
    assert stack.names == ("1",)
    (reason,) = (one.reason for one in stack.skipped if one.name == "0")
    assert reason == (
        "kpcacam: its kernel of 25600 x 25600 positions would not fit into memory; at most 20000 "
        "positions are allowed"
    )
