"""A baseline that knows nothing: channels weighed at random."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from camfuse.methods.base import Pair, WeightMethod


def uniform_weights(pair: Pair) -> Tensor:
    """Weights from U(-1, 1), drawn on the CPU and shared by the samples of a batch.

    The draw depends on the layer's name and the seed alone, so that neither the other layers that
    are selected, nor the batch, nor the device changes a map.
    """
    # The generator takes 32 bits of a seed and ignores the rest.
    seed = zlib.crc32(f"{pair.seed}:{pair.layer.name}".encode())
    generator = torch.Generator().manual_seed(seed)
    A = pair.activations
    weights = torch.rand(A.shape[1], generator=generator, dtype=torch.float64) * 2 - 1
    return weights.to(A.dtype).to(A.device, non_blocking=True).expand(A.shape[:2])


RANDOM_METHODS = (
    WeightMethod(
        name="randomcam",
        title="RandomCAM",
        weights=uniform_weights,
        formula="sum_k w_k A_k, w_k ~ U(-1, 1)",
        source="RandomCAM of pytorch-grad-cam",
        gradients=False,
    ),
)
