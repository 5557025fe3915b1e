"""ROAD: is a map faithful? What the model still says where the map's pixels are removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from camfuse.metrics.copies import one_target_scorer
from camfuse.metrics.maps import laid_over
from camfuse.metrics.ranking import Ranking
from camfuse.metrics.removal import NOISE, PERCENTAGES, Removal, road_of, spread_of
from camfuse.metrics.scoring import Output, checked_images
from camfuse.targets import Target


@dataclass(frozen=True, eq=False)
class Road:
    """Scores without the most (MoRF) and the least relevant pixels (LeRF); tensors are f64.

    Attributes:
        morf: ``[S, P, B]``, by seed and percentage. Low is good: what the map points at matters.
        lerf: ``[S, P, B]``. High is good: what it leaves out does not.
        unperturbed: Scores of the images as they are ``[B]``.
        combined: ``[B]``, ROAD: half the mean over percentages and seeds of ``lerf - morf``. Of
            probabilities it lies in [-0.5, 0.5], and around 0 for a map that says nothing.
        spread: Standard deviation of ROAD over the seeds ``[B]``; 0 for a single one.
        percentages: P of them.
        seeds: S of them.
        deviation: What ``precision`` changed of a score at most; see
            :class:`camfuse.metrics.scoring.Scorer`.
    """

    morf: Tensor
    lerf: Tensor
    unperturbed: Tensor
    combined: Tensor
    spread: Tensor
    percentages: tuple[float, ...]
    seeds: tuple[int, ...]
    deviation: float = 0.0


def road(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: Target = None,
    *,
    percentages: Sequence[float] = PERCENTAGES,
    output: Output = "probability",
    noise: float = NOISE,
    seeds: Sequence[int] = (0,),
    batch_size: int = 32,
    ranking: Ranking = "rank",
    precision: torch.dtype | None = None,
) -> Road:
    """How faithful maps are to a model, without retraining it.

    ``mean_p (C_LeRF^p - C_MoRF^p) / 2``, where C is the score of the target once p % of the pixels,
    most or least relevant first, are removed (Rong et al., ICML 2022, arXiv 2202.00449, combined as
    in pytorch-grad-cam). A removed pixel becomes the weighted mean of its eight neighbors, solved
    jointly for all that are removed (:func:`camfuse.ops.impute`), plus noise.

    Args:
        model: In eval mode; it is left as it was found, also after an exception.
        images: What the model is given ``[B, C, H, W]``, floating.
        maps: Signed maps ``[B, h, w]``, finite, on any grid: they are ranked at the images' size,
            to which they are upsampled as for display.
        target: The score, one per image; see :mod:`camfuse.targets`. ``None`` is the arg-max of the
            unperturbed image.
        percentages: How much is removed, in (0, 100).
        output: ``"probability"`` or ``"logit"``; see :class:`camfuse.metrics.scoring.Scorer`.
        noise: Standard deviation of the noise in the units of ``images``.
        seeds: Of the noise. Each seed costs its own passes; imputation is done once.
        batch_size: The most images in one pass.
        ranking: ``"rank"`` removes exactly that many pixels, ties in one random order;
            ``"percentile"`` what pytorch-grad-cam would for *percentiles* of those numbers, of maps
            in [0, 1].
        precision: What perturbed images are computed in, such as ``torch.bfloat16``.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument does not fit.
        FloatingPointError: If a score is not finite.
    """
    removal = Removal(percentages, noise, seeds, ranking)
    images = checked_images(images)
    laid = laid_over(maps, images)
    scorer = one_target_scorer(model, images, target, output, batch_size, precision)
    with scorer.session():
        scores = removal.scores(scorer, lambda part: laid[part], torch.arange(len(laid)))
    each = road_of(scores)[:, 0]
    return Road(
        morf=scores[:, 0, :, 0],
        lerf=scores[:, 1, :, 0],
        unperturbed=scorer.unperturbed[0],
        combined=each.mean(0),
        spread=spread_of(each),
        percentages=tuple(percentages),
        seeds=tuple(seeds),
        deviation=scorer.deviation,
    )
