"""Score-CAM: a channel weighs what the image scores where the channel is active."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from camfuse.compat.native_maps import weighted_map
from camfuse.compat.pytorch_grad_cam.arrays import Array, as_array
from camfuse.compat.pytorch_grad_cam.gradient_free import GradientFreeCAM
from camfuse.compat.pytorch_grad_cam.passes import many_passes, scores_in_chunks
from camfuse.compat.pytorch_grad_cam.scores import Target, check_targets
from camfuse.methods.base import wide

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


class ScoreCAM(GradientFreeCAM):
    """Score-CAM (Wang et al., CVPRW 2020), with masks whose corners are aligned to the image's.

    Takes a forward pass for each ``batch_size`` channels of each layer and image.
    """

    _method = "scorecam"

    batch_size: int = 16
    """How many masked copies of an image go through the model at once."""

    def get_cam_weights(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        activations: Any,
        grads: Any,
    ) -> Array:
        """The softmax over channels of the masked images' scores ``[B, C]``."""
        A = torch.as_tensor(activations).to(input_tensor.device)
        found: Array = as_array(self._weights(input_tensor, targets, A).to(wide(A).dtype))
        return found

    def _native_image(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        A: Tensor,
        G: Tensor | None,
        eigen_smooth: bool,
    ) -> Tensor:
        weights = self._weights(input_tensor, targets, A)
        return weighted_map(A, weights, eigen_smooth=eigen_smooth)

    def _weights(self, images: Tensor, targets: Sequence[Target], A: Tensor) -> Tensor:
        """``[B, C]``, f64."""
        check_targets(targets, len(images))
        if A.ndim != images.ndim or len(A) != len(images):
            raise ValueError(
                f"reshape_transform: expected activations of as many axes as images "
                f"{tuple(images.shape)}, which they are to mask, got {tuple(A.shape)}"
            )
        with many_passes(self.model, images, len(A) * A.shape[1]):
            scores = [
                self._scores(images[i : i + 1], target, wide(A[i]))
                for i, target in enumerate(targets[: len(images)])
            ]
        return torch.stack(scores).softmax(1)

    def _scores(self, image: Tensor, target: Target, planes: Tensor) -> Tensor:
        """What an image ``[1, ...]`` scores behind each of its masks ``[C]``."""
        # Channels that are zero everywhere, as many are behind a ReLU, make one and the same mask.
        alive = planes.flatten(1).any(1)
        channels = torch.cat([alive.nonzero()[:, 0], (~alive).nonzero()[:1, 0]])

        def outputs(start: int, stop: int) -> Any:
            masks = _masks(planes[channels[start:stop]], image)
            return self.model(image * masks.to(image.dtype))

        found = scores_in_chunks(len(channels), self.batch_size, target, outputs)
        scores = found[-1].repeat(len(planes))
        scores[channels] = found
        return scores


def _masks(planes: Tensor, image: Tensor) -> Tensor:
    """Masks ``[n, 1, ...]`` of the image's size, each channel by its own range there."""
    size = image.shape[2:]
    masks = F.interpolate(planes[:, None], size, mode=_LINEAR[len(size)], align_corners=True)
    axes = tuple(range(2, masks.ndim))
    low, high = masks.amin(axes, keepdim=True), masks.amax(axes, keepdim=True)
    return (masks - low) / (high - low + 1e-8)
