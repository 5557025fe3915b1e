"""Hooks for a forward pass of the caller's: activations as returned, gradients as autograd's."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from camfuse.compat.taps import Taps


class Twice(nn.Module):
    """A ReLU in place that two convolutions share, and a skip connection around an identity."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.same, self.last = nn.ReLU(inplace=True), nn.Identity(), nn.Linear(4, 5)

    def forward(self, x):
        x = self.relu(self.first(x))
        y = self.relu(self.second(self.same(x))) + x
        return self.last(y.mean((2, 3)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Twice().eval()


@pytest.fixture
def x():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def expected(model, x, layer, call):
    """Activation and gradient of one call of a layer, by adding a zero that requires grad."""
    found = {}
    calls = []

    def hook(module, args, output):
        calls.append(None)
        if len(calls) == call + 1:
            found["A"] = output.detach().clone()
            found["zero"] = torch.zeros_like(output).requires_grad_()
            return output + found["zero"]
        return None

    relu, model.relu.inplace = model.relu.inplace, False
    handle = layer.register_forward_hook(hook)
    try:
        score = model(x)[:, 1].sum()
    finally:
        handle.remove()
        model.relu.inplace = relu
    return found["A"], torch.autograd.grad(score, found["zero"])[0]


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize(("name", "call"), [("first", 0), ("second", 0), ("relu", 0), ("relu", 1)])
def test_activations_are_what_a_layer_returned_and_gradients_arrive_there(
    model, x, name, call, trainable
):
    model.requires_grad_(trainable)
    layer = model.get_submodule(name)
    taps = Taps([layer])
    with taps.watching():
        score = model(x)[:, 1].sum()
    taps.differentiate(score)
    tap = taps.calls[layer][call]
    A, G = expected(model, x, layer, call)
    torch.testing.assert_close(tap.activation, A)
    torch.testing.assert_close(tap.gradient, G)
    assert all(one.grad is None for one in model.parameters())


def test_a_layer_that_returns_its_input_has_the_gradient_of_all_who_use_it(model, x):
    model.requires_grad_(False)
    taps = Taps([model.same])
    with taps.watching():
        score = model(x)[:, 1].sum()
    taps.differentiate(score)
    _, G = expected(model, x, model.relu, 0)
    torch.testing.assert_close(taps.calls[model.same][0].gradient, G)


def test_a_view_that_is_overwritten_keeps_its_values_and_its_gradient():
    class Permuting(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.turn, self.last = nn.Linear(3, 4), nn.Flatten(1, 2), nn.Linear(4, 2)

        def forward(self, x):
            y = self.turn(self.embed(x.permute(0, 2, 3, 1)))
            return self.last(y.relu_().mean(1))

    torch.manual_seed(0)
    model = Permuting()
    x = torch.randn(2, 3, 4, 4)
    taps = Taps([model.turn])
    with taps.watching():
        score = model(x)[:, 0].sum()
    taps.differentiate(score)
    (tap,) = taps.calls[model.turn]
    A = model.embed(x.permute(0, 2, 3, 1)).flatten(1, 2)
    torch.testing.assert_close(tap.activation, A.detach())
    (G,) = torch.autograd.grad(model.last(A.relu().mean(1))[:, 0].sum(), A)
    torch.testing.assert_close(tap.gradient, G)


def test_gradients_come_from_the_callers_own_backward_pass_too(model, x):
    taps = Taps([model.second])
    with taps.watching():
        score = model(x)[:, 1].sum()
    score.backward()
    torch.testing.assert_close(
        taps.calls[model.second][0].gradient, expected(model, x, model.second, 0)[1]
    )


def test_attached_pairs_can_be_differentiated(model, x):
    taps = Taps([model.second], attached=True)
    with taps.watching():
        score = model(x)[:, 1].square().sum()
    taps.differentiate(score)
    (tap,) = taps.calls[model.second]
    (again,) = torch.autograd.grad(tap.gradient.square().sum(), tap.activation)
    assert again.abs().max() > 0


def test_a_score_of_elsewhere_is_refused(model, x):
    taps = Taps([model.second])
    with taps.watching():
        model(x)
    with pytest.raises(ValueError, match="targets: expected a score that depends on a target"):
        taps.differentiate(torch.ones((), requires_grad=True) * 2)


def test_outputs_of_several_tensors_need_a_reshape(model, x):
    class Pair(nn.Module):
        def forward(self, x):
            return {"a": x * 1, "b": x * 2}

    pair = Pair()
    message = "target_layers: expected Pair to return one floating"
    with pytest.raises(ValueError, match=message), Taps([pair]).watching():
        pair(x)
    taps = Taps([pair], lambda output: output["a"] + output["b"])
    with taps.watching():
        pair(x)
    torch.testing.assert_close(taps.calls[pair][0].activation, 3 * x)
    assert not pair._forward_hooks


def test_nothing_outlives_the_taps(model, x):
    taps = Taps([model.second])
    with taps.watching():
        score = model(x)[:, 1].sum()
    taps.differentiate(score)
    activation = weakref.ref(taps.calls[model.second][0].activation)
    taps.clear()
    del score
    gc.collect()
    assert activation() is None
