"""ybROAD: ROAD of every layer's map. Which layer says best what a decision rests on?

Kaczmarek et al., CAManim: Animating end-to-end network activation maps, PLoS ONE 19(6) e0296985,
2024, arXiv 2312.11772, there with one map per layer, and here beside maps that know nothing of the
model: ROAD favors coarse maps, and those of deep layers are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from camfuse.checks import expect
from camfuse.metrics.control_maps import random_maps, sobel_maps
from camfuse.metrics.maps import upsampled
from camfuse.metrics.removal import NOISE, PERCENTAGES, Removal, road_of, spread_of
from camfuse.metrics.scoring import Output, Scorer
from camfuse.stack import CamStack, LayerInfo
from camfuse.targets import Target
from camfuse.thinning import YBROAD

Progress = Callable[[str, int, int], None]

_RANDOM_MAPS = 5
_SURE = 2  # standard deviations of what random maps score


@dataclass(frozen=True, eq=False)
class Control:
    """What a map scores that knows nothing of the model.

    Attributes:
        mean: ROAD ``[T, B]``, over the maps, if there are several, and the seeds.
        spread: Standard deviation over the same ``[T, B]``.
    """

    mean: Tensor
    spread: Tensor


@dataclass(frozen=True, eq=False)
class YbRoad:
    """ROAD of every layer that is shown; tensors are f64 and on the CPU.

    Attributes:
        layers: The layers, L of them, in order of execution.
        methods: R names.
        scores: ROAD ``[L, R, T, B]``, mean over the seeds of the noise. Of probabilities it lies in
            [-0.5, 0.5]; a constant map has 0, but for the noise.
        spread: Standard deviation over the seeds ``[L, R, T, B]``; 0 for a single one.
        best: Position of the layer that scores highest ``[R, T, B]``, among those whose map is more
            than rounding noise (all, if none is): ybROAD's arg-max.
        maximum: What it scores ``[R, T, B]``: ybROAD_max.
        mean: Over the layers ``[R, T, B]``: ybROAD_mean.
        random: What coarse random maps score.
        sobel: What the edges of the image score.
        stack: The stack that was given, with the scores as its series ``"ybroad"``; layers that
            are not shown have NaN there.
        percentages: How much was removed.
        seeds: Of the noise.
        output: ``"probability"`` or ``"logit"``.
        deviation: What ``precision`` changed of a score of the model at most.
    """

    layers: tuple[LayerInfo, ...]
    methods: tuple[str, ...]
    scores: Tensor
    spread: Tensor
    best: Tensor
    maximum: Tensor
    mean: Tensor
    random: Control
    sobel: Control
    stack: CamStack
    percentages: tuple[float, ...]
    seeds: tuple[int, ...]
    output: str
    deviation: float = 0.0

    @property
    def beats_baselines(self) -> Tensor:
        """Whether the best layer beats both baselines ``[R, T, B]``, bool.

        The edges by any margin, random maps by two standard deviations of what they score.
        """
        bar = torch.maximum(self.random.mean + _SURE * self.random.spread, self.sobel.mean)
        return self.maximum > bar

    def best_layer(self, *, method: int = 0, target: int = 0, sample: int = 0) -> LayerInfo:
        """The layer that scores highest, for one method, target and sample by position."""
        return self.layers[int(self.best[method, target, sample])]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain JSON values: an entry for each method, target and sample."""
        methods, targets, samples = self.maximum.shape
        return {
            "percentages": list(self.percentages),
            "output": self.output,
            "seeds": list(self.seeds),
            "deviation": self.deviation,
            "results": [
                self._report(r, t, b)
                for r in range(methods)
                for t in range(targets)
                for b in range(samples)
            ],
        }

    def _report(self, r: int, t: int, b: int) -> dict[str, Any]:
        baselines = {"random": self.random, "sobel": self.sobel}
        maximum = float(self.maximum[r, t, b])
        rows = zip(
            self.layers,
            self.scores[:, r, t, b].tolist(),
            self.spread[:, r, t, b].tolist(),
            strict=True,
        )
        index = int(self.stack.targets[t, b])
        return {
            "method": self.methods[r],
            "target": {
                "index": index if index >= 0 else None,
                "name": self.stack.target_name(t, b),
            },
            "sample": b,
            "best_layer": self.best_layer(method=r, target=t, sample=b).name,
            "maximum": maximum,
            "mean": float(self.mean[r, t, b]),
            "beats_baselines": bool(self.beats_baselines[r, t, b]),
            "baselines": {
                name: {
                    "mean": float(one.mean[t, b]),
                    "spread": float(one.spread[t, b]),
                    "margin": maximum - float(one.mean[t, b]),
                }
                for name, one in baselines.items()
            },
            "layers": [
                {
                    "name": layer.name,
                    "score": score,
                    "spread": spread,
                    "degenerate": self.methods[r] in layer.degenerate,
                }
                for layer, score, spread in rows
            ],
        }


def ybroad(
    stack: CamStack,
    model: nn.Module,
    images: Tensor,
    *,
    target: Target = None,
    percentages: Sequence[float] = PERCENTAGES,
    output: Output = "probability",
    noise: float = NOISE,
    seeds: Sequence[int] = (0, 1, 2),
    batch_size: int = 32,
    precision: torch.dtype | None = None,
    progress: Progress | None = None,
) -> YbRoad:
    """Scores the map of every layer that is shown by ROAD, see :func:`camfuse.metrics.road`.

    A layer's score does not depend on which others there are, but for rounding. Layers that share
    one map are scored once.

    Args:
        stack: Maps of images.
        model: The model that they are of, in eval mode; it is left as it was found.
        images: What it was given ``[B, C, H, W]``.
        target: What was explained; needed only if that was a function, for which ``output`` must be
            ``"logit"``. By default the classes of the stack.
        percentages: How much is removed, in (0, 100).
        output: ``"probability"`` or ``"logit"``; see :class:`camfuse.metrics.scoring.Scorer`.
        noise: Standard deviation of the noise in the units of ``images``.
        seeds: Of the noise. Each seed costs its own passes.
        batch_size: The most images in one pass.
        precision: What perturbed images are computed in, such as ``torch.bfloat16``.
        progress: Called with ``"road"``, how many maps are done, and of how many.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument does not fit, or a map is not finite (with layer and sample).
        FloatingPointError: If a score is not finite.
    """
    removal = Removal(percentages, noise, seeds)
    expect("stack", stack, CamStack)
    expect("images", images, Tensor)
    _, targets, batch = stack.axes
    wanted = (batch, *stack.input_size)
    if images.ndim != 4 or (len(images), *images.shape[2:]) != wanted:
        raise ValueError(
            f"images: expected {batch} of size {stack.input_size}, as in the stack, got shape "
            f"{tuple(images.shape)}"
        )
    if target is None:
        if bool((stack.targets < 0).any()):
            raise ValueError("target: expected the function that the stack explains, got None")
        target = stack.targets
    shown = stack.shown()
    if not len(shown):
        raise ValueError("stack: expected a layer that is shown, got none")
    scorer = Scorer(
        model, images, target, output=output, batch_size=batch_size, precision=precision
    )
    if len(scorer.targets) != targets:
        raise ValueError(f"target: expected {targets}, as in the stack, got {len(scorer.targets)}")
    maps = _Maps(shown, scorer.images)
    told = None if progress is None else lambda done, total: progress("road", done, total)
    with scorer.session():
        found = removal.scores(scorer, maps, maps.samples, told)
    each = road_of(found).cpu()  # [S, T, M]
    of_layers, of_random, of_sobel = maps.parted(each)
    scores = of_layers.mean(0)
    noisy = torch.tensor([[m in layer.degenerate for m in stack.methods] for layer in shown.layers])
    ranked = torch.where((noisy & ~noisy.all(0))[:, :, None, None], -math.inf, scores)
    maximum, best = ranked.max(0)
    series = torch.full((len(stack), *stack.axes), math.nan, dtype=scores.dtype)
    series[[stack.position(name) for name in shown.names]] = scores
    return YbRoad(
        layers=shown.layers,
        methods=stack.methods,
        scores=scores,
        spread=spread_of(of_layers),
        best=best,
        maximum=maximum,
        mean=scores.mean(0),
        random=Control(of_random.mean(0), spread_of(of_random)),
        sobel=Control(of_sobel.mean(0), spread_of(of_sobel)),
        stack=dataclasses.replace(
            stack, series={**stack.series, YBROAD: series.float().to(stack.flat.device)}
        ),
        percentages=tuple(percentages),
        seeds=tuple(seeds),
        output=output,
        deviation=scorer.deviation,
    )


class _Maps:
    """All maps that are scored, sample by sample: of layers that differ, random ones, edges."""

    def __init__(self, stack: CamStack, images: Tensor) -> None:
        self._stack = stack
        self._methods, self._targets, self._batch = stack.axes
        self._size = (images.shape[2], images.shape[3])
        # Aliases lie where their originals do.
        places = [
            (start, layer.size) for start, layer in zip(stack.offsets, stack.layers, strict=True)
        ]
        self._layers = [i for i, place in enumerate(places) if places.index(place) == i]
        self._rows = [self._layers.index(places.index(place)) for place in places]
        for i in self._layers:
            bad = ~stack.maps(i).isfinite().flatten(3).all(3)
            if bool(bad.any()):
                sample = int(bad.nonzero()[0, 2])
                raise ValueError(
                    f"stack: the map of {stack.names[i]}, sample {sample}, is not finite"
                )
        device = images.device
        self._baselines = torch.cat(
            [
                random_maps(_RANDOM_MAPS, self._size)[None]
                .expand(len(images), -1, -1, -1)
                .to(device),
                sobel_maps(images)[:, None],
            ],
            1,
        )  # [B, N, H, W]
        self._own = len(self._layers) * self._methods * self._targets
        self._each = self._own + self._baselines.shape[1]
        self.samples = torch.arange(self._batch).repeat_interleave(self._each)

    def __call__(self, part: slice) -> Tensor:
        """Some of the maps ``[n, H, W]``."""
        return torch.stack(
            [self._map(*divmod(i, self._each)) for i in range(part.start, part.stop)]
        )

    def _map(self, sample: int, i: int) -> Tensor:
        if i >= self._own:
            return self._baselines[sample, i - self._own]
        layer, rest = divmod(i, self._methods * self._targets)
        method, target = divmod(rest, self._targets)
        one = self._stack.maps(self._layers[layer])[method, target, sample]
        return upsampled(one[None].to(self._baselines.device), self._size)[0]

    def parted(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of values ``[S, T, M]`` those of layers ``[S, L, R, T, B]``, of random maps, of edges.

        Each map is scored for its own target; the baselines ``[n, T, B]`` for all.
        """
        seeds = len(values)
        values = values.view(seeds, self._targets, self._batch, self._each).permute(0, 3, 1, 2)
        axes = (seeds, -1, self._methods, self._targets, *values.shape[2:])
        own = values[:, : self._own].reshape(axes)
        own = own.diagonal(dim1=3, dim2=4).movedim(-1, 3)  # [S, unique layers, R, T, B]
        random = values[:, self._own : -1].flatten(0, 1)
        return own[:, self._rows], random, values[:, -1]
