"""The package as a whole: what importing it costs, and which way its imports point."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import camfuse

PACKAGE = Path(camfuse.__file__).parent

# From the ground up: a module may import from its own layer and from those before it.
LAYERS = (
    {"_C"},
    {"reference", "ops"},
    {"layers", "layouts", "preserve", "inputs", "targets", "stack", "methods"},
    {"captured", "storage", "capture", "collect"},
    {"explain"},
    {"colormaps", "text", "canvas", "render", "encoder", "video", "images", "weights", "models"},
    {"animate"},
    {"cli"},
)
# What makes pictures knows maps and ops, not how they came to be.
RENDERING = {"colormaps", "text", "canvas", "render", "encoder", "video"}


def imports() -> dict[str, set[str]]:
    """By module of the package (subpackages as one), the modules it imports."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if name == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                parts = node.module.split(".")
                if parts[0] == "camfuse":
                    names = parts[1:2] or [alias.name for alias in node.names]
                    found.setdefault(name, set()).update(names)
        found.setdefault(name, set()).discard(name)
    return found


def test_imports_point_one_way() -> None:
    level = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    for name, targets in imports().items():
        for target in targets:
            assert level[target] <= level[name], f"{name} imports {target}"
        if name in RENDERING:
            assert targets <= RENDERING | {"ops", "stack"}, name


def test_importing_loads_no_optional_dependency() -> None:
    optional = ["torchvision", "timm", "skimage", "matplotlib", "typer", "rich", "imageio_ffmpeg"]
    code = f"import sys, camfuse; print([m for m in {optional} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_exists_and_is_documented() -> None:
    for name in camfuse.__all__:
        value = getattr(camfuse, name)
        assert not callable(value) or value.__doc__, name
