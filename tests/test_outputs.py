"""Modules and models that take or return more than one tensor."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import pytest
import torch
import torchvision
from torch import Tensor, nn

import camfuse
from camfuse.capture import capture
from camfuse.captured import Captured
from camfuse.targets import box_score, segmentation_mean
from oracle import relative_error


class Named(NamedTuple):
    features: Tensor
    count: int


@dataclass
class Record:
    features: Tensor
    note: str = "a note"


class ModelOutput(OrderedDict):
    """An ordered dict whose fields are attributes too, as language libraries return them."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if (value := getattr(self, field.name)) is not None:
                super().__setitem__(field.name, value)

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def __getitem__(self, key: str | int) -> Any:
        return list(self.values())[key] if isinstance(key, int) else super().__getitem__(key)


@dataclass
class Hidden(ModelOutput):
    features: Tensor | None = None
    extra: tuple[Tensor, ...] | None = None


WRAPPED = {
    "tuple": (lambda x: (x, x.detach().mean()), lambda o: o[0]),
    "list": (lambda x: [None, x, "text"], lambda o: o[1]),
    "dict": (lambda x: {"a": x, "n": x.shape[0]}, lambda o: o["a"]),
    "nested": (lambda x: {"a": [(x,), torch.ones(2)]}, lambda o: o["a"][0][0]),
    "ordered dict": (lambda x: OrderedDict(a=x), lambda o: o["a"]),
    "named tuple": (lambda x: Named(x, 3), lambda o: o.features),
    "dataclass": (Record, lambda o: o.features),
    "output, by attribute": (Hidden, lambda o: o.features),
    "output, by key": (Hidden, lambda o: o["features"]),
    "output, by position": (lambda x: Hidden(x, (torch.ones(2, 3),)), lambda o: o[0]),
    "twice the same": (lambda x: (x, x), lambda o: (o[0] + o[1]) / 2),
}


class Wrap(nn.Module):
    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.conv(x))


class Unwrapping(nn.Module):
    """A layer returns its features inside of something; `unwrap` takes them out."""

    def __init__(self, wrap: Any, unwrap: Any) -> None:
        super().__init__()
        self.block, self.unwrap = Wrap(wrap), unwrap
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.unwrap(self.block(x)).relu()).mean((2, 3)))


def image() -> Tensor:
    return torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(1)).double()


def make(model: nn.Module) -> nn.Module:
    for i, parameter in enumerate(model.parameters()):
        nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(i))
    return model.double().eval()


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("layers", ["block", ["block.conv", "block"]], ids=str)
@pytest.mark.parametrize("create_graph", [False, True])
def test_the_one_map_in_a_structure_is_captured(
    kind: str, layers: object, create_graph: bool
) -> None:
    """As if the layer had returned it alone, whether the graph begins there or earlier."""
    model, plain = make(Unwrapping(*WRAPPED[kind])), make(Unwrapping(lambda x: x, lambda o: o))
    options = {"method": ["gradcam", "hirescam"], "create_graph": create_graph}
    stack = camfuse.layer_cams(model, image(), layers=layers, **options)
    expected = camfuse.layer_cams(plain, image(), layers="block", **options)
    assert "block" in stack.names
    got = stack.select(layers=["block"]).flat.detach()
    assert got.shape == expected.flat.shape
    assert relative_error(got, expected.flat.detach()) <= 1e-12
    assert float(expected.flat.detach().abs().max()) > 0


@pytest.mark.parametrize(
    ("wrap", "count"), [(lambda x: (x, x * 2), "2 floating"), (lambda x: [x.mean()], "no floating")]
)
def test_other_structures_are_skipped_with_the_number_of_maps(wrap: Any, count: str) -> None:
    def unwrap(o: Any) -> Tensor:
        return o[0] if o[0].ndim else o[0].expand(2, 4, 6, 8)

    stack = camfuse.layer_cams(make(Unwrapping(wrap, unwrap)), image(), layers="all")
    reasons = {one.name: one.reason for one in stack.skipped}
    assert reasons["block"].startswith(f"output holds {count} tensor")


def test_attention_that_returns_a_tuple_has_a_map() -> None:
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(64, 16, 1, 2, 8, 16, num_classes=5).eval()
    nn.init.normal_(model.heads.head.weight)
    name = "encoder.layers.encoder_layer_0.self_attention"
    outputs: list[Tensor] = []

    def keep(module: nn.Module, args: object, output: tuple[Tensor, None]) -> tuple:
        outputs.append(output[0])
        return (output[0].clone(), output[1])

    x = torch.randn(2, 3, 64, 64)
    stack = camfuse.layer_cams(model, x, layers=name, method="hirescam")
    with torch.enable_grad():
        handle = model.get_submodule(name).register_forward_hook(keep)
        score = model(x.requires_grad_()).amax(1).sum()
        handle.remove()
    (gradient,) = torch.autograd.grad(score, outputs)
    expected = (outputs[0] * gradient)[:, 1:].sum(-1).view(2, 4, 4)
    assert relative_error(stack[name], expected.detach()) <= 1e-5


class Returning(nn.Module):
    """A classifier that wraps what it returns."""

    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        features = self.conv(x)
        return self.wrap(self.head(features.relu().mean((2, 3))), features)


@pytest.mark.parametrize("target", [None, 1, [2, 0]])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits, features: (logits, features),
        lambda logits, features: {"logits": logits, "aux": [features]},
        lambda logits, features: Hidden(logits, (features,)),
    ],
)
def test_classes_of_a_model_that_returns_a_structure(wrap: Any, target: object) -> None:
    stack = camfuse.layer_cams(make(Returning(wrap)), image(), target=target)
    expected = camfuse.layer_cams(make(Returning(lambda a, b: a)), image(), target=target)
    assert torch.equal(stack["conv"], expected["conv"])
    assert torch.equal(stack.targets, expected.targets)


def test_googlenet_in_training_mode_returns_several_scores() -> None:
    model = torchvision.models.googlenet(weights=None, init_weights=False, aux_logits=True)
    model.train()
    with pytest.raises(ValueError, match=r"got 3 in a GoogLeNetOutputs of float32 \(2, 1000\)"):
        camfuse.layer_cams(model, torch.randn(2, 3, 64, 64), target=1, allow_training=True)
    stack = camfuse.layer_cams(
        model, torch.randn(2, 3, 64, 64), target=lambda o: o.logits[:, 1], allow_training=True
    )
    assert "inception3a" not in stack.names
    assert len(stack) > 50


@pytest.mark.parametrize("name", ["fcn_resnet50", "lraspp_mobilenet_v3_large"])
def test_segmentation(name: str) -> None:
    torch.manual_seed(0)
    options = {"aux_loss": True} if name.startswith("fcn") else {}
    model = getattr(torchvision.models.segmentation, name)(
        weights=None, weights_backbone=None, num_classes=3, **options
    ).eval()
    x = torch.randn(2, 3, 64, 96)
    mask = torch.zeros(64, 96)
    mask[16:32, 32:64] = 1
    stack = camfuse.layer_cams(model, x, target=segmentation_mean(1, mask), layers="conv")
    sizes = {layer.size for layer in stack.layers}
    assert sizes <= {(32, 48), (16, 24), (8, 12), (4, 6)}
    with pytest.raises(ValueError, match=r"segmentation_mean|one floating tensor"):
        camfuse.layer_cams(model, x, target=1)
    if options:
        unreached = {one.name: one.reason for one in stack.skipped}
        assert unreached["aux_classifier.0"] == "target does not depend on it"
        aux = camfuse.layer_cams(model, x, target=segmentation_mean(1, output="aux"), layers="conv")
        assert "aux_classifier.0" in aux.names
        assert "classifier.0" not in aux.names


DETECTORS = {
    "fasterrcnn_resnet50_fpn": {"min_size": 64, "max_size": 96, "box_score_thresh": 0.0},
    "retinanet_resnet50_fpn": {"min_size": 64, "max_size": 96, "score_thresh": 0.0},
    "ssdlite320_mobilenet_v3_large": {"score_thresh": 0.0},
}


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_take_a_list_of_images(name: str) -> None:
    torch.manual_seed(0)
    model = getattr(torchvision.models.detection, name)(
        weights=None, weights_backbone=None, num_classes=3, **DETECTORS[name]
    ).eval()
    with torch.no_grad():  # without norms that know their data, untrained features explode
        for parameter in model.parameters():
            parameter.mul_(0.5)
    images = [torch.rand(3, 64, 96), torch.rand(3, 64, 96)]
    target = box_score(1, (0, 0, 96, 64), min_iou=0.0)
    stack = camfuse.layer_cams(model, [images], target=target, layers="conv")
    assert stack.axes == (1, 1, 2)
    assert stack.input_size == (64, 96)
    first = stack.layers[0]
    # What the detector resizes to and pads, halved by its first convolution.
    assert first.size == ((160, 160) if name.startswith("ssd") else (32, 48))
    assert (stack.scores > 0).all()
    by_name = camfuse.layer_cams(model, {"images": images}, target=target, layers=first.name)
    assert by_name[first.name].shape == (2, *first.size)


def test_a_list_of_images_is_split_as_a_batch_is() -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)

        def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
            features = self.conv(torch.stack(images))
            return [{"scores": one} for one in self.head(features.relu().mean((2, 3)))]

    model, images = make(Detector()), list(image())

    def target(output: list[dict[str, Tensor]]) -> Tensor:
        return torch.stack([one["scores"][1] for one in output])

    whole = camfuse.layer_cams(model, [images], target=target)
    assert whole["conv"].shape == (2, 6, 8)
    parts = camfuse.layer_cams(model, [images], target=target, max_memory="1GB")
    assert torch.equal(parts.flat, whole.flat)
    seen: list[tuple[int, ...]] = []

    def visit(layer: Captured, target: int, A: Tensor, G: Tensor) -> None:
        seen.append(tuple(A.shape))

    capture(model, ([images[0]],), visit, target=target)
    assert seen == [(1, 4, 6, 8)]


class TwoImages(nn.Module):
    """Two views of one thing, as positional, keyword or dict arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, first: Any, second: Any = None, *, scale: float = 1.0) -> Tensor:
        if isinstance(first, dict):
            first, second = first["first"], first["second"]
        both = self.left(first).relu().mean((2, 3)) + self.right(second).relu().mean((2, 3))
        return self.head(both) * scale


def test_several_inputs_by_position_by_keyword_and_in_a_dict() -> None:
    model, one = make(TwoImages()), image()
    other = one[:, :1, :4, :6].clone()
    stacks = [
        camfuse.layer_cams(model, given)
        for given in [
            (one, other),
            {"first": one, "second": other, "scale": 1.0},
            [{"first": one, "second": other}],
        ]
    ]
    for stack in stacks:
        assert [layer.size for layer in stack.layers] == [(6, 8), (4, 6)]
        assert torch.equal(stack.flat, stacks[0].flat)
        assert stack.input_size == (6, 8)
