"""Where the object is: masks, or boxes, checked against the maps that are to be judged by them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from camfuse.checks import expect

Regions = Tensor | Sequence[Tensor]
"""A mask ``[B, H, W]``, bool; or for each sample boxes ``[n, 4]``, ``x1, y1, x2, y2`` in pixels.

Boxes are half open here: a pixel is inside where its center is, ``x1 <= x + 0.5 < x2``, so that
whole numbers mean columns ``x1`` to ``x2 - 1``. Several boxes of a sample are one region.
"""


def region_masks(regions: Regions, maps: Tensor) -> Tensor:
    """The regions as a mask of the maps' shape and device.

    Raises:
        TypeError: If a mask is not bool, or boxes are no tensors.
        ValueError: If sizes differ, a box is wrong or outside, or a sample has no pixel inside.
    """
    if isinstance(regions, Tensor):
        masks = check_mask("regions", regions, maps)
    else:
        expect("regions", regions, Tensor, Sequence)
        if len(regions) != len(maps):
            raise ValueError(f"regions: expected {len(maps)} samples, got {len(regions)}")
        height, width = maps.shape[1:]
        each = [
            box_mask(one, (height, width), name=f"regions[{i}]") for i, one in enumerate(regions)
        ]
        masks = torch.stack(each).to(maps.device) if each else maps.new_zeros(maps.shape).bool()
    empty = (~masks.flatten(1).any(1)).nonzero()
    if len(empty):
        raise ValueError(f"regions: expected a pixel or more, sample {int(empty[0])} has none")
    return masks


def check_mask(name: str, mask: Tensor, maps: Tensor) -> Tensor:
    """A mask on the maps' device.

    Raises:
        TypeError: If it is not bool.
        ValueError: If it is not of the maps' shape.
    """
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"{name}: expected a bool tensor, got {got}")
    if mask.shape != maps.shape:
        raise ValueError(
            f"{name}: expected {tuple(maps.shape)} as the maps, got {tuple(mask.shape)}"
        )
    return mask.to(maps.device)


def considered(ignore: Tensor | None, masks: Tensor) -> Tensor:
    """Which pixels count: all but those to be ignored; the object itself always does.

    Raises:
        TypeError: If ``ignore`` is not bool.
        ValueError: If it is not of the masks' shape.
    """
    if ignore is None:
        return torch.ones_like(masks)
    return masks | ~check_mask("ignore", ignore, masks)


def check_boxes(
    boxes: Tensor, size: Sequence[int], *, name: str = "boxes", inclusive: bool = False
) -> Tensor:
    """Boxes ``[n, 4]`` in f64 on the CPU, once it is known that they fit an image of ``size``.

    Where corners are ``inclusive``, both may be the same.

    Raises:
        TypeError: If they are no tensor of numbers.
        ValueError: If they are not ``[n, 4]`` with n at least 1, their corners are not in order, or
            they reach outside the image.
    """
    if not isinstance(boxes, Tensor) or boxes.dtype == torch.bool or boxes.is_complex():
        got = boxes.dtype if isinstance(boxes, Tensor) else type(boxes).__name__
        raise TypeError(f"{name}: expected a tensor of numbers, got {got}")
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
        raise ValueError(f"{name}: expected [n, 4] with n at least 1, got {tuple(boxes.shape)}")
    boxes = boxes.detach().cpu().double()
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(1)
    ordered = (x1 <= x2) & (y1 <= y2) if inclusive else (x1 < x2) & (y1 < y2)  # and not NaN
    inside = (x1 >= 0) & (y1 >= 0) & (x2 <= width) & (y2 <= height)
    for fine, expected in (
        (ordered, "x1 <= x2 and y1 <= y2" if inclusive else "x1 < x2 and y1 < y2"),
        (inside, f"boxes within {height} x {width} pixels"),
    ):
        if not bool(fine.all()):
            wrong = boxes[(~fine).nonzero()[0, 0]].tolist()
            raise ValueError(f"{name}: expected {expected}, got {wrong}")
    return boxes


def box_mask(boxes: Tensor, size: Sequence[int], *, name: str = "boxes") -> Tensor:
    """The union of boxes ``[n, 4]`` as a mask ``[H, W]`` on the CPU; see :data:`Regions`.

    Raises:
        TypeError: As :func:`check_boxes`.
        ValueError: As :func:`check_boxes`.
    """
    x1, y1, x2, y2 = check_boxes(boxes, size, name=name)[:, :, None].unbind(1)
    y, x = (torch.arange(n, dtype=torch.float64) + 0.5 for n in size)
    rows, columns = (y >= y1) & (y < y2), (x >= x1) & (x < x2)
    return (rows[:, :, None] & columns[:, None, :]).any(0)
