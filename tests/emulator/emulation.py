"""Calls emulated CUDA ops with NumPy arrays.

::

    def test_maps(emulator):
        run = emulator("fused_cam")  # csrc/cuda/fused_cam.cu with fused_cam_interface.cpp
        done = run(maps=InOut(maps), result=Out((B, H, W), np.float32), B=B, relu=True)
        assert_close(done["result"], expected)

`interface.h` shows the C++ side. Each call runs with several seeds, hence with different orders of
threads and blocks and different garbage in what no one wrote, and fails unless all give the same
bits. So an output that was not fully written, or a sum whose order depends on who comes first, is
found here, and need not be looked for.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import as_strided

from build import compilers_library
from worker import Memory

SEEDS = (0, 1, 2)
# Long for any call; a kernel that waits for what never comes is ended.
PATIENCE = 300.0
ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=0:"
    "quarantine_size_mb=64",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


class EmulatorError(Exception):
    """The op, or a launch of it, said what is wrong."""


class EmulatorCrash(Exception):  # noqa: N818
    """The worker died: a sanitizer's report, which the text holds."""


@dataclass(frozen=True)
class Device:
    multiprocessors: int
    shared_bytes: int


LARGE = Device(132, 227 << 10)  # as an H100
SMALL = Device(2, 64 << 10)


class In:
    """An array that the op reads. Its strides are kept; what lies between its elements is not.

    `offset` is in elements, from an address aligned to 16 bytes. `host`: the launcher reads it, and
    kernels must not; all others are the kernels' and the launcher must not touch them.
    """

    def __init__(self, array: np.ndarray, *, offset: int = 0, host: bool = False):
        self.array, self.offset, self.host = np.asarray(array), offset, host

    returned = False

    def memory(self) -> Memory:
        """What is sent to the worker."""
        array, item = self.array, self.array.itemsize
        if any(stride < 0 or stride % item for stride in array.strides):
            raise ValueError(f"strides must be multiples of {item} bytes, got {array.strides}")
        last = sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True))
        nbytes = last + item if array.size else 0
        content = np.full(nbytes, 0xFF, np.uint8)
        if array.size:
            as_strided(content[:item].view(array.dtype), array.shape, array.strides)[...] = array
        return Memory(
            shape=array.shape,
            strides=tuple(stride // item for stride in array.strides),
            item_bytes=item,
            nbytes=nbytes,
            content=content,
            offset=self.offset * item,
            on_device=not self.host,
            returned=self.returned,
        )


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
        array, item = self.array, self.array.itemsize
        return Memory(
            shape=array.shape,
            strides=tuple(stride // item for stride in array.strides),
            item_bytes=item,
            nbytes=array.nbytes,
            content=None,
            offset=self.offset * item,
            on_device=True,
            returned=self.returned,
        )


class Work(Out):
    """Memory that the op uses, and no one else."""

    returned = False


class Emulator:
    """The ops of one library. The worker starts with the first call, and again after a crash."""

    def __init__(self, library: Path):
        self.library = library
        self._worker: subprocess.Popen[bytes] | None = None
        self._stderr = tempfile.TemporaryFile()

    def __call__(
        self,
        op: str | None = None,
        *,
        seeds: Iterable[int] = SEEDS,
        device: Device = LARGE,
        **arguments: object,
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
        request = {
            "op": op or self.library.name.rpartition("-")[0],
            "seeds": seeds,
            "device": (device.multiprocessors, device.shared_bytes),
            "arguments": {
                name: value.memory() if isinstance(value, In | Out) else _number(value)
                for name, value in arguments.items()
            },
        }
        answers = self._ask(request)
        if isinstance(answers, str):
            raise EmulatorError(answers)
        for seed, answer in zip(seeds, answers, strict=True):
            for name, content in answer.items():
                _check_same(name, arguments[name], seeds[0], answers[0][name], seed, content)
        return {name: _as_array(arguments[name], content) for name, content in answers[0].items()}

    def _ask(self, request: dict[str, object]) -> list[dict[str, np.ndarray]] | str:
        if self._worker is None:
            self._worker = self._start()
        worker = self._worker
        timer = threading.Timer(PATIENCE, worker.kill)
        timer.start()
        try:
            pickle.dump(request, worker.stdin, protocol=5)
            worker.stdin.flush()
            return pickle.load(worker.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            late = timer.finished.is_set()
            status = self._stop()
            self._stderr.seek(0)
            report = self._stderr.read()[-12_000:].decode(errors="replace")
            reason = f"no answer in {PATIENCE} s" if late else f"exit status {status}"
            raise EmulatorCrash(f"{reason}\n{report}") from None
        finally:
            timer.cancel()

    def _start(self) -> subprocess.Popen[bytes]:
        self._stderr.seek(0)
        self._stderr.truncate()
        preload = " ".join(map(compilers_library, ("libasan.so", "libstdc++.so.6")))
        return subprocess.Popen(
            [sys.executable, Path(__file__).with_name("worker.py"), self.library],
            env={**os.environ, **ENVIRONMENT, "LD_PRELOAD": preload},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )

    def _stop(self) -> int:
        worker, self._worker = self._worker, None
        with worker:
            worker.stdin.close()
        return worker.returncode

    def close(self) -> None:
        """Ends the worker."""
        if self._worker is not None:
            self._stop()
        self._stderr.close()


def _number(value: object) -> object:
    if value is None or isinstance(value, float):
        return value
    return int(value)


def _as_array(argument: In | Out, content: np.ndarray) -> np.ndarray:
    like = argument.array
    if like.size == 0:
        return np.empty_like(like)
    return as_strided(content[: like.itemsize].view(like.dtype), like.shape, like.strides).copy()


def _check_same(
    name: str,
    argument: In | Out,
    first_seed: int,
    first: np.ndarray,
    seed: int,
    content: np.ndarray,
) -> None:
    if np.array_equal(first, content):
        return
    expected, got = _as_array(argument, first), _as_array(argument, content)
    differ = expected.view(np.uint8) != got.view(np.uint8)
    raise AssertionError(f"{name} depends on the seed")
