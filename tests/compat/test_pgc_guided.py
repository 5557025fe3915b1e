"""Guided backpropagation and edges."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GuidedBackpropReLUModel as PeerModel
from pytorch_grad_cam.sobel_cam import sobel_cam as peer_sobel_cam
from torch import nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock

from camfuse.compat.pytorch_grad_cam import GuidedBackpropReLUModel
from camfuse.compat.pytorch_grad_cam.sobel_cam import sobel_cam


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)


@pytest.fixture
def x():
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("category", [None, 3])
def test_guided_gradients_are_the_peers(model, x, category):
    expected = PeerModel(copy.deepcopy(model))(x.clone(), category)
    found = GuidedBackpropReLUModel(model)(x, category)
    assert found.dtype == expected.dtype
    assert found.shape == (64, 64, 3)
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max(), rtol=0)
    assert np.abs(expected).max() > 0


def state(model):
    return (
        [(id(one), one.training, len(one._forward_hooks)) for one in model.modules()],
        [vars(one).get("forward") for one in model.modules()],
        [(id(one), one.requires_grad, one.grad) for one in model.parameters()],
        [id(one) for one in model.buffers()],
        [one.clone() for one in model.buffers()],
    )


def assert_same_state(found, expected):
    assert found[:4] == expected[:4]
    torch.testing.assert_close(found[4], expected[4], rtol=0, atol=0)


def test_the_model_is_left_as_it_was(model, x):
    model.train()
    model.layer1.eval()
    before = state(model)
    GuidedBackpropReLUModel(model)(x)
    assert_same_state(state(model), before)
    assert x.grad is None
    assert not x.requires_grad


def test_the_model_is_left_as_it_was_after_an_error(model, x):
    class Failing(nn.Module):
        def forward(self, x):
            raise RuntimeError("on purpose")

    model.layer3 = Failing()
    before = state(model)
    with pytest.raises(RuntimeError, match="on purpose"):
        GuidedBackpropReLUModel(model)(x)
    assert_same_state(state(model), before)


def test_calls_do_not_add_up(model, x):
    guided = GuidedBackpropReLUModel(model)
    np.testing.assert_array_equal(guided(x, 1), guided(x, 1))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_gradients_need_not_be_enabled(model, x, context):
    expected = GuidedBackpropReLUModel(model)(x, 1)
    with context():
        np.testing.assert_array_equal(GuidedBackpropReLUModel(model)(x * 1, 1), expected)


def test_frozen_models_are_explained(model, x):
    expected = GuidedBackpropReLUModel(model)(x, 1)
    np.testing.assert_array_equal(
        GuidedBackpropReLUModel(model.requires_grad_(False))(x, 1), expected
    )


def test_models_of_16_bits_are_explained(model, x):
    expected = GuidedBackpropReLUModel(model)(x, 1)
    found = GuidedBackpropReLUModel(model.bfloat16())(x.bfloat16(), 1)
    assert found.dtype == np.float32
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.95


def test_functions_stay_what_they_are(x):
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

        def forward(self, x):
            return self.last(-torch.relu(self.conv(x)).mean((2, 3)))

    torch.manual_seed(0)
    model = Functional().eval()
    x.requires_grad_()
    (expected,) = torch.autograd.grad(model(x)[0, 2], x)
    found = GuidedBackpropReLUModel(model)(x, 2)
    np.testing.assert_allclose(found, expected[0].permute(1, 2, 0), atol=1e-6)


@pytest.mark.parametrize("shape", [(64, 48, 3), (1, 5, 3), (2, 2, 3), (101, 333, 3)], ids=str)
@pytest.mark.parametrize("highest", [256, 20])
def test_edges_are_the_peers(shape, highest):
    img = np.random.default_rng(0).integers(0, highest, shape).astype(np.uint8)
    found = sobel_cam(img)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, peer_sobel_cam(img))


def test_edges_of_floating_images_are_the_peers():
    img = (np.random.default_rng(0).random((40, 30, 3)) * 40).astype(np.float32)
    np.testing.assert_array_equal(sobel_cam(img), peer_sobel_cam(img))


@pytest.mark.parametrize(
    "img", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))], ids=["2d", "f64"]
)
def test_edges_need_an_image(img):
    with pytest.raises(ValueError, match="img: expected"):
        sobel_cam(img)
