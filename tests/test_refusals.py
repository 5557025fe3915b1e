"""What does not fit is refused in one sentence, before the model runs, with nothing left behind."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import camfuse
from small_models import Residual


def make() -> nn.Module:
    torch.manual_seed(0)
    return Residual().eval()


def image() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def never_run(model: nn.Module) -> nn.Module:
    def fail(*_: object) -> None:
        raise AssertionError("the model ran")

    for module in model.modules():
        module._forward_pre_hooks.clear()
    model.forward = fail
    return model


@pytest.mark.parametrize(
    "layers",
    [
        lambda m: ["norm", "norm"],
        lambda m: ["norm", m.norm],
        lambda m: [m.norm, m.norm],
        lambda m: ["norm", "module.norm"],
    ],
)
def test_the_same_layer_twice(layers: Callable[[Any], list[object]]) -> None:
    model = never_run(make())
    with pytest.raises(ValueError, match="layers: expected each layer once, got 'norm' twice"):
        camfuse.layer_cams(model, image(), layers=layers(model))


def test_a_layer_may_be_in_a_group_and_named() -> None:
    stack = camfuse.layer_cams(make(), image(), layers=["conv", "type:Conv2d", "stem"])
    assert stack.names == ("stem", "conv")


def test_a_model_on_another_device_than_its_input() -> None:
    model = never_run(make().to("meta"))
    with pytest.raises(ValueError, match=r"inputs: .* where the model is, on meta, got cpu"):
        camfuse.layer_cams(model, image())


def test_parameters_that_are_fetched_when_needed_are_no_reason() -> None:
    model, expected = make(), camfuse.layer_cams(make(), image(), layers="stem")
    fetched = dict(model.named_parameters())
    kept = {name: one.detach().clone() for name, one in fetched.items()}
    model.to("meta")

    def fetch(module: nn.Module, args: object) -> None:
        for name, one in kept.items():
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, nn.Parameter(one))
        for name, buffer in make().named_buffers():
            owner, _, attribute = name.rpartition(".")
            model.get_submodule(owner)._buffers[attribute] = buffer

    model.register_forward_pre_hook(fetch)
    assert torch.equal(camfuse.layer_cams(model, image(), layers="stem").flat, expected.flat)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (5, r"expected a class in 0\.\.\d, got 5"),
        ([0, -1], "got -1"),
        ([0, 1, 2], r"one per sample \(2\), got shape \(3,\)"),
        (torch.zeros(3, 3, dtype=torch.long), r"got shape \(3,\)"),
    ],
)
def test_targets_outside_the_classes_or_of_the_wrong_count(target: object, message: str) -> None:
    model = make()
    with pytest.raises(ValueError, match=f"target: .*{message}"):
        camfuse.layer_cams(model, image(), target=target)
    assert not any(module._forward_hooks for module in model.modules())


class MineError(Exception):
    pass


def test_what_the_callers_target_raises_comes_out_unchanged() -> None:
    model, error = make(), MineError("mine")

    def target(output: Tensor) -> Tensor:
        raise error

    with pytest.raises(MineError) as caught:
        camfuse.layer_cams(model, image(), target=target)
    assert caught.value is error
    assert not hasattr(error, "__notes__")
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def dynamically_quantized() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(make(), {nn.Linear}, dtype=torch.qint8)


def statically_quantized() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        conv = torch.ao.nn.quantized.Conv2d(3, 4, 1)
    return nn.Sequential(conv, nn.ReLU()).eval()


class PackedTensor(Tensor):
    """As libraries for quantisation define them."""


def packed() -> nn.Module:
    model = make()
    weight = model.conv.weight.detach().as_subclass(PackedTensor)
    model.conv._parameters["weight"] = nn.Parameter(weight, requires_grad=False)
    return model


def quantized_buffer() -> nn.Module:
    model = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.register_buffer("q", torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8))
    return model


@pytest.mark.parametrize(
    "build", [dynamically_quantized, statically_quantized, packed, quantized_buffer]
)
def test_quantised_models(build: Callable[[], nn.Module]) -> None:
    try:
        model = build()
    except (RuntimeError, NotImplementedError) as error:
        pytest.skip(f"torch does not quantise here: {error}")
    with pytest.raises(ValueError, match=r"model: .* as quantised models do.*pass the model that"):
        camfuse.layer_cams(never_run(model), image())


def test_inference_tensors() -> None:
    with torch.inference_mode():
        model = never_run(make())
    with pytest.raises(ValueError, match=r"model: .*inference tensors.*outside"):
        camfuse.layer_cams(model, image())


def test_bad_settings_of_several_inputs() -> None:
    with pytest.raises(ValueError, match="inputs: expected at least one tensor"):
        camfuse.layer_cams(make(), [[]])
