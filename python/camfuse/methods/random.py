"""A baseline that knows nothing: channels weighed at random."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from camfuse.methods.base import Method


def uniform_weights(layer: str, activations: Tensor, seed: int) -> Tensor:
    """Weights from U(-1, 1), drawn on the CPU and shared by the samples of a batch.

    The draw depends on the layer's name and the seed alone, so that neither the other layers that
    are selected, nor the batch, nor the device changes a map.
    """
    # The generator takes 32 bits of a seed and ignores the rest.
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{layer}".encode()))
    weights = torch.rand(activations.shape[1], generator=generator, dtype=torch.float64) * 2 - 1
    weights = weights.to(activations.dtype).to(activations.device, non_blocking=True)
    return weights.expand(activations.shape[:2])


RANDOM_METHODS = (
    # sum_k w_k A_k, w_k ~ U(-1, 1)
    Method("randomcam", "weighted", "RandomCAM of pytorch-grad-cam", uniform_weights),
)
