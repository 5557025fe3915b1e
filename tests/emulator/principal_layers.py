"""principal_map on the emulator, called with tensors as the op is."""

from __future__ import annotations

import numpy as np
import torch

from camfuse import ops
from emulation import LARGE, Emulator, In, Out
from layers import DTYPE_CODES, as_array


def emulated_principal_map(
    run: Emulator, A, G=None, terms="activation", weights=None, *, offset=0, **options
):
    """Maps, ranges and scales, as ``ops.principal_map`` gives them; `offset` misaligns A and G."""
    options = {"device": LARGE, **options}
    B, _, h, w = A.shape
    dtype = np.float64 if A.dtype == torch.float64 else np.float32
    done = run(
        "principal_map",
        activations=In(as_array(A), offset=offset),
        gradients=None if G is None else In(as_array(G), offset=offset),
        weights=None if weights is None else In(as_array(weights)),
        terms=ops.TERMS.index(terms),
        dtype=DTYPE_CODES[A.dtype],
        maps=Out((B, h, w), dtype),
        ranges=Out((B, 2), dtype),
        scales=Out((B,), dtype),
        **options,
    )
    return tuple(torch.from_numpy(done[name]) for name in ("maps", "ranges", "scales"))
