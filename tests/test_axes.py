"""Axes keep their meaning through reshapes: numbered positions tell where each one went."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from camfuse.axis_tracer import AxisTracer
from camfuse.layouts import Layout, layout_of

B, C, H, W = 2, 4, 8, 12


def numbered(batch: int = B) -> Tensor:
    """An image whose every element says which sample, row and column it belongs to."""
    sample, row, column = torch.meshgrid(
        torch.arange(batch), torch.arange(H), torch.arange(W), indexing="ij"
    )
    codes = (sample * H + row) * W + column
    return codes[:, None].expand(batch, C, H, W).double().contiguous()


def layout_after(change, image: Tensor) -> tuple[Tensor, Layout | str]:
    tracer = AxisTracer(len(image))
    with tracer.following([image]):
        changed = change(image)
    return changed, layout_of(tracer.axes_of(changed), changed.shape, len(image))


def assert_in_place(change, batch: int = B) -> Layout:
    """What was moved is put back exactly where it was."""
    image = numbered(batch)
    changed, layout = layout_after(change, image)
    assert isinstance(layout, Layout), layout
    back = layout.spatial(changed)
    assert back.shape == (batch, layout.channels, *layout.grid)
    torch.testing.assert_close(back, image[:, :1].expand_as(back), rtol=0, atol=0)
    return layout


def windows(x: Tensor) -> Tensor:
    x = x.permute(0, 2, 3, 1).reshape(len(x), 2, 4, 3, 4, C)
    return x.transpose(2, 3).reshape(-1, 16, C)


def grid_windows(x: Tensor) -> Tensor:
    x = x.reshape(len(x), C, 4, 2, 4, 3)  # the outer factors attend to each other
    return x.permute(0, 3, 5, 2, 4, 1).reshape(-1, 16, C)


def with_tokens(x: Tensor) -> Tensor:
    x = x.flatten(2).transpose(1, 2)
    return torch.cat([-torch.ones(len(x), 3, C).double(), x], 1)


CHANGES = {
    "as it is": lambda x: x,
    "channels last": lambda x: x.permute(0, 2, 3, 1),
    "transposed": lambda x: x.transpose(2, 3),
    "tokens": lambda x: x.flatten(2).transpose(1, 2),
    "tokens after others": with_tokens,
    "without the others again": lambda x: with_tokens(x)[:, 3:],
    "tokens before others": lambda x: F.pad(x.flatten(2), (0, 2), value=-1.0),
    "heads": lambda x: x.flatten(2).unflatten(1, (2, 2)).transpose(-1, -2),
    "samples and tokens in one": lambda x: with_tokens(x).flatten(0, 1),
    "windows": windows,
    "a grid of windows": grid_windows,
    "shifted windows": lambda x: windows(torch.roll(x, (-2, -1), (2, 3))),
    "rolled": lambda x: torch.roll(x, (3, -5), (2, 3)),
    "padded windows": lambda x: (
        F.pad(x, (0, 4, 0, 4), value=-1.0).unflatten(2, (3, 4)).unflatten(4, (2, 8)).transpose(3, 4)
    ),
    "patches side by side": lambda x: F.unfold(x, 4, stride=4),
    "several slices of channels": lambda x: torch.cat(x.split(2, 1)[::-1], 1),
    "a row of residuals": lambda x: (x + x.roll(1, 1)) / 2,
}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("change", CHANGES)
def test_what_was_moved_is_found_where_it_was(change: str, batch: int) -> None:
    assert assert_in_place(CHANGES[change], batch).grid == (H, W)


def test_pixels_that_became_channels_leave_a_coarser_grid() -> None:
    def merged(x: Tensor) -> Tensor:
        x = x.unflatten(2, (4, 2)).unflatten(4, (6, 2)).permute(0, 2, 4, 3, 5, 1).flatten(3)
        return x @ torch.ones(4 * C, 5).double()

    image = numbered()
    changed, layout = layout_after(merged, image)
    assert isinstance(layout, Layout)
    assert (layout.channels, layout.grid) == (5, (4, 6))
    expected = F.avg_pool2d(image, 2)[:, :1] * 4 * C
    torch.testing.assert_close(layout.spatial(changed), expected.expand(-1, 5, -1, -1))


UNFOLDABLE = {
    "attention weights": (lambda x: x.flatten(2).mT @ x.flatten(2), "positions to positions"),
    "pooled windows": (lambda x: windows(x).unflatten(0, (B, 6)).mean(1), "part of the image"),
    "one row": (lambda x: x[:, :, 3], "layout unknown"),
    "the left half": (lambda x: x[..., : W // 2], "layout unknown"),
    "one sample": (lambda x: x[:1], "layout unknown"),
    "flipped": (lambda x: x.flip(3), "layout unknown"),
    "sorted": (lambda x: x.sort(-1).values, "layout unknown"),
    "looked up": (lambda x: x.flatten(2)[..., torch.randperm(H * W)], "layout unknown"),
    "added to its like": (lambda x: x[:, :, :8, :8] + x[:, :, :8, :8].mT, "layout unknown"),
    "cut across rows": (lambda x: x.reshape(B, C, 12, 8).mean(-1), "layout unknown"),
    "mixed": (lambda x: x.flatten(2) @ torch.ones(H * W, 9).double(), "no axis of positions"),
    "parameters": (lambda x: torch.ones(B, C, H, W), "made of parameters alone"),
}


@pytest.mark.parametrize("change", UNFOLDABLE)
def test_what_cannot_be_put_back_has_a_reason(change: str) -> None:
    function, reason = UNFOLDABLE[change]
    _, layout = layout_after(function, numbered())
    assert isinstance(layout, str), layout
    assert reason in layout


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_chain_of_reshapes_and_transpositions_is_undone(data: st.DataObject) -> None:
    """Splits, merges, permutations and rolls at random: put back rightly, or not at all."""

    def change(x: Tensor) -> Tensor:
        for _ in range(data.draw(st.integers(1, 6))):
            kind = data.draw(st.sampled_from(["split", "merge", "permute", "permute", "roll"]))
            place = data.draw(st.integers(0, x.ndim - 1))
            if kind == "permute":
                x = x.permute(data.draw(st.permutations(range(x.ndim))))
            elif kind == "roll":
                x = torch.roll(x, data.draw(st.integers(-3, 3)), place)
            elif kind == "merge" and place:
                x = x.flatten(place - 1, place)
            elif kind == "split":
                factors = [n for n in (2, 3, 4) if x.shape[place] % n == 0 and x.ndim < 8]
                if factors:
                    n = data.draw(st.sampled_from(factors))
                    outer = data.draw(st.booleans())
                    x = x.unflatten(place, (n, -1) if outer else (-1, n))
        return x

    image = numbered()
    changed, layout = layout_after(change, image)
    if isinstance(layout, Layout):
        assert math.prod(layout.grid) == H * W
        back = layout.spatial(changed)
        torch.testing.assert_close(back, image[:, :1].expand_as(back), rtol=0, atol=0)
