"""One map of several layers: what all of them agree on, at the precision of the earliest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from camfuse.checks import expect, expect_whole
from camfuse.stack import CamStack


def refine_cam(
    stack: CamStack,
    *,
    layers: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """The product of several layers' maps, as RefineCAM has it (arXiv 2605.14641).

    Late layers tell the object from the rest, early ones where exactly it ends; what one of them
    does not show is not shown. Each map is normalised by its own range after ReLU, then upsampled;
    so is the product in the end. It takes no pass over the model.

    Args:
        stack: The maps, of any method; the authors use Grad-CAM++.
        layers: Names of those to combine; by default all that are shown. A layer that shows
            nothing makes the product 0.
        size: ``(H, W)`` of the result; that of the model's input by default.

    Returns:
        ``[R, T, B, H, W]`` in [0, 1], on the stack's device; constant products are 0.

    Raises:
        KeyError: If the stack has no such layer; the message says why.
        TypeError: If an argument is of the wrong type.
        ValueError: If there is no layer, or it is given twice.
    """
    expect("stack", stack, CamStack)
    if isinstance(layers, str):  # a sequence, but of letters
        raise TypeError(f"layers: expected a sequence of names, got {layers!r}")
    names = stack.shown().names if layers is None else tuple(layers)
    if not names:
        raise ValueError("layers: expected at least one, got none")
    if len(set(names)) < len(names):
        raise ValueError(f"layers: expected each layer once, got {', '.join(names)}")
    positions = [stack.position(name) for name in names]
    height, width = stack.input_size if size is None else size
    for side in (height, width):
        expect_whole("size", side, of="pixels", at_least=1)
    product = None
    for i in positions:
        maps = stack.normalized(i, size=(height, width))
        # Its height is rescaled at each step, for that of many small factors could underflow.
        product = maps if product is None else _by_highest(product * maps)
    assert product is not None
    lowest = product.amin((-2, -1), keepdim=True)
    return _by_highest(product - lowest)


def _by_highest(maps: Tensor) -> Tensor:
    """Maps of at least 0, each divided by its highest value."""
    highest = maps.amax((-2, -1), keepdim=True)
    return torch.where(highest > 0, maps / highest, torch.zeros_like(maps))
