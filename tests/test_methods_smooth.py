"""smoothgradcam++: derivatives averaged over noisy images."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchcam.methods import SmoothGradCAMpp

import camfuse
from oracle import autograd_pairs, relative_error
from small_models import DeadEnd, Head, Residual
from test_capture import assert_same, snapshot


class Plain(Head):
    """Nothing is overwritten in place, and modules are called once."""

    def __init__(self) -> None:
        super().__init__(6)
        self.stem = nn.Conv2d(3, 6, 3, padding=1, stride=2)
        self.act = nn.Tanh()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.SiLU()

    def body(self, x: Tensor) -> Tensor:
        return self.last(self.conv(self.act(self.stem(x))))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    model = Plain().double().eval()
    nn.init.normal_(model.classifier.weight, std=30.0)  # so that no epsilon matters
    return model


@pytest.fixture
def x() -> Tensor:
    return torch.randn(
        2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


def noise(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, 32, 32, generator=generator).mul(0.3).double() for _ in range(4)]


def gradients(model: nn.Module, x: Tensor, classes: list[int], name: str) -> Tensor:
    """Of the noisy passes ``[4, B, C, h, w]``."""
    columns = torch.tensor(classes)[:, None]

    def score(out: Tensor) -> Tensor:
        return out.gather(1, columns)[:, 0]

    return torch.stack([autograd_pairs(model, x + one, score)[name][1] for one in noise()])


def weighted(weights: Tensor, A: Tensor) -> Tensor:
    return torch.einsum("bk,bkhw->bhw", weights, A)


def formula_weights(G: Tensor, A: Tensor) -> Tensor:
    d1, d2, d3 = (G.pow(n).mean(0) for n in (1, 2, 3))
    alpha = d2 / (2 * d2 + d3 * A.sum((2, 3), keepdim=True) + 1e-8)
    return (alpha * d1.relu()).sum((2, 3))


def test_every_layer_follows_the_formula(model: nn.Module, x: Tensor) -> None:
    stack = camfuse.layer_cams(model, x, method="smoothgradcam++", target=[1, 3])
    assert stack.names == ("stem", "act", "conv", "last")
    for name in stack.names:
        A, _ = autograd_pairs(model, x)[name]
        G = gradients(model, x, [1, 3], name)
        assert relative_error(stack[name], weighted(formula_weights(G, A), A)) <= 1e-9, name


def by_torchcam(model: nn.Module, x: Tensor, classes: list[int], layer: str) -> Tensor:
    """With the same noise."""
    draws = iter(noise())
    with SmoothGradCAMpp(model, layer, input_shape=(3, 32, 32)) as peer:
        peer._distrib.sample = lambda shape: next(draws).expand(shape)
        model(x)
        (maps,) = peer(classes, normalized=False)
    return maps


def test_where_gradients_are_constant_weights_are_those_of_torchcam(
    model: nn.Module, x: Tensor
) -> None:
    """It lays them over the activations of its last noisy pass; ours belong to the image."""
    G = gradients(model, x, [1, 3], "last")
    weights = formula_weights(G, autograd_pairs(model, x)["last"][0])
    last_noisy, _ = autograd_pairs(model, x + noise()[-1])["last"]
    expected = weighted(weights, last_noisy).relu()
    assert relative_error(by_torchcam(model, x, [1, 3], "last"), expected) <= 1e-9


def test_elsewhere_torchcam_departs_as_documented(model: nn.Module, x: Tensor) -> None:
    A, _ = autograd_pairs(model, x)["act"]
    last_noisy, _ = autograd_pairs(model, x + noise()[-1])["act"]
    G = gradients(model, x, [1, 3], "act")
    d2, d3 = (G.pow(n).mean(0) for n in (2, 3))
    alpha = d2 / (2 * d2 + (d3 * A).sum((2, 3), keepdim=True) + 1e-8)
    weights = (alpha * G[-1].relu()).sum((2, 3))
    theirs = weighted(weights, last_noisy).relu()
    assert relative_error(by_torchcam(model, x, [1, 3], "act"), theirs) <= 1e-9
    assert relative_error(formula_weights(G, A), weights) > 1e-2


def test_the_seed_chooses_the_noise_and_nothing_else_does(model: nn.Module, x: Tensor) -> None:
    def explain(seed: int) -> Tensor:
        return camfuse.layer_cams(model, x, method="smoothgradcam++", seed=seed).flat

    state = torch.get_rng_state()
    first = explain(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert torch.equal(explain(0), first)
    assert not torch.equal(explain(1), first)


def test_samples_and_targets_are_explained_as_if_alone(model: nn.Module, x: Tensor) -> None:
    target = torch.tensor([[0, 1], [2, 3]])
    together = camfuse.layer_cams(model, x, method="smoothgradcam++", target=target)
    for t in range(2):
        for b in range(2):
            alone = camfuse.layer_cams(
                model, x[b : b + 1], method="smoothgradcam++", target=int(target[t, b])
            )
            for name in alone.names:
                got = together.select(target=t)[name][b]
                assert relative_error(got, alone[name][0]) <= 1e-9


def test_the_class_is_that_of_the_clean_image(model: nn.Module, x: Tensor) -> None:
    x = x[:1]
    with torch.no_grad():  # all classes all but equal
        model.classifier.bias -= model(x)[0] * 0.999
    classes = model(x).argmax(1)
    assert not all(torch.equal(model(x + one).argmax(1), classes) for one in noise())
    found = camfuse.layer_cams(model, x, method="smoothgradcam++")
    named = camfuse.layer_cams(model, x, method="smoothgradcam++", target=classes)
    assert torch.equal(found.flat, named.flat)


def test_a_layer_that_the_target_does_not_depend_on_is_skipped(x: Tensor) -> None:
    stack = camfuse.layer_cams(DeadEnd().double().eval(), x, method="smoothgradcam++")
    assert stack.names == ("used",)
    reasons = {one.name: one.reason for one in stack.skipped}
    assert reasons["dead"] == "smoothgradcam++: target does not depend on it"


def test_second_calls_and_overwritten_layers_are_told_apart(x: Tensor) -> None:
    torch.manual_seed(0)
    model = Residual().double().eval()
    stack = camfuse.layer_cams(model, x, method="smoothgradcam++", target=[1, 3], layers="relu")
    assert stack.names == ("relu", "relu#2")
    for name in stack.names:
        A, _ = autograd_pairs(model, x)[name]
        G = gradients(model, x, [1, 3], name)
        assert relative_error(stack[name], weighted(formula_weights(G, A), A)) <= 1e-9, name


def test_only_the_image_is_noisy(model: nn.Module, x: Tensor) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model
            self.seen: list[Tensor] = []

        def forward(self, scale: Tensor, image: Tensor) -> Tensor:
            self.seen.append(scale.clone())
            return self.inner(image) * scale

    scaled = Scaled().eval()
    stack = camfuse.layer_cams(
        scaled, [torch.tensor([[2.0], [2.0]]), x], method="smoothgradcam++", layers="inner.conv"
    )
    assert {float(value) for one in scaled.seen for value in one} == {2.0}
    assert stack["inner.conv"].any()


@pytest.mark.parametrize("freeze", [lambda model: model.requires_grad_(False), lambda model: model])
def test_the_model_is_left_as_it_was(x: Tensor, freeze: Callable[[nn.Module], nn.Module]) -> None:
    model = freeze(Residual().double().eval())
    before = snapshot(model)
    camfuse.layer_cams(model, x, method="smoothgradcam++")
    assert_same(before, snapshot(model))


def test_half_precision_is_close(model: nn.Module, x: Tensor) -> None:
    options = {"method": "smoothgradcam++", "target": 1, "layers": "last"}
    exact = camfuse.layer_cams(model, x, **options)["last"]
    got = camfuse.layer_cams(model.bfloat16(), x.bfloat16(), **options)["last"]
    assert relative_error(got, exact) <= 0.1
