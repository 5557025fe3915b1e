"""CamStack files: safetensors with a JSON description, checked before anything is believed."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from camfuse.stack import CamStack, LayerInfo, Skipped

_KEY = "camfuse"
_FORMAT = 1
_SERIES = "series."


def save_stack(stack: CamStack, path: str | os.PathLike[str]) -> Path:
    """Writes a stack as safetensors, f32; the file appears only once it is whole.

    Tensors: ``maps`` (flat, layer-major), ``ranges`` ``[L, R, T, B, 2]``, ``global_ranges``
    ``[R, T, B, 2]``, ``targets``, ``scores`` and ``probabilities`` ``[T, B]``, ``series.<name>``
    ``[L, R, T, B]``. The metadata key ``camfuse`` holds the rest as JSON.

    Raises:
        OSError: If the file cannot be written.
    """
    path = Path(path)
    header = {
        "format": _FORMAT,
        "layers": [
            {**asdict(layer), "offset": offset}
            for layer, offset in zip(stack.layers, stack.offsets, strict=True)
        ],
        "methods": stack.methods,
        "targets": stack.targets.shape,
        "input_size": stack.input_size,
        "target_names": stack.target_names,
        "model": stack.model,
        "skipped": [asdict(layer) for layer in stack.skipped],
        "warnings": stack.warnings,
    }
    tensors = {
        "maps": stack.flat,
        "ranges": stack.ranges,
        "global_ranges": stack.global_ranges,
        "scores": stack.scores,
        "probabilities": stack.probabilities,
        **{_SERIES + name: values for name, values in stack.series.items()},
    }
    tensors = {name: one.detach().float().cpu().contiguous() for name, one in tensors.items()}
    tensors["targets"] = stack.targets.cpu().contiguous()
    try:
        with written_whole(path) as temporary:
            save_file(tensors, temporary, {_KEY: json.dumps(header)})
    except SafetensorError as error:
        raise OSError(f"{path}: cannot be written: {error}") from error
    return path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``: what is written there takes its place after a clean block.

    Any exception leaves ``path`` as it was.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_stack(path: str | os.PathLike[str]) -> CamStack:
    """Reads a stack that :func:`save_stack` wrote.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no CamStack file, or not a sound one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["format"] != _FORMAT:
            raise ValueError(f"format {header['format']!r} is not known")
        return _stack(header, tensors)
    except (SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: not a sound CamStack file: {_reason(error)}") from error


def _stack(header: dict[str, Any], tensors: dict[str, Tensor]) -> CamStack:
    layers = tuple(_layer(entry) for entry in header["layers"])
    methods = tuple(_text(name) for name in header["methods"])
    t, b = (_count(n) for n in header["targets"])
    axes = (len(methods), t, b)
    series = {
        name.removeprefix(_SERIES): _tensor(tensors, name, (len(layers), *axes))
        for name in tensors
        if name.startswith(_SERIES)
    }
    flat = _tensor(tensors, "maps", (tensors["maps"].numel(),))
    offsets = tuple(_count(entry["offset"]) for entry in header["layers"])
    for layer, offset in zip(layers, offsets, strict=True):
        if offset + math.prod(axes) * math.prod(layer.size) > flat.numel():
            raise ValueError(f"layer {layer.name} reaches beyond the maps")
    h, w = (_count(n) for n in header["input_size"])
    return CamStack(
        layers=layers,
        flat=flat,
        offsets=offsets,
        ranges=_tensor(tensors, "ranges", (len(layers), *axes, 2)),
        global_ranges=_tensor(tensors, "global_ranges", (*axes, 2)),
        methods=methods,
        targets=_tensor(tensors, "targets", (t, b), torch.int64),
        scores=_tensor(tensors, "scores", (t, b)),
        probabilities=_tensor(tensors, "probabilities", (t, b)),
        input_size=(h, w),
        model=_text(header["model"]),
        skipped=tuple(
            Skipped(_text(one["name"]), _text(one["type"]), _text(one["reason"]))
            for one in header["skipped"]
        ),
        warnings=tuple(_text(warning) for warning in header["warnings"]),
        series=series,
        target_names=_target_names(header.get("target_names", []), t, b),
    )


def _layer(entry: dict[str, Any]) -> LayerInfo:
    c, h, w = (_count(n) for n in entry["shape"])
    return LayerInfo(
        name=_text(entry["name"]),
        type=_text(entry["type"]),
        shape=(c, h, w),
        index=_count(entry["index"]),
        alias_of=None if entry["alias_of"] is None else _text(entry["alias_of"]),
        degenerate=tuple(_text(method) for method in entry["degenerate"]),
        shown=bool(entry["shown"]),
    )


def _target_names(rows: Any, targets: int, samples: int) -> tuple[tuple[str, ...], ...]:
    names = tuple(tuple(_text(name) for name in row) for row in rows)
    if names and [len(row) for row in names] != [samples] * targets:
        raise ValueError(f"target_names: expected none or {targets} x {samples}, got {names!r}")
    return names


def _tensor(
    tensors: dict[str, Tensor],
    name: str,
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    tensor = tensors[name]
    if tensor.shape != shape or tensor.dtype != dtype:
        raise ValueError(
            f"{name}: expected {dtype} {shape}, got {tensor.dtype} {tuple(tensor.shape)}"
        )
    return tensor


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"expected a count, got {value!r}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text, got {value!r}")
    return value


def _reason(error: Exception) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
