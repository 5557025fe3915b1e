"""How a module's output is laid out: where its channels, its height and its width are.

Outputs are not always ``[B, C, h, w]``: ConvNeXt and Swin carry channels last inside their blocks,
vision transformers carry tokens, attention has shapes that only look like images. The tracker
watches every module of one forward pass and answers with axes that are certain or well supported;
in doubt it answers with nothing, and the layer is skipped.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

Axes = Literal["BCHW", "BHWC", "BNC"]

# Modules that by definition take and return [B, C, h, w].
_CHANNELS_FIRST = (
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.BatchNorm2d,
    nn.SyncBatchNorm,
    nn.InstanceNorm2d,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.LPPool2d,
    nn.FractionalMaxPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.Upsample,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.ReflectionPad2d,
    nn.ReplicationPad2d,
    nn.ConstantPad2d,
    nn.CircularPad2d,
)
_MAX_PREFIX_TOKENS = 8  # a class token, a distillation token, register tokens


@dataclass(frozen=True)
class Layout:
    """Axes of one output, and for tokens the grid they fold to.

    Attributes:
        axes: One letter per axis: batch, channel, height, width, or N for tokens.
        grid: ``(h, w)``.
        prefix: Class and register tokens before the grid.
    """

    axes: Axes
    grid: tuple[int, int]
    prefix: int = 0

    def spatial(self, tensor: Tensor) -> Tensor:
        """A view ``[B, C, h, w]`` of an output (or of its gradient) with this layout."""
        if self.axes == "BNC":
            batch, _, channels = tensor.shape
            tensor = tensor[:, self.prefix :].reshape(batch, *self.grid, channels)
        return tensor if self.axes == "BCHW" else tensor.permute(0, 3, 1, 2)

    def shape(self, tensor: Tensor) -> tuple[int, ...]:
        """The shape ``(B, C, h, w)`` of :meth:`spatial`."""
        batch, *rest = tensor.shape
        return (batch, rest[0] if self.axes == "BCHW" else rest[-1], *self.grid)


class LayoutTracker:
    """Follows the layout of tensors through one forward pass.

    Args:
        image: The model's input ``[B, C, H, W]``; other inputs leave everything undecided but what
            modules define by themselves.
    """

    def __init__(self, image: Tensor) -> None:
        self._batch = image.shape[0]
        self._image_size = (image.shape[-2], image.shape[-1]) if image.ndim == 4 else (0, 0)
        self._by_tensor: dict[int, tuple[weakref.ref[Tensor], Axes]] = {}
        self._by_shape: dict[tuple[int, ...], set[Axes]] = {}
        self._grids: list[tuple[int, int]] = []
        if image.ndim == 4:
            self.note(image, "BCHW")

    def note(self, tensor: Tensor, axes: Axes) -> None:
        """Remembers the axes of ``tensor``, as long as it lives."""
        self._by_tensor[id(tensor)] = (weakref.ref(tensor), axes)
        self._by_shape.setdefault(tuple(tensor.shape), set()).add(axes)

    def observe(self, module: nn.Module, source: Tensor | None, output: Tensor) -> Layout | None:
        """The layout of what ``module`` made of ``source``, or None in doubt."""
        if not 3 <= output.ndim <= 4 or output.shape[0] != self._batch:
            return None
        axes = self._axes(module, source, output)
        if axes is None:
            return None
        self.note(output, axes)
        if axes == "BNC":
            return self._fold_tokens(output.shape[1])
        grid = output.shape[2:] if axes == "BCHW" else output.shape[1:3]
        self._grids.append((grid[0], grid[1]))
        return Layout(axes, self._grids[-1])

    def _axes(self, module: nn.Module, source: Tensor | None, output: Tensor) -> Axes | None:
        if output.ndim == 4 and isinstance(module, _CHANNELS_FIRST):
            return "BCHW"
        known = None if source is None else self._known(source)
        if type(module).__name__ == "Permute":
            return _permuted(known, module.__dict__.get("dims", ()))
        if _acts_on_last_axis(module):
            if output.ndim == 3:
                return "BNC"
            return "BHWC" if self._image_like(output.shape[1:3]) else None
        same_shape = source is not None and source.shape == output.shape
        if known and same_shape and (_element_wise(module) or len(set(output.shape[1:])) > 1):
            return known
        return self._seen_before(output) or self._shrunk(known, output)

    def _known(self, tensor: Tensor) -> Axes | None:
        reference, axes = self._by_tensor.get(id(tensor), (None, None))
        if reference is not None and reference() is tensor:
            return axes
        return self._seen_before(tensor)

    def _seen_before(self, tensor: Tensor) -> Axes | None:
        """The one layout that tensors of this shape had so far, e.g. before `x + residual`."""
        seen = self._by_shape.get(tuple(tensor.shape), set())
        return next(iter(seen)) if len(seen) == 1 else None

    def _shrunk(self, known: Axes | None, output: Tensor) -> Axes | None:
        """A module of unknown kind that turned one channels-first image into another."""
        if known != "BCHW" or output.ndim != 4:
            return None
        first, last = output.shape[2:], output.shape[1:3]
        return "BCHW" if self._image_like(first) and not self._image_like(last) else None

    def _image_like(self, grid: tuple[int, ...]) -> bool:
        """Whether a grid has the aspect of the image, up to rounding by one cell."""
        (h, w), (height, width) = grid, self._image_size
        return h <= height and w <= width and abs(h * width - w * height) <= max(height, width)

    def _fold_tokens(self, count: int) -> Layout | None:
        for prefix in range(_MAX_PREFIX_TOKENS + 1):
            for grid in reversed(self._grids):
                if math.prod(grid) == count - prefix > 1:
                    return Layout("BNC", grid, prefix)
        for prefix in (0, 1):
            side = math.isqrt(max(count - prefix, 0))
            if side > 1 and side * side == count - prefix and self._image_like((side, side)):
                return Layout("BNC", (side, side), prefix)
        return None


def _acts_on_last_axis(module: nn.Module) -> bool:
    """Linear and one-axis norms; subclasses that permute inside bring a forward of their own."""
    if isinstance(module, nn.Linear):
        return type(module).forward is nn.Linear.forward
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        plain = type(module).forward in (nn.LayerNorm.forward, nn.RMSNorm.forward)
        return plain and len(module.normalized_shape) == 1
    return False


def _element_wise(module: nn.Module) -> bool:
    plain = (nn.Identity, nn.modules.dropout._DropoutNd)
    return isinstance(module, plain) or type(module).__module__ == nn.ReLU.__module__


def _permuted(known: Axes | None, dims: Sequence[int]) -> Axes | None:
    if known is None or len(dims) != len(known):
        return None
    axes = "".join(known[d] for d in dims)
    return axes if axes in ("BCHW", "BHWC", "BNC") else None  # type: ignore[return-value]
