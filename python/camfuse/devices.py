"""Which devices the native ops run on, and ways there and back on which nobody waits twice."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from camfuse import _C


def runs_on(op: str, device: torch.device) -> bool:
    """Whether the build holds kernels of the native op ``op`` for a kind of device."""
    if device.type not in ("cpu", "cuda"):
        return False
    found: bool = torch._C._dispatch_has_kernel_for_dispatch_key(
        f"camfuse::{op}", device.type.upper()
    )
    return found


def check_device(name: str, device: torch.device, op: str = "layer_cam") -> None:
    """Checks that an op runs where the argument ``name`` lies.

    Raises:
        ValueError: If it does not; the message says what to do.
    """
    if runs_on(op, device):
        return
    if device.type != "cuda":
        raise ValueError(
            f"{name}: camfuse's kernels run on the CPU and on CUDA devices, got {device}"
        )
    lacks = f"has no CUDA kernel of {op}" if _C.build_info()["cuda"] else "was built without CUDA"
    raise ValueError(
        f"{name}: this camfuse {lacks}; install it with CAMFUSE_CUDA=on in the environment, or "
        f"move the model and its inputs to the CPU; got {device}"
    )


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``. The host waits for no copy to a GPU, and may forget the tensor.

    Torch keeps pinned memory from being used again before the copy is done.
    """
    if tensor.device.type == "cpu" and device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same values on the CPU, detached; one copy from each GPU, however many there are of them.

    What is on the CPU already is not copied.
    """
    host = [one.detach() for one in tensors]
    for device in {one.device for one in host if one.device.type != "cpu"}:
        there = [i for i, one in enumerate(host) if one.device == device]
        data = [host[i].contiguous().view(-1).view(torch.uint8) for i in there]
        parts = torch.split(torch.cat(data).cpu(), [len(one) for one in data])
        for i, part in zip(there, parts, strict=True):
            # A part in memory of its own keeps no other alive, and begins where its type may.
            host[i] = part.clone().view(host[i].dtype).view(host[i].shape)
    return host


def current_stream(device: torch.device) -> torch.cuda.Stream | None:
    """The stream in use there, to go on with in another thread; None on the CPU."""
    return torch.cuda.current_stream(device) if device.type == "cuda" else None


def on_stream(stream: torch.cuda.Stream | None) -> AbstractContextManager[object]:
    """Work inside is queued on ``stream``; None changes nothing."""
    return contextlib.nullcontext() if stream is None else torch.cuda.stream(stream)
