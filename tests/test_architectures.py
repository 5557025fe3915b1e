"""Every layer of real architectures agrees with an independent computation.

Activations and gradients against `torch.autograd.grad` with recording hooks (oracle.py), maps
against the formulas in f64. The networks have random weights and small inputs here; the `slow` grid
has the inputs they were made for.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

import camfuse
from camfuse import ops
from camfuse.capture import capture
from camfuse.captured import Captured
from camfuse.models import load_model
from oracle import autograd_pairs, relative_error
from tolerances import assert_maps_close

RULES = tuple(rule for rule in ops.MAGNITUDE_OF if rule != "weighted")


def _vgg16() -> nn.Module:
    model = torchvision.models.vgg16(weights=None, num_classes=10, init_weights=False)
    model.classifier = nn.Linear(512 * 7 * 7, 10)  # 120 million weights that no map depends on
    return model


def _googlenet() -> nn.Module:
    return torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=False)


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "resnet50": lambda: torchvision.models.resnet50(weights=None),
    "densenet121": lambda: torchvision.models.densenet121(weights=None),
    "vgg16": _vgg16,
    "googlenet": _googlenet,
    "mobilenet_v3_large": lambda: torchvision.models.mobilenet_v3_large(weights=None),
    "efficientnet-lite0": lambda: load_model("efficientnet-lite:0", weights="random").module,
    "convnext_tiny": lambda: torchvision.models.convnext_tiny(weights=None),
    "swin_t": lambda: torchvision.models.swin_t(weights=None),
    "vit_b_32": lambda: torchvision.models.vit_b_32(weights=None, image_size=64),
}


def build(name: str, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return ARCHITECTURES[name]().eval().to(dtype)


def image(side: int = 64, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, side, side, generator=generator).to(dtype)


def check(model: nn.Module, x: Tensor, tolerance: float, layers: str = "all") -> int:
    """Compares every captured pair and its maps; returns how many there were."""
    expected = autograd_pairs(model, x)
    seen: list[str] = []

    def visit(layer: Captured, target: int, A: Tensor, G: Tensor) -> None:
        activation, gradient = expected[layer.name]
        assert gradient is not None
        assert relative_error(A, layer.spatial(activation)) <= tolerance, layer.name
        assert relative_error(G, layer.spatial(gradient)) <= tolerance, layer.name
        maps, ranges = ops.layer_cam(A, G, RULES)
        assert_maps_close(maps, ranges, A, G, RULES)
        seen.append(layer.name)

    found = capture(model, x, visit, layers=layers)
    names = {one.name for one in found.layers} | {one.name for one in found.skipped}
    assert layers != "all" or names >= set(expected)
    return len(seen)


@pytest.mark.parametrize(
    "dtype", [torch.float64, pytest.param(torch.float32, marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_layer_agrees(name: str, dtype: torch.dtype) -> None:
    model = build(name, dtype)
    x = image(dtype=dtype)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5
    first = check(model, x, tolerance)
    assert check(model, x, tolerance) == first > 20  # the second pass copies less


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_layer_agrees_at_full_size(name: str) -> None:
    if name == "vit_b_32":
        pytest.skip("built for the small size")
    check(build(name, torch.float32), image(224), 1e-5)


# bf16 keeps 8 bits: two ways of summing differ by a few units in the last place.
BF16_TOLERANCE = 5e-2


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v3_large", "convnext_tiny"])
def test_bf16_models_agree(name: str) -> None:
    check(build(name, torch.bfloat16), image(dtype=torch.bfloat16), BF16_TOLERANCE, "conv")


@pytest.mark.parametrize("name", ["resnet50", "densenet121", "convnext_tiny"])
def test_channels_last_models_agree(name: str) -> None:
    model = build(name, torch.float64).to(memory_format=torch.channels_last)
    x = image(dtype=torch.float64)
    check(model, x.contiguous(memory_format=torch.channels_last), 1e-9)


@pytest.mark.parametrize("name", ["resnet50", "googlenet", "swin_t", "vit_b_32"])
def test_a_layer_alone_has_the_bits_it_has_among_all(name: str) -> None:
    model, x = build(name, torch.float32), image()
    together = camfuse.layer_cams(model, x, layers="all", method="layercam")
    some = [layer for layer in together.layers if "#" not in layer.name][:: len(together) // 6]
    for layer in some:
        alone = camfuse.layer_cams(model, x, layers=layer.name, method="layercam")
        assert torch.equal(alone[layer.name], together[layer.name]), layer.name


def test_late_branches_of_googlenet_all_get_their_gradient() -> None:
    """With a single root, five of these six would have none."""
    model, x = build("googlenet", torch.float64), image(dtype=torch.float64)
    expected = autograd_pairs(model, x)
    names = [f"inception4e.{branch}.conv" for branch in ("branch1", "branch2.0", "branch2.1")]
    names += [f"inception4e.{branch}.conv" for branch in ("branch3.0", "branch3.1", "branch4.1")]
    stack = camfuse.layer_cams(model, x, layers=names, method="hirescam")
    assert stack.names == tuple(names)
    for name in names:
        A, G = expected[name]
        assert relative_error(stack[name], (A * G).sum(1)) <= 1e-9
