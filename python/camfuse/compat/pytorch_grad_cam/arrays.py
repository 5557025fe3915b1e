"""Arrays in, arrays out: the peer speaks NumPy where camfuse speaks torch."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array: TypeAlias = npt.NDArray[Any]
FloatArray: TypeAlias = npt.NDArray[np.float32]


def tensor_of(array: Array | Tensor) -> Tensor:
    """An array as a tensor of its own memory, whatever its strides; a tensor stays what it is."""
    return array.detach() if isinstance(array, Tensor) else torch.from_numpy(np.array(array))


def float32_of(tensor: Tensor) -> FloatArray:
    """A tensor on any device as an array, f32."""
    return tensor.detach().float().cpu().numpy()


def as_array(tensor: Any) -> Any:
    """A tensor as NumPy, bf16 as f32, which NumPy lacks; all else as it is."""
    if not isinstance(tensor, Tensor):
        return tensor
    wide = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return wide.numpy(force=True)
