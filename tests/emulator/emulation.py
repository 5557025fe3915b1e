"""Calls emulated CUDA ops with NumPy arrays.

::

    def test_maps(emulator):
        run = emulator("fused_cam")  # csrc/cuda/fused_cam.cu with fused_cam_interface.cpp
        done = run(maps=InOut(maps), result=Out((B, H, W), np.float32), B=B, relu=True)
        assert_close(done["result"], expected)

`interface.h` shows the C++ side, `emulated_cuda.h` says what no emulation can show.

Each call runs with several seeds, hence with different orders of threads and blocks and different
garbage in memory that no one wrote, and fails unless all give the same bits. So an output that is
not fully written, or a sum whose order depends on who comes first, is found by every test.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import as_strided

from worker import Memory
from worker_process import EmulatorCrash, WorkerProcess

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Device:
    """What launchers see of the device."""

    multiprocessors: int
    shared_bytes: int  # that a block may ask for


LARGE = Device(132, 227 << 10)  # an H100
SMALL = Device(2, 48 << 10)  # smaller than any


class In:
    """An array that the op reads. Its strides are kept; between its elements lies 0xFF.

    `offset` is in elements, from an address aligned to 16 bytes. The memory is the kernels', and
    host code must not touch it; that of a `host` array is the launcher's, and kernels must not.
    """

    returned = False

    def __init__(self, array: np.ndarray, *, offset: int = 0, host: bool = False):
        self.array, self.offset, self.host = np.asarray(array), offset, host

    def memory(self) -> Memory:
        """What is sent to the worker."""
        array, item = self.array, self.array.itemsize
        if any(stride < 0 or stride % item for stride in array.strides):
            raise ValueError(f"strides must be multiples of {item} bytes, got {array.strides}")
        last = sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True))
        content = np.full(last + item if array.size else 0, 0xFF, np.uint8)
        if array.size:
            _laid_out(content, array)[...] = array
        return _memory(self, content.size, content, on_device=not self.host)


class InOut(In):
    """An array that the op changes, and the call returns."""

    returned = True


class Out:
    """An array that the op writes, and the call returns."""

    returned = True

    def __init__(self, shape: int | Sequence[int], dtype: object, *, offset: int = 0):
        self.array, self.offset = np.empty(shape, dtype), offset

    def memory(self) -> Memory:
        """What is sent to the worker."""
        return _memory(self, self.array.nbytes, None, on_device=True)


class Work(Out):
    """Memory that the op uses, and no one else."""

    returned = False


class Emulator:
    """The ops of one library. A worker starts with the first call, another one after a crash."""

    def __init__(self, library: Path):
        self.library = library
        self._worker: WorkerProcess | None = None

    def __call__(
        self,
        op: str | None = None,
        *,
        seeds: Iterable[int] = SEEDS,
        device: Device = LARGE,
        **arguments: In | Out | float | None,
    ) -> dict[str, np.ndarray]:
        """Runs an op with each seed, and returns its outputs, which must be the same.

        `op` need only be given where a library has several.

        Raises:
            EmulatorError: the op threw, a launch was refused, a thread did what it must not, or an
                input was changed.
            EmulatorCrash: a sanitizer ended the worker.
            AssertionError: two seeds gave different outputs.
        """
        seeds = list(seeds)
        answers = self._ask(
            {
                "op": op or self.library.name.rpartition("-")[0],
                "seeds": seeds,
                "device": (device.multiprocessors, device.shared_bytes),
                "arguments": {
                    name: value.memory() if isinstance(value, In | Out) else value
                    for name, value in arguments.items()
                },
            }
        )
        outputs = [
            {name: _laid_out(content, arguments[name].array) for name, content in answer.items()}
            for answer in answers
        ]
        for seed, other in zip(seeds, outputs, strict=True):
            for name, array in other.items():
                _check_same_bits(name, outputs[0][name], array, (seeds[0], seed))
        return outputs[0]

    def close(self) -> None:
        """Ends the worker."""
        if self._worker is not None:
            self._worker.close()
        self._worker = None

    def _ask(self, request: dict[str, object]) -> list[dict[str, np.ndarray]]:
        if self._worker is None:
            self._worker = WorkerProcess(self.library)
        try:
            return self._worker.ask(request)
        except EmulatorCrash:
            self.close()
            raise


def _memory(argument: In | Out, nbytes: int, content: np.ndarray | None, on_device: bool) -> Memory:
    array = argument.array
    return Memory(
        shape=array.shape,
        strides=tuple(stride // array.itemsize for stride in array.strides),
        item_bytes=array.itemsize,
        nbytes=nbytes,
        content=content,
        offset=argument.offset * array.itemsize,
        on_device=on_device,
        returned=argument.returned,
    )


def _laid_out(content: np.ndarray, like: np.ndarray) -> np.ndarray:
    """A view of an array's bytes as the array."""
    if like.size == 0:
        return np.empty_like(like)
    return as_strided(content[: like.itemsize].view(like.dtype), like.shape, like.strides)


def _check_same_bits(
    name: str, first: np.ndarray, other: np.ndarray, seeds: tuple[int, int]
) -> None:
    first, other = np.atleast_1d(first, other)
    bits = f"V{first.itemsize}"
    differ = np.argwhere(first.copy().view(bits) != other.copy().view(bits))
    if len(differ) == 0:
        return
    place = tuple(differ[0].tolist())
    raise AssertionError(
        f"{name} depends on the seed: {len(differ)} of {first.size} elements, first {place}: "
        f"{first[place]!r} with seed {seeds[0]}, {other[place]!r} with seed {seeds[1]}"
    )
