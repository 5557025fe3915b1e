"""Many forward passes over changed copies of one image, scored by its target."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from camfuse.compat.pytorch_grad_cam.scores import Target, scores_of
from camfuse.perturbation import passes
from camfuse.preserve import evaluating
from camfuse.replay import Arguments

_WORTH = 256  # copies, from which on the proof takes less time than it saves


@contextlib.contextmanager
def many_passes(
    model: nn.Module, images: Tensor, copies: int, *, unlike: nn.Module | None = None
) -> Iterator[None]:
    """Without gradients, in eval mode, faster where proven; the model is then as before.

    Args:
        model: The model.
        images: ``[B, ...]``, the first of which the proof is made with.
        copies: How many copies of images will be passed through it; 0 for plain passes.
        unlike: A layer that must return what it always does.
    """
    shorter = copies >= _WORTH
    with (
        evaluating(tuple(model.modules())),
        passes(model, images, copies_of(images[:1]), unlike=unlike, shorter=shorter),
    ):
        yield


def copies_of(image: Tensor) -> Arguments:
    """What a model is called with for n copies of an image ``[1, ...]``."""
    return lambda n: ((image.expand(n, *image.shape[1:]),), {})


def scores_in_chunks(
    count: int, chunk: int, target: Target, outputs: Callable[[int, int], Any]
) -> Tensor:
    """Scores ``[count]``, f64, of what ``outputs`` makes of the copies from one to another.

    Raises:
        ValueError: If the chunk is no positive number.
    """
    if chunk < 1:
        raise ValueError(f"batch_size: expected at least 1, got {chunk}")
    found = []
    for start in range(0, count, chunk):
        stop = min(start + chunk, count)
        found.append(scores_of([target] * (stop - start), outputs(start, stop)).double())
    return torch.cat(found)
