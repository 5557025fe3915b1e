"""What layer_cam must take on a GPU at least, computed from bytes and operations. Not measured."""

from __future__ import annotations

from dataclasses import dataclass

from layer_cam_plan import LARGE_SHARED, TYPES, Layer, plan

# A launch, or a fill, takes about so long on its own, however little it does.
LAUNCH_SECONDS = (2e-6, 5e-6)


@dataclass(frozen=True)
class Card:
    """Peak rates, from the vendor's data sheet. Bytes and operations a second; sizes in bytes."""

    name: str
    memory: float
    f32: float  # two for a fused multiply-add
    l2: int
    shared: int  # that a block may ask for


CARDS = (
    Card("H100 SXM", 3.35e12, 67e12, 50 << 20, 227 << 10),
    Card("RTX 4090", 1.008e12, 82.6e12, 72 << 20, 99 << 10),
)

# f32 instructions for each element, counted in csrc/cuda/sums.cuh and layer_cam_terms.cuh, a
# division as 8: a compensated addition is 7, one of a product 10.
_SUM, _SUM_OF_PRODUCTS, _ALPHA = 7, 10, 58


# Times that all of A, and all of G, are read.
Reads = tuple[int, int]


@dataclass(frozen=True)
class Rule:
    """What a rule, or several, ask for."""

    name: str
    rules: int
    sum_reads: dict[str, Reads]  # for sums over planes, by path
    map_reads: Reads
    instructions: int  # for each element

    @property
    def sums(self) -> bool:
        """Whether the maps need sums over planes first."""
        return any(sum(reads) for reads in self.sum_reads.values())


def _both(reads: Reads) -> dict[str, Reads]:
    return {"planes": reads, "rows": reads}


RULES = (
    Rule("gradcam", 1, _both((0, 1)), (1, 0), _SUM + 1),
    Rule("gradcam++", 1, _both((1, 1)), (1, 0), _SUM + _ALPHA + 1),
    Rule("xgradcam", 1, _both((1, 1)), (1, 0), _SUM + _SUM_OF_PRODUCTS + 1),
    Rule("layercam", 1, _both((0, 0)), (1, 1), 2),
    # G once more for gradcam++, which needs A's sums first: a plane is still near then.
    Rule(
        "all six",
        6,
        {"planes": (1, 1), "rows": (1, 2)},
        (1, 1),
        2 * _SUM + _SUM_OF_PRODUCTS + _ALPHA + 9,
    ),
)


@dataclass(frozen=True)
class Cost:
    """Of one call."""

    path: str
    launches: int  # kernels; one fill of the counters comes first
    least: int  # bytes: A and G once, the maps once
    asked: int  # bytes that the kernels read and write


def cost(layer: Layer, rule: Rule, shared_bytes: int = LARGE_SHARED) -> Cost:
    """Bytes and launches for a layer."""
    divided = plan(layer, rule.rules, rule.sums, shared_bytes)
    acc = max(TYPES[layer.type], 4)
    maps = rule.rules * layer.B * layer.plane * acc
    turns = -(-rule.rules // divided.rules_at_once)
    if divided.path == "small":
        reads = 2 * turns
    else:
        reads = sum(rule.sum_reads[divided.path]) + turns * sum(rule.map_reads)
    # Maps of a slab of channels, written and read once.
    parts = 2 * maps * divided.slabs if divided.slabs > 1 else 0
    return Cost(
        path=divided.path,
        launches=len(divided.launches),
        least=2 * layer.bytes + maps,
        asked=reads * layer.bytes + parts + maps,
    )


def seconds(layer: Layer, rule: Rule, card: Card) -> tuple[float, str]:
    """At the card's peak rates, and which of them bounds it: "memory" or "arithmetic".

    What is read again comes from the L2 cache where A and G fit in it, and counts nothing then.
    """
    spent = cost(layer, rule, card.shared)
    cached = 2 * layer.bytes <= card.l2
    memory = (spent.least if cached else spent.asked) / card.memory
    arithmetic = layer.elements * rule.instructions / (card.f32 / 2)
    return max((memory, "memory"), (arithmetic, "arithmetic"))
