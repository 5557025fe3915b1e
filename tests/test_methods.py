"""Every method of the registry runs, and keeps the promises that all of them make."""

from __future__ import annotations

import re

import pytest
import torch
from parity import SUBJECTS
from torch import Tensor, nn
from write_method_docs import PAGE, PICTURES, page, picture_of

import camfuse
from camfuse.methods import METHODS
from registry import PER_LAYER, WHOLE
from small_models import Residual
from test_capture import assert_same, snapshot


class Small(Residual):
    """A residual network whose modules are called once each."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.ReLU(inplace=True)

    def body(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        y = self.conv(x)
        y += x
        return self.last(y)


def subject(method: str) -> nn.Module:
    """A model that the method has something to say about."""
    torch.manual_seed(0)
    if METHODS[method].only.startswith("attention"):
        model = SUBJECTS["ViT"].small()
        nn.init.normal_(model.heads[-1].weight, std=0.1)  # begins at 0
        return model.eval()
    return Small().eval()


def images(method: str, batch: int = 2) -> Tensor:
    side = 64 if METHODS[method].only.startswith("attention") else 12
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


def explain(method: str, **options) -> camfuse.CamStack:
    model, x = subject(method), images(method)
    before = snapshot(model)
    stack = camfuse.layer_cams(model, x, **{"method": method, "layers": "all", **options})
    assert_same(before, snapshot(model))
    return stack


@pytest.mark.parametrize("method", PER_LAYER)
def test_it_shows_something(method: str) -> None:
    stack = explain(method)
    for layer in stack.layers:
        assert stack[layer.name].shape == (2, *layer.size)
        assert stack[layer.name].isfinite().all()
    assert any(float(stack[name].abs().max()) > 0 for name in stack.names)
    named = {layer.name for layer in stack.layers} | {layer.name for layer in stack.skipped}
    assert named >= {name for name, _ in subject(method).named_modules() if name}


@pytest.mark.parametrize("method", PER_LAYER)
def test_it_gives_the_same_bits_again(method: str) -> None:
    one, other = explain(method), explain(method)
    assert torch.equal(one.flat, other.flat)
    assert torch.equal(one.global_ranges, other.global_ranges)


@pytest.mark.parametrize("method", PER_LAYER)
def test_samples_do_not_know_each_other(method: str) -> None:
    together = explain(method, target=[1, 2])
    model, x = subject(method), images(method)
    for i, target in enumerate([1, 2]):
        alone = camfuse.layer_cams(model, x[i : i + 1], method=method, layers="all", target=target)
        assert alone.names == together.names
        for name in alone.names:
            expected = together[name][i]
            within = 1e-4 * float(expected.abs().max())
            torch.testing.assert_close(alone[name][0], expected, rtol=0, atol=within)


@pytest.mark.parametrize("method", PER_LAYER)
def test_several_targets_are_explained_as_each_alone(method: str) -> None:
    both = explain(method, target=camfuse.Each([None, 2]))
    for t, target in enumerate([None, 2]):
        alone = explain(method, target=target)
        for name in set(alone.names) & set(both.names):
            found = both.select(target=t)[name]
            torch.testing.assert_close(found, alone[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", [name for name in PER_LAYER if name != "hirescam"])
def test_it_stands_beside_others(method: str) -> None:
    """And leaves out the layers that it says nothing about."""
    model, x = subject(method), images(method)
    alone = camfuse.layer_cams(model, x, method=method, layers="all")
    other = camfuse.layer_cams(model, x, method="hirescam", layers="all")
    both = camfuse.layer_cams(model, x, method=["hirescam", method], layers="all")
    assert set(both.names) == set(alone.names) & set(other.names)
    for name in both.names:
        assert torch.equal(both.select(method="hirescam")[name], other[name])
        torch.testing.assert_close(both.select(method=method)[name], alone[name])


@pytest.mark.parametrize("method", PER_LAYER)
def test_one_finished_map_is_that_of_the_stack(method: str) -> None:
    model, x = subject(method), images(method)
    stack = explain(method)
    name = [layer.name for layer in stack.layers if layer.alias_of is None][-1]
    heat = camfuse.cam(model, x, name, method=method)
    expected = stack.normalized(name, size=tuple(x.shape[2:]))[0, 0]
    torch.testing.assert_close(heat, expected, rtol=1e-4, atol=1e-4)


def test_a_method_of_few_layers_leaves_the_range_over_all_layers_to_others() -> None:
    model, x = subject("fullgrad"), images("fullgrad")
    both = camfuse.layer_cams(model, x, method=["gradcam", "fullgrad"], layers="all")
    assert len(both) < len(explain("gradcam"))
    alone = explain("gradcam").global_ranges
    assert torch.equal(both.select(method="gradcam").global_ranges, alone)


@pytest.mark.parametrize("method", WHOLE)
def test_what_has_no_map_per_layer_says_what_to_call(method: str) -> None:
    with pytest.raises(
        ValueError, match=rf"{method} has no map per layer: .*camfuse\.\w+"
    ) as error:
        camfuse.layer_cams(Small().eval(), torch.rand(1, 3, 8, 8), method=method)
    (function,) = re.findall(r"camfuse\.(\w+)", str(error.value))
    assert callable(getattr(camfuse, function))


def test_the_page_has_a_row_and_a_picture_of_each() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "run python tools/write_method_docs.py"
    rows = re.findall(r"^\| `([^`]+)`<br>", text, re.MULTILINE)
    assert rows == list(METHODS)
    for name in METHODS:
        assert (PICTURES / picture_of(name)).is_file(), "... --pictures"
