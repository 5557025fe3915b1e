"""Deletion and insertion: the score while pixels go, or come, in the order of the map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from camfuse.checks import expect_whole
from camfuse.devices import upload
from camfuse.metrics.copies import one_target_scorer, score_copies
from camfuse.metrics.maps import laid_over
from camfuse.metrics.ranking import ranks
from camfuse.metrics.replacement import Baseline, replacement
from camfuse.metrics.scoring import Output, checked_images
from camfuse.targets import Target


@dataclass(frozen=True)
class Curve:
    """Scores along the way from one image to another.

    Attributes:
        fractions: Share of pixels that were deleted or inserted ``[steps + 1]``, from 0 to 1, f64.
        scores: ``[B, steps + 1]``, f64.
    """

    fractions: Tensor
    scores: Tensor

    @property
    def auc(self) -> Tensor:
        """Area under each curve by the trapezoid rule ``[B]``, f64, in the range of the scores."""
        return torch.trapezoid(self.scores, self.fractions)


def deletion_curve(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: Target = None,
    *,
    steps: int = 50,
    baseline: Baseline = "zero",
    output: Output = "probability",
    batch_size: int = 32,
    seed: int = 0,
) -> Curve:
    """Scores while pixels are replaced by a baseline, those where the map is largest first.

    Only the order of the map's values matters, by their signs. The ``i``-th of ``steps`` leaves out
    ``round(i H W / steps)`` pixels, all channels of each. Pixels of equal value come in a random
    order, which is the same for all images.

    Source: Petsiuk et al., "RISE", BMVC 2018, section 4.1.

    Args:
        model: In eval mode; it is left as it was found.
        images: Images ``[B, C, H, W]``.
        maps: ``[B, h, w]``, upsampled bilinearly to ``H x W``.
        target: One target, of which the class is settled on the unperturbed images.
        steps: How many, at most as many as the image has pixels.
        baseline: What deleted pixels become.
        output: What is scored; ``"logit"`` for models that return probabilities themselves.
        batch_size: The most images in one pass.
        seed: Of the order among equals.

    Returns:
        The curve, of which a lower :attr:`~Curve.auc` is better. Costs ``1 + steps`` forward passes
        per image.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument does not fit.
        FloatingPointError: If a score is not finite.
    """
    return _curve(False, model, images, maps, target, steps, baseline, output, batch_size, seed)


def insertion_curve(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: Target = None,
    *,
    steps: int = 50,
    baseline: Baseline = "blur",
    output: Output = "probability",
    batch_size: int = 32,
    seed: int = 0,
) -> Curve:
    """Scores while a baseline becomes the image, pixel by pixel, where the map is largest first.

    As :func:`deletion_curve`, which explains the arguments, but that pixels appear; before the
    first of them there is the blurred image by default, whose edges tell less than those of pixels
    on a uniform ground. A higher :attr:`~Curve.auc` is better.
    """
    return _curve(True, model, images, maps, target, steps, baseline, output, batch_size, seed)


def deletion_auc(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: Target = None,
    *,
    steps: int = 50,
    baseline: Baseline = "zero",
    output: Output = "probability",
    batch_size: int = 32,
    seed: int = 0,
) -> Tensor:
    """Area under :func:`deletion_curve` ``[B]``, f64, in [0, 1] for probabilities; lower is better.

    Arguments and errors are those of :func:`deletion_curve`.
    """
    return _curve(False, model, images, maps, target, steps, baseline, output, batch_size, seed).auc


def insertion_auc(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: Target = None,
    *,
    steps: int = 50,
    baseline: Baseline = "blur",
    output: Output = "probability",
    batch_size: int = 32,
    seed: int = 0,
) -> Tensor:
    """Area under :func:`insertion_curve` ``[B]``, f64, in [0, 1] for probabilities.

    Higher is better. Arguments and errors are those of :func:`insertion_curve`.
    """
    return _curve(True, model, images, maps, target, steps, baseline, output, batch_size, seed).auc


def _curve(
    inserting: bool,
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: Target,
    steps: int,
    baseline: Baseline,
    output: Output,
    batch_size: int,
    seed: int,
) -> Curve:
    expect_whole("steps", steps, at_least=1)
    images = checked_images(images)
    laid = laid_over(maps, images)
    pixels = laid[0].numel()
    if steps > pixels:
        raise ValueError(f"steps: expected at most the {pixels} pixels of an image, got {steps}")
    ground = replacement(images, baseline)
    scorer = one_target_scorer(model, images, target, output, batch_size)
    order = ranks(laid, seed=seed)
    counts = (torch.arange(steps + 1, dtype=torch.float64) * pixels / steps).round()
    # The unperturbed image, at which deletion begins and insertion ends, has its score already.
    asked = upload((counts[:-1] if inserting else counts[1:]).long(), images.device)

    def perturb(samples: Tensor, copies: Tensor) -> Tensor:
        first = (order[samples] < asked[copies, None, None])[:, None]
        return torch.where(first == inserting, images[samples], ground[samples])

    scores = score_copies(scorer, steps, perturb)
    whole = scorer.unperturbed[0, :, None]
    ends = [scores, whole] if inserting else [whole, scores]
    return Curve(upload(counts / pixels, images.device), torch.cat(ends, 1))
