"""Layers are selected by group, name, glob or module, and named as the model names them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from camfuse.layers import repeats_input, select_layers


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return torchvision.models.resnet18(weights=None).eval()


def names(model: nn.Module, layers: object) -> list[str]:
    return list(select_layers(model, layers).names.values())


def test_groups(resnet: nn.Module) -> None:
    convolutions = [n for n, m in resnet.named_modules() if isinstance(m, nn.Conv2d)]
    assert names(resnet, "conv") == convolutions
    assert names(resnet, "all") == [n for n, _ in resnet.named_modules() if n]
    leaves = [n for n, m in resnet.named_modules() if n and not list(m.children())]
    assert names(resnet, "leaf") == leaves


def test_a_module_with_parameters_of_its_own_is_a_leaf() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.conv = nn.Conv2d(3, 3, 1)

    model = nn.Sequential(Scaled(), nn.Sequential(nn.ReLU()))
    assert names(model, "leaf") == ["0", "0.conv", "1.0"]


def test_names_globs_modules_and_mixtures(resnet: nn.Module) -> None:
    assert names(resnet, "layer4") == ["layer4"]
    assert names(resnet, "layer[12].0.conv?") == [
        "layer1.0.conv1",
        "layer1.0.conv2",
        "layer2.0.conv1",
        "layer2.0.conv2",
    ]
    assert names(resnet, [resnet.layer4, "conv1", "layer1.*.bn1"]) == [
        "conv1",
        "layer1.0.bn1",
        "layer1.1.bn1",
        "layer4",
    ]
    selection = select_layers(resnet, ["conv1", "layer1.*"])
    assert selection.explicit == {resnet.conv1}


def test_many_names_are_looked_up_in_one_list_of_the_modules(
    resnet: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = []
    original = nn.Module.named_modules

    def named_modules(self: nn.Module, *args: Any, **kwargs: Any) -> Iterator[Any]:
        if self is resnet and not args:  # it calls itself for children, with a memo
            listed.append(self)
        return original(self, *args, **kwargs)

    everything = names(resnet, "all")
    monkeypatch.setattr(nn.Module, "named_modules", named_modules)
    assert names(resnet, everything) == everything
    assert len(listed) == 1


def test_types_are_matched_by_class_and_by_what_it_inherits_from(resnet: nn.Module) -> None:
    norms = [n for n, m in resnet.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert names(resnet, "type:BatchNorm2d") == norms
    assert names(resnet, "type:_BatchNorm") == names(resnet, "type:Batch*") == norms
    assert names(resnet, "type:*") == names(resnet, "all")
    with pytest.raises(ValueError, match=r"no layer .* 'type:BatchNorm'; close: type:BatchNorm2d"):
        select_layers(resnet, "type:BatchNorm")


def test_prefixes_of_wrappers_are_stripped(resnet: nn.Module) -> None:
    compiled = torch.compile(resnet, backend="eager")
    assert names(compiled, "conv1") == ["conv1"]
    assert names(resnet, "module.conv1") == ["conv1"]


def test_a_model_that_is_one_layer_has_that_layer() -> None:
    assert names(nn.Conv2d(3, 4, 1), "leaf") == ["Conv2d"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("layr4", "no layer of the model matches 'layr4'; close: layer4"),
        ("convs", "close: conv"),
        ("nothing.*", r"matches 'nothing.\*'"),
        ([], "at least one layer"),
        (nn.ReLU(), "this ReLU is not part of the model"),
    ],
)
def test_a_selection_that_matches_nothing_says_so(
    resnet: nn.Module, layers: object, message: str
) -> None:
    with pytest.raises(ValueError, match=f"layers: .*{message}"):
        select_layers(resnet, layers)


def test_modules_whose_map_repeats_their_input_are_known() -> None:
    assert repeats_input(nn.ZeroPad2d(1)) == "padding"
    assert repeats_input(nn.ReflectionPad2d(1)) == "padding"
    assert repeats_input(nn.Identity()) == "returns its input"
    assert repeats_input(nn.Dropout2d()) == "returns its input"
    assert repeats_input(torchvision.ops.StochasticDepth(0.1, "row")) == "returns its input"
    assert repeats_input(nn.Conv2d(3, 3, 1)) is None
