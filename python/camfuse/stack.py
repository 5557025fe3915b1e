"""CamStack: the small raw maps of all layers, enough for every picture without the model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from camfuse.devices import to_host, upload

Normalization = Literal["layer", "global"]


@dataclass(frozen=True)
class LayerInfo:
    """One captured layer.

    Attributes:
        name: Dotted module name; ``name#2`` for the second call of a module.
        type: Class name of the module.
        shape: ``(C, h, w)`` of its activation; ``(C, l)`` or ``(C, d, h, w)`` in networks for
            sequences and volumes.
        index: Position in the order of execution, from 0.
        alias_of: Name of the layer whose very tensor this one returned, if any.
        degenerate: Methods whose map is only rounding noise here: its largest magnitude is below
            1e-4 of what its terms add up to without their signs.
        shown: Whether it becomes a frame (aliases and paddings do on request only).
    """

    name: str
    type: str
    shape: tuple[int, ...]
    index: int
    alias_of: str | None = None
    degenerate: tuple[str, ...] = ()
    shown: bool = True

    @property
    def size(self) -> tuple[int, ...]:
        """The grid of the map: ``(h, w)``, or ``(l,)``, or ``(d, h, w)``."""
        return self.shape[1:]


@dataclass(frozen=True)
class Skipped:
    """A selected layer that is not shown, and why."""

    name: str
    type: str
    reason: str


@dataclass(frozen=True, eq=False, repr=False)
class CamStack:
    """Raw maps of many layers: signed, at layer resolution, with their ranges.

    Axes are ``R`` methods, ``T`` targets and ``B`` samples, throughout in this order.

    Attributes:
        layers: The captured layers in order of execution.
        flat: All maps ``[R, T, B, *grid]``, layer after layer, in one flat f32 or f64 buffer. Maps,
            ranges and scores are on the model's device until :meth:`cpu` is called.
        offsets: Where each layer begins in ``flat``; an alias begins where its original does.
        ranges: ``[L, R, T, B, 2]``, minimum and maximum of each signed map.
        global_ranges: ``[R, T, B, 2]``, the same over all layers captured; ``select`` keeps it.
        methods: R names.
        targets: Class indices ``[T, B]``, int64; -1 where a function of the output was explained.
        scores: Target scores ``[T, B]``.
        probabilities: Softmax of the output at the targets ``[T, B]``, f32; NaN for functions.
        input_size: ``(H, W)`` of the model's input, or ``(L,)``, or ``(D, H, W)``.
        model: What the model is called.
        skipped: Selected layers that are not shown, with reasons.
        warnings: What the reader of these maps should know.
        series: Named values per layer ``[L, R, T, B]``, such as ybROAD.
        target_names: Names of the targets, T of B; empty as a whole, or in part, if not known.
    """

    layers: tuple[LayerInfo, ...]
    flat: Tensor
    offsets: tuple[int, ...]
    ranges: Tensor
    global_ranges: Tensor
    methods: tuple[str, ...]
    targets: Tensor
    scores: Tensor
    probabilities: Tensor
    input_size: tuple[int, ...]
    model: str = ""
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()
    series: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    target_names: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        _, t, b = self.axes
        return (
            f"CamStack({len(self)} layers, methods={list(self.methods)}, {t} targets, {b} samples, "
            f"{len(self.skipped)} skipped, {self.flat.dtype}, {self.flat.device})"
        )

    def __getitem__(self, name: str) -> Tensor:
        """The signed map ``[B, *grid]`` of a layer, where there is one method and one target."""
        r, t, _ = self.axes
        if (r, t) != (1, 1):
            raise ValueError(
                f"this stack holds {r} methods and {t} targets: choose with "
                "stack.select(method=, target=) first"
            )
        return self.maps(name)[0, 0]

    @property
    def axes(self) -> tuple[int, int, int]:
        """``(R, T, B)``: the numbers of methods, targets and samples."""
        r, t, b, _ = self.global_ranges.shape
        return r, t, b

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(layer.name for layer in self.layers)

    def position(self, layer: str | int) -> int:
        """Position of a layer, by name or position."""
        if isinstance(layer, int):
            return range(len(self))[layer]
        try:
            return self.names.index(layer)
        except ValueError:
            reason = next((s.reason for s in self.skipped if s.name == layer), "no such layer")
            raise KeyError(f"{layer}: {reason}") from None

    def maps(self, layer: str | int) -> Tensor:
        """The signed maps of one layer, a view ``[R, T, B, *grid]``."""
        i = self.position(layer)
        shape = (*self.axes, *self.layers[i].size)
        start = self.offsets[i]
        return self.flat[start : start + torch.Size(shape).numel()].view(shape)

    def offset(self, layer: int, *, method: int = 0, target: int = 0, sample: int = 0) -> int:
        """Where one map begins in ``flat``."""
        _, t, b = self.axes
        wanted = {"method": method, "target": target, "sample": sample}
        for (name, index), count in zip(wanted.items(), self.axes, strict=True):
            if not 0 <= index < count:
                raise IndexError(f"{name}: expected 0..{count - 1}, got {index}")
        numbers = math.prod(self.layers[layer].size)
        return self.offsets[layer] + ((method * t + target) * b + sample) * numbers

    def normalized(
        self,
        layer: str | int,
        mode: Normalization = "layer",
        *,
        relu: bool = True,
        size: tuple[int, ...] | None = None,
    ) -> Tensor:
        """One layer's maps as they are displayed, in [0, 1].

        Args:
            layer: Name or position.
            mode: ``"layer"`` uses each map's own range, ``"global"`` that over all layers.
            relu: Whether negative evidence becomes 0 first.
            size: ``(H, W)`` to upsample to (bilinear, half-pixel centres), ``(L,)`` (linear) or
                ``(D, H, W)`` (trilinear); None keeps the grid.

        Returns:
            ``[R, T, B, *grid]`` or ``[R, T, B, *size]``; constant maps become 0.

        Raises:
            ValueError: If ``size`` has not as many numbers as the grid.
        """
        if mode not in ("layer", "global"):
            raise ValueError(f"mode: expected 'layer' or 'global', got {mode!r}")
        maps = self.maps(layer)
        limits = self.ranges[self.position(layer)] if mode == "layer" else self.global_ranges
        if relu:
            maps, limits = maps.clamp(min=0), limits.clamp(min=0)
        limits = limits.view(*self.axes, *[1] * len(self.layers[self.position(layer)].size), 2)
        low, high = limits.unbind(-1)
        span = high - low
        scaled = torch.where(span > 0, (maps - low) / span, torch.zeros_like(maps)).clamp(0, 1)
        return scaled if size is None else resize(scaled, size, leading=3)

    def target_name(self, target: int = 0, sample: int = 0) -> str | None:
        """Name of a target, by position; None if it is not known."""
        return (self.target_names[target][sample] or None) if self.target_names else None

    def cpu(self) -> CamStack:
        """The same stack in the host's memory, apart from any graph; one copy from a GPU."""
        tensors = [self.flat, self.ranges, self.global_ranges, self.targets, self.scores]
        flat, ranges, global_ranges, targets, scores, probabilities, *series = to_host(
            [*tensors, self.probabilities, *self.series.values()]
        )
        return dataclasses.replace(
            self,
            flat=flat,
            ranges=ranges,
            global_ranges=global_ranges,
            targets=targets,
            scores=scores,
            probabilities=probabilities,
            series=dict(zip(self.series, series, strict=True)),
        )

    def shown(self) -> CamStack:
        """The layers that become frames."""
        return self.select(layers=[layer.name for layer in self.layers if layer.shown])

    def select(
        self,
        *,
        layers: Sequence[str] | None = None,
        method: str | None = None,
        target: int | None = None,
        sample: int | None = None,
    ) -> CamStack:
        """A smaller stack; the global range stays that of all layers captured.

        Args:
            layers: Names to keep, in the order wanted.
            method: One method, by name.
            target: One target, by position.
            sample: One sample, by position.
        """
        if method is not None and method not in self.methods:
            raise ValueError(f"method: expected one of {', '.join(self.methods)}, got {method!r}")
        _, targets, samples = self.axes
        r = slice(None) if method is None else _only(self.methods.index(method))
        t = slice(None) if target is None else _only(_checked("target", target, targets))
        b = slice(None) if sample is None else _only(_checked("sample", sample, samples))
        if isinstance(layers, str):  # a sequence, but of letters
            raise TypeError(f"layers: expected a sequence of names, got {layers!r}")
        kept = range(len(self)) if layers is None else [self.position(name) for name in layers]
        # Layers that share their maps keep sharing them, or many aliases of a large map would grow
        # without bound.
        places = [(self.offsets[i], *self.layers[i].size) for i in kept]
        owners = dict(zip(places, kept, strict=True))
        flat, starts = pack([self.maps(i)[r, t, b] for i in owners.values()])
        start_of = dict(zip(owners, starts, strict=True))
        rows = torch.tensor(list(kept), dtype=torch.long)
        return dataclasses.replace(
            self,
            layers=tuple(self.layers[i] for i in kept),
            flat=flat.to(self.flat),
            offsets=tuple(start_of[place] for place in places),
            ranges=_rows_of(self.ranges, rows)[:, r, t, b],
            global_ranges=self.global_ranges[r, t, b],
            methods=self.methods[r],
            targets=self.targets[t, b],
            scores=self.scores[t, b],
            probabilities=self.probabilities[t, b],
            series={
                name: _rows_of(values, rows)[:, r, t, b] for name, values in self.series.items()
            },
            target_names=tuple(names[b] for names in self.target_names[t]),
        )


def _rows_of(values: Tensor, rows: Tensor) -> Tensor:
    return values.index_select(0, upload(rows, values.device))


def _checked(name: str, index: int, count: int) -> int:
    if not 0 <= index < count:
        raise ValueError(f"{name}: expected 0..{count - 1}, got {index}")
    return index


def _only(index: int) -> slice:
    return slice(index, index + 1)


def resize(maps: Tensor, size: Sequence[int], *, leading: int) -> Tensor:
    """Maps interpolated to ``size``: linear, bilinear or trilinear, half-pixel centres.

    Args:
        maps: ``[..., *grid]``.
        size: As many numbers as the grid has.
        leading: How many axes come before the grid.
    """
    grid = maps.shape[leading:]
    if len(size) != len(grid):
        raise ValueError(f"size: expected {len(grid)} numbers, as {tuple(grid)}, got {size}")
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(grid)]
    resized = F.interpolate(maps.flatten(0, leading - 1)[:, None], list(size), mode=mode)
    return resized.view(*maps.shape[:leading], *size)


def pack(maps: Sequence[Tensor]) -> tuple[Tensor, tuple[int, ...]]:
    """Lays maps one after another: the flat buffer and where each begins."""
    offsets, end = [], 0
    for one in maps:
        offsets.append(end)
        end += one.numel()
    flat = torch.cat([one.reshape(-1) for one in maps]) if maps else torch.empty(0)
    return flat, tuple(offsets)
