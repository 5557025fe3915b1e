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
from camfuse.targets import fixed

_BRIGHTNESS = (1.0, 0.9, 1.1)


def augmented(request: Request, ask: Callable[[Request], CamStack]) -> CamStack:
    """The mean of what ``ask`` answers to the request and to its variations.

    Scores, skipped layers and marks are those of the request itself, the first to be asked; the
    classes that it finds to be the arg-max are explained in all variations.

    Args:
        request: Its first image is varied.
        ask: Makes the maps.

    Raises:
        ValueError: If the graph is to be kept, which the mean would not be part of.
        RuntimeError: If other layers run for a variation.
    """
    if request.create_graph:
        raise ValueError("aug_smooth: expected False with create_graph=True, got True")
    plain = ask(request)
    request = replace(request, target=fixed(request.target, plain.targets))
    total = plain.flat.clone()
    for mirrored, factor in itertools.product((False, True), _BRIGHTNESS):
        if (mirrored, factor) == (False, 1.0):
            continue
        stack = ask(replace(request, inputs=_varied(request.inputs, mirrored, factor)))
        if stack.names != plain.names or stack.offsets != plain.offsets:
            raise RuntimeError("aug_smooth: the model runs other layers for a varied image")
        total += _mirrored(stack) if mirrored else stack.flat
    return _with_maps(plain, total / (2 * len(_BRIGHTNESS)))


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
