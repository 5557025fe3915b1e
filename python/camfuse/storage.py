"""CamStack files: safetensors with a JSON description, checked before anything is believed."""

from __future__ import annotations

import json
import math
import os
import reprlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from camfuse.stack import CamStack, LayerInfo, Skipped

_KEY = "camfuse"
_FORMAT = 1
_SERIES = "series."
# A description of thousands of layers is shorter; parsing a hostile one takes a multiple in memory.
_LONGEST_HEADER = 4 << 20
_LONGEST_TEXT = 1 << 16


def save_stack(stack: CamStack, path: str | os.PathLike[str]) -> Path:
    """Writes a stack as safetensors, f32; the file appears only once it is whole.

    Tensors: ``maps`` (flat, layer-major), ``ranges`` ``[L, R, T, B, 2]``, ``global_ranges``
    ``[R, T, B, 2]``, ``targets``, ``scores`` and ``probabilities`` ``[T, B]``, ``series.<name>``
    ``[L, R, T, B]``. The metadata key ``camfuse`` holds the rest as JSON.

    Raises:
        OSError: If the file cannot be written.
    """
    path, stack = Path(path), stack.cpu()
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
    tensors = {name: one.float().contiguous() for name, one in tensors.items()}
    tensors["targets"] = stack.targets.contiguous()
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

    The stack holds nothing of the file, which may change afterwards. What is loaded is sound: maps
    lie where they are said to, and every range is that of its maps.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no CamStack file, or not a sound one.
    """
    path = Path(path)
    _check_file(path)
    try:
        return _stack(*_parts(path))
    except OSError:
        raise
    except MemoryError as error:
        raise OSError(f"{path}: cannot be read: out of memory") from error
    except Exception as error:  # a hostile file can provoke nearly all kinds
        raise ValueError(f"{path}: not a sound CamStack file: {_reason(error)}") from error


def _check_file(path: Path) -> None:
    """Opening a pipe could wait for ever, and reading a device never end."""
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise OSError(f"{path}: is no regular file")


def _parts(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the tensors, read rather than mapped: a mapped file can be cut short."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if length > size - 8:
            raise ValueError("its header is cut off")
        if length > _LONGEST_HEADER:
            raise ValueError(f"its header is longer than {_LONGEST_HEADER} bytes")
        start += file.read(length)
        header = json.loads(json.loads(start[8:])["__metadata__"][_KEY])
        if header["format"] != _FORMAT:
            raise ValueError(f"format {_short(header['format'])} is not known")
        return header, load(start + file.read(size - len(start)))


def _stack(header: dict[str, Any], tensors: dict[str, Tensor]) -> CamStack:
    entries = _list(header["layers"])
    layers = tuple(_layer(entry) for entry in entries)
    methods = tuple(_text(name) for name in _list(header["methods"]))
    t, b = (_count(n, at_least=1) for n in _list(header["targets"]))
    axes = (_count(len(methods), at_least=1), t, b)
    input_size = tuple(_count(n) for n in _list(header["input_size"]))
    if not 1 <= len(input_size) <= 3:
        raise ValueError(f"input_size: expected 1 to 3 numbers, got {_short(input_size)}")
    stack = CamStack(
        layers=layers,
        flat=_tensor(tensors, "maps", (tensors["maps"].numel(),)),
        offsets=tuple(_count(entry["offset"]) for entry in entries),
        ranges=_tensor(tensors, "ranges", (len(layers), *axes, 2)),
        global_ranges=_tensor(tensors, "global_ranges", (*axes, 2)),
        methods=methods,
        targets=_tensor(tensors, "targets", (t, b), torch.int64),
        scores=_tensor(tensors, "scores", (t, b)),
        probabilities=_tensor(tensors, "probabilities", (t, b)),
        input_size=input_size,
        model=_text(header["model"]),
        skipped=tuple(
            Skipped(_text(one["name"]), _text(one["type"]), _text(one["reason"]))
            for one in _list(header["skipped"])
        ),
        warnings=tuple(_text(warning) for warning in _list(header["warnings"])),
        series={
            name.removeprefix(_SERIES): _tensor(tensors, name, (len(layers), *axes))
            for name in tensors
            if name.startswith(_SERIES)
        },
        target_names=_target_names(header.get("target_names", []), t, b),
    )
    _check_maps(stack)
    return stack


def _check_maps(stack: CamStack) -> None:
    """Maps lie within the buffer and apart, but for those that are shared, and have their ranges.

    Whoever walks over all maps then does no more work than the file is long, aliases aside.
    """
    extents: dict[tuple[int, ...], Tensor] = {}  # by offset and grid
    room = stack.flat.numel()
    for i, (layer, offset) in enumerate(zip(stack.layers, stack.offsets, strict=True)):
        place = (offset, *layer.size)
        if place not in extents:
            count = math.prod(stack.axes) * math.prod(layer.size)
            if offset + count > stack.flat.numel():
                raise ValueError(f"layer {_short(layer.name)} reaches beyond the maps")
            room -= count
            if room < 0:
                raise ValueError(f"layer {_short(layer.name)} overlaps others")
            extents[place] = torch.stack(stack.maps(i).flatten(3).aminmax(dim=-1), -1)
        if not torch.equal(stack.ranges[i], extents[place]):
            raise ValueError(f"ranges of layer {_short(layer.name)} are not those of its maps")
    low, high = stack.global_ranges.unbind(-1)
    lows, highs = stack.ranges.unbind(-1)
    if not bool((low <= high).all() and (high - low).isfinite().all()):
        raise ValueError("global_ranges are no finite ranges")
    if not bool((low <= lows).all() and (highs <= high).all()):
        raise ValueError("global_ranges are narrower than ranges")


def _layer(entry: dict[str, Any]) -> LayerInfo:
    shape = tuple(_count(n, at_least=1) for n in _list(entry["shape"]))
    if not 2 <= len(shape) <= 4:
        raise ValueError(f"shape: expected 2 to 4 numbers, got {_short(shape)}")
    if not isinstance(entry["shown"], bool):
        raise ValueError(f"shown: expected true or false, got {_short(entry['shown'])}")
    return LayerInfo(
        name=_text(entry["name"]),
        type=_text(entry["type"]),
        shape=shape,
        index=_count(entry["index"]),
        alias_of=None if entry["alias_of"] is None else _text(entry["alias_of"]),
        degenerate=tuple(_text(method) for method in _list(entry["degenerate"])),
        shown=entry["shown"],
    )


def _target_names(rows: Any, targets: int, samples: int) -> tuple[tuple[str, ...], ...]:
    names = tuple(tuple(_text(name) for name in _list(row)) for row in _list(rows))
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


def _count(value: Any, at_least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value < 2**63:
        raise ValueError(f"expected a count of at least {at_least}, got {_short(value)}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise ValueError(f"expected text of up to {_LONGEST_TEXT} characters, got {_short(value)}")
    value.encode()  # half of a surrogate pair is no text
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"expected a list, got {_short(value)}")
    return value


def _short(value: object) -> str:
    return reprlib.repr(value)


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return " ".join(str(error).split())
