"""Coherency and ADCC: does a map survive that everything it leaves out is masked?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from camfuse.class_targets import ClassTarget
from camfuse.metrics.complexity import complexity
from camfuse.metrics.confidence import confidence_of, masked
from camfuse.metrics.copies import one_target_scorer
from camfuse.metrics.correlation import correlation
from camfuse.metrics.maps import laid_over
from camfuse.metrics.scoring import Output, Scorer, checked_images
from camfuse.targets import Target

Explain = Callable[[Tensor, Target], Tensor]
"""From images ``[B, C, H, W]`` and what to explain of them to maps ``[B, h, w]``.

What to explain is a class per image ``[B]``, int64 on the CPU, unless the target is more than a
class: those found on the unmasked images where the target is None.
"""


def coherency(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    explain: Explain,
    target: Target = None,
    *,
    output: Output = "probability",
    batch_size: int = 32,
) -> Tensor:
    """Likeness of a map and the map of the image masked by it: ``(1 + pearson) / 2``.

    Source: Poppi et al., "Revisiting the evaluation of class activation mapping for
    explainability", CVPR Workshops 2021, section 3.

    Args:
        model: In eval mode; it is left as it was found.
        images: Images ``[B, C, H, W]``.
        maps: ``[B, h, w]`` in [0, 1], upsampled bilinearly to ``H x W``.
        explain: Makes the maps of the masked images, in the way ``maps`` were made, for instance
            ``lambda images, target: camfuse.cam(model, images, "layer4", target=target)``.
        target: One target.
        output: As for :func:`masked_confidence`; only the class depends on it.
        batch_size: The most images in one pass.

    Returns:
        ``[B]`` in [0, 1], f64: 1 if the map stays, 0 if it is inverted, 0.5 if either map is
        constant. Higher is better. Costs 1 forward pass per image and one explanation.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument does not fit; if ``explain`` returns something else.
        FloatingPointError: If a score is not finite.
    """
    images = checked_images(images)
    masks = laid_over(maps, images, unit=True)
    scorer = one_target_scorer(model, images, target, output, batch_size)
    return _likeness(scorer, masks, masked(images, masks), explain, target)


def adcc(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    explain: Explain,
    target: Target = None,
    *,
    output: Output = "probability",
    batch_size: int = 32,
) -> Tensor:
    """Harmonic mean of 1 - drop, coherency and 1 - complexity: ADCC.

    Source: Poppi et al., "Revisiting the evaluation of class activation mapping for
    explainability", CVPR Workshops 2021, section 3. Arguments and errors are those of
    :func:`coherency`, which see; a score must be in [0, 1].

    Returns:
        ``[B]`` in [0, 1], f64: 0 where one of the three is 0. Higher is better. Costs 2 forward
        passes per image and one explanation.
    """
    images = checked_images(images)
    masks = laid_over(maps, images, unit=True)
    scorer = one_target_scorer(model, images, target, output, batch_size)
    shown = masked(images, masks)
    drop = confidence_of(scorer, shown).drop
    parts = [1 - drop, _likeness(scorer, masks, shown, explain, target), 1 - complexity(masks)]
    # Dividing by 0 is infinity, whose inverse is the 0 that is wanted.
    return len(parts) / torch.stack(parts).reciprocal().sum(0)


def _likeness(
    scorer: Scorer, masks: Tensor, shown: Tensor, explain: Explain, target: Target
) -> Tensor:
    with torch.enable_grad():
        found = explain(shown, _settled(target, scorer.targets[0]))
    if not isinstance(found, Tensor):
        raise TypeError(f"explain: expected it to return a tensor, got {type(found).__name__}")
    try:
        again = laid_over(found, shown)
    except ValueError as error:
        raise ValueError(f"explain: what it returned are no such {error}") from None
    return (1 + correlation(masks.flatten(1), again.flatten(1))) / 2


def _settled(target: Target, classes: Tensor) -> Target:
    if isinstance(target, ClassTarget):
        return target.of(classes)
    return target if callable(target) else classes
