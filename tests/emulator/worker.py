"""The process that loads an emulated library, and runs its ops on arrays that come over a pipe.

A process of its own, because AddressSanitizer must be loaded first and ends the process when it
finds something. `emulation.py` starts it, as ``python worker.py LIBRARY``.

A request is ``{"op", "seeds", "device": (multiprocessors, shared_bytes), "arguments"}``, where an
argument is None, an int, a float, or a Memory. The answer holds the bytes of each returned Memory,
for each seed; or is a text, if something was wrong.
"""

from __future__ import annotations

import ctypes
import operator
import pickle
import sys
from ctypes import (
    POINTER,
    Structure,
    c_char_p,
    c_double,
    c_int,
    c_int64,
    c_size_t,
    c_uint64,
    c_void_p,
)
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Memory:
    """An array's memory, and how it lies there."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements
    item_bytes: int
    nbytes: int  # from the first element's first byte to the last's last
    content: np.ndarray | None  # its bytes; None: poison
    offset: int  # bytes, from an address aligned to 16
    on_device: bool
    returned: bool


class Argument(Structure):
    """emulated::Argument."""

    _fields_ = [
        ("name", c_char_p),
        ("kind", c_int64),
        ("integer", c_int64),
        ("real", c_double),
        ("data", c_void_p),
        ("item_bytes", c_int64),
        ("rank", c_int64),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
    ]


INTEGER, REAL, ARRAY, NONE = range(4)


def load(path: str) -> ctypes.CDLL:
    library = ctypes.CDLL(path)
    library.emulator_begin.argtypes = (c_uint64, c_int, c_int)
    library.emulator_error.restype = c_char_p
    library.emulator_allocate.argtypes = (c_char_p, c_int, c_size_t, c_size_t)
    library.emulator_allocate.restype = c_void_p
    library.emulator_release.argtypes = (c_void_p,)
    library.emulator_poison.argtypes = (c_void_p, c_size_t, c_uint64)
    library.emulator_copy.argtypes = (c_void_p, c_void_p, c_size_t)
    return library


class Call:
    """One run of an op with one seed."""

    def __init__(self, library, request, seed):
        self.library, self.request, self.seed = library, request, seed
        self.pointers = {}

    def place(self, name, memory):
        """Gives a Memory its buffer."""
        pointer = self.library.emulator_allocate(
            name.encode(), memory.on_device, memory.nbytes, memory.offset
        )
        if pointer is None:
            raise MemoryError(f"{name}: {memory.nbytes} bytes")
        self.pointers[name] = pointer
        if memory.content is None:
            self.library.emulator_poison(pointer, memory.nbytes, self.seed)
        else:
            self.library.emulator_copy(pointer, memory.content.ctypes.data, memory.nbytes)
        rank = len(memory.shape)
        sizes = c_int64 * rank
        return Argument(
            kind=ARRAY,
            data=pointer,
            item_bytes=memory.item_bytes,
            rank=rank,
            shape=sizes(*memory.shape),
            strides=sizes(*memory.strides),
        )

    def argument(self, name, value):
        if value is None:
            made = Argument(kind=NONE)
        elif isinstance(value, Memory):
            made = self.place(name, value)
        elif isinstance(value, float | np.floating):
            made = Argument(kind=REAL, real=value)
        else:
            made = Argument(kind=INTEGER, integer=operator.index(value))
        made.name = name.encode()
        return made

    def bytes_of(self, name, memory):
        content = np.empty(memory.nbytes, np.uint8)
        self.library.emulator_copy(content.ctypes.data, self.pointers[name], memory.nbytes)
        return content

    def run(self):
        """The contents of what is returned."""
        arguments = self.request["arguments"]
        try:
            made = [self.argument(name, value) for name, value in arguments.items()]
            self.library.emulator_begin(self.seed, *self.request["device"])
            op = getattr(self.library, f"op_{self.request['op']}")
            if op((Argument * len(made))(*made), c_int64(len(made))) != 0:
                raise RuntimeError(self.library.emulator_error().decode(errors="replace"))
            after = {name: self.bytes_of(name, arguments[name]) for name in self.pointers}
        finally:
            for pointer in self.pointers.values():
                self.library.emulator_release(pointer)
        changed = [
            name
            for name, content in after.items()
            if (memory := arguments[name]).content is not None
            and not memory.returned
            and not np.array_equal(content, memory.content)
        ]
        if changed:
            raise RuntimeError(f"the op changed its input {', '.join(changed)}")
        return {name: content for name, content in after.items() if arguments[name].returned}


def main() -> None:
    """Answers requests until there are no more."""
    library = load(sys.argv[1])
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            request = pickle.load(source)
        except EOFError:
            return
        try:
            answer = [Call(library, request, seed).run() for seed in request["seeds"]]
        except (RuntimeError, AttributeError, MemoryError) as error:
            answer = str(error)
        pickle.dump(answer, sink, protocol=5)
        sink.flush()


if __name__ == "__main__":
    # So that a Memory has one name in both processes.
    sys.modules["worker"] = sys.modules["__main__"]
    main()
