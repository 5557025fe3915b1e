"""The two questions: where do all layers look (``layer_cams``), and where does one look (``cam``)?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from camfuse import ops
from camfuse.capture import Capture, Captured, Inputs, Reshape, capture, first_image
from camfuse.layers import LayerSelection, find_layer, unwrap
from camfuse.methods import Method, find_method
from camfuse.stack import CamStack, LayerInfo, Skipped, pack
from camfuse.targets import Target

OnNonfinite = Literal["raise", "skip"]

# Below this part of what its terms add up to without their signs, a map is rounding noise.
_DEGENERATE = 1e-4


def layer_cams(
    model: nn.Module,
    inputs: Inputs,
    *,
    method: str | Sequence[str] = "gradcam",
    layers: LayerSelection = "leaf",
    target: Target = None,
    reshape: Reshape | None = None,
    on_nonfinite: OnNonfinite = "raise",
    allow_training: bool = False,
    create_graph: bool = False,
    seed: int = 0,
) -> CamStack:
    """Raw class activation maps of many layers from one forward and one backward pass.

    Args:
        model: In eval mode; it is left exactly as it was found, also after an exception.
        inputs: One tensor ``[B, C, H, W]``, a sequence of positional or a mapping of keyword
            arguments.
        method: One method or several, all from the same pass; see ``camfuse.METHODS``.
        layers: ``"leaf"`` (every module that computes something itself), ``"all"`` (containers
            too), ``"conv"``, names, globs, modules, or several of these.
        target: The score to explain: ``None`` (each sample's arg-max class), a class, one class
            per sample, a function of the output that returns ``[B]``, or several (``[T, B]`` or
            :class:`camfuse.Each`).
        reshape: From outputs whose layout is unknown to ``[B, C, h, w]``; applied to gradients too.
        on_nonfinite: ``"raise"`` names the layer and sample of a NaN or infinity; ``"skip"`` leaves
            such layers out.
        allow_training: Whether modules may be in training mode.
        create_graph: Whether the maps stay differentiable, to stand in a loss.
        seed: For methods that draw at random.

    Returns:
        The stack, with every selected layer either in ``layers`` or, with its reason, in
        ``skipped``.

    Raises:
        ValueError: If an argument does not fit.
        FloatingPointError: If a map is not finite and ``on_nonfinite`` is ``"raise"``.
    """
    if on_nonfinite not in ("raise", "skip"):
        raise ValueError(f"on_nonfinite: expected 'raise' or 'skip', got {on_nonfinite!r}")
    methods = [find_method(name) for name in ([method] if isinstance(method, str) else method)]
    if not methods:
        raise ValueError("method: expected at least one method, got none")
    collector = _Collector(methods, seed)
    found = capture(
        model,
        inputs,
        collector,
        layers=layers,
        target=target,
        reshape=reshape,
        allow_training=allow_training,
        create_graph=create_graph,
    )
    return collector.stack(found, type(model).__name__, on_nonfinite)


def cam(
    model: nn.Module,
    inputs: Inputs,
    layer: str | nn.Module,
    *,
    method: str = "gradcam",
    target: Target = None,
    size: tuple[int, int] | None = None,
    relu: bool = True,
    reshape: Reshape | None = None,
    allow_training: bool = False,
    seed: int = 0,
) -> Tensor:
    """The finished map of one layer, as it is laid over the image.

    Args:
        model: As for :func:`layer_cams`.
        inputs: As for :func:`layer_cams`.
        layer: Name or module.
        method: One method.
        target: One target, as for :func:`layer_cams`.
        size: ``(H, W)`` of the map; the input's by default.
        relu: Whether negative evidence becomes 0.
        reshape: As for :func:`layer_cams`.
        allow_training: As for :func:`layer_cams`.
        seed: For methods that draw at random.

    Returns:
        ``[B, H, W]`` in [0, 1], each sample normalised by its own range; constant maps are 0.

    Raises:
        ValueError: If an argument does not fit, or the layer cannot be shown (with the reason).
    """
    how = find_method(method)
    maps: list[Tensor] = []

    def visit(found: Captured, target: int, A: Tensor, G: Tensor | None) -> None:
        weights = None if how.weights is None else how.weights(found.name, A, seed)
        maps.append(ops.fused_cam(A, G, how.rule, finished, weights=weights, relu=relu))

    image = first_image(inputs)
    if size is None and image.ndim != 4:
        raise ValueError("size: expected (H, W), since no input is an image")
    finished = size or (image.shape[2], image.shape[3])
    found = capture(
        model,
        inputs,
        visit,
        layers=find_layer(unwrap(model), layer) if isinstance(layer, str) else layer,
        target=target,
        reshape=reshape,
        allow_training=allow_training,
    )
    if len(maps) != 1:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in found.skipped)
        what = reasons or f"{len(maps)} maps from several calls or targets, use layer_cams()"
        raise ValueError(f"layer: expected exactly one map, got {what}")
    return maps[0]


class _Collector:
    """The visitor of :func:`layer_cams`: turns each pair into small maps at once."""

    def __init__(self, methods: Sequence[Method], seed: int) -> None:
        self.methods, self.seed = methods, seed
        # Rules of one native call read the layer once; each weighted method brings its own weights.
        self.calls: list[list[int]] = [[r for r, one in enumerate(methods) if one.weights is None]]
        self.calls += [[r] for r, one in enumerate(methods) if one.weights is not None]
        # By layer, then target: maps [R, B, h, w], ranges [R, B, 2], scales [R, B].
        self.found: dict[Captured, dict[int, tuple[Tensor, Tensor, Tensor]]] = {}

    def __call__(self, layer: Captured, target: int, A: Tensor, G: Tensor | None) -> None:
        parts: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        for rows in filter(None, self.calls):
            weigh = self.methods[rows[0]].weights
            weights = None if weigh is None else weigh(layer.name, A, self.seed)
            rules = [self.methods[r].rule for r in rows]
            scales = [ops.MAGNITUDE_OF[rule] for rule in rules]
            extra = list(dict.fromkeys(scales))
            maps, ranges = ops.layer_cam(
                A, G if weigh is None else None, [*rules, *extra], weights=weights
            )
            for i, r in enumerate(rows):
                scale = ranges[len(rules) + extra.index(scales[i]), :, 1]
                parts[r] = maps[i], ranges[i], scale
        columns = zip(*(parts[r] for r in range(len(self.methods))), strict=True)
        maps, ranges, scale = (torch.stack(column) for column in columns)
        self.found.setdefault(layer, {})[target] = maps, ranges, scale

    def stack(self, found: Capture, model: str, on_nonfinite: OnNonfinite) -> CamStack:
        """Everything that was collected, with the layers that are not finite raised or left out."""
        targets = range(len(found.scores.values))
        originals = {
            layer: tuple(self._with_targets(layer, column, targets) for column in range(3))
            for layer in found.layers
            if layer.alias_of is None
        }
        skipped = list(found.skipped)
        if originals:
            finite = torch.stack([torch.isfinite(one[1]).all(-1) for one in originals.values()])
            for layer, row in zip(list(originals), finite.cpu(), strict=True):
                if not bool(row.all()):
                    sample = int((~row).any(0).any(0).nonzero()[0])
                    message = f"the map of sample {sample} is not finite"
                    if on_nonfinite == "raise":
                        raise FloatingPointError(
                            f"{layer.name}: {message}; on_nonfinite='skip' leaves such layers out"
                        )
                    skipped.append(Skipped(layer.name, layer.type, message))
                    del originals[layer]
        if not originals:
            raise ValueError("layers: no map of the selected layers is finite")
        flat, starts = pack([one[0] for one in originals.values()])
        start_of = dict(zip(originals, starts, strict=True))
        layers = [layer for layer in found.layers if layer.original in originals]
        ranges = torch.stack([originals[layer.original][1] for layer in layers])
        magnitude = ranges.detach().abs().amax(-1)
        scales = torch.stack([originals[layer.original][2] for layer in layers])
        noise = (magnitude < _DEGENERATE * scales).flatten(2).all(-1).cpu()
        return CamStack(
            layers=tuple(
                LayerInfo(
                    name=layer.name,
                    type=layer.type,
                    shape=layer.shape,
                    index=i,
                    alias_of=layer.alias_of.name if layer.alias_of else None,
                    degenerate=tuple(
                        one.name for one, bad in zip(self.methods, noise[i], strict=True) if bad
                    ),
                    shown=layer.shown,
                )
                for i, layer in enumerate(layers)
            ),
            flat=flat,
            offsets=tuple(start_of[layer.original] for layer in layers),
            ranges=ranges,
            global_ranges=torch.stack([ranges[..., 0].amin(0), ranges[..., 1].amax(0)], dim=-1),
            methods=tuple(one.name for one in self.methods),
            targets=found.scores.indices,
            scores=torch.stack(list(found.scores.values)),
            probabilities=found.scores.probabilities,
            input_size=found.input_size,
            model=model,
            skipped=tuple(skipped),
            warnings=found.warnings,
        )

    def _with_targets(self, layer: Captured, column: int, targets: range) -> Tensor:
        """One result of a layer with the axis of targets: ``[R, T, ...]``."""
        per_target = self.found[layer]
        some = next(iter(per_target.values()))[column]
        # A target that does not depend on the layer has a gradient of zero, hence a map of zero.
        return torch.stack(
            [
                per_target[t][column] if t in per_target else torch.zeros_like(some)
                for t in targets
            ],
            dim=1,
        )
