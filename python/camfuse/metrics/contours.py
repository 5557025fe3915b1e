"""From maps to boxes, as weakly supervised localization is evaluated: around OpenCV's contours.

Choe et al. 2020, "Evaluating Weakly Supervised Object Localization Methods Right". The evaluation
binarizes a map of 8 bits at a thousand thresholds. Only as many of the results differ as the map
has values, 256 at most, so contours are found once for each of those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NO_BOX = (0, 0, 0, 0)  # of a map that is above a threshold nowhere


class Boxes(NamedTuple):
    """Boxes of one map in each of its n distinct binarizations.

    Attributes:
        boxes: ``[k, 4]``, int64, ``x1, y1, x2, y2``: one for each contour of any of them.
        binarization: ``[k]``: the one that each box belongs to.
        largest: ``[n]``: which box is that of the contour of the largest area.
        of: ``[T]``: which binarization is that of each threshold.
    """

    boxes: Tensor
    binarization: Tensor
    largest: Tensor
    of: Tensor


def contour_boxes(map8: NDArray[np.uint8], taus: Tensor) -> Boxes:
    """Boxes around the contours of a map of 8 bits above thresholds.

    A pixel is above a threshold tau where it exceeds ``int(tau * maximum of the map)``. Contours
    are 8-connected, those of holes among them; areas are those of their polygons; boxes are one
    pixel wider and higher than what they surround, unless the image ends there.

    Args:
        map8: ``[H, W]``.
        taus: ``[T]``, f64, in [0, 1).

    Raises:
        ImportError: If OpenCV is missing.
    """
    import numpy as np

    cv2 = _opencv()
    values = np.unique(map8)
    levels = (taus.numpy() * float(values[-1])).astype(np.int64)
    # Two levels with no value between them binarize alike: count the values that do not exceed.
    ranks, of = np.unique(np.searchsorted(values, levels, side="right"), return_inverse=True)
    rectangles: list[Sequence[int]] = []
    counts, largest = [], []
    for rank in ranks:
        binary = map8 > values[rank - 1] if rank else np.ones_like(map8, dtype=bool)
        found = cv2.findContours(binary.view(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
        areas = [cv2.contourArea(one) for one in found] or [0.0]
        largest.append(len(rectangles) + areas.index(max(areas)))
        rectangles += [cv2.boundingRect(one) for one in found] or [_NO_BOX]
        counts.append(len(areas))
    boxes = torch.tensor(rectangles)
    boxes[:, 2:] += boxes[:, :2]
    height, width = map8.shape
    boxes[:, 2:] = boxes[:, 2:].minimum(torch.tensor([width - 1, height - 1]))
    binarization = torch.repeat_interleave(torch.tensor(counts))
    return Boxes(boxes, binarization, torch.tensor(largest), torch.from_numpy(of.reshape(-1)))


def inclusive_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes whose corners are both inside: widths are ``x2 - x1 + 1``.

    Args:
        a: ``[n, 4]``, ``x1, y1, x2, y2``.
        b: ``[m, 4]``.

    Returns:
        ``[n, m]``, f64.
    """
    a, b = a.double()[:, None], b.double()
    shared = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2]) + 1
    common = shared.clamp(min=0).prod(-1)
    first, second = ((one[..., 2:] - one[..., :2] + 1).prod(-1) for one in (a, b))
    return common / (first + second - common)


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            f"boxes of maps are found by OpenCV, which cannot be imported ({error}); "
            "pip install 'camfuse[metrics]'"
        ) from error
    return cv2
