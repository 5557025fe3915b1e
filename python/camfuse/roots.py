"""A graph that begins in the middle of a model."""

from __future__ import annotations

from torch import Tensor
from torch.autograd.grad_mode import _unsafe_preserve_version_counter


def graft(output: Tensor, root: Tensor) -> Tensor:
    """What flows on instead of ``output``, hanging on a root of equal values.

    The very object flows on where it can, with unchanged bits: a skip connection around a
    pass-through module, or whoever else holds it, would otherwise keep an unrooted twin. It is no
    leaf then, so that later modules may overwrite it. Else a copy of the root flows on.

    Args:
        output: What a module returned.
        root: A copy of it that requires grad and that nobody else holds.
    """
    if output._is_view() or (output.is_leaf and output.requires_grad):
        return root.clone()
    with _unsafe_preserve_version_counter(output):
        output.copy_(root)
    return output
