"""What every compiled kernel must hold, read from its resources and its instructions.

A *streaming loop* is an outermost loop without a block barrier that itself loads 16 bytes at a time
from global memory: where activations and gradients come in. Loops over rules may lie within one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cuda_binary import Instruction, Kernel
from kernel_figures import Figures
from occupancy import resident_blocks
from sass import Flow, Loop, is_f64, is_input_load, is_local, is_wide

Code = Sequence[Instruction]


@dataclass(frozen=True)
class Facts:
    """What the gates ask of a kernel; its instructions are left behind."""

    kernel: str  # "map_rows<float, 4> of sm_90"
    key: str  # "map_rows<float, 4>", as KERNELS has it
    architecture: int
    registers: int
    stack: int
    local: int
    shared: int
    local_instructions: int
    f64_in_loops: int  # in innermost and in streaming loops
    f64_beside_loads: int  # in those of them that load from global memory
    streaming_loops: int
    narrow_beside_wide: int  # narrow loads of main streaming loops, not of loops within
    narrow_alone: int  # narrow loads of other loops without a barrier
    ahead: int  # 16-byte loads in flight at once, in the best streaming loop


def facts_of(kernel: Kernel) -> Facts:
    """Reads a kernel's loops."""
    code = kernel.instructions
    outermost = Flow(code).loops
    streaming = [loop for loop in outermost for loop in _streaming(code, loop)]
    covered = {i for loop in streaming for i in loop.body}
    judged = covered.union(*(loop.body for top in outermost for loop in top if not loop.inner))
    alone = {
        i for top in outermost for loop in top if not _has_barrier(code, loop) for i in loop.body
    } - covered

    ahead = {loop: _ahead(code, loop) for loop in streaming}
    most = max(ahead.values(), default=0)
    # Loops for what remains have less in flight; weights may be loaded in them, rule by rule.
    main = [loop for loop in streaming if ahead[loop] == most]

    def narrow(indices: Iterable[int]) -> int:
        return sum(is_input_load(code[i]) and not is_wide(code[i]) for i in indices)

    return Facts(
        kernel=str(kernel),
        key=str(kernel).partition(" of ")[0],
        architecture=kernel.architecture,
        registers=kernel.registers,
        stack=kernel.stack,
        local=kernel.local,
        shared=kernel.shared,
        local_instructions=sum(map(is_local, code)),
        f64_in_loops=sum(is_f64(code[i]) for i in judged),
        f64_beside_loads=sum(is_f64(code[i]) for i in judged & _loading(code, outermost)),
        streaming_loops=len(streaming),
        narrow_beside_wide=sum(narrow(loop.own) for loop in main),
        narrow_alone=narrow(alone),
        ahead=most,
    )


def _loading(code: Code, outermost: Iterable[Loop]) -> set[int]:
    """The instructions of innermost loops that load inputs."""
    innermost = (loop for top in outermost for loop in top if not loop.inner)
    return {
        i for loop in innermost if any(is_input_load(code[j]) for j in loop.body) for i in loop.body
    }


def _has_barrier(code: Code, loop: Loop) -> bool:
    return any(code[i].base == "BAR" for i in loop.body)


def _streaming(code: Code, loop: Loop) -> Iterator[Loop]:
    """The outermost streaming loops of `loop`, which may be one itself."""
    streams = any(is_input_load(code[i]) and is_wide(code[i]) for i in loop.own)
    if streams and not _has_barrier(code, loop):
        yield loop
        return
    for inner in loop.inner:
        yield from _streaming(code, inner)


def _ahead(code: Code, loop: Loop) -> int:
    """How many wide loads are issued before the first register they fill is used."""
    most = count = 0
    waited_for: set[int] = set()
    for i in sorted(loop.own):
        instruction = code[i]
        registers = [int(number) for number in re.findall(r"\bR(\d+)", instruction.operands)]
        if is_input_load(instruction) and is_wide(instruction):
            target, registers = registers[0], registers[1:]
        if waited_for.intersection(registers):
            waited_for, count = set(), 0
        if is_input_load(instruction) and is_wide(instruction):
            waited_for.update(range(target, target + 4))
            count += 1
            most = max(most, count)
    return most


def blocks_of(facts: Facts, figures: Figures) -> int:
    """Blocks that a multiprocessor holds at once, at typical use."""
    shared = facts.shared + figures.shared
    return resident_blocks(facts.architecture, facts.registers, figures.threads, shared)


# The gates: each takes what is true of a kernel, and what is stated of it, and says what is wrong.


def spills(facts: Facts, _: Figures) -> Iterator[str]:
    """Nothing lies in local memory."""
    if facts.stack or facts.local or facts.local_instructions:
        yield (
            f"{facts.kernel} uses {facts.stack} bytes of stack, {facts.local} of local memory, in "
            f"{facts.local_instructions} instructions: it spills, or indexes an array by a variable"
        )


def f64_per_element(facts: Facts, figures: Figures) -> Iterator[str]:
    """Inputs of 32 and 16 bits cost no f64 per element; totals of a plane may."""
    found = facts.f64_beside_loads if figures.solves else facts.f64_in_loops
    if found and "double" not in facts.key and not (figures.once_a_call or figures.refines):
        yield f"{facts.kernel} has {found} f64 instructions in its innermost loops"


def narrow_loads(facts: Facts, figures: Figures) -> Iterator[str]:
    """Where the layout allows it, inputs come 16 bytes at a time, several loads in flight."""
    if not figures.ahead:
        return
    if not facts.streaming_loops:
        yield f"{facts.kernel} has no loop with loads of 16 bytes"
    if facts.narrow_beside_wide:
        yield f"{facts.kernel} has {facts.narrow_beside_wide} narrow loads beside those of 16 bytes"
    if facts.narrow_alone and not figures.other_layouts:
        yield f"{facts.kernel} has {facts.narrow_alone} narrow loads in loops without wide ones"
    if facts.ahead < figures.ahead:
        yield f"{facts.kernel} has {facts.ahead} wide loads in flight, not {figures.ahead}"


def low_occupancy(facts: Facts, figures: Figures) -> Iterator[str]:
    """As many blocks fit as stated."""
    stated, found = figures.blocks[facts.architecture], blocks_of(facts, figures)
    if found < stated:
        yield (
            f"{facts.kernel}: {found} blocks fit a multiprocessor, not {stated}, with "
            f"{facts.registers} registers and {facts.shared + figures.shared} shared bytes"
        )


GATES = (spills, f64_per_element, narrow_loads, low_occupancy)
