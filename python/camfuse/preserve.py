"""Context managers that leave a model as they found it, on every path out."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def frozen_parameters(model: nn.Module) -> Iterator[None]:
    """Parameters do not require grad inside, so that no graph is kept for their sake."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def borrowed_buffers(model: nn.Module) -> Iterator[None]:
    """Modules in training mode write to copies of their buffers inside.

    The tensors are exchanged, not restored by value: a graph built inside may still need what it
    read, and an in-place restore would invalidate it.
    """
    kept = [
        (module._buffers, name, buffer)
        for module in model.modules()
        if module.training
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        for buffers, name, buffer in kept:
            buffers[name] = buffer.clone()
        yield
    finally:
        for buffers, name, buffer in kept:
            buffers[name] = buffer


@contextlib.contextmanager
def random_state(device: torch.device) -> Iterator[None]:
    """Random generators of the CPU and of ``device`` are as before afterwards."""
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"):
        yield


@contextlib.contextmanager
def eager(model: nn.Module) -> Iterator[None]:
    """Compiled modules run as they are written inside: in a compiled graph no hook would fire."""
    compiled = any(
        type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None
        for module in model.modules()
    )
    with torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext():
        yield


class RootedTensors:
    """Leaf tensors that require grad for a while."""

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []

    def add(self, tensor: Tensor) -> None:
        """Lets a leaf require grad until :meth:`release`."""
        tensor.requires_grad_()
        self._tensors.append(tensor)

    def release(self) -> None:
        """Undoes every :meth:`add`."""
        for tensor in self._tensors:
            # What a successor overwrote in place is no leaf any more, and nobody else's.
            if tensor.is_leaf:
                tensor.requires_grad_(False)
        self._tensors.clear()


def release_spare_memory() -> None:
    """Hands memory that is free, but still held by the C library, back to the system.

    A pass that copies every activation leaves holes behind that later passes would pile upon.
    """
    with contextlib.suppress(OSError, AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)
