"""layer_cam and fused_cam on the emulator, called with tensors as the ops are."""

from __future__ import annotations

import numpy as np
import torch

from camfuse import ops
from emulation import LARGE, Emulator, In, Out

DTYPE_CODES = {torch.float64: 0, torch.float32: 1, torch.bfloat16: 2, torch.float16: 3}
RULE_CODES = {rule: code for code, rule in enumerate(ops.RULES)}


def as_array(tensor):
    """Its memory with its strides; NumPy knows no bfloat16."""
    return tensor.view(torch.int16).numpy() if tensor.element_size() == 2 else tensor.numpy()


def _arguments(A, G, rules, weights, offset):
    return {
        "activations": In(as_array(A), offset=offset),
        "gradients": None if G is None else In(as_array(G), offset=offset),
        "weights": None if weights is None else In(as_array(weights)),
        "rules": In(np.array([RULE_CODES[rule] for rule in rules], np.int32), host=True),
        "dtype": DTYPE_CODES[A.dtype],
    }


def emulated_layer_cam(run: Emulator, A, G, rules, weights=None, *, offset=0, **options):
    """Maps and ranges, as ``ops.layer_cam`` gives them; `offset` misaligns A and G."""
    options = {"device": LARGE, **options}
    B, _, h, w = A.shape
    dtype = np.float64 if A.dtype == torch.float64 else np.float32
    done = run(
        "layer_cam",
        **_arguments(A, G, rules, weights, offset),
        maps=Out((len(rules), B, h, w), dtype),
        ranges=Out((len(rules), B, 2), dtype),
        **options,
    )
    return torch.from_numpy(done["maps"]), torch.from_numpy(done["ranges"])


def emulated_fused_cam(run: Emulator, A, G, rule, size, weights=None, *, relu=True, **options):
    """The finished map, as ``ops.fused_cam`` gives it."""
    dtype = np.float64 if A.dtype == torch.float64 else np.float32
    done = run(
        "fused_cam",
        **_arguments(A, G, [rule], weights, 0),
        result=Out((A.shape[0], *size), dtype),
        relu=relu,
        **options,
    )
    return torch.from_numpy(done["result"])
