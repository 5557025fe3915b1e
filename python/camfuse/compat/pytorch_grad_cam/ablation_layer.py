"""Layers that stand in for a target layer, and return what it returned without some channels."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from camfuse.compat.pytorch_grad_cam.arrays import Array
from camfuse.compat.pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

_FAR_BELOW = 1e7
_OBJECTNESS = -1000.0


class AblationLayer(nn.Module):
    """For layers that return ``[B, C, h, w]``. Subclasses may define any of its methods.

    For each chunk of copies of an image there is a call of :meth:`set_next_batch`, then one of the
    layer itself, in which copy ``i`` loses channel ``indices[i]``; then those are taken off the
    front of ``indices``.

    Attributes:
        indices: Channels that are still to be ablated.
        activations: What the layer returned for a chunk of copies.
    """

    indices: npt.NDArray[np.int32]
    activations: Any

    def objectiveness_mask_from_svd(self, activations: Array, threshold: float = 0.01) -> Array:
        """Where there is something: the first principal component's magnitude, by its range.

        Args:
            activations: ``[C, h, w]``.
            threshold: From where on.

        Returns:
            ``[h, w]``, bool.
        """
        magnitudes = np.abs(get_2d_projection(activations[None])[0])
        magnitudes -= magnitudes.min()
        with np.errstate(invalid="ignore"):  # where all positions are the same
            found: Array = magnitudes / magnitudes.max() > threshold
        return found

    def activations_to_be_ablated(
        self, activations: Array, ratio_channels_to_ablate: float = 1.0
    ) -> npt.NDArray[np.int32]:
        """Chooses the channels, which become ``indices``.

        Args:
            activations: Of one image ``[C, h, w]``.
            ratio_channels_to_ablate: For 1, all. Else this part of the channels from either end,
                ordered by how much of a channel lies where there is something.
        """
        if ratio_channels_to_ablate == 1.0:
            self.indices = np.arange(len(activations), dtype=np.int32)
            return self.indices
        there = self.objectiveness_mask_from_svd(activations)
        with np.errstate(invalid="ignore"):  # of constant channels
            magnitudes = np.abs(activations)
            magnitudes = magnitudes - magnitudes.min((1, 2), keepdims=True)
            magnitudes /= magnitudes.max((1, 2), keepdims=True)
            inside = (there * magnitudes).sum((1, 2)) / magnitudes.sum((1, 2))
        order = np.argsort(np.float32(inside)).astype(np.int32)
        count = int(len(order) * ratio_channels_to_ablate)
        self.indices = np.concatenate([order[::-1][:count], order[:count]])
        return self.indices

    def set_next_batch(
        self, input_batch_index: int, activations: Any, num_channels_to_ablate: int
    ) -> None:
        """Makes copies of what the layer returned for one image.

        Args:
            input_batch_index: Which image.
            activations: What the layer returned.
            num_channels_to_ablate: How many copies.
        """
        self.activations = _copies(activations, input_batch_index, num_channels_to_ablate)

    def __call__(self, x: Any) -> Any:
        """The copies, each without its channel.

        A channel becomes 0 if the layer's minimum is 0, as behind a ReLU. Else it becomes a value
        far below all others: the first copy's lies 1e7 below the minimum, each further one's as
        far below the last.
        """
        return _without(self.activations, self.indices)


class AblationLayerVit(AblationLayer):
    """For layers whose channels come last, such as tokens ``[B, N, C]``."""

    def __call__(self, x: Any) -> Any:
        """The copies, each without its channel."""
        return _without(self.activations.transpose(1, -1), self.indices).transpose(1, -1)


class AblationLayerFasterRCNN(AblationLayer):
    """For feature pyramids: dicts of levels, whose channels are counted through."""

    def set_next_batch(
        self, input_batch_index: int, activations: Any, num_channels_to_ablate: int
    ) -> None:
        """Makes copies of each level."""
        self.activations = OrderedDict(
            (key, _copies(level, input_batch_index, num_channels_to_ablate))
            for key, level in activations.items()
        )

    def __call__(self, x: Any) -> Any:
        """The copies, each with -1000 in a channel of one of its levels."""
        levels = list(self.activations.values())
        ends = np.cumsum([level.shape[1] for level in levels])
        for i in range(len(levels[0])):
            index = int(self.indices[i])
            at = int(np.searchsorted(ends, index, side="right"))
            levels[at][i, index - int(ends[at])] = _OBJECTNESS
        return self.activations


def _copies(activations: Tensor, index: int, count: int) -> Tensor:
    one = activations[index : index + 1]
    return one.expand(count, *one.shape[1:]).clone()


def _without(output: Tensor, indices: Any) -> Tensor:
    """Copies ``[n, C, ...]``, each of which loses a channel in place."""
    count = len(output)
    rows = torch.arange(count, device=output.device)
    channels = torch.as_tensor(np.asarray(indices[:count]), device=output.device).long()
    low = output.amin()
    below = low - _FAR_BELOW * (rows + 1)
    values = torch.where(low == 0, torch.zeros_like(below), below).to(output.dtype)
    output[rows, channels] = values.view(count, *[1] * (output.ndim - 2))
    return output
