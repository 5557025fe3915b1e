"""Weakly supervised localization, as its common evaluation defines it: boxes and pixels.

Choe et al. 2020, "Evaluating Weakly Supervised Object Localization Methods Right", CVPR, and its
official evaluation, which decides where the paper leaves a choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from camfuse.checks import expect
from camfuse.metrics.contours import contour_boxes, inclusive_iou
from camfuse.metrics.histograms import histograms, thresholds
from camfuse.metrics.maps import checked_maps, normalized
from camfuse.metrics.regions import check_boxes, check_mask, considered

Resize = Literal["official", "bilinear"]


class BoxOverlaps(NamedTuple):
    """Overlap ``[B, T]`` of the best pair of a map's and an object's box, f64 on the CPU.

    Attributes:
        largest: With the box of the largest contour alone.
        every: With the boxes of all contours.
    """

    largest: Tensor
    every: Tensor


def box_overlaps(
    maps: Tensor,
    boxes: Sequence[Tensor],
    *,
    size: Sequence[int] | None = (224, 224),
    step: float = 0.001,
    resize: Resize = "official",
    normalize: bool = True,
) -> BoxOverlaps:
    """How well boxes around what exceeds a threshold fit the object, at every threshold.

    Args:
        maps: ``[B, h, w]``.
        boxes: For each sample ``[n, 4]``: ``x1, y1, x2, y2`` in pixels of ``size``, as
            :func:`resized_boxes` makes them; both corners are inside.
        size: ``(H, W)`` that maps are resized to; None leaves them as they are.
        step: Thresholds are 0, step, 2 step, ... below 1, as parts of a map's own maximum.
        resize: ``"official"`` is bicubic, as in the official evaluation; ``"bilinear"`` is how
            maps are displayed.
        normalize: Whether maps are set on [0, 1] by their own range. Else they must be there.

    Returns:
        Both overlaps. A map that is constant, or not finite anywhere, is 0 everywhere, and its box
        the first pixel.

    Raises:
        ImportError: If OpenCV is missing.
        TypeError: If an argument is of the wrong type.
        ValueError: If one does not fit.
    """
    taus = thresholds(step)
    scores = score_maps(maps, size, resize=resize, normalize=normalize)
    expect("boxes", boxes, Sequence)
    if len(boxes) != len(maps):
        raise ValueError(f"boxes: expected those of {len(maps)} samples, got {len(boxes)}")
    truth = [
        check_boxes(one, scores.shape[1:], name=f"boxes[{i}]", inclusive=True)
        for i, one in enumerate(boxes)
    ]
    maps8 = (scores * 255).to(torch.uint8).cpu()

    def best(sample: int) -> Tensor:
        found = contour_boxes(maps8[sample].numpy(), taus)
        of_box = inclusive_iou(found.boxes, truth[sample]).amax(1)
        every = of_box.new_zeros(len(found.largest))
        every.scatter_reduce_(0, found.binarization, of_box, "amax")
        return torch.stack([of_box[found.largest], every])[:, found.of]

    pairs = [best(sample) for sample in range(len(maps8))]
    largest, every = (torch.stack(pairs) if pairs else torch.empty(0, 2, len(taus))).unbind(1)
    return BoxOverlaps(largest, every)


def pixel_counts(
    maps: Tensor,
    masks: Tensor,
    *,
    ignore: Tensor | None = None,
    step: float = 0.001,
    resize: Resize = "official",
    normalize: bool = True,
) -> Tensor:
    """How many pixels outside and inside of the object have which score, all samples together.

    Args:
        maps: ``[B, h, w]``, resized to the masks' size.
        masks: ``[B, H, W]``, bool; some may be empty.
        ignore: ``[B, H, W]``, bool: pixels that do not count, unless they are the object's.
        step: Width of the intervals of scores.
        resize: As for :func:`box_overlaps`; likewise ``normalize``.
        normalize: Whether maps are set on [0, 1] by their own range.

    Returns:
        ``[2, T + 1]``, int64, on the maps' device: scores from ``0, step, ...`` on, and 1.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If one does not fit.
    """
    edges = torch.cat([thresholds(step), torch.ones(1, dtype=torch.float64)])
    if not isinstance(masks, Tensor) or masks.ndim != 3:
        raise ValueError(f"masks: expected [B, H, W], got {getattr(masks, 'shape', masks)}")
    scores = score_maps(maps, masks.shape[1:], resize=resize, normalize=normalize)
    inside = check_mask("masks", masks, scores)
    return histograms(scores, inside, considered(ignore, inside), edges).sum(0)


def average_precision(counts: Tensor) -> Tensor:
    """PxAP: precision at each threshold, weighted by the recall gained since the next higher one.

    Args:
        counts: ``[2, E]`` from :func:`pixel_counts`, of one batch or summed over many.

    Returns:
        A number in [0, 1], f64.

    Raises:
        ValueError: If there are no pixels inside of any object.
    """
    wrong, right = counts.flip(-1).cumsum(-1).double()
    if not bool(right[-1] > 0):
        raise ValueError("masks: expected a pixel inside an object or more, got none in any sample")
    gained = torch.diff(right / right[-1], prepend=right.new_zeros(1))
    precision: Tensor = right / (right + wrong).clamp(min=1)
    return (precision * gained).sum()


def resized_boxes(boxes: Tensor, size: Sequence[int], to: Sequence[int]) -> Tensor:
    """Boxes ``[n, 4]`` of an image of ``size`` in one of size ``to``, cut to whole pixels.

    Args:
        boxes: ``x1, y1, x2, y2``.
        size: ``(H, W)``.
        to: ``(H, W)``.

    Returns:
        ``[n, 4]``, int64 on the CPU.

    Raises:
        TypeError: If ``boxes`` is no tensor of numbers.
        ValueError: If a box is wrong or outside.
    """
    boxes = check_boxes(boxes, size, inclusive=True)
    (height, width), (new_height, new_width) = size, to
    new, old = (boxes.new_tensor(one * 2) for one in ([new_width, new_height], [width, height]))
    return (boxes * new / old).long()


def score_maps(
    maps: Tensor,
    size: Sequence[int] | None,
    *,
    resize: Resize = "official",
    normalize: bool = True,
) -> Tensor:
    """Maps as weakly supervised localization is measured on: resized, then set on [0, 1].

    Args:
        maps: ``[B, h, w]``.
        size: ``(H, W)``; None leaves maps as they are, as do those that have this size already.
        resize: ``"official"``, bicubic and within rounding of OpenCV's, or ``"bilinear"``.
        normalize: Whether each map is set on [0, 1] by its own range.

    Returns:
        ``[B, H, W]``, f64. Maps that are constant or not finite are 0.

    Raises:
        TypeError: If ``maps`` is no tensor.
        ValueError: If an argument does not fit, or maps are to be in [0, 1] and are not.
    """
    check_resize(resize)
    scores = checked_maps(maps, finite=False).double()
    finite = scores.isfinite().flatten(1).all(1)[:, None, None]
    scores = torch.where(finite, scores, 0)
    if size is not None and scores.shape[1:] != torch.Size(size):
        mode = "bicubic" if resize == "official" else "bilinear"
        scores = F.interpolate(scores[:, None], tuple(size), mode=mode)[:, 0]
        scores = scores if normalize else scores.clamp(0, 1)
    if normalize:
        return normalized(scores)
    if not bool(((scores >= 0) & (scores <= 1)).all()):
        raise ValueError("maps: expected numbers in [0, 1], or normalize=True")
    return scores


def check_resize(resize: str) -> None:
    """Checks that maps can be resized so.

    Raises:
        ValueError: If they cannot.
    """
    if resize not in get_args(Resize):
        raise ValueError(f"resize: expected 'official' or 'bilinear', got {resize!r}")
