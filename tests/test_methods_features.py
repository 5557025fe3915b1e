"""fem: channels weighed by how many of their positions stand out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam import FEM
from torch import Tensor, nn

import camfuse
from oracle import autograd_pairs, relative_error
from small_models import Residual


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Residual().double().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(
        2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


def formula(A: Tensor) -> Tensor:
    a = A.double().numpy()
    mean, deviation = (one(a, axis=(2, 3), keepdims=True) for one in (np.mean, np.std))
    weights = (a > mean + 2 * deviation).mean((2, 3))
    return torch.from_numpy((weights[:, :, None, None] * a).sum(1))


def test_every_layer_follows_the_formula(model: nn.Module, x: Tensor) -> None:
    stack = camfuse.layer_cams(model, x, method="fem")
    for name in stack.names:
        expected = formula(autograd_pairs(model, x)[name][0])
        assert expected.abs().max() > 0
        assert relative_error(stack[name], expected) <= 1e-9, name


def test_maps_are_those_of_pytorch_grad_cam(model: nn.Module, x: Tensor) -> None:
    stack = camfuse.layer_cams(model, x, method="fem")
    peer = FEM(model, [])
    for name in stack.names:
        A = autograd_pairs(model, x)[name][0].numpy()
        raw = peer.get_cam_image(x, None, None, A, None, False)
        assert relative_error(stack[name], torch.from_numpy(raw)) <= 1e-9, name


def test_half_precision_counts_as_finely_as_single(x: Tensor) -> None:
    # 4096 positions: a mean or a count taken in bf16 would end at 256.
    layer = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = layer.to(torch.bfloat16).eval()
    stack = camfuse.layer_cams(model, x.bfloat16(), method="fem", layers="0")
    expected = formula(model[0](x.bfloat16()).detach())
    assert relative_error(stack["0"], expected) <= 2**-8  # of the weights, which are bf16


def test_no_gradient_is_computed(
    model: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.autograd, "grad", None)
    assert camfuse.layer_cams(model.requires_grad_(False), x, method="fem")["conv"].any()


def test_a_constant_channel_has_no_weight() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(0.1)
    stack = camfuse.layer_cams(model, torch.rand(1, 3, 8, 8), method="fem", layers="0")
    assert not stack["0"].any()
