"""Maps of all layers from several passes, compared layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from camfuse.metrics.similarity import SIMILARITIES, surrogates
from camfuse.stack import CamStack

Values = dict[str, Tensor]
"""Similarities by name."""

_PAIRS = 4  # of random maps, for each map


@dataclass(frozen=True, eq=False)
class Seen:
    """What a pass showed.

    Attributes:
        maps: Signed maps ``[R, T, B, *grid]`` by layer.
        noise: By layer, the methods whose map is only rounding noise.
        missing: By layer, why there is no map.
        failed: Why there is none of any layer; empty if there are.
    """

    maps: Mapping[str, Tensor] = field(default_factory=dict)
    noise: Mapping[str, Sequence[str]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    failed: str = ""

    @classmethod
    def of(cls, stack: CamStack) -> Seen:
        """What a stack holds."""
        return cls(
            {layer.name: stack.maps(i) for i, layer in enumerate(stack.layers)},
            {layer.name: layer.degenerate for layer in stack.layers},
            {one.name: one.reason for one in stack.skipped},
        )

    def why_not(self, layer: str) -> str | None:
        """Why it has no map of a layer; None if it has."""
        if layer in self.maps:
            return None
        return self.failed or self.missing.get(layer, "not executed")


class Comparison:
    """Compares what passes showed with each other: layers of one grid at once.

    Args:
        like: A stack of the layers that are compared.
        similarity: Names of the similarities.
        relu: Whether negative values become 0.
    """

    def __init__(self, like: CamStack, similarity: Sequence[str], relu: bool) -> None:
        self._like, self._similarity, self._relu = like, similarity, relu
        self._grids: dict[tuple[int, ...], list[int]] = {}
        for i, layer in enumerate(like.layers):
            self._grids.setdefault(layer.size, []).append(i)

    def __call__(self, a: Seen, b: Seen) -> tuple[Values, dict[str, str]]:
        """Similarities ``[L, R, T, B]`` on the CPU; by layer, why some are not defined."""
        values = {name: self._empty() for name in self._similarity}
        why: dict[str, str] = {}
        for grid, layers in self._grids.items():
            first, second = (
                torch.stack([self._maps(one, i, grid) for i in layers]).flatten(0, 3)
                for one in (a, b)
            )
            constant = (_constant(first) | _constant(second)).cpu().view(len(layers), -1).any(1)
            for name in self._similarity:
                found = SIMILARITIES[name](first, second)
                values[name][layers] = found.view(len(layers), *self._like.axes).cpu()
            for i, flat in zip(layers, constant.tolist(), strict=True):
                if reason := self._hide_noise(a, b, i, values) or self._missing(a, b, i):
                    why[self._like.layers[i].name] = reason
                elif any(bool(values[name][i].isnan().any()) for name in self._similarity):
                    small = f"too few numbers, {' x '.join(map(str, grid))}, for this similarity"
                    why[self._like.layers[i].name] = "a map is constant" if flat else small
        return values, why

    def unrelated(self, generator: torch.Generator) -> Values:
        """Mean absolute similarity ``[L, R, T, B]`` of two random maps as smooth as each map."""
        values = {name: self._empty() for name in self._similarity}
        for layers in self._grids.values():
            signed = torch.stack([self._like.maps(i) for i in layers]).flatten(0, 3)
            found: dict[str, list[Tensor]] = {name: [] for name in self._similarity}
            for _ in range(_PAIRS):
                a, b = (self._cut(surrogates(signed, generator)) for _ in range(2))
                for name, several in found.items():
                    several.append(SIMILARITIES[name](a, b).abs())
            for name, several in found.items():
                mean = torch.stack(several).nanmean(0)
                values[name][layers] = mean.view(len(layers), *self._like.axes).cpu()
        return values

    def _maps(self, seen: Seen, layer: int, grid: tuple[int, ...]) -> Tensor:
        """``[R, T, B, *grid]``; NaN where there are none."""
        shape = (*self._like.axes, *grid)
        maps = seen.maps.get(self._like.layers[layer].name)
        if maps is None or maps.shape != shape:
            return self._like.flat.new_full(shape, torch.nan)
        return self._cut(maps)

    def _cut(self, maps: Tensor) -> Tensor:
        return maps.clamp(min=0) if self._relu else maps

    def _missing(self, a: Seen, b: Seen, layer: int) -> str | None:
        name = self._like.layers[layer].name
        return a.why_not(name) or b.why_not(name)

    def _hide_noise(self, a: Seen, b: Seen, layer: int, values: Values) -> str | None:
        """Makes similarities of mere rounding noise undefined, and says so."""
        name = self._like.layers[layer].name
        noise = {*a.noise.get(name, ()), *b.noise.get(name, ())}
        hidden = [r for r, method in enumerate(self._like.methods) if method in noise]
        for one in values.values():
            one[layer, hidden] = torch.nan
        return "a map is only rounding noise" if hidden else None

    def _empty(self) -> Tensor:
        return torch.full((len(self._like), *self._like.axes), torch.nan, dtype=torch.float64)


def _constant(maps: Tensor) -> Tensor:
    flat = maps.flatten(1)
    return (flat == flat[:, :1]).all(1)
