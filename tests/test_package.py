"""The package as a whole: what importing it costs, and which way its imports point."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import camfuse

PACKAGE = Path(camfuse.__file__).parent

# From the ground up: a module may import from its own layer and from those before it.
LAYERS = (
    {"lazy"},
    {"_C", "checks", "quiet", "amounts", "machine", "notebook", "images"},
    {"reference", "devices"},
    {"ops"},
    {"structures", "axes", "attention_rows"},
    {"layers", "layouts", "preserve", "roots", "inputs", "class_targets", "targets", "stack"},
    {"axis_tracer", "finish"},
    {"known_layouts"},
    {"thinning", "class_names", "saved_layers", "refine"},
    {"model_checks"},
    {"captured", "storage", "reshapes", "capture"},
    {"intercept"},
    {"replay"},
    {"faster"},
    {"perturbation"},
    {"masking", "ablation"},
    {"methods"},
    {"collect"},
    {"memory", "split"},
    {"augmentation"},
    {"explain", "full_grad"},
    {"sess", "factorize", "windows"},
    {"metrics"},
    {"compat"},
    {"encoder", "chapters"},
    {"ffmpeg_probe"},
    {"formats"},
    {"images"},
    {"colormaps", "text", "footer", "canvas", "views", "pinned", "render", "video"},
    {"style"},
    {"stills", "render_video"},
    {"weights", "models"},
    {"question", "result"},
    {"animate"},
    {"animate_images"},
    {"cli"},
)
# What makes pictures knows maps and ops, not how they came to be.
ENCODING = {"encoder", "chapters", "ffmpeg_probe", "formats", "video"}
RENDERING = {
    *ENCODING,
    *("colormaps", "text", "footer", "canvas", "views", "pinned", "render"),
    *("style", "stills", "render_video"),
}
BELOW_RENDERING = {"checks", "devices", "images", "notebook", "ops", "stack", "thinning"}


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
            assert targets <= RENDERING | BELOW_RENDERING, name


def test_importing_loads_no_optional_dependency() -> None:
    optional = ["torchvision", "timm", "skimage", "matplotlib", "typer", "rich", "imageio_ffmpeg"]
    optional += ["torchmetrics", "cv2", "scipy"]
    code = f"import sys; from camfuse import *; print([m for m in {optional} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_starts_without_any_library() -> None:
    libraries = ["torch", "numpy", "PIL", "typer", "rich"]
    code = f"import sys, camfuse.cli; print([m for m in {libraries} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "first",
    [
        "import camfuse",
        "import camfuse.cli.animate",
        "import camfuse.animate, camfuse.render",
        "from camfuse.result import AnimationResult",
        "from camfuse import render, animate; import camfuse.animate, camfuse.render",
        "import camfuse; camfuse.Frames; camfuse.AnimationResult",
    ],
)
def test_functions_win_over_the_modules_of_their_names(first: str) -> None:
    code = f"{first}\nprint(type(camfuse.animate).__name__, type(camfuse.render).__name__)"
    code = f"import camfuse\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["function", "function"]


def test_the_package_tells_its_names_and_no_others() -> None:
    assert {*camfuse.__all__, "__version__"} <= set(dir(camfuse))
    assert camfuse.__version__
    with pytest.raises(AttributeError, match="'camfuse' has no attribute 'nothing'"):
        _ = camfuse.nothing


def test_packages_are_there_without_an_import_of_their_own() -> None:
    code = "import camfuse; print(camfuse.compat.install, camfuse.metrics, camfuse.ops)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "function install" in done.stdout


def test_every_public_name_exists_and_is_documented() -> None:
    for name in camfuse.__all__:
        value = getattr(camfuse, name)
        assert not callable(value) or value.__doc__, name
