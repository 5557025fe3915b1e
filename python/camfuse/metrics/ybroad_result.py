"""What ybROAD found: ROAD of every layer, beside that of maps that know nothing of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from camfuse.stack import CamStack, LayerInfo

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
