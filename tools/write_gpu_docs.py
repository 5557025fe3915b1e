"""Writes the tables of docs/gpu.md: ``python tools/write_gpu_docs.py``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from kernel_figures import ARCHITECTURES, KERNELS
from layer_cam_plan import Layer
from occupancy import MULTIPROCESSORS, WARP
from roofline import CARDS, RULES, Card, cost, seconds

PAGE = Path(__file__).parents[1] / "docs" / "gpu.md"

# Name of the network, channels, side.
LAYERS = (
    ("VGG-16", 64, 224),
    ("ResNet-50", 256, 56),
    ("ResNet-50", 512, 28),
    ("ResNet-50", 1024, 14),
    ("ResNet-50", 2048, 7),
)


def page(text: str) -> str:
    """`text` with its tables as they should be."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"docs/gpu.md must hold one place for {name}")
        before, after = pattern.split(text)
        text = before + begin + table() + end + after
    return text


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    titles = list(head)
    lines = [titles, ["---", *("---:" for _ in titles[1:])], *([str(x) for x in r] for r in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _bytes() -> str:
    rows = []
    for layout in ("nchw", "nhwc"):
        for network, C, side in LAYERS:
            layer = Layer(32, C, side, side, "float", layout)
            costs = [cost(layer, rule) for rule in RULES]
            ratios = (f"{one.asked / one.least:.2f}" for one in costs)
            name = f"{network} {side} x {side} x {C}, {layout}"
            rows.append((name, costs[0].path, costs[0].launches, costs[3].launches, *ratios))
    head = ("layer", "path", "kernels", "of layercam", *(rule.name for rule in RULES))
    return _table(head, rows)


def _times(card: Card) -> str:
    rows = []
    for batch in (1, 32):
        for network, C, side in LAYERS:
            layer = Layer(batch, C, side, side)
            cells = []
            for rule in RULES:
                time, bound = seconds(layer, rule, card)
                cells.append(f"{time * 1e6:.1f}{'' if bound == 'memory' else ' *'}")
            megabytes = f"{2 * layer.bytes / 1e6:.1f}"
            rows.append((f"{network} {side} x {side} x {C}, batch {batch}", megabytes, *cells))
    return _table(("layer", "A and G, MB", *(rule.name for rule in RULES)), rows)


def _occupancy() -> str:
    rows = []
    for key, figures in KERNELS.items():
        cells = []
        for architecture in ARCHITECTURES:
            warps = figures.blocks[architecture] * figures.threads // WARP
            cells.append(f"{100 * warps // MULTIPROCESSORS[architecture].warps}")
        ahead = figures.ahead or ""
        rows.append((f"`{key}`", figures.threads, figures.shared, ahead, *cells))
    head = ("kernel", "threads", "shared", "loads ahead", *(f"sm_{a}" for a in ARCHITECTURES))
    return _table(head, rows)


TABLES: dict[str, Callable[[], str]] = {
    "bytes": _bytes,
    **{card.name: partial(_times, card) for card in CARDS},
    "occupancy": _occupancy,
}

if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
