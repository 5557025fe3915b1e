"""Which benchmarks there are, in the order of tables; found without importing any."""

from __future__ import annotations

import ast
from pathlib import Path

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"

ON_CPU = (
    "animation",
    "animation_floor",
    "all_layers",
    "memory",
    "memory_prediction",
    "depth",
    "growth",
    "late_layer",
    "faces",
    "layer_cam",
    "render_frames",
    "principal_map",
    "perturbation",
    "impute",
    "ybroad",
)
NAMES = (*ON_CPU, "gpu")


def summary(name: str) -> str:
    """The first line of the benchmark's docstring."""
    source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
