"""Scores of many perturbed copies of every image, made chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from camfuse.devices import upload
from camfuse.metrics.scoring import Output, Scorer
from camfuse.targets import Target, count_targets

Perturb = Callable[[Tensor, Tensor], Tensor]
"""From samples and copies, both ``[n]`` int64 on the images' device, to images ``[n, C, H, W]``."""


def one_target_scorer(
    model: nn.Module,
    images: Tensor,
    target: Target,
    output: Output,
    batch_size: int,
    precision: torch.dtype | None = None,
) -> Scorer:
    """A scorer of one target, as a metric that is one number per image needs.

    Raises:
        TypeError: As :class:`Scorer` does.
        ValueError: As :class:`Scorer` does, and if there is not exactly one target.
        FloatingPointError: As :class:`Scorer` does.
    """
    if (count := count_targets(target)) != 1:
        raise ValueError(f"target: expected one target, got {count}")
    return Scorer(model, images, target, output=output, batch_size=batch_size, precision=precision)


def score_copies(scorer: Scorer, copies: int, perturb: Perturb) -> Tensor:
    """Scores ``[B, copies]`` of perturbed copies of every image, f64.

    No more copies exist at a time than go through the model together.

    Args:
        scorer: Of one target.
        copies: How many of each image.
        perturb: Makes the copies.
    """
    device, batch = scorer.images.device, len(scorer.images)
    scores = []
    with torch.no_grad(), scorer.session():
        for chunk in torch.split(torch.arange(batch * copies), scorer.batch_size):
            samples = chunk // copies
            images = perturb(upload(samples, device), upload(chunk % copies, device))
            scores.append(scorer(images, samples)[0])
    return torch.cat(scores).view(batch, copies) if scores else torch.empty(batch, 0)
