"""Which methods share a call: from one layer's pair to all that is known of their maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from camfuse import ops
from camfuse.methods.base import MapMethod, Method, Pair, PassMethod, RuleMethod, WeightMethod

Found = tuple[Tensor, Tensor]
"""Maps ``[M, B, P]`` of P positions, and extents ``[E, B, 2]``: ranges, and magnitudes' ranges."""


@dataclass(frozen=True)
class Group:
    """Methods whose maps of a layer come from one call.

    Attributes:
        methods: The methods.
        make: What their call is; ``None`` if they take passes of their own.
        count: M, how many maps it makes.
        extents: E, how many extents.
        rows: Where each method's map lies among the maps, and its range among the extents.
        scale_rows: Where the extent is whose maximum each method's map is measured by.
    """

    methods: tuple[Method, ...]
    make: Callable[[Pair], Found] | None
    count: int
    extents: int
    rows: tuple[int, ...]
    scale_rows: tuple[int, ...]


def group_methods(methods: Sequence[Method]) -> list[Group]:
    """Parts methods into as few groups as can be; each explains one target."""
    groups = []
    for target in dict.fromkeys(one.target for one in methods):
        rules = [one for one in methods if isinstance(one, RuleMethod) and one.target is target]
        if rules:
            groups.append(_by_rules(rules))
    for one in methods:
        if isinstance(one, WeightMethod):
            groups.append(_by_weights(one))
        elif isinstance(one, MapMethod):
            groups.append(Group((one,), _making(one), 1, 2, (0,), (1,)))
        elif isinstance(one, PassMethod):
            groups.append(Group((one,), None, 1, 2, (0,), (1,)))
    return groups


def as_found(maps: Tensor, scales: Tensor) -> Found:
    """One map ``[B, ...]`` and what it is measured by ``[B]`` as a call returns them."""
    planes = maps.flatten(1)
    low, high = planes.amin(1), planes.amax(1)
    extents = torch.stack([torch.stack([low, high], 1), scales.to(low)[:, None].expand(-1, 2)])
    return planes[None], extents


def _by_rules(methods: Sequence[RuleMethod]) -> Group:
    """One native call, which reads the layer once."""
    rules = list(dict.fromkeys([*(one.rule for one in methods), *_magnitudes(methods)]))

    def make(pair: Pair) -> Found:
        maps, ranges = ops.layer_cam(pair.activations, pair.gradients, rules)
        return maps.flatten(2), ranges

    rows = tuple(rules.index(one.rule) for one in methods)
    scales = tuple(rules.index(ops.MAGNITUDE_OF[one.rule]) for one in methods)
    return Group(tuple(methods), make, len(rules), len(rules), rows, scales)


def _by_weights(method: WeightMethod) -> Group:
    def make(pair: Pair) -> Found:
        weights = method.weights(pair).to(pair.activations.dtype)
        maps, ranges = ops.layer_cam(
            pair.activations, None, ("weighted", "|weighted|"), weights=weights
        )
        return maps.flatten(2), ranges

    return Group((method,), make, 2, 2, (0,), (1,))


def _making(method: MapMethod) -> Callable[[Pair], Found]:
    return lambda pair: as_found(*method.make(pair))


def _magnitudes(methods: Sequence[RuleMethod]) -> list[ops.Rule]:
    return [ops.MAGNITUDE_OF[one.rule] for one in methods]
