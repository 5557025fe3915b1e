"""How many blocks of a kernel a multiprocessor of an architecture holds at once."""

from __future__ import annotations

from dataclasses import dataclass

WARP = 32
REGISTERS = 65536  # of a multiprocessor, on all architectures here
REGISTER_UNIT = 256  # what a warp's registers are rounded up to


@dataclass(frozen=True)
class Multiprocessor:
    """What a multiprocessor holds. Shared memory in bytes.

    From "Technical Specifications per Compute Capability" of NVIDIA's CUDA C++ Programming Guide.
    """

    warps: int
    blocks: int
    shared: int
    reserved: int  # shared memory that the system takes of each block
    shared_unit: int  # what a block's shared memory is rounded up to


MULTIPROCESSORS = {
    75: Multiprocessor(32, 16, 64 << 10, 0, 256),
    80: Multiprocessor(64, 32, 164 << 10, 1 << 10, 128),
    86: Multiprocessor(48, 16, 100 << 10, 1 << 10, 128),
    89: Multiprocessor(48, 24, 100 << 10, 1 << 10, 128),
    90: Multiprocessor(64, 32, 228 << 10, 1 << 10, 128),
    100: Multiprocessor(64, 32, 228 << 10, 1 << 10, 128),
    120: Multiprocessor(48, 24, 100 << 10, 1 << 10, 128),
}


def resident_blocks(architecture: int, registers: int, threads: int, shared: int) -> int:
    """Blocks of `threads` threads that a multiprocessor holds at once.

    Args:
        architecture: 90 of sm_90.
        registers: Of a thread.
        threads: Of a block.
        shared: Bytes of shared memory a block uses, without what the system reserves.
    """
    has = MULTIPROCESSORS[architecture]
    warps = _divide_up(threads, WARP)
    # Each of the four parts of a multiprocessor has registers of its own.
    of_warp = _divide_up(registers * WARP, REGISTER_UNIT) * REGISTER_UNIT
    by_registers = REGISTERS // 4 // of_warp * 4 // warps
    of_block = _divide_up(shared + has.reserved, has.shared_unit) * has.shared_unit
    by_shared = has.shared // of_block if of_block else has.blocks
    return min(has.blocks, has.warps // warps, by_registers, by_shared)


def _divide_up(a: int, b: int) -> int:
    return -(-a // b)
