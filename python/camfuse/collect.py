"""From the pairs that a capture hands over, one by one, to a CamStack."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor

from camfuse.captured import Capture, Captured
from camfuse.devices import to_host, upload
from camfuse.methods import Method
from camfuse.methods.base import LayerMaps, Pair, UndefinedError
from camfuse.methods.groups import Found, as_found, group_methods
from camfuse.stack import CamStack, LayerInfo, Skipped, pack
from camfuse.targets import Each, Target

OnNonfinite = Literal["raise", "skip"]

_NOTHING = nullcontext()

# Below this part of what its terms add up to without their signs, a map is rounding noise.
_DEGENERATE = 1e-4


class MapCollector:
    """A visitor that reduces each pair to its small maps at once.

    Args:
        methods: The methods, all computed from the same pairs but those with passes of their own.
        seed: For methods that draw at random.
        targets: How many targets there are.
        keep_graph: Whether maps stay attached to the graph of their pairs.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        seed: int,
        targets: int = 1,
        keep_graph: bool = False,
    ) -> None:
        self._methods, self._seed, self._targets = methods, seed, targets
        self._keep_graph = keep_graph
        self._groups = group_methods(methods)
        # What is explained: the targets first, and what some methods explain in place of them.
        variants = dict.fromkeys(group.methods[0].target for group in self._groups)
        self._variants = sorted(variants, key=lambda of: of is not None)
        # The group of each method, and its position there.
        self._places = [
            (g, group.methods.index(one))
            for one in methods
            for g, group in enumerate(self._groups)
            if one in group.methods
        ]
        self._found: dict[Captured, dict[tuple[int, int], Found]] = {}  # by group and target
        self._undefined: dict[Captured, str] = {}

    @property
    def gradients(self) -> bool:
        """Whether any method needs gradients."""
        return any(one.gradients for one in self._methods)

    @property
    def second_order(self) -> bool:
        """Whether any method differentiates the gradients."""
        return any(one.second_order for one in self._methods)

    @property
    def variants(self) -> int:
        """How many things are explained for the sake of one target."""
        return len(self._variants)

    def explained(self, target: Target) -> Target:
        """All that a capture must explain for the sake of ``target``."""
        if self._variants == [None]:
            return target
        return Each([target if of is None else of(target) for of in self._variants])

    def __call__(self, layer: Captured, target: int, A: Tensor, G: Tensor | None) -> None:
        """Reduces ``A`` and ``G``, both ``[B, C, h, w]``, of one layer for one target."""
        variant, target = divmod(target, self._targets)
        found = self._found.setdefault(layer, {})
        attached = pair = Pair(layer, A, G, self._seed)
        if A.requires_grad and not self._keep_graph:
            pair = Pair(layer, A.detach(), None if G is None else G.detach(), self._seed)
        for g, group in enumerate(self._groups):
            first = group.methods[0]
            if group.make is None or first.target is not self._variants[variant]:
                continue
            try:
                # A graph that exists can be differentiated, but the maps are no part of it.
                apart = torch.is_grad_enabled() and not self._keep_graph
                with torch.no_grad() if apart else _NOTHING:
                    found[g, target] = group.make(attached if first.second_order else pair)
            except UndefinedError as error:
                self._undefined[layer] = f"{first.name}: {error}"

    def add(
        self, method: Method, found: Iterable[LayerMaps | tuple[Captured, UndefinedError]]
    ) -> None:
        """Takes the maps of a method with passes of its own."""
        (g,) = (i for i, group in enumerate(self._groups) if group.methods == (method,))
        for one in found:
            if isinstance(one, LayerMaps):
                self._found[one.layer][g, one.target] = as_found(one.maps, one.scales)
            else:
                layer, error = one
                self._undefined[layer] = f"{method.name}: {error}"

    @property
    def nbytes(self) -> int:
        """What all that was collected occupies."""
        pairs = (pair for pairs in self._found.values() for pair in pairs.values())
        return sum(maps.nbytes + extents.nbytes for maps, extents in pairs)

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
                if twin in collector._undefined:
                    self._undefined[layer] = collector._undefined[twin]
            # Samples whose scores do not depend on the layer have maps of zero.
            self._found[layer] = {}
            for key in {key for _, by_key in found for key in by_key}:
                some = next(by_key[key] for _, by_key in found if key in by_key)
                pieces = [by_key.get(key) or _blank(some, batch) for batch, by_key in found]
                maps, extents = zip(*pieces, strict=True)
                self._found[layer][key] = torch.cat(maps, 1), torch.cat(extents, 1)

    def stack(self, found: Capture, model: str, on_nonfinite: OnNonfinite) -> CamStack:
        """All maps that were collected, one after another.

        Raises:
            ValueError: If the methods say nothing about any layer.
            FloatingPointError: If a map is not finite and ``on_nonfinite`` is ``"raise"``, or none
                is finite.
        """
        originals = [one for one in found.layers if one.alias_of is None and self._found.get(one)]
        complete = [layer for layer in originals if self._is_complete(layer)]
        skipped = [
            *found.skipped,
            *(
                Skipped(one.name, one.type, self._undefined[one.original])
                for one in found.layers
                if one.original in self._undefined and one.shown
            ),
        ]
        if not complete:
            reasons = "; ".join(f"{one.name}: {one.reason}" for one in skipped[:4])
            raise ValueError(f"layers: none of the selected layers can be shown ({reasons})")
        device = next(iter(self._found[originals[0]].values()))[0].device
        on_device = self._extents(originals, device)
        # All that has to be known here. Nothing has waited for a GPU until now.
        extents, indices, probabilities = to_host(
            [on_device, found.scores.indices, found.scores.probabilities]
        )
        rows_of_methods, scale_rows = self._rows("rows"), self._rows("scale_rows")
        finite = extents[:, rows_of_methods].isfinite().flatten(1).all(1).tolist()
        for layer, extent, good in zip(originals, extents, finite, strict=True):
            if not good:
                bad = ~extent[rows_of_methods].isfinite()
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
        all_rows = {layer: i for i, layer in enumerate(originals) if finite[i]}
        row_of = {layer: row for layer, row in all_rows.items() if layer in complete}
        if not row_of:
            raise FloatingPointError("layers: no map of the selected layers is finite")
        maps = [self._maps(layer, device) for layer in row_of]
        flat, starts = pack([one for of_layer in maps for one in of_layer])
        start_of = dict(zip(row_of, starts[:: len(maps[0])], strict=True))

        layers = [layer for layer in found.layers if layer.original in row_of]
        rows = torch.tensor([row_of[layer.original] for layer in layers])
        shown = extents[rows]
        noise = (
            shown[:, rows_of_methods].abs().amax(-1) < _DEGENERATE * shown[:, scale_rows, ..., 1]
        )
        degenerate = noise.flatten(2).all(-1).tolist()
        every_range = on_device.index_select(1, upload(torch.tensor(rows_of_methods), device))
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
            ranges=every_range.index_select(0, upload(rows, device)),
            global_ranges=self._global_ranges(every_range, all_rows),
            methods=tuple(one.name for one in self._methods),
            targets=indices,
            scores=torch.stack(list(found.scores.values)),
            probabilities=probabilities,
            input_size=found.input_size,
            model=model,
            skipped=tuple(skipped),
            warnings=found.warnings,
        )

    def _is_complete(self, layer: Captured) -> bool:
        """Whether every method has said what it can about the layer."""
        found = self._found[layer]
        return layer not in self._undefined and all(
            group.make is not None or (g, t) in found
            for g, group in enumerate(self._groups)
            for t in range(self._targets)
        )

    def _global_ranges(self, ranges: Tensor, rows: dict[Captured, int]) -> Tensor:
        """``[R, T, B, 2]``: each method's over the layers that it has seen, all if it can be."""
        found, targets = [], range(self._targets)
        for method, (g, _) in enumerate(self._places):
            own = [
                row
                for layer, row in rows.items()
                if any((g, t) in self._found[layer] for t in targets)
            ] or list(rows.values())
            of_method = ranges[:, method].index_select(0, upload(torch.tensor(own), ranges.device))
            found.append(torch.stack([of_method[..., 0].amin(0), of_method[..., 1].amax(0)], -1))
        return torch.stack(found)

    def _rows(self, kind: Literal["rows", "scale_rows"]) -> list[int]:
        """For each method, where its row lies among the extents of all groups."""
        before = [0, *itertools.accumulate(group.extents for group in self._groups)]
        return [before[g] + getattr(self._groups[g], kind)[i] for g, i in self._places]

    def _extents(self, layers: Sequence[Captured], device: torch.device) -> Tensor:
        """Extents of all groups ``[L, rows, T, B, 2]``."""
        if len(self._groups) == self._targets == 1:  # as nearly always, and there may be many
            return torch.stack([self._found[one][0, 0][1].to(device) for one in layers])[:, :, None]
        groups = range(len(self._groups))
        return torch.stack(
            [
                torch.cat([torch.stack(self._per_target(one, g, device, 1), 1) for g in groups])
                for one in layers
            ]
        )

    def _maps(self, layer: Captured, device: torch.device) -> list[Tensor]:
        """Maps of one layer, R x T of ``[B, P]``."""
        if len(self._groups) == self._targets == 1:
            maps = self._found[layer][0, 0][0].to(device)
            return [maps[row] for row in self._groups[0].rows]
        found = [self._per_target(layer, g, device, 0) for g in range(len(self._groups))]
        return [maps[self._groups[g].rows[i]] for g, i in self._places for maps in found[g]]

    def _per_target(
        self, layer: Captured, g: int, device: torch.device, part: Literal[0, 1]
    ) -> list[Tensor]:
        """One of maps and extents for each target; of models on several devices, all on one."""
        pairs, group = self._found[layer], self._groups[g]
        results = {t: pairs[g, t][part].to(device) for t in range(self._targets) if (g, t) in pairs}
        if len(results) == self._targets:
            return [results[t] for t in range(self._targets)]
        # A target that does not depend on the layer has a gradient of zero, hence a map of zero.
        like = next(iter(pairs.values()))[part]
        blank = like.new_zeros((group.extents if part else group.count, *like.shape[1:]))
        return [results.get(t, blank.to(device)) for t in range(self._targets)]


def _blank(like: Found, batch: int) -> Found:
    """Maps and extents of zero for ``batch`` samples."""
    maps, extents = like
    return maps.new_zeros(len(maps), batch, maps.shape[2]), extents.new_zeros(
        len(extents), batch, 2
    )
