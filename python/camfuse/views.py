"""What a video compares: maps of one or several models, methods and targets, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from camfuse.footer import Curve
from camfuse.stack import CamStack, LayerInfo

EVIDENCE = "evidence"
"""A score every stack has: the highest value of each map, as a part of the highest of all layers'.

Negative evidence counts as 0, as it does in the picture. It tells where in the network the target
is decided, not which layer's map to trust.
"""


@dataclass(frozen=True, eq=False)
class View:
    """The maps of one method, target and sample of a stack.

    Attributes:
        stack: The maps.
        method: Position of the method.
        target: Position of the target.
        sample: Position of the sample.
        model: Position of the stack among those that are compared.
    """

    stack: CamStack
    method: int
    target: int
    sample: int
    model: int = 0

    @property
    def method_name(self) -> str:
        """Name of the method."""
        return self.stack.methods[self.method]

    @property
    def target_text(self) -> str:
        """Name of the target and its probability, as far as they are known."""
        stack, t, b = self.stack, self.target, self.sample
        index = int(stack.targets[t, b])
        if index < 0:
            several = stack.axes[1] > 1
            return f"target {t}" if several else f"score {float(stack.scores[t, b]):.3g}"
        name = stack.target_name(t, b) or f"class {index}"
        return f"{name} {float(stack.probabilities[t, b]):.1%}"

    @property
    def parts(self) -> tuple[str, str, str]:
        """Model, method and target in words."""
        return self.stack.model, self.method_name, self.target_text

    @property
    def ranges(self) -> Tensor:
        """Range of each layer's signed map ``[L, 2]``."""
        return self.stack.ranges[:, self.method, self.target, self.sample]

    @property
    def global_range(self) -> Tensor:
        """Range over all layers captured ``[2]``."""
        return self.stack.global_ranges[self.method, self.target, self.sample]

    def offset(self, layer: int) -> int:
        """Where a layer's map begins in the stack's flat buffer."""
        return self.stack.offset(layer, method=self.method, target=self.target, sample=self.sample)

    def layer_of(self, frame: int, frames: int) -> int:
        """Position of the layer on a frame; stacks of fewer layers than frames repeat theirs."""
        return frame if len(self.stack) == frames else frame * len(self.stack) // frames

    def layer_text(self, layer: int) -> tuple[str, str]:
        """Number and name of a layer, and what else is to be said of it."""
        one: LayerInfo = self.stack.layers[layer]
        details = [one.type, " x ".join(map(str, one.shape))]
        if self.method_name in one.degenerate:
            details.append("degenerate")
        return f"{layer + 1}/{len(self.stack)} · {one.name}", " · ".join(details)

    def scores(self, series: str) -> Tensor:
        """One of the stack's series, or :data:`EVIDENCE`, for every layer ``[L]``.

        Raises:
            ValueError: If the stack has no such series.
        """
        check_series(series, self.stack.series)
        if series in self.stack.series:
            return self.stack.series[series][:, self.method, self.target, self.sample]
        top, highest = self.global_range[1].clamp(min=0), self.ranges[:, 1].clamp(min=0)
        return highest / top if top > 0 else highest


def check_pictures(stacks: Iterable[CamStack]) -> None:
    """Raises ValueError if a stack's maps are none of pictures, but of sequences or volumes."""
    for layer in (layer for stack in stacks for layer in stack.layers):
        if len(layer.size) != 2:
            raise ValueError(
                f"stack: expected maps of rows and columns to draw, got {layer.size} of "
                f"{layer.name}; take stack.normalized(layer, size=...) and draw its slices"
            )


def check_series(name: str, known: Iterable[str]) -> None:
    """Raises ValueError unless ``name`` is :data:`EVIDENCE` or one of ``known``."""
    names = dict.fromkeys([*known, EVIDENCE])
    if name not in names:
        raise ValueError(f"curve: expected one of {', '.join(names)}, got {name!r}")


def choose_views(
    stacks: Sequence[CamStack],
    method: str | Sequence[str] | None = None,
    target: int | Sequence[int] | None = None,
    sample: int = 0,
) -> tuple[View, ...]:
    """Every chosen target of every chosen method of every stack, in this order.

    Args:
        stacks: One, or one of each model.
        method: Names; all by default.
        target: Positions; all by default.
        sample: Which image of the batch.

    Raises:
        ValueError: If a stack lacks one of them, there is none, or its maps are no pictures.
    """
    check_pictures(stacks)
    views = []
    for model, stack in enumerate(stacks):
        _, targets, samples = stack.axes
        methods = [method] if isinstance(method, str) else method or stack.methods
        wanted = [target] if isinstance(target, int) else target or range(targets)
        for name in methods:
            if name not in stack.methods:
                raise ValueError(
                    f"method: expected one of {', '.join(stack.methods)}, got {name!r}"
                )
            views += [View(stack, stack.methods.index(name), t, sample, model) for t in wanted]
        for axis, indices, count in (("target", wanted, targets), ("sample", [sample], samples)):
            if bad := [index for index in indices if not 0 <= index < count]:
                raise ValueError(f"{axis}: expected 0..{count - 1}, got {bad[0]}")
    if not views:
        raise ValueError("stacks: expected at least one map to show, got none")
    return tuple(views)


def title_of(views: Sequence[View]) -> str:
    """Model, method and target, as far as all views share them."""
    columns = zip(*(view.parts for view in views), strict=True)
    return " · ".join(parts[0] for parts in columns if parts[0] and len(set(parts)) == 1)


def labels_of(views: Sequence[View]) -> list[str]:
    """What tells each view from the others; empty for a single one."""
    if len(views) == 1:
        return [""]
    columns = list(zip(*(view.parts for view in views), strict=True))
    differing = [parts for parts in columns if len(set(parts)) > 1]
    labels = [" · ".join(parts) for parts in zip(*differing, strict=True)] or [""] * len(views)
    if len(set(labels)) == len(labels):
        return labels
    return [f"{i}: {label}" if label else str(i) for i, label in enumerate(labels, 1)]


def curves_of(views: Sequence[View], series: str, frames: int) -> list[Curve]:
    """Each view's scores, one per frame."""
    curves = []
    for view, label in zip(views, labels_of(views), strict=True):
        scores = view.scores(series).tolist()
        values = tuple(scores[view.layer_of(frame, frames)] for frame in range(frames))
        curves.append(Curve(f"{label} {series}".strip(), values))
    return curves
