"""ybROAD: ROAD of every layer's map. Which layer says best what a decision rests on?

Kaczmarek et al., CAManim: Animating end-to-end network activation maps, PLoS ONE 19(6) e0296985,
2024, arXiv 2312.11772, there with one map per layer, and here beside maps that know nothing of the
model: ROAD favors coarse maps, and those of deep layers are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from camfuse.checks import expect
from camfuse.metrics.control_maps import random_maps, sobel_maps
from camfuse.metrics.maps import upsampled
from camfuse.metrics.removal import NOISE, PERCENTAGES, Removal, road_of, spread_of
from camfuse.metrics.scoring import Output, Scorer
from camfuse.metrics.ybroad_result import Control, YbRoad
from camfuse.stack import CamStack
from camfuse.targets import Target
from camfuse.thinning import YBROAD

Progress = Callable[[str, int, int], None]

_RANDOM_MAPS = 5


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
