"""impute on the emulator, called with tensors as the op is."""

from __future__ import annotations

import numpy as np
import torch

from emulation import LARGE, Emulator, In, Out
from layers import DTYPE_CODES


def emulated_impute(run: Emulator, image, masks, *, tolerance=1e-4, offset=0, **options):
    """Images and residuals, as the native op gives them; `offset` misaligns the image."""
    options = {"device": LARGE, **options}
    shape = (len(masks), *image.shape)
    done = run(
        "impute",
        image=In(image.numpy(), offset=offset),
        masks=In(masks.numpy(), offset=offset),
        dtype=DTYPE_CODES[image.dtype],
        tolerance=tolerance,
        images=Out(shape, image.numpy().dtype),
        residuals=Out(len(masks), np.float64),
        **options,
    )
    return torch.from_numpy(done["images"]), torch.from_numpy(done["residuals"])
