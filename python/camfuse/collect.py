"""From the pairs that a capture hands over, one by one, to a CamStack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from camfuse import ops
from camfuse.captured import Capture, Captured
from camfuse.devices import to_host, upload
from camfuse.methods import Method
from camfuse.stack import CamStack, LayerInfo, Skipped, pack

OnNonfinite = Literal["raise", "skip"]

# Below this part of what its terms add up to without their signs, a map is rounding noise.
_DEGENERATE = 1e-4


class MapCollector:
    """A visitor that reduces each pair to its small maps at once.

    Args:
        methods: The methods, all computed from the same pairs.
        seed: For methods that draw at random.
    """

    def __init__(self, methods: Sequence[Method], seed: int) -> None:
        self._methods, self._seed = methods, seed
        # Methods without weights of their own share one native call, which reads the layer once.
        shared = [one for one in methods if one.weights is None]
        self._groups = ([shared] if shared else []) + [[one] for one in methods if one.weights]
        self._rules = [_with_magnitudes(group) for group in self._groups]
        # Where each method's map, and the sum of its terms' magnitudes, lie among all results.
        places = [
            (group[0].weights and group[0].name, rule)
            for group, rules in zip(self._groups, self._rules, strict=True)
            for rule in rules
        ]
        self._rows = [places.index((one.weights and one.name, one.rule)) for one in methods]
        self._scale_rows = [
            places.index((one.weights and one.name, ops.MAGNITUDE_OF[one.rule])) for one in methods
        ]
        # By layer and target: maps [Q, B, h, w] and ranges [Q, B, 2] of all Q rules.
        self._found: dict[Captured, dict[int, tuple[Tensor, Tensor]]] = {}

    def __call__(self, layer: Captured, target: int, A: Tensor, G: Tensor) -> None:
        """Reduces ``A`` and ``G``, both ``[B, C, h, w]``, of one layer for one target."""
        results = []
        for group, rules in zip(self._groups, self._rules, strict=True):
            weigh = group[0].weights
            if weigh is None:
                results.append(ops.layer_cam(A, G, rules))
            else:
                weights = weigh(layer.name, A, self._seed)
                results.append(ops.layer_cam(A, None, rules, weights=weights))
        if len(results) > 1:
            maps, ranges = (torch.cat(column) for column in zip(*results, strict=True))
        else:
            maps, ranges = results[0]
        self._found.setdefault(layer, {})[target] = maps, ranges

    @property
    def nbytes(self) -> int:
        """What all that was collected occupies."""
        pairs = (pair for by_target in self._found.values() for pair in by_target.values())
        return sum(maps.nbytes + ranges.nbytes for maps, ranges in pairs)

    def take_over(self, parts: Sequence[tuple[MapCollector, Capture]], whole: Capture) -> None:
        """Takes the maps that others collected for parts of a batch, in order.

        Args:
            parts: Those others, which have nothing afterwards, and what was captured meanwhile.
            whole: What :func:`camfuse.captured.join` makes of the latter.
        """
        for layer in whole.layers:
            if layer.alias_of is not None:
                continue
            found = []
            for collector, captured in parts:
                twin = next((one for one in captured.layers if one.name == layer.name), None)
                found.append((captured.batch, collector._found.pop(twin, {}) if twin else {}))
            some = next(pair for _, by_target in found for pair in by_target.values())
            targets = {t for _, by_target in found for t in by_target}
            # Samples whose scores do not depend on the layer have maps of zero.
            self._found[layer] = {
                t: (
                    torch.cat([by.get(t, _blank(some, n))[0] for n, by in found], 1),
                    torch.cat([by.get(t, _blank(some, n))[1] for n, by in found], 1),
                )
                for t in targets
            }

    def stack(self, found: Capture, model: str, on_nonfinite: OnNonfinite) -> CamStack:
        """All maps that were collected, one after another.

        Raises:
            FloatingPointError: If a map is not finite and ``on_nonfinite`` is ``"raise"``, or none
                is finite.
        """
        targets = range(len(found.scores.values))
        originals = [layer for layer in found.layers if layer.alias_of is None]
        device = next(iter(self._found[originals[0]].values()))[0].device
        on_device = self._extents(originals, targets, device)
        # All that has to be known here. Nothing has waited for a GPU until now.
        extents, indices, probabilities = to_host(
            [on_device, found.scores.indices, found.scores.probabilities]
        )
        finite = extents[:, self._rows].isfinite().flatten(1).all(1).tolist()
        skipped = list(found.skipped)
        for layer, extent, good in zip(originals, extents, finite, strict=True):
            if not good:
                bad = ~extent[self._rows].isfinite()
                sample = int(bad.any(-1).flatten(0, 1).any(0).nonzero()[0])
                reason = f"the map of sample {sample} is not finite"
                if on_nonfinite == "raise":
                    raise FloatingPointError(
                        f"{layer.name}: {reason}; on_nonfinite='skip' leaves such layers out"
                    )
                skipped += [
                    Skipped(one.name, one.type, reason)
                    for one in found.layers
                    if one.original is layer and one.shown
                ]
        row_of = {layer: i for i, layer in enumerate(originals) if finite[i]}
        if not row_of:
            raise FloatingPointError("layers: no map of the selected layers is finite")
        maps = [self._maps(layer, targets, device) for layer in row_of]
        flat, starts = pack([one for of_layer in maps for one in of_layer])
        start_of = dict(zip(row_of, starts[:: len(maps[0])], strict=True))

        layers = [layer for layer in found.layers if layer.original in row_of]
        rows = torch.tensor([row_of[layer.original] for layer in layers])
        shown = extents[rows]
        noise = shown[:, self._rows].abs().amax(-1) < (
            _DEGENERATE * shown[:, self._scale_rows, ..., 1]
        )
        degenerate = noise.flatten(2).all(-1).tolist()
        methods = torch.tensor(self._rows)
        ranges = on_device.index_select(0, upload(rows, device))
        ranges = ranges.index_select(1, upload(methods, device))
        return CamStack(
            layers=tuple(
                LayerInfo(
                    name=layer.name,
                    type=layer.type,
                    shape=layer.shape,
                    index=i,
                    alias_of=layer.alias_of.name if layer.alias_of else None,
                    degenerate=tuple(
                        one.name for one, bad in zip(self._methods, row, strict=True) if bad
                    ),
                    shown=layer.shown,
                )
                for i, (layer, row) in enumerate(zip(layers, degenerate, strict=True))
            ),
            flat=flat,
            offsets=tuple(start_of[layer.original] for layer in layers),
            ranges=ranges,
            global_ranges=torch.stack([ranges[..., 0].amin(0), ranges[..., 1].amax(0)], dim=-1),
            methods=tuple(one.name for one in self._methods),
            targets=indices,
            scores=torch.stack(list(found.scores.values)),
            probabilities=probabilities,
            input_size=found.input_size,
            model=model,
            skipped=tuple(skipped),
            warnings=found.warnings,
        )

    def _extents(self, layers: Sequence[Captured], targets: range, device: torch.device) -> Tensor:
        """Ranges of all Q rules ``[L, Q, T, B, 2]``."""
        per_layer = [
            self._per_target(layer, targets, device, part=1)[0]
            if len(targets) == 1
            else torch.stack(self._per_target(layer, targets, device, part=1), 1)
            for layer in layers
        ]
        extents = torch.stack(per_layer)
        return extents[:, :, None] if len(targets) == 1 else extents

    def _maps(self, layer: Captured, targets: range, device: torch.device) -> list[Tensor]:
        """Maps of one layer, R x T of ``[B, h, w]``."""
        per_target = self._per_target(layer, targets, device, part=0)
        return [maps[row] for row in self._rows for maps in per_target]

    def _per_target(
        self, layer: Captured, targets: range, device: torch.device, part: int
    ) -> list[Tensor]:
        """One of maps and ranges for each target; of models on several devices, all on one."""
        results = {t: pair[part].to(device) for t, pair in self._found[layer].items()}
        some = next(iter(results.values()))
        # A target that does not depend on the layer has a gradient of zero, hence a map of zero.
        return [results[t] if t in results else torch.zeros_like(some) for t in targets]


def _with_magnitudes(methods: Sequence[Method]) -> list[ops.Rule]:
    rules = [one.rule for one in methods]
    return list(dict.fromkeys([*rules, *(ops.MAGNITUDE_OF[rule] for rule in rules)]))


def _blank(like: tuple[Tensor, Tensor], batch: int) -> tuple[Tensor, Tensor]:
    """Maps and ranges of zero for ``batch`` samples."""
    maps, ranges = like
    return maps.new_zeros(len(maps), batch, *maps.shape[2:]), ranges.new_zeros(len(maps), batch, 2)
