"""How the score changes when the map masks the image: drop, increase and gain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from camfuse.metrics.copies import one_target_scorer, score_copies
from camfuse.metrics.maps import laid_over
from camfuse.metrics.scoring import Output, Scorer, checked_images
from camfuse.targets import Target

_SLACK = 1e-6  # what rounding may add to probabilities that a model returns itself


@dataclass(frozen=True)
class Confidence:
    """Scores before and after masking.

    Attributes:
        before: Of the images ``[B]`` in [0, 1], f64.
        after: Of the images times their maps ``[B]``, f64.
    """

    before: Tensor
    after: Tensor

    @property
    def drop(self) -> Tensor:
        """Share of the score that is lost ``[B]`` in [0, 1]: ``max(0, before - after) / before``.

        Lower is better; 0 where there was no score to lose.
        """
        return _share((self.before - self.after).clamp(min=0), self.before)

    @property
    def increase(self) -> Tensor:
        """1 where the score became larger, else 0, ``[B]``. Higher is better."""
        return (self.after > self.before).double()

    @property
    def gain(self) -> Tensor:
        """Share of the missing score gained ``[B]``: ``max(0, after - before) / (1 - before)``.

        In [0, 1], higher is better; 0 where no score was missing.
        """
        return _share((self.after - self.before).clamp(min=0), 1 - self.before)


def masked_confidence(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: Target = None,
    *,
    output: Output = "probability",
    batch_size: int = 32,
) -> Confidence:
    """Scores of the images, and of the images multiplied by their maps.

    A pixel of weight 0 becomes 0, the mean color of a normalized input.

    Args:
        model: In eval mode; it is left as it was found.
        images: Images ``[B, C, H, W]``, normalized as the model wants them.
        maps: ``[B, h, w]`` in [0, 1], upsampled bilinearly to ``H x W``.
        target: One target, of which the class is settled on the unmasked images.
        output: ``"logit"`` for models that return probabilities themselves.
        batch_size: The most images in one pass.

    Returns:
        Both scores, of which :attr:`~Confidence.drop`, :attr:`~Confidence.increase` and
        :attr:`~Confidence.gain` follow. Costs 2 forward passes per image.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument does not fit; if a score is not in [0, 1].
        FloatingPointError: If a score is not finite.
    """
    images = checked_images(images)
    masks = laid_over(maps, images, unit=True)
    return confidence_of(
        one_target_scorer(model, images, target, output, batch_size), masked(images, masks)
    )


def masked(images: Tensor, masks: Tensor) -> Tensor:
    """Images ``[B, C, H, W]`` times masks ``[B, H, W]``."""
    return images * masks[:, None].to(images.dtype)


def confidence_of(scorer: Scorer, images: Tensor) -> Confidence:
    """The scorer's scores before, and those of other images ``[B, C, H, W]`` after.

    Raises:
        ValueError: If a score is not in [0, 1].
        FloatingPointError: If a score is not finite.
    """
    after = score_copies(scorer, 1, lambda samples, _: images[samples])[:, 0]
    before = scorer.unperturbed[0]
    low, high = torch.cat([before, after]).aminmax()
    if low < -_SLACK or high > 1 + _SLACK:
        raise ValueError(
            f"output: expected scores in [0, 1], of which a share can be lost, got "
            f"{float(low):.3g} to {float(high):.3g}"
        )
    return Confidence(before, after)


def confidence_drop(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: Target = None,
    *,
    output: Output = "probability",
    batch_size: int = 32,
) -> Tensor:
    """What the mean of is "average drop": :attr:`Confidence.drop` ``[B]``, lower is better.

    Source: Chattopadhay et al., "Grad-CAM++", WACV 2018, section 5.1, which gives it in percent.
    Arguments and errors are those of :func:`masked_confidence`.
    """
    return masked_confidence(model, images, maps, target, output=output, batch_size=batch_size).drop


def confidence_increase(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: Target = None,
    *,
    output: Output = "probability",
    batch_size: int = 32,
) -> Tensor:
    """What the mean of is "increase in confidence": :attr:`Confidence.increase` ``[B]``.

    Higher is better. Source: Chattopadhay et al., "Grad-CAM++", WACV 2018, section 5.1, which gives
    it in percent. Arguments and errors are those of :func:`masked_confidence`.
    """
    return masked_confidence(
        model, images, maps, target, output=output, batch_size=batch_size
    ).increase


def confidence_gain(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: Target = None,
    *,
    output: Output = "probability",
    batch_size: int = 32,
) -> Tensor:
    """What the mean of is "average gain": :attr:`Confidence.gain` ``[B]``, higher is better.

    Source: Zhang et al., "Opti-CAM", CVIU 248, 2024, which gives it in percent. Arguments and
    errors are those of :func:`masked_confidence`.
    """
    return masked_confidence(model, images, maps, target, output=output, batch_size=batch_size).gain


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole, 0.0).clamp(max=1)
