"""Context managers that leave a model as they found it, on every path out."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import operator
import threading
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from camfuse.attention_rows import rows_together

# What the context managers below change belongs to the whole process (attention's path, random
# generators, the compiler's stance) or to modules that several models may share. Two threads that
# each put back what they found would put back what the other had changed.
one_at_a_time = threading.RLock()

_NOTHING = contextlib.nullcontext()


def state_tensors(modules: Sequence[nn.Module]) -> list[Tensor]:
    """Parameters and buffers of all modules; those that are shared come several times."""
    groups = (group for module in modules for group in (module._parameters, module._buffers))
    return [tensor for group in groups for tensor in group.values() if tensor is not None]


@contextlib.contextmanager
def frozen(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Parameters and buffers do not require grad inside: no graph is kept for their sake."""
    tensors = state_tensors(modules)
    trainable = [tensor for tensor in tensors if tensor.requires_grad and tensor.is_leaf]
    try:
        for tensor in trainable:
            tensor.requires_grad_(False)
        yield
    finally:
        for tensor in trainable:
            tensor.requires_grad_(True)


@contextlib.contextmanager
def evaluating(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Modules are in eval mode inside, each in its own mode again afterwards."""
    training = [module for module in modules if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def kept_gradients(model: nn.Module) -> Iterator[None]:
    """What a backward pass inside adds to the parameters' gradients is gone afterwards."""
    kept = [(parameter, parameter.grad) for parameter in model.parameters()]
    try:
        for parameter, _ in kept:
            parameter.grad = None
        yield
    finally:
        for parameter, gradient in kept:
            parameter.grad = gradient


@contextlib.contextmanager
def borrowed_buffers(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Modules read and write copies of their buffers inside.

    The tensors are exchanged, not restored by value: a graph built inside may still need what it
    read, and an in-place restore would invalidate it.
    """
    kept = [(module, dict(module._buffers)) for module in modules if module._buffers]
    copies: dict[int, Tensor] = {}  # by identity: buffers that are shared stay shared
    try:
        for module, buffers in kept:
            for name, buffer in buffers.items():
                if buffer is not None:
                    module._buffers[name] = copies.setdefault(id(buffer), buffer.clone())
        yield
    finally:
        for module, buffers in kept:
            module._buffers.clear()
            module._buffers.update(buffers)


@contextlib.contextmanager
def kept_attributes(modules: Sequence[nn.Module]) -> Iterator[None]:
    """What modules keep in attributes, or in lists and dicts there, is as before afterwards.

    Models cache positions, or leave activations for others to read.
    """
    kept = [vars(module) for module in modules]
    dicts = [*kept, *(one for values in kept for one in values.values() if type(one) is dict)]
    lists = [one for values in kept for one in values.values() if type(one) is list]
    dicts_before, lists_before = [dict(one) for one in dicts], [list(one) for one in lists]
    try:
        yield
    finally:
        # Only what differs is touched: another thread may be using the model.
        for items, before in zip(lists, lists_before, strict=True):
            if len(items) != len(before) or any(map(operator.is_not, items, before)):
                items[:] = before
        for values, earlier in zip(dicts, dicts_before, strict=True):
            for key in values.keys() - earlier.keys():
                del values[key]
            values.update({k: v for k, v in earlier.items() if values.get(k, values) is not v})


@contextlib.contextmanager
def kept_caches() -> Iterator[None]:
    """Functions remember (``functools.lru_cache``) nothing that was made inside.

    What grew is emptied, but for torch's own caches, which hold no tensors of models.
    """
    wrappers = [one for one in gc.get_objects() if type(one) is functools._lru_cache_wrapper]
    caches = [
        (one, one.cache_info().misses)
        for one in wrappers
        if str(getattr(one, "__module__", "")).partition(".")[0] not in ("torch", "sympy")
    ]
    try:
        yield
    finally:
        for cache, misses in caches:
            if cache.cache_info().misses != misses:
                cache.cache_clear()


@contextlib.contextmanager
def plain_attention(modules: Sequence[nn.Module], *, twice: bool = False) -> Iterator[None]:
    """Attention takes one path inside: its fast one depends on whether anything requires grad.

    Args:
        modules: All of the model.
        twice: Whether its gradients are to be differentiated, as fused kernels cannot be.
    """
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with rows_together(modules), sdpa_kernel(SDPBackend.MATH) if twice else _NOTHING:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextlib.contextmanager
def random_state(devices: set[torch.device]) -> Iterator[None]:
    """Random generators of the CPU and of ``devices`` are as before afterwards."""
    others = [one for one in devices if one.type not in ("cpu", "meta")]
    kind = others[0].type if others else "cuda"
    with torch.random.fork_rng(others, device_type=kind):
        yield


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Backward passes run in the thread that starts them, on every kind of device.

    Those on a GPU would run in one of their own, where nothing that belongs to a thread is found:
    neither the passes under way nor what a mode or a context manager of the caller's set.
    """
    with torch.autograd.set_multithreading_enabled(False):
        yield


@contextlib.contextmanager
def eager(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Compiled modules run as they are written inside: in a compiled graph no hook would fire."""
    compiled = any(
        type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None
        for module in modules
    )
    with torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext():
        yield


def release_spare_memory() -> None:
    """Hands memory that is free, but still held by the C library, back to the system.

    A pass that copies every activation leaves holes behind that later passes would pile upon.
    """
    with contextlib.suppress(OSError, AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)
