"""Does what a map says of random changes agree with what they do: sensitivity-n and infidelity."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from camfuse.checks import expect_whole
from camfuse.devices import upload
from camfuse.metrics.copies import one_target_scorer, score_copies
from camfuse.metrics.correlation import correlation
from camfuse.metrics.maps import laid_over
from camfuse.metrics.perturbations import Perturbation, RandomPixels, RemovedSquare
from camfuse.metrics.replacement import Baseline, replacement
from camfuse.metrics.scoring import Output, checked_images
from camfuse.targets import Target

_FIELDS = 32  # as many are f64 at a time


def sensitivity_n(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: Target = None,
    *,
    n: int,
    subsets: int = 100,
    baseline: Baseline = "zero",
    output: Output = "logit",
    batch_size: int = 32,
    seed: int = 0,
) -> Tensor:
    """Correlation of what a map sums up to over random pixels with the score's drop without them.

    Subsets of ``n`` pixels are the same for all images. Neither a factor nor a summand changes the
    result, so maps may be raw or normalized.

    Source: Ancona et al., "Towards better understanding of gradient-based attribution methods for
    deep neural networks", ICLR 2018, section 4.

    Args:
        model: In eval mode; it is left as it was found.
        images: Images ``[B, C, H, W]``.
        maps: ``[B, h, w]``, upsampled bilinearly to ``H x W``.
        target: One target, of which the class is settled on the unperturbed images.
        n: How many pixels are removed together.
        subsets: How many subsets are drawn, at least 2.
        baseline: What removed pixels become.
        output: What is scored, the logit of the class by default as in the paper.
        batch_size: The most images in one pass.
        seed: Of the subsets.

    Returns:
        ``[B]`` in [-1, 1], f64; higher is better, 1 for a linear model explained by gradient times
        input. 0 where the map is constant or the score does not change. Costs ``1 + subsets``
        forward passes per image.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument does not fit.
        FloatingPointError: If a score is not finite.
    """
    expect_whole("subsets", subsets, at_least=2)
    images = checked_images(images)
    laid = laid_over(maps, images)
    # A summand changes nothing, and sums of a constant map are then equal in every bit.
    laid = laid - laid.amin((1, 2), keepdim=True)
    said, done = _said_and_done(
        model, images, laid, target, RandomPixels(n), subsets, baseline, output, batch_size, seed
    )
    return correlation(said, done)


def infidelity(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: Target = None,
    *,
    perturbation: Perturbation | None = None,
    draws: int = 100,
    scaled: bool = True,
    baseline: Baseline = "zero",
    output: Output = "logit",
    batch_size: int = 32,
    seed: int = 0,
) -> Tensor:
    """Mean squared difference of what a map says of random changes and what they do to the score.

    ``mean_I (beta * sum(I * map) - (f(x) - f(x after I)))^2``, where ``I`` ``[H, W]`` is 1 on
    removed pixels, so that the map is read as each pixel's share of the score, or the noise that is
    subtracted from all channels, so that it is read as a gradient. Perturbations are the same for
    all images.

    Source: Yeh et al., "On the (in)fidelity and sensitivity of explanations", NeurIPS 2019,
    definition 2.1.

    Args:
        model: In eval mode; it is left as it was found.
        images: Images ``[B, C, H, W]``.
        maps: ``[B, h, w]``, upsampled bilinearly to ``H x W``.
        target: One target, of which the class is settled on the unperturbed images.
        perturbation: :class:`RemovedSquare` or :class:`GaussianNoise`; a square whose side is an
            eighth of the image's shorter one by default.
        draws: How many perturbations.
        scaled: Whether each map is first multiplied by the ``beta`` that serves it best, as the
            paper's experiments do: a class activation map has no scale of its own. ``beta`` may be
            negative. Otherwise it is 1.
        baseline: What removed pixels become.
        output: What is scored, the logit of the class by default.
        batch_size: The most images in one pass.
        seed: Of the perturbations.

    Returns:
        ``[B]``, at least 0, in squared units of the score, f64; lower is better. With ``scaled`` at
        most the mean squared change of the score, which is what a map of zeros gets. Costs
        ``1 + draws`` forward passes per image.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument does not fit.
        FloatingPointError: If a score is not finite.
    """
    expect_whole("draws", draws, at_least=1)
    images = checked_images(images)
    laid = laid_over(maps, images)
    how = perturbation or RemovedSquare(max(1, min(images.shape[-2:]) // 8))
    said, done = _said_and_done(
        model, images, laid, target, how, draws, baseline, output, batch_size, seed
    )
    if scaled:
        said = said * _best_scale(said, done)
    return (said - done).square().mean(1)


def _best_scale(said: Tensor, done: Tensor) -> Tensor:
    """The factor ``[B, 1]`` with which ``said`` is nearest to ``done``."""
    power = said.square().sum(1, keepdim=True)
    return (said * done).sum(1, keepdim=True) / power.where(power > 0, 1)


def _said_and_done(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: Target,
    perturbation: Perturbation,
    count: int,
    baseline: Baseline,
    output: Output,
    batch_size: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """What the maps say of perturbations, and how much these take from the scores, ``[B, K]``."""
    height, width = maps.shape[-2:]
    perturbation.check(height, width)
    removed = replacement(images, baseline)
    scorer = one_target_scorer(model, images, target, output, batch_size)
    generator = torch.Generator().manual_seed(seed)
    fields = upload(perturbation.draw(count, height, width, generator), images.device)
    scores = score_copies(
        scorer,
        count,
        lambda samples, copies: perturbation.apply(
            images[samples], fields[copies], removed[samples]
        ),
    )
    flat = maps.flatten(1).double().T
    said = torch.cat([some.double() @ flat for some in torch.split(fields.flatten(1), _FIELDS)]).T
    return said, scorer.unperturbed[0, :, None] - scores
