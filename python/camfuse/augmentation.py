"""Smoothing by test-time augmentation: maps averaged over what should not change them.

Six passes as in pytorch-grad-cam: the image and its mirror image, each at 0.9, 1 and 1.1 times its
values. Raw maps are averaged, mirrored back, so that every normalisation stays possible.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from camfuse.inputs import Inputs, first_image
from camfuse.split import Request
from camfuse.stack import CamStack
from camfuse.targets import fixed, mirrored

_BRIGHTNESS = (1.0, 0.9, 1.1)


def augmented(request: Request, ask: Callable[[Request], CamStack]) -> CamStack:
    """The mean of what ``ask`` answers to the request and to its variations.

    Scores and marks are those of the request itself, the first to be asked; the classes that it
    finds to be the arg-max are explained in all variations, and targets that name places of the
    image are mirrored with it. A layer without a map of one variation has none of the mean.

    Args:
        request: Its first image is varied.
        ask: Makes the maps.

    Raises:
        ValueError: If the graph is to be kept, which the mean would not be part of, or there is no
            image.
        FloatingPointError: If no layer has a finite map of every variation.
        RuntimeError: If layers of other sizes, or more calls of them, run for a variation.
    """
    if request.create_graph:
        raise ValueError("aug_smooth: expected False with create_graph=True, got True")
    image = first_image(request.inputs)
    if image.ndim != 4 or not image.is_floating_point():
        raise ValueError(
            "aug_smooth: expected an image [B, C, H, W] of floating values among the inputs, got "
            f"{image.dtype} {tuple(image.shape)}"
        )
    total = ask(request)
    target = fixed(request.target, total.targets)
    for mirror, factor in itertools.product((False, True), _BRIGHTNESS):
        if (mirror, factor) == (False, 1.0):
            continue
        stack = ask(
            replace(
                request,
                inputs=_varied(request.inputs, mirror, factor),
                target=mirrored(target, image.shape[-1]) if mirror else target,
            )
        )
        total, stack = _common(total, stack)
        total = replace(total, flat=total.flat + (_mirrored(stack) if mirror else stack.flat))
    return _with_maps(total, total.flat / (2 * len(_BRIGHTNESS)))


def _common(total: CamStack, stack: CamStack) -> tuple[CamStack, CamStack]:
    """Both with the layers that both have; the first says why it has not the others."""
    if total.names != stack.names:
        reasons = {one.name: one for one in (*total.skipped, *stack.skipped)}
        lost = [name for name in total.names if name not in stack.names]
        gained = [name for name in stack.names if name not in total.names]
        if not reasons.keys() >= {*lost, *gained}:
            raise _otherwise()
        names = [name for name in total.names if name in stack.names]
        if not names:
            raise FloatingPointError("layers: no map of the selected layers is finite")
        skipped = tuple(reasons[name] for name in lost)
        total = replace(total.select(layers=names), skipped=(*total.skipped, *skipped))
        stack = stack.select(layers=names)
    if [one.shape for one in total.layers] != [one.shape for one in stack.layers]:
        raise _otherwise()
    return total, stack


def _otherwise() -> RuntimeError:
    return RuntimeError("aug_smooth: the model runs other layers, or otherwise, for a varied image")


def _varied(inputs: Inputs, mirrored: bool, factor: float) -> Inputs:
    image = first_image(inputs)
    varied = (image.flip(-1) if mirrored else image) * factor
    result: Inputs = tree_map(lambda one: varied if one is image else one, inputs)
    return result


def _mirrored(stack: CamStack) -> Tensor:
    """All maps of a stack, each mirrored, where they lie."""
    flat = torch.empty_like(stack.flat)
    for i, start in enumerate(stack.offsets):
        maps = stack.maps(i)
        flat[start : start + maps.numel()] = maps.flip(-1).reshape(-1)
    return flat


def _with_maps(stack: CamStack, flat: Tensor) -> CamStack:
    stack = replace(stack, flat=flat)
    planes = [stack.maps(i).flatten(3) for i in range(len(stack))]
    ranges = torch.stack([torch.stack([one.amin(-1), one.amax(-1)], -1) for one in planes])
    ends = ranges[..., 0].amin(0), ranges[..., 1].amax(0)
    return replace(stack, ranges=ranges, global_ranges=torch.stack(ends, -1))
