"""cam: the classifier's weights, found from gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchcam.methods import CAM
from torchvision.models import densenet121, mobilenet_v3_small, resnet18

import camfuse
from oracle import relative_error
from small_models import Head, Residual

REASON = "cam: defined only for the layer that global average pooling and one linear layer follow"


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return resnet18(num_classes=10).eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_maps_are_weighted_by_the_classifier(resnet: nn.Module, x: Tensor) -> None:
    stack = camfuse.layer_cams(resnet, x, method="cam", layers="layer4", target=[3, 7])
    A = {}
    handle = resnet.layer4.register_forward_hook(lambda *args: A.update(out=args[2].detach()))
    resnet(x)
    handle.remove()
    weights = resnet.fc.weight[[3, 7]].detach().double()
    expected = torch.einsum("bk,bkhw->bhw", weights, A["out"].double())
    assert relative_error(stack["layer4"], expected) <= 1e-5


def test_maps_are_those_of_torchcam(resnet: nn.Module, x: Tensor) -> None:
    got = camfuse.layer_cams(resnet, x, method="cam", layers="layer4", target=[3, 7])["layer4"]
    with torch.no_grad(), CAM(resnet, "layer4", "fc", input_shape=(3, 64, 64)) as peer:
        resnet(x)
        (maps,) = peer([3, 7], normalized=False)
    assert relative_error(got, maps) <= 1e-5


def test_only_the_last_layers_are_shown(resnet: nn.Module, x: Tensor) -> None:
    stack = camfuse.layer_cams(resnet, x, method="cam")
    assert stack.names == ("layer4.1.relu#2",)
    reasons = {one.name: one.reason for one in stack.skipped}
    assert reasons["layer4.1.bn2"] == reasons["conv1"] == REASON


def test_a_model_without_pooling_at_its_end_has_none(x: Tensor) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 16, stride=16), nn.Flatten(), nn.Linear(64, 5)).eval()
    with pytest.raises(ValueError, match="none of the selected layers can be shown") as error:
        camfuse.layer_cams(model, x, method="cam")
    assert REASON in str(error.value)


def test_a_function_between_layer_and_pooling_is_noticed(x: Tensor) -> None:
    """DenseNet's last named layer is a normalisation, and a ReLU without a module follows."""
    torch.manual_seed(0)
    model = densenet121(num_classes=10).eval()
    with pytest.raises(ValueError, match=REASON):
        camfuse.layer_cams(model, x, method="cam", layers="features.norm5")


def test_a_map_of_one_position_tells_nothing(resnet: nn.Module, x: Tensor) -> None:
    with pytest.raises(ValueError, match=REASON):
        camfuse.layer_cams(resnet, x, method="cam", layers="avgpool")


def test_behind_a_nonlinear_head_it_is_grad_cam_times_the_positions(x: Tensor) -> None:
    """What gradients cannot tell, as documented."""
    torch.manual_seed(0)
    model = mobilenet_v3_small(num_classes=10).double().eval()
    stack = camfuse.layer_cams(
        model, x.double(), method=["cam", "gradcam"], layers="features", target=1
    )
    cam, gradcam = (stack.select(method=one)["features"] for one in stack.methods)
    assert relative_error(cam, gradcam * 4) <= 1e-9


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_every_precision_finds_the_same_layer(x: Tensor, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = Residual().to(dtype).eval()
    assert camfuse.layer_cams(model, x.to(dtype), method="cam").names == ("relu#2",)


def test_a_layer_is_shown_if_it_fits_all_targets(x: Tensor) -> None:
    class Masked(Head):
        def __init__(self) -> None:
            super().__init__(4)
            self.conv = nn.Conv2d(3, 4, 1)

        def body(self, x: Tensor) -> Tensor:
            return self.conv(x)

    torch.manual_seed(0)
    model = Masked().eval()
    both = camfuse.layer_cams(model, x, method="cam", target=torch.tensor([[0, 1], [2, 3]]))
    assert both.names == ("conv",)
    A = model.conv(x).detach()
    for t, classes in enumerate([[0, 1], [2, 3]]):
        expected = torch.einsum("bk,bkhw->bhw", model.classifier.weight[classes].detach(), A)
        assert relative_error(both.select(target=t)["conv"], expected) <= 1e-5


def test_maps_can_stand_in_a_loss(x: Tensor) -> None:
    model = Residual().eval()
    stack = camfuse.layer_cams(model, x, method="cam", layers="relu", create_graph=True)
    stack.flat.square().mean().backward()
    assert model.stem.weight.grad.abs().sum() > 0


def test_a_batch_can_be_split_where_memory_is_short(x: Tensor) -> None:
    model, parts = Residual().eval(), []
    model.register_forward_pre_hook(lambda module, args: parts.append(len(args[0])))
    many = x.repeat(8, 1, 1, 1)
    split = camfuse.layer_cams(model, many, method="cam", max_memory="10MB")
    whole = camfuse.layer_cams(model, many, method="cam")
    torch.testing.assert_close(split.flat, whole.flat)
    assert len({*parts}) > 1
