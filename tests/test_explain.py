"""layer_cams() and cam(): methods, order, non-finite values, degenerate maps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import camfuse
from camfuse import reference
from oracle import autograd_pairs, relative_error
from registry import PLAIN, RULES
from small_models import DeadEnd, Residual


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Residual().double().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 9, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", RULES)
def test_maps_follow_the_formula(model: nn.Module, x: Tensor, method: str) -> None:
    stack = camfuse.layer_cams(model, x, method=method)
    for name, (A, G) in autograd_pairs(model, x).items():
        if name in stack.names:
            expected, _ = reference.layer_cam(A, G, [RULES[method]])
            assert relative_error(stack[name], expected[0]) <= 1e-9, name


def test_several_methods_share_one_pass_and_equal_single_ones(model: nn.Module, x: Tensor) -> None:
    passes: list[int] = []
    model.register_forward_pre_hook(lambda *_: passes.append(1))
    methods = PLAIN
    camfuse.layer_cams(model, x, method=methods)
    together = camfuse.layer_cams(model, x, method=methods)
    assert len(passes) == 2
    for method in methods:
        single = camfuse.layer_cams(model, x, method=method)
        chosen = together.select(method=method)
        for name in single.names:
            assert relative_error(chosen[name], single[name]) <= 1e-12


def test_random_weights_depend_on_layer_and_seed_alone(model: nn.Module, x: Tensor) -> None:
    def random(inputs: Tensor, **options: object) -> camfuse.CamStack:
        return camfuse.layer_cams(model, inputs, method="randomcam", **options)

    full = random(x)
    assert torch.equal(full["conv"], random(x, layers="conv")["conv"])
    assert relative_error(random(x[1:])["conv"], full["conv"][1:]) <= 1e-12
    assert not torch.equal(full["conv"], random(x, seed=1)["conv"])
    activation, _ = autograd_pairs(model, x)["conv"]
    # The map is linear in the activations, with weights in [-1, 1].
    solution = torch.linalg.lstsq(
        activation.transpose(0, 1).flatten(1).T, full["conv"].flatten()[:, None]
    ).solution
    assert solution.abs().max() <= 1
    torch.testing.assert_close((activation * solution[:, 0, None, None]).sum(1), full["conv"])


def test_cam_is_the_finished_map_of_one_layer(model: nn.Module, x: Tensor) -> None:
    stack = camfuse.layer_cams(model, x, method="layercam")
    expected = stack.normalized("conv", "layer", size=(9, 14))[0, 0]
    torch.testing.assert_close(camfuse.cam(model, x, "conv", method="layercam"), expected)
    got = camfuse.cam(model, x, model.conv, method="layercam", size=(30, 20), relu=False)
    expected = stack.normalized("conv", "layer", relu=False, size=(30, 20))[0, 0]
    torch.testing.assert_close(got, expected)
    with pytest.raises(ValueError, match="2 maps from several calls"):
        camfuse.cam(model, x, "relu")
    with pytest.raises(ValueError, match="no spatial extent"):
        camfuse.cam(model, x, "classifier")


class Poisoned(Residual):
    """The first sample's gradient is NaN below the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(4, 4, 1)

    def body(self, x: Tensor) -> Tensor:
        x = super().body(x)
        zero = (x[:1] - x[:1]).sqrt()  # its derivative is infinite, and multiplied by 0
        return self.last(torch.cat([x[:1] * zero, x[1:]]))


def test_a_gradient_that_is_not_finite_is_named_or_skipped(x: Tensor) -> None:
    torch.manual_seed(0)
    model = Poisoned().double().eval()
    message = "stem: the map of sample 0 is not finite; on_nonfinite='skip' leaves"
    with pytest.raises(FloatingPointError, match=message):
        camfuse.layer_cams(model, x)
    stack = camfuse.layer_cams(model, x, on_nonfinite="skip")
    assert stack.names == ("last",)
    reasons = {one.name: one.reason for one in stack.skipped}
    assert reasons["stem"] == reasons["conv"] == "the map of sample 0 is not finite"
    with pytest.raises(FloatingPointError, match="no map of the selected layers is finite"):
        camfuse.layer_cams(model, x, layers="stem", on_nonfinite="skip")


class CancelledByNorm(nn.Module):
    """A convolution whose successor removes the mean over channels, so that G*A cancels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = F.layer_norm(y.permute(0, 2, 3, 1), (16,), eps=0.0)
        return self.head(y.square().mean((1, 2)) + y.mean((1, 2)))


def test_a_map_of_rounding_noise_is_marked_degenerate() -> None:
    torch.manual_seed(0)
    model = CancelledByNorm().eval()
    methods = ("hirescam", "gradcam", "layercam")
    stack = camfuse.layer_cams(model, torch.randn(2, 3, 8, 8), method=methods)
    assert stack.layers[0].degenerate == ("hirescam",)


def test_unknown_methods_and_options_are_named(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(
        ValueError, match=r"method: expected one of gradcam, .*'gradcma'; did you mean"
    ):
        camfuse.layer_cams(model, x, method="gradcma")
    with pytest.raises(ValueError, match="method: expected at least one"):
        camfuse.layer_cams(model, x, method=[])
    with pytest.raises(ValueError, match="on_nonfinite: expected 'raise' or 'skip', got 'ignore'"):
        camfuse.layer_cams(model, x, on_nonfinite="ignore")


def test_every_selected_layer_is_shown_or_skipped(x: Tensor) -> None:
    torch.manual_seed(0)
    model = DeadEnd().double().eval()
    stack = camfuse.layer_cams(model, x, layers="all")
    names = {name for name, _ in model.named_modules() if name}
    assert set(stack.names) | {one.name for one in stack.skipped} == names
    assert set(stack.shown().names).isdisjoint(one.name for one in stack.skipped)
