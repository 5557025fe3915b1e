"""Every leaf of channels-last networks has its true height and width, or a reason."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

import camfuse
from oracle import autograd_pairs

SIZE = (64, 96)


def stack_of(name: str, size: tuple[int, int] = SIZE, batch: int = 2) -> camfuse.CamStack:
    torch.manual_seed(0)
    options = {"image_size": size[0]} if name.startswith("vit") else {}
    model = getattr(torchvision.models, name)(weights=None, **options).eval()
    return model, camfuse.layer_cams(model, torch.randn(batch, 3, *size), layers="leaf")


def features_of(module: nn.Module) -> int | None:
    """How many channels a module says it puts out."""
    for attribute in ("out_channels", "out_features", "num_features"):
        if isinstance(value := getattr(module, attribute, None), int):
            return value
    shape = getattr(module, "normalized_shape", None)
    return shape[0] if shape is not None and len(shape) == 1 else None


@pytest.mark.parametrize("name", ["convnext_tiny", "swin_t"])
def test_every_leaf_has_its_true_size_or_a_reason(name: str) -> None:
    model, stack = stack_of(name)
    modules = dict(model.named_modules())
    for layer in stack.layers:
        h, w = layer.size
        stride = SIZE[0] // h
        assert stride in (4, 8, 16, 32), layer
        assert (h, w) == (SIZE[0] // stride, SIZE[1] // stride), layer
        expected = features_of(modules[layer.name.split("#")[0]])
        assert expected in (None, layer.shape[0]), layer

    leaves = {
        name
        for name, module in modules.items()
        if name and (not list(module.children()) or list(module.parameters(recurse=False)))
    }
    reasons = {one.name: one.reason for one in stack.skipped}
    accounted = {layer.name for layer in stack.layers} | set(reasons)
    assert leaves == {name.split("#")[0] for name in accounted}
    assert not [one for one, reason in reasons.items() if "layout unknown" in reason]
    shown = set(stack.shown().names)
    assert sum(isinstance(modules.get(one), nn.Linear) for one in shown) >= 18


def test_tokens_fold_to_the_grid_of_the_patches() -> None:
    _, stack = stack_of("vit_b_32", (64, 64))
    sizes = {layer.name: layer.shape for layer in stack.layers}
    assert sizes["conv_proj"] == (768, 2, 2)
    assert sizes["encoder.layers.encoder_layer_0.ln_1"] == (768, 2, 2)
    assert sizes["encoder.layers.encoder_layer_11.mlp.0"] == (3072, 2, 2)
    assert sizes["encoder.layers.encoder_layer_0.self_attention"] == (768, 2, 2)


def test_folded_tokens_are_the_right_ones() -> None:
    """A map made of tokens equals the one made by hand, class token left out."""
    torch.manual_seed(0)
    model = torchvision.models.vit_b_32(weights=None, image_size=64).eval()
    name = "encoder.layers.encoder_layer_5.ln_2"
    tokens: list[Tensor] = []

    def keep(module: nn.Module, args: object, output: Tensor) -> Tensor:
        tokens.append(output)
        return output.clone()

    x = torch.randn(2, 3, 64, 64, requires_grad=True)
    handle = model.get_submodule(name).register_forward_hook(keep)
    score = model(x).amax(1).sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, tokens)
    expected = (gradient * tokens[0])[:, 1:].sum(-1).view(2, 2, 2)
    stack = camfuse.layer_cams(model, x.detach(), layers=name, method="hirescam")
    torch.testing.assert_close(stack[name], expected, rtol=1e-4, atol=1e-7)


class LooksLikeAnImage(nn.Module):
    """Attention weights `[B, heads, N, N]` and queries `[B, heads, N, d]`, as modules see them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 8, 8)
        self.norm = nn.LayerNorm(6)
        self.drop = nn.Dropout()
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        queries = self.norm(x.unflatten(-1, (2, 6)).transpose(1, 2))
        weights = self.drop((queries @ queries.transpose(-1, -2)).softmax(-1))
        return self.head((weights @ queries).transpose(1, 2).flatten(2).mean(1))


def test_attention_is_not_mistaken_for_an_image() -> None:
    stack = camfuse.layer_cams(LooksLikeAnImage().eval(), torch.randn(2, 3, 64, 64), layers="leaf")
    reasons = {one.name: one.reason for one in stack.skipped}
    assert "positions to positions" in reasons["drop"]
    # Two heads of six channels each, at the 64 positions of the patches.
    assert {layer.name: layer.shape for layer in stack.layers} == {
        "patches": (12, 8, 8),
        "norm": (12, 8, 8),
    }


class Shuffled(nn.Module):
    """Positions in an order that only the caller knows."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 1)
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, 3)
        self.register_buffer("order", torch.arange(48).flip(0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).flatten(2).transpose(1, 2)[:, self.order]
        return self.head(self.norm(x).square().mean(1))


def unshuffle(tokens: Tensor) -> Tensor:
    return tokens.flip(1).mT.unflatten(-1, (6, 8))


def sequence() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Shuffled().double().eval(), torch.randn(2, 3, 6, 8).double()


@pytest.mark.parametrize("create_graph", [False, True])
def test_reshape_folds_what_is_unknown(create_graph: bool) -> None:
    model, x = sequence()
    with pytest.raises(ValueError, match=r"norm: layout unknown, pass reshape="):
        camfuse.layer_cams(model, x, layers="norm")
    stack = camfuse.layer_cams(
        model, x, method="hirescam", reshape=unshuffle, create_graph=create_graph
    )
    assert stack.layers[1].shape == (4, 6, 8)
    A, G = autograd_pairs(model, x)["norm"]
    torch.testing.assert_close(stack["norm"].detach(), (A * G).sum(-1).flip(1).view(2, 6, 8))


def test_reshape_may_fold_to_other_grids() -> None:
    model, x = sequence()
    stack = camfuse.layer_cams(model, x, layers="norm", reshape=lambda t: t.mT)
    assert stack["norm"].shape == (2, 48)
    cubes = camfuse.layer_cams(
        model, x, layers="norm", reshape=lambda t: t.mT.unflatten(-1, (3, 2, 8))
    )
    assert cubes["norm"].shape == (2, 3, 2, 8)
    assert torch.equal(cubes["norm"].flatten(1), stack["norm"])


WRONG = {
    "another rank": (lambda t: t[:, :, 0], r"expected \(2, C, h, w\) from .* got \(2, 48\)"),
    "another batch": (lambda t: t.reshape(1, 8, 6, 8), r"got \(1, 8, 6, 8\)"),
    "integers": (lambda t: unshuffle(t).long(), "of torch.int64"),
    "no tensor": (lambda t: None, "expected a tensor .* got NoneType"),
}


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_reshape_is_told_with_layer_and_sizes(kind: str, create_graph: bool) -> None:
    model, x = sequence()
    function, message = WRONG[kind]
    with pytest.raises(ValueError, match=message) as caught:
        camfuse.layer_cams(model, x, reshape=function, create_graph=create_graph)
    assert "reshape: " in str(caught.value)
    assert "(2, 48, 4) of norm" in str(caught.value)
    assert_untouched(model)


def test_a_reshape_that_cuts_the_graph_is_refused_where_the_graph_is_wanted() -> None:
    model, x = sequence()
    camfuse.layer_cams(model, x, reshape=lambda t: unshuffle(t).detach())
    with pytest.raises(ValueError, match=r"reshape: .*\(2, 48, 4\) of norm.*cut off"):
        camfuse.layer_cams(model, x, reshape=lambda t: unshuffle(t).detach(), create_graph=True)
    assert_untouched(model)


def test_a_reshape_that_fits_the_activation_but_not_the_gradient_is_refused() -> None:
    model, x = sequence()
    calls: list[int] = []

    def fickle(tokens: Tensor) -> Tensor:
        calls.append(1)
        return unshuffle(tokens)[..., : 8 if len(calls) < 3 else 7]

    message = r"expected \(2, 4, 6, 8\) from the gradient of norm, .* got \(2, 4, 6, 7\)"
    with pytest.raises(ValueError, match=message):
        camfuse.layer_cams(model, x, reshape=fickle)
    assert_untouched(model)


@pytest.mark.parametrize("calls", [1, 2, 3])  # the first output, its activation, its gradient
def test_what_reshape_raises_comes_out_with_the_name_of_the_layer(calls: int) -> None:
    model, x = sequence()
    left = iter(range(calls - 1, -1, -1))

    def explode(tokens: Tensor) -> Tensor:
        if next(left) == 0:
            raise ZeroDivisionError("mine")
        return unshuffle(tokens)

    with pytest.raises(ZeroDivisionError, match=r"^mine\b") as caught:
        camfuse.layer_cams(model, x, reshape=explode)
    assert caught.value.__notes__ == ["raised by reshape=, which was given the (2, 48, 4) of norm"]
    assert_untouched(model)


def assert_untouched(model: nn.Module) -> None:
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


class Changing(nn.Module):
    """Carries its channels first or last, as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 4, 1), nn.Tanh()
        self.last = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = self.act(x.permute(0, 2, 3, 1) if self.last else x)
        return x.flatten(1)[:, :5] + x.mean((1, 2, 3))[:, None]


def test_a_model_that_answers_otherwise_than_before_is_followed_anew() -> None:
    model, x = Changing().eval(), torch.randn(2, 3, 6, 8)
    shapes = []
    for model.last in (False, True, False):
        stack = camfuse.layer_cams(model, x, method="hirescam", layers=["act"])
        shapes.append(stack.layers[0].shape)
    assert shapes == [(4, 6, 8)] * 3


def test_layouts_are_learned_from_any_selection() -> None:
    """The first pass may have been asked for other layers than the second."""
    model, x = sequence()
    camfuse.layer_cams(model, x, layers="conv")
    seen: list[str] = []
    hooks = {name: module for name, module in model.named_modules() if name}

    def count(*_: object) -> None:
        seen.extend(name for name, module in hooks.items() if module._forward_hooks)

    model.register_forward_pre_hook(count)
    stack = camfuse.layer_cams(model, x, layers="norm", reshape=unshuffle)
    assert stack.names == ("norm",)
    assert seen == ["norm"]  # once known, no other layer is slowed down
