"""Hooks of methods that camfuse's registry has too.

They belong to the class, whatever object they are called with: a subclass of one method may call
the hook of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from camfuse import reference
from camfuse.compat.native_maps import native_map
from camfuse.compat.pytorch_grad_cam.arrays import Array, as_array
from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.scores import Target
from camfuse.layouts import plane
from camfuse.ops import Rule


def weights_by(rule: Rule) -> Any:
    """A ``get_cam_weights`` whose weights a rule gives."""

    def get_cam_weights(
        self: BaseCAM,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        activations: Any,
        grads: Any,
    ) -> Array:
        """The weight of each channel ``[B, C]``, from sums in f64, in the gradients' dtype.

        Activations and gradients are ``[B, C, *grid]``, arrays or tensors; nothing else is used.
        """
        given = torch.as_tensor(grads).detach()
        A, G = (plane(one).double() for one in (torch.as_tensor(activations).detach(), given))
        found: Array = as_array(reference.channel_weights(rule, A, G).to(given.dtype))
        return found

    return get_cam_weights


def image_by(method: str) -> Any:
    """A ``get_cam_image`` whose maps are those of a method of the registry."""

    def get_cam_image(
        self: BaseCAM,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        activations: Any,
        grads: Any,
        eigen_smooth: bool = False,
    ) -> Array:
        """The raw map ``[B, *grid]``.

        Activations and gradients are ``[B, C, *grid]``, arrays or tensors; gradients may be None
        for methods that use none. ``eigen_smooth`` makes it the first principal component of the
        method's terms, where it is their sum. Nothing else is used.
        """
        A = torch.as_tensor(activations).detach()
        G = None if grads is None else torch.as_tensor(grads).detach()
        found: Array = as_array(native_map(method, A, G, eigen_smooth=eigen_smooth))
        return found

    return get_cam_image
