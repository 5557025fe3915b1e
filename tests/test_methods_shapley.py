"""shapleycam: gradients less half the Hessian's product with the activations."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from pytorch_grad_cam import ShapleyCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

import camfuse
from oracle import relative_error
from small_models import Head, Residual


class Smooth(Head):
    """Its Hessian is not 0: GELU, SiLU, and a product of two branches."""

    def __init__(self) -> None:
        super().__init__(6)
        self.stem = nn.Conv2d(3, 6, 3, padding=1, stride=4)
        self.gelu = nn.GELU()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.silu = nn.SiLU(inplace=True)

    def body(self, x: Tensor) -> Tensor:
        return self.silu(self.conv(self.gelu(self.stem(x)))).square()


class Tokens(nn.Module):
    """A class token beside the grid, which the layers' Hessians mix with it."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 16, stride=16)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.mix = nn.Linear(6, 6)
        self.across = nn.Linear(17, 17)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1)
        tokens = nn.functional.gelu(self.mix(tokens))
        tokens = self.across(tokens.transpose(1, 2)).transpose(1, 2).square()
        return self.head(tokens[:, 0])


def make(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().double().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(
        2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


def by_definition(A: Tensor, rest, prefix: int = 0) -> Tensor:
    """Weights of one sample's layer ``A`` ``[1, ...]``, of the score that ``rest`` makes of it."""
    _, product = torch.autograd.functional.hvp(rest, A, A)
    gradient = torch.autograd.functional.jacobian(rest, A)
    each = gradient - product / 2
    if each.ndim == 4:
        return each.mean((2, 3))
    return each[:, prefix:].mean(1)


def test_weights_are_those_of_the_hessian(x: Tensor) -> None:
    model = make(Smooth)
    stack = camfuse.layer_cams(model, x, method="shapleycam", target=2)

    def after_stem(A: Tensor) -> Tensor:
        y = nn.functional.silu(model.conv(model.gelu(A))).square()
        return model.classifier(y.mean((2, 3)))[0, 2]

    def after_conv(A: Tensor) -> Tensor:
        return model.classifier(nn.functional.silu(A).square().mean((2, 3)))[0, 2]

    for i in range(2):
        stem = model.stem(x[i : i + 1]).detach()
        conv = model.conv(model.gelu(stem)).detach()
        for name, A, rest in [("stem", stem, after_stem), ("conv", conv, after_conv)]:
            weights = by_definition(A, rest)
            expected = (weights[:, :, None, None] * A).sum(1)
            plain = (torch.autograd.functional.jacobian(rest, A).mean((2, 3)))[..., None, None]
            assert relative_error(stack[name][i], expected[0]) <= 1e-9
            assert relative_error((plain * A).sum(1), expected) > 1e-2  # not Grad-CAM's


def test_the_hessian_holds_the_tokens_that_no_map_shows(x: Tensor) -> None:
    model = make(Tokens)
    stack = camfuse.layer_cams(model, x, method="shapleycam", target=1)

    def rest(A: Tensor) -> Tensor:
        tokens = nn.functional.gelu(A)
        tokens = model.across(tokens.transpose(1, 2)).transpose(1, 2).square()
        return model.head(tokens[:, 0])[0, 1]

    tokens = model.patches(x).flatten(2).transpose(1, 2)
    A = model.mix(torch.cat([model.token.expand(2, -1, -1), tokens], 1)).detach()
    for i in range(2):
        weights = by_definition(A[i : i + 1], rest, prefix=1)
        expected = (A[i, 1:] @ weights[0]).view(4, 4)
        assert relative_error(stack["mix"][i], expected) <= 1e-9


@pytest.mark.parametrize("layer", ["stem", "gelu", "conv"])
def test_maps_are_those_of_pytorch_grad_cam(x: Tensor, layer: str) -> None:
    model = make(Smooth)
    got = camfuse.layer_cams(model, x, method="shapleycam", target=3, layers=layer)[layer]
    plain = copy.deepcopy(model)
    plain.silu.inplace = False  # or the peer records what was overwritten
    raw = []
    with ShapleyCAM(plain, [getattr(plain, layer)]) as peer:
        make_raw = peer.get_cam_image
        peer.get_cam_image = lambda *args: raw.append(make_raw(*args)) or raw[-1]
        peer(x, [ClassifierOutputTarget(3)] * 2)
    assert relative_error(got, torch.as_tensor(raw[0])) <= 1e-9


def test_where_the_hessian_is_zero_it_is_grad_cam(x: Tensor) -> None:
    both = camfuse.layer_cams(make(Residual), x, method=["gradcam", "shapleycam"])
    for name in both.names:
        gradcam, shapley = (both.select(method=one)[name] for one in both.methods)
        assert relative_error(shapley, gradcam) <= 1e-9


@pytest.mark.parametrize("frozen", ["none", "first", "all"])
def test_what_requires_grad_changes_nothing(x: Tensor, frozen: str) -> None:
    model = make(Smooth)
    expected = camfuse.layer_cams(model, x, method="shapleycam")
    for module in {"none": [], "first": [model.stem], "all": [model]}[frozen]:
        module.requires_grad_(False)
    flags = [one.requires_grad for one in model.parameters()]
    got = camfuse.layer_cams(model, x, method="shapleycam")
    assert got.names == expected.names
    assert torch.equal(got.flat, expected.flat)
    assert [one.requires_grad for one in model.parameters()] == flags
    assert all(one.grad is None for one in model.parameters())


def test_the_graph_is_gone_afterwards(x: Tensor) -> None:
    model, seen = make(Smooth), []
    model.conv.register_forward_hook(lambda module, args, out: seen.append(weakref.ref(out)))
    gc.disable()
    try:
        stack = camfuse.layer_cams(model, x, method=["shapleycam", "gradcam"])
        assert not stack.flat.requires_grad
        assert [one() for one in seen] == [None] * len(seen)
        assert seen
    finally:
        gc.enable()


def test_samples_and_targets_are_explained_as_if_alone(x: Tensor) -> None:
    model = make(Smooth)
    target = torch.tensor([[0, 1], [2, 3]])
    together = camfuse.layer_cams(model, x, method="shapleycam", target=target)
    for t in range(2):
        for b in range(2):
            alone = camfuse.layer_cams(
                model, x[b : b + 1], method="shapleycam", target=int(target[t, b])
            )
            for name in alone.names:
                got = together.select(target=t)[name][b]
                assert relative_error(got, alone[name][0]) <= 1e-9


def test_half_precision_is_close(x: Tensor) -> None:
    exact = camfuse.layer_cams(make(Smooth), x, method="shapleycam", target=0)["conv"]
    rough = camfuse.layer_cams(
        make(Smooth).bfloat16(), x.bfloat16(), method="shapleycam", target=0
    )["conv"]
    assert relative_error(rough, exact) <= 0.1


def test_maps_cannot_stand_in_a_loss(x: Tensor) -> None:
    with pytest.raises(ValueError, match="the maps of shapleycam cannot be differentiated"):
        camfuse.layer_cams(make(Smooth), x, method="shapleycam", create_graph=True)
