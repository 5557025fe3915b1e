"""The kernels of a compiled CUDA module: their resources and their instructions.

Reads what NVIDIA's cuobjdump and nvdisasm say of a module, an object or a cubin. Both come from
PyPI (`nvidia-cuda-cuobjdump`, `nvidia-cuda-nvdisasm`); no GPU is needed.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

SYSTEM_SHARED = 1 << 10


class Instruction(NamedTuple):
    """One SASS instruction. `predicate` is empty where it always runs."""

    address: int
    predicate: str
    opcode: str  # with its modifiers: LDG.E.128.CONSTANT
    operands: str  # with commas between

    @property
    def base(self) -> str:
        """LDG of LDG.E.128.CONSTANT."""
        return self.opcode.partition(".")[0]

    @property
    def modifiers(self) -> list[str]:
        """E, 128 and CONSTANT of LDG.E.128.CONSTANT."""
        return self.opcode.split(".")[1:]


@dataclass(frozen=True)
class Kernel:
    """A kernel of one architecture. Bytes of shared memory are a block's, others a thread's."""

    architecture: int  # 90 of sm_90
    name: str  # of the template
    arguments: tuple[str, ...]  # of the template
    registers: int
    stack: int
    local: int
    shared: int  # declared in the code; what a launch asks for comes on top
    instructions: tuple[Instruction, ...]

    def __str__(self) -> str:
        arguments = f"<{', '.join(self.arguments)}>" if self.arguments else ""
        return f"{self.name}{arguments} of sm_{self.architecture}"


class ToolError(Exception):
    """A tool of NVIDIA's is missing, or failed."""


def find_tool(name: str) -> Path:
    """Cuobjdump or nvdisasm: from PyPI, or else of a toolkit on PATH."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in Path(folder).glob(f"*/bin/{name}"):
            return path
    if (found := shutil.which(name)) is not None:
        return Path(found)
    raise ToolError(f"{name} is not here: pip install nvidia-cuda-{name}")


def read_kernels(binary: Path) -> Iterator[Kernel]:
    """All kernels of all architectures that `binary` holds machine code for, one by one."""
    cuobjdump, nvdisasm = find_tool("cuobjdump"), find_tool("nvdisasm")

    def dump(cubin: Path) -> tuple[dict[str, dict[str, int]], str]:
        resources = _resources(_run(cuobjdump, "--dump-resource-usage", cubin))
        return resources, _run(nvdisasm, "--emit-json", cubin) if resources else ""

    with tempfile.TemporaryDirectory() as folder:
        cubins = [binary]
        if binary.suffix != ".cubin":
            _run(cuobjdump, "--extract-elf", "all", binary.resolve(), cwd=folder)
            cubins = sorted(Path(folder).glob("*.cubin"))
        # The tools take most of the time: they read the next cubins while this process reads one.
        with ThreadPoolExecutor(2) as pool:
            for resources, disassembly in pool.map(dump, cubins):
                if resources:
                    yield from _kernels(resources, json.loads(disassembly))


def _run(*command: object, cwd: str | None = None) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=cwd)
    if done.returncode != 0:
        raise ToolError(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")
    return done.stdout


def _resources(text: str) -> dict[str, dict[str, int]]:
    """By mangled name: REG, STACK, SHARED, LOCAL."""
    found = re.findall(r"^ Function ([\w$.]+):\n\s+(REG:.*)$", text, re.MULTILINE)
    return {
        name: {key: int(value) for key, value in re.findall(r"\b([A-Z]+):(\d+)", usage)}
        for name, usage in found
    }


def _kernels(resources: dict[str, dict[str, int]], disassembly: Any) -> Iterator[Kernel]:
    header, functions = disassembly
    version = header["SM"]["version"]
    architecture = 10 * version["major"] + version["minor"]
    # From sm_90 on, what the system takes of a block that uses shared memory is in the report.
    reserved = SYSTEM_SHARED if architecture >= 90 else 0
    for function in functions:
        usage = resources[function["function-name"]]
        name, arguments = _template(demangle(function["function-name"]))
        yield Kernel(
            architecture=architecture,
            name=name,
            arguments=arguments,
            registers=usage["REG"],
            stack=usage["STACK"],
            local=usage["LOCAL"],
            shared=max(0, usage["SHARED"] - reserved),
            instructions=tuple(_instructions(function)),
        )


def _instructions(function: Any) -> Iterator[Instruction]:
    lines = function["sass-instructions"]
    bytes_each = function["length"] // len(lines)
    for i, line in enumerate(lines):
        yield Instruction(
            function["start"] + i * bytes_each,
            line.get("predicate", ""),
            sys.intern(line["opcode"]),
            line.get("operands", ""),
        )


def demangle(name: str) -> str:
    """As the C++ runtime library that torch brings along does it."""
    runtime = ctypes.CDLL("libstdc++.so.6")
    runtime.__cxa_demangle.restype = ctypes.c_void_p
    status = ctypes.c_int()
    text = runtime.__cxa_demangle(name.encode(), None, None, ctypes.byref(status))
    if status.value != 0:  # a C name
        return name
    try:
        return ctypes.string_at(text).decode()
    finally:
        ctypes.CDLL(None).free(ctypes.c_void_p(text))


def _template(signature: str) -> tuple[str, tuple[str, ...]]:
    """The name and the template arguments of a function, without namespaces."""
    plain = re.sub(r"(\w+|\(anonymous namespace\))::", "", signature)
    match = re.match(r"(?:\w+ )?(\w+)(?:<(.*?)>)?\(", plain)
    if match is None:
        return plain, ()
    return match[1], tuple(match[2].split(", ")) if match[2] else ()
