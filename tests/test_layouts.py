"""Every leaf of channels-last networks has its true height and width, or a reason."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

import camfuse

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
    reasons = {one.name: one.reason for one in stack.skipped}
    assert (
        reasons["encoder.layers.encoder_layer_0.self_attention"]
        == "output is not one floating tensor"
    )


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
    stack = camfuse.layer_cams(LooksLikeAnImage().eval(), torch.randn(2, 3, 64, 64))
    assert stack.names == ("patches",)
    reasons = {one.name: one.reason for one in stack.skipped}
    assert reasons["norm"] == reasons["drop"] == "layout unknown, pass reshape="


class Sequence(nn.Module):
    """One-dimensional features that only the caller can fold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x.flatten(2)).mean(-1))


def test_reshape_folds_what_is_unknown_and_is_checked() -> None:
    model, x = Sequence().eval(), torch.randn(2, 3, 6, 8)
    with pytest.raises(ValueError, match="layout unknown, pass reshape="):
        camfuse.layer_cams(model, x)
    stack = camfuse.layer_cams(model, x, reshape=lambda t: t.unflatten(-1, (6, 8)))
    assert stack.layers[0].shape == (4, 6, 8)
    with pytest.raises(ValueError, match=r"reshape: expected \(2, C, h, w\).*got \(2, 4, 48\)"):
        camfuse.layer_cams(model, x, reshape=lambda t: t)
