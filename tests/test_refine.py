"""refine_cam(): against torchcam on the same maps, and what its product does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam import RefineCAM as PeerRefineCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torchcam.methods import GradCAM as TorchcamGradCAM
from torchcam.methods import RefineCAM

import camfuse
from camfuse import Each
from oracle import relative_error

SIZE = (40, 56)


class Stages(nn.Module):
    """Layers of three sizes, of which nothing is overwritten."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.third = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.classifier = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.first, self.second, self.third):
            x = conv(x).relu()
        return self.classifier(x.mean((2, 3)))


LAYERS = ["first", "second", "third"]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(3)
    return Stages().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def stack(model: nn.Module, x: Tensor) -> camfuse.CamStack:
    methods, targets = ["gradcam", "layercam"], Each([None, 2])
    return camfuse.layer_cams(model, x, method=methods, layers=LAYERS, target=targets)


def test_every_map_is_the_product_that_torchcam_makes(stack: camfuse.CamStack) -> None:
    refined = camfuse.refine_cam(stack)
    assert refined.shape == (2, 2, 2, *SIZE)
    for r in range(2):
        for t in range(2):
            maps = [stack.maps(name)[r, t].clamp(min=0) for name in LAYERS]
            expected = RefineCAM.fuse_cams(maps, SIZE)
            assert expected.max() > 0.99
            assert relative_error(refined[r, t], expected) <= 1e-4


def test_from_end_to_end_it_is_torchcams(model: nn.Module, x: Tensor) -> None:
    with RefineCAM(model, LAYERS, base_method=TorchcamGradCAM) as peer:
        (expected,) = peer([0, 1], model(x), target_shape=SIZE)
    stack = camfuse.layer_cams(model, x, layers=LAYERS, target=[0, 1])
    assert relative_error(camfuse.refine_cam(stack)[0, 0], expected) <= 1e-4


def test_from_end_to_end_it_is_pytorch_grad_cams(model: nn.Module, x: Tensor) -> None:
    # Which stretches each map to [0, 1] once more after upsampling: another factor, undone in the
    # end.
    peer = PeerRefineCAM(model, [getattr(model, name) for name in LAYERS], base_method=GradCAM)
    expected = torch.from_numpy(peer(x, [ClassifierOutputTarget(1)] * 2))
    stack = camfuse.layer_cams(model, x, layers=LAYERS, target=1)
    assert relative_error(camfuse.refine_cam(stack)[0, 0], expected) <= 1e-4


def test_only_the_named_layers_count(stack: camfuse.CamStack) -> None:
    some = camfuse.refine_cam(stack, layers=["first", "third"])
    assert torch.equal(some, camfuse.refine_cam(stack.select(layers=["first", "third"])))
    assert not torch.equal(some, camfuse.refine_cam(stack))
    alone = camfuse.refine_cam(stack, layers=["first"])
    assert torch.allclose(alone, stack.normalized("first", size=SIZE), atol=1e-6)


def test_the_size_can_be_chosen(stack: camfuse.CamStack) -> None:
    assert camfuse.refine_cam(stack, size=(7, 9)).shape == (2, 2, 2, 7, 9)


def test_every_map_fills_the_range(stack: camfuse.CamStack) -> None:
    refined = camfuse.refine_cam(stack).flatten(3)
    assert torch.equal(refined.amin(-1), torch.zeros(2, 2, 2))
    assert torch.equal(refined.amax(-1), torch.ones(2, 2, 2))


def test_a_layer_that_shows_nothing_makes_the_product_zero(stack: camfuse.CamStack) -> None:
    flat, ranges = stack.flat.clone(), stack.ranges.clone()
    flat[stack.offsets[1] : stack.offsets[2]] = ranges[1] = -1
    silent = replace(stack, flat=flat, ranges=ranges)
    assert torch.equal(camfuse.refine_cam(silent), torch.zeros(2, 2, 2, *SIZE))


def test_a_hundred_layers_that_agree_on_little_do_not_underflow() -> None:
    model = nn.Sequential(*[nn.Conv2d(1, 1, 1) for _ in range(100)], nn.Flatten()).eval()
    stack = camfuse.layer_cams(model, torch.rand(1, 1, 1, 4), layers="conv", target=0)
    # Each pixel is low in half of the layers; the product of all is 1e-100 at most.
    flat = torch.tensor([[0, 1, 0.01, 0.01], [0, 0.01, 1, 0.005]]).repeat(50, 1).flatten()
    ranges = torch.tensor([0.0, 1.0]).expand_as(stack.ranges)
    refined = camfuse.refine_cam(replace(stack, flat=flat, ranges=ranges))
    assert refined.flatten().tolist() == pytest.approx([0, 1, 1, 0])


def test_maps_can_be_differentiated(model: nn.Module, x: Tensor) -> None:
    stack = camfuse.layer_cams(model, x, layers=LAYERS, create_graph=True)
    camfuse.refine_cam(stack).sum().backward()
    assert model.first.weight.grad.isfinite().all()
    assert model.first.weight.grad.abs().max() > 0


def test_what_does_not_fit_is_named(stack: camfuse.CamStack) -> None:
    with pytest.raises(KeyError, match="fourth: no such layer"):
        camfuse.refine_cam(stack, layers=["first", "fourth"])
    with pytest.raises(ValueError, match="layers: expected at least one"):
        camfuse.refine_cam(stack, layers=[])
    with pytest.raises(ValueError, match="layers: expected each layer once, got first, first"):
        camfuse.refine_cam(stack, layers=["first", "first"])
    with pytest.raises(TypeError, match="layers: expected a sequence of names, got 'first'"):
        camfuse.refine_cam(stack, layers="first")
    with pytest.raises(ValueError, match="size: expected at least 1, got 0"):
        camfuse.refine_cam(stack, size=(0, 4))
    with pytest.raises(TypeError, match="stack: expected CamStack, got dict"):
        camfuse.refine_cam({})


def test_as_a_method_of_layers_it_says_what_to_call(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(ValueError, match=r"method: refinecam .*call camfuse.refine_cam\(stack\)"):
        camfuse.layer_cams(model, x, method="refinecam")
