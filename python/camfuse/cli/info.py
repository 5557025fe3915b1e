"""``camfuse info``: what is installed, and what this machine offers."""

from __future__ import annotations

import json
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from camfuse.cli import import_all, options

_OLDEST_CAPABILITY = (7, 5)  # csrc/cuda/supported.h
_LIBRARIES = ("torchvision", "timm", "efficientnet-lite-pytorch", "scikit-image")


def info(as_json: options.Json = False, debug: options.Debug = False) -> None:
    """Show versions, the native build, devices, ffmpeg and the CAM methods."""
    report = _report()
    if as_json:
        print(json.dumps(report))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False)
    for key, value in report.items():
        table.add_row(Text(key, style="bold"), Text(_in_words(value)))
    Console().print(table)


def _report() -> dict[str, Any]:
    import_all()
    import torch

    from camfuse import _C
    from camfuse.methods import METHODS

    build = _C.build_info()
    cuda = [_cuda_device(i) for i in range(torch.cuda.device_count())]
    return {
        "version": version("camfuse"),
        "instruction_set": build["isa"],
        "build": build,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "devices": ["cpu", *cuda],
        "ffmpeg": _ffmpeg(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "methods": [name for name, one in METHODS.items() if not one.whole],
        "other_methods": {name: one.whole for name, one in METHODS.items() if one.whole},
    }


def _cuda_device(index: int) -> str:
    """A device, and whether the build holds kernels for it."""
    import torch

    from camfuse.devices import runs_on

    name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    if not runs_on("layer_cam", torch.device("cuda", index)):
        said = "no kernels: built without CUDA"
    elif capability < _OLDEST_CAPABILITY:
        said = "no kernels: too old"
    else:
        said = "kernels built"
    return f"cuda:{index} ({name}, compute capability {capability[0]}.{capability[1]}, {said})"


def _ffmpeg() -> dict[str, Any] | None:
    from camfuse.formats import codecs_of
    from camfuse.video import VideoError, find_ffmpeg

    try:
        path, codecs = find_ffmpeg(), codecs_of()
    except VideoError:
        return None
    said = subprocess.run(
        [path, "-hide_banner", "-version"], capture_output=True, text=True, check=False
    ).stdout.split()
    return {"path": path, "version": said[2] if len(said) > 2 else "unknown", "codecs": codecs}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _in_one_line(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} ({one})" for key, one in value.items())
    return _in_words(value)


def _in_words(value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_in_one_line(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None or value == "" else str(value)
