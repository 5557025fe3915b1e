"""How layer_cam's CUDA launcher divides a layer.

`plan_layer_cam` of csrc/cuda/layer_cam.cu, told in Python for the documentation and for the figures
of occupancy; a test compares both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Layout = Literal["nchw", "nhwc"]

TYPES = {"double": 8, "float": 4, "BFloat16": 2, "Half": 2}  # bytes of an element
THREADS = 256
WARPS = THREADS // 32
SMALL_PLANE = 1024
SLAB_BYTES = 64
STAGE_BYTES = 32 << 10
OTHER_BYTES = 2 << 10
USUAL_SHARED = 48 << 10
LARGE_SHARED = 227 << 10  # what a block of an H100 may ask for
ROW_SLAB = 512
TURNS = 4


@dataclass(frozen=True)
class Layer:
    """Activations and gradients `[B, C, h, w]`, aligned and without gaps; C > 1 of "nhwc"."""

    B: int
    C: int
    h: int
    w: int
    type: str = "float"
    layout: Layout = "nchw"

    @property
    def plane(self) -> int:
        """Positions of a channel."""
        return self.h * self.w

    @property
    def elements(self) -> int:
        """Of A, or of G."""
        return self.B * self.C * self.plane

    @property
    def bytes(self) -> int:
        """Of A, or of G."""
        return self.elements * TYPES[self.type]


@dataclass(frozen=True)
class Launch:
    """One kernel: its key in KERNELS, its grid, the bytes of shared memory it asks for."""

    kernel: str
    blocks: int
    shared: int


@dataclass(frozen=True)
class Plan:
    """What is launched, and the numbers that decide it."""

    path: Literal["small", "planes", "rows"]
    wide: bool
    tile: int
    tiles: int
    slab: int
    slabs: int
    staged: int
    rules_at_once: int
    launches: tuple[Launch, ...]


def plan(layer: Layer, rules: int, sums: bool, shared_bytes: int = LARGE_SHARED) -> Plan:
    """The plan for so many rules, some of which need sums over planes or not.

    `shared_bytes` is what a block may ask for on the device: rules take turns where it is little.
    """
    item = TYPES[layer.type]
    acc, pack = max(item, 4), 16 // item
    scratch = WARPS * 2 * acc  # Extremes of each warp
    memory = _up(scratch + 4, acc)  # MapPlanesMemory, MapRowsMemory

    def at_once(each: int, other: int = OTHER_BYTES) -> int:
        room = max(shared_bytes // 2, USUAL_SHARED) - other
        return min(max(room // each, 1), rules)

    slab = SLAB_BYTES // item
    slabs = _divide_up(layer.C, slab)
    if layer.plane <= SMALL_PLANE:
        groups = THREADS // layer.plane if layer.plane < THREADS else 1
        fit = STAGE_BYTES // (2 * layer.plane * item) // pack * pack
        staged = min(max(fit, pack), slab)
        together = at_once(groups * layer.plane * acc, STAGE_BYTES + OTHER_BYTES)
        stage = _up((staged * layer.plane + pack) * item, 16)
        shared = (
            2 * stage
            + _up(together * groups * layer.plane * acc, 16)
            + _up(scratch, 16)
            + _up(4 * staged * acc, 16)
            + 16
        )
        launch = Launch(f"map_small<{layer.type}>", layer.B * slabs, shared)
        return Plan("small", True, layer.plane, 1, slab, slabs, staged, together, (launch,))

    if layer.layout == "nhwc":
        wide = layer.C % pack == 0
        v = pack if wide else 1
        lanes = 1
        while lanes < 32 and lanes < _divide_up(layer.C, v):
            lanes *= 2
        tile = TURNS * THREADS // lanes
        tiles = _divide_up(layer.plane, tile)
        together = at_once(3 * THREADS * acc)
        chunk = 64 // item
        sum_memory = _up(THREADS * 8 + chunk * 8 + 4, acc)  # SumRowsMemory
        sum_blocks = layer.B * _divide_up(layer.C, chunk) * _divide_up(layer.plane, ROW_SLAB)
        launches = (
            Launch(f"sum_rows<{layer.type}, {v}>", sum_blocks, sum_memory),
            Launch(
                f"map_rows<{layer.type}, {v}>",
                layer.B * tiles,
                together * THREADS * 3 * acc + memory,
            ),
        )
        return Plan(
            "rows", wide, tile, tiles, layer.C, 1, 0, together, launches if sums else launches[1:]
        )

    wide = layer.plane % pack == 0
    v = pack if wide else 1
    tile = THREADS * v
    tiles = _divide_up(layer.plane, tile)
    together = at_once(tile * acc)
    launches = (
        Launch(f"sum_planes<{layer.type}, {v}>", layer.B * layer.C, WARPS * 8 + 8),
        Launch(
            f"map_planes<{layer.type}, {v}>",
            layer.B * tiles * slabs,
            together * tile * acc + memory,
        ),
    )
    return Plan(
        "planes", wide, tile, tiles, slab, slabs, 0, together, launches if sums else launches[1:]
    )


def _divide_up(a: int, b: int) -> int:
    return -(-a // b)


def _up(a: int, to: int) -> int:
    return _divide_up(a, to) * to
