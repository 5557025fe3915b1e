"""Whatever a CamStack file holds: it is refused with one line, or all of it can be used."""

from __future__ import annotations

import copy
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import camfuse
from camfuse.render import render
from small_models import SkipOverIdentity

Header = dict[str, Any]


@cache
def sound() -> tuple[Header, Header, bytes]:
    """A sound file: the header of the tensors, the description in it, and the tensors' bytes."""
    torch.manual_seed(0)
    stack = camfuse.layer_cams(
        SkipOverIdentity().eval(),
        torch.randn(2, 3, 5, 6),
        method=["gradcam", "layercam"],
        layers="all",
        target=camfuse.Each([None, 2]),
    )
    assert any(layer.alias_of for layer in stack.layers)
    assert stack.skipped
    stack = replace(stack, series={"ybroad": stack.ranges[..., 0]}, warnings=("careful",))
    with tempfile.TemporaryDirectory() as folder:
        data = camfuse.save_stack(stack, Path(folder, "maps")).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    outer = json.loads(data[8 : 8 + length])
    return outer, json.loads(outer["__metadata__"]["camfuse"]), data[8 + length :]


def file_of(outer: Header, inner: object, body: bytes) -> bytes:
    text = inner if isinstance(inner, str) else json.dumps(inner)
    outer = {**outer, "__metadata__": {"camfuse": text}}
    return with_header(json.dumps(outer).encode(), body)


def with_header(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def whole() -> bytes:
    return file_of(*sound())


def use(stack: camfuse.CamStack) -> None:
    """Everything a stack is for."""
    photograph = Image.new("RGB", (16, 16))
    for i in range(len(stack)):
        for mode in ("layer", "global"):
            for relu in (True, False):
                shown = stack.normalized(i, mode, relu=relu, size=(7, 9))
                assert bool(((shown >= 0) & (shown <= 1)).all())
    for method in stack.methods:
        for pixel_format in ("rgb24", "i420"):
            last = [n - 1 for n in stack.axes]
            chosen = stack.select(method=method, target=last[1], sample=last[2]).shown()
            list(render(chosen, photograph, size=16, pixel_format=pixel_format))
    repr(stack)


def refusal(path: Path) -> str | None:
    """Why the file is refused; None if it is loaded, and then every part of it is used."""
    try:
        stack = camfuse.load_stack(path)
    except ValueError as error:
        message = str(error)
        assert message.startswith(f"{path}: not a sound CamStack file: ")
        assert "\n" not in message
        assert len(message) < 400 + len(str(path))
        message.encode()
        return message
    use(stack)
    return None


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "maps.safetensors"


def test_the_file_that_is_damaged_here_is_sound(path: Path) -> None:
    path.write_bytes(whole())
    assert refusal(path) is None


# Bytes


def test_every_truncation_is_refused(path: Path) -> None:
    data = whole()
    lengths = {*range(64), *range(64, len(data), 61), *range(len(data) - 64, len(data))}
    for length in sorted(lengths):
        path.write_bytes(data[:length])
        assert refusal(path), length
    path.write_bytes(data + b"\0")
    assert refusal(path)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=4
    )
)
def test_flipped_bits(path: Path, flips: list[tuple[float, int]]) -> None:
    data = bytearray(whole())
    for where, bit in flips:
        data[int(where * len(data))] ^= 1 << bit
    path.write_bytes(data)
    refusal(path)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 2**64 - 1) | st.none())
def test_noise(path: Path, noise: bytes, length: int | None) -> None:
    path.write_bytes(with_header(noise) if length is None else struct.pack("<Q", length) + noise)
    assert refusal(path)


# Descriptions

HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from(
        [-1, 2**31, 2**62, 2**63, 2**64, 10**400, 0.5, 1e300, float("nan"), float("inf"), 1.0]
    ),
    st.sampled_from(["", "conv", "\ud800", "\0", "a\nb", "x" * 70_000, "first", "猫"]),
    st.lists(st.integers(-1, 9), max_size=5),
    st.dictionaries(st.sampled_from(["name", "shape"]), st.integers(0, 3), max_size=2),
)


def places(value: object, here: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Paths to every value within a JSON value."""
    keys = value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0)
    for key in keys:
        yield (*here, key)
        yield from places(value[key], (*here, key))


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_hostile_values_in_descriptions(path: Path, data: st.DataObject) -> None:
    outer, inner, body = copy.deepcopy(sound())
    for _ in range(data.draw(st.integers(1, 3))):
        *way, key = data.draw(st.sampled_from(list(places(inner))))
        parent: Any = inner
        for step in way:
            parent = parent[step]
        change = data.draw(st.sampled_from(["replace", "remove", "repeat"]))
        if change == "replace":
            parent[key] = data.draw(HOSTILE)
        elif change == "remove":
            del parent[key]
        elif isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
    path.write_bytes(file_of(outer, inner, body))
    refusal(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_hostile_values_in_the_header_of_tensors(path: Path, data: st.DataObject) -> None:
    outer, inner, body = copy.deepcopy(sound())
    name = data.draw(st.sampled_from([key for key in outer if key != "__metadata__"]))
    entry = outer[name]
    match data.draw(st.sampled_from(["dtype", "shape", "data_offsets", "rename", "swap"])):
        case "dtype":
            names = ["F64", "F16", "I32", "U8", "BOOL", "C64", "F8_E5M2", "F4", "X", 7]
            entry["dtype"] = data.draw(st.sampled_from(names))
        case "rename":
            outer[data.draw(st.sampled_from(["maps", "series.", "else", ""]))] = outer.pop(name)
        case "swap":
            other = data.draw(st.sampled_from([key for key in outer if key != "__metadata__"]))
            outer[name], outer[other] = outer[other], outer[name]
        case key:
            i = data.draw(st.integers(0, len(entry[key]) - 1))
            entry[key][i] = data.draw(st.sampled_from([0, 1, -1, 2**31, 2**62, 2**63, 0.5, None]))
    path.write_bytes(file_of(outer, inner, body))
    refusal(path)


def change_inner(change: Callable[[Header], object]) -> Callable[[], bytes]:
    def data() -> bytes:
        outer, inner, body = copy.deepcopy(sound())
        change(inner)
        return file_of(outer, inner, body)

    return data


def change_tensor(name: str, change: Callable[[torch.Tensor], object]) -> Callable[[], bytes]:
    def data() -> bytes:
        outer, inner, body = copy.deepcopy(sound())
        begin, end = outer[name]["data_offsets"]
        values = torch.frombuffer(bytearray(body[begin:end]), dtype=torch.float32)
        change(values.view(outer[name]["shape"]))
        return file_of(outer, inner, body[:begin] + values.numpy().tobytes() + body[end:])

    return data


def change_outer(change: Callable[[Header], object]) -> Callable[[], bytes]:
    def data() -> bytes:
        outer, inner, body = copy.deepcopy(sound())
        change(outer)
        return file_of(outer, inner, body)

    return data


def deep(levels: int) -> bytes:
    return file_of({}, "[" * levels + "]" * levels, b"")


def zeros(size: int, layers: Sequence[tuple[int, int, int]]) -> bytes:
    """A file of `size` zeros with layers at (offset, h, w)."""
    _, inner, _ = copy.deepcopy(sound())
    inner.update(methods=["gradcam"], targets=[1, 1])
    inner["layers"] = [
        {**inner["layers"][0], "name": f"layer {i}", "shape": [4, h, w], "offset": offset}
        for i, (offset, h, w) in enumerate(layers)
    ]
    shapes = {"maps": [size], "ranges": [len(layers), 1, 1, 1, 2], "global_ranges": [1, 1, 1, 2]}
    shapes |= {"targets": [1, 1], "scores": [1, 1], "probabilities": [1, 1]}
    outer, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + (8 if name == "targets" else 4) * torch.Size(shape).numel()
        dtype = "I64" if name == "targets" else "F32"
        outer[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    return file_of(outer, inner, b"\0" * end)


REFUSED = {
    "nothing": (lambda: b"", "header is cut off"),
    "seven bytes": (lambda: b"\0" * 7, "header is cut off"),
    "no JSON": (lambda: with_header(b"hello"), "Expecting value"),
    "no object": (lambda: with_header(b"[]"), "list indices"),
    "no UTF-8": (lambda: with_header(b'{"\xff": 1}'), "utf-8"),
    "no description": (lambda: with_header(b'{"__metadata__": {}}'), "camfuse is missing"),
    "a picture": (lambda: b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "header is cut off"),
    "header beyond the file": (lambda: struct.pack("<Q", 10**6) + b"{}", "header is cut off"),
    "header of 8 EB": (lambda: struct.pack("<Q", 2**63) + b"{}", "header is cut off"),
    "header of 16 EB": (lambda: struct.pack("<Q", 2**64 - 1) + b"{}", "header is cut off"),
    "long header": (lambda: with_header(b" " * (5 << 20)), "header is longer than 4194304 bytes"),
    "deep header": (lambda: with_header(b"[" * 10**6), "recursion"),
    "deep description": (lambda: deep(10**6), "recursion"),
    "long number": (lambda: file_of({}, "9" * 10**5, b""), "integer string conversion"),
    "far number": (lambda: file_of({}, '{"format": 1e999}', b""), "format inf is not known"),
    "reversed offsets": (
        change_outer(lambda o: o["maps"]["data_offsets"].reverse()),
        "[Ii]nvalid|offset",
    ),
    "shared bytes": (
        change_outer(lambda o: o["scores"].update(o["probabilities"])),
        "[Ii]nvalid|offset|header",
    ),
    "huge shape": (change_outer(lambda o: o["maps"].update(shape=[2**62])), "[Ii]nvalid|overflow"),
    "overflowing shape": (
        change_outer(lambda o: o["maps"].update(shape=[2**62, 4])),
        "[Ii]nvalid|overflow",
    ),
    "beyond the maps": (
        change_inner(lambda h: h["layers"][-1].update(offset=h["layers"][-1]["offset"] + 1)),
        r"layer '\w*' reaches beyond the maps",
    ),
    "offset of 2**62": (change_inner(lambda h: h["layers"][0].update(offset=2**62)), "beyond"),
    "overlapping layers": (
        lambda: zeros(300, [(0, 15, 20), (1, 1, 299)]),
        "layer 'layer 1' overlaps others",
    ),
    "layer without extent": (
        change_inner(lambda h: h["layers"][0].update(shape=[4, 0, 6])),
        "count of at least 1, got 0",
    ),
    "methods in a text": (change_inner(lambda h: h.update(methods="ab")), "a list, got 'ab'"),
    "no methods": (change_inner(lambda h: h.update(methods=[])), "count of at least 1, got 0"),
    "shown by a word": (
        change_inner(lambda h: h["layers"][0].update(shown="no")),
        "shown: expected true or false, got 'no'",
    ),
    "half a character": (change_inner(lambda h: h.update(model="\ud800")), "surrogates"),
    "ranges of other maps": (
        change_tensor("ranges", lambda ranges: ranges[1, 0, 0, 0, 1].mul_(1.5)),
        "ranges of layer 'through' are not those of its maps",
    ),
    "maps of other ranges": (
        change_tensor("maps", lambda maps: maps[7].fill_(1e9)),
        "ranges of layer 'first' are not those of its maps",
    ),
    "not a number": (change_tensor("maps", lambda maps: maps[0].fill_(torch.nan)), "of its maps"),
    "narrow global range": (
        change_tensor("global_ranges", lambda ranges: ranges[0, 0, 0, 1].mul_(0.9)),
        "global_ranges are narrower than ranges",
    ),
    "endless global range": (
        change_tensor("global_ranges", lambda ranges: ranges[0, 0, 0, 1].fill_(torch.inf)),
        "global_ranges are no finite ranges",
    ),
    "too wide global range": (
        change_tensor("global_ranges", lambda r: r[0, 0, 0].copy_(torch.tensor([-3e38, 3e38]))),
        "global_ranges are no finite ranges",
    ),
    "series of another shape": (
        change_outer(
            lambda o: o["series.ybroad"].update(shape=[o["series.ybroad"]["shape"][0], 8])
        ),
        r"series\.ybroad: expected torch\.float32 \(3, 2, 2, 2\), got",
    ),
    "targets of fractions": (
        change_outer(lambda o: o["targets"].update(dtype="F64")),
        r"targets: expected torch\.int64 \(2, 2\), got torch\.float64",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsound_files_are_refused_with_one_line(path: Path, name: str) -> None:
    data, reason = REFUSED[name]
    path.write_bytes(data())
    with pytest.raises(ValueError, match=reason):
        camfuse.load_stack(path)
    assert refusal(path)


HARMLESS = {
    "a repeated name": change_inner(lambda h: h["layers"][2].update(name="first")),
    "an alias of nothing": change_inner(lambda h: h["layers"][1].update(alias_of="gone")),
    "an unknown key": change_inner(lambda h: h.update(future=[1, 2])),
    "a wider global range": change_tensor("global_ranges", lambda ranges: ranges.mul_(2)),
    "a key that comes twice": lambda: file_of(
        sound()[0], '{"model": 7, ' + json.dumps(sound()[1])[1:], sound()[2]
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_oddities_that_do_no_harm_are_loaded(path: Path, name: str) -> None:
    path.write_bytes(HARMLESS[name]())
    assert refusal(path) is None


# Files


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda path: path.mkdir(), IsADirectoryError, "is a folder"),
        (lambda path: os.mkfifo(path), OSError, "is no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), OSError, "is no regular file"),
        (lambda path: path.symlink_to(path), OSError, "Too many levels|no such file"),
        (lambda path: None, FileNotFoundError, "no such file"),
    ],
)
def test_what_is_no_file_is_not_opened(
    tmp_path: Path, make: Callable[[Path], object], kind: type[OSError], message: str
) -> None:
    path = tmp_path / "maps"
    make(path)
    errors: list[BaseException] = []

    def load() -> None:
        try:
            camfuse.load_stack(path)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "waits for ever"
    with pytest.raises(kind, match=f"{path}.*({message})|({message}).*{path}"):
        raise errors[0]


def test_a_stack_outlives_its_file(path: Path) -> None:
    path.write_bytes(whole())
    stack = camfuse.load_stack(path)
    before = stack.flat.clone()
    os.truncate(path, 0)  # a mapped file would now kill whoever reads it
    assert torch.equal(stack.flat, before)


MEASURE = """
import gc, json, sys
import camfuse

def memory(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key)) << 10

def peak(path):
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = memory("VmRSS")
    try:
        camfuse.load_stack(path)
        reason = None
    except ValueError as error:
        reason = str(error)
    return memory("VmHWM") - before, reason

peak(sys.argv[1])
print(json.dumps([peak(path) for path in sys.argv[1:]]))
"""


def test_memory_stays_within_a_few_times_the_file(tmp_path: Path) -> None:
    files = {
        "sound": whole(),
        "large": zeros(1 << 24, [(0, 1 << 12, 1 << 12)]),
        "shared": zeros(1 << 20, [(0, 1 << 10, 1 << 10)] * 9000),
        "empty lists": file_of({}, "[" + "[]," * 1_390_000 + "[]]", b""),
        "deep": deep(10**6),
        "huge": change_outer(lambda o: o["maps"].update(shape=[2**40]))(),
    }
    paths = {name: tmp_path / name.replace(" ", "-") for name in files}
    for name, data in files.items():
        paths[name].write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, paths.values())],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for (name, data), (peak, reason) in zip(files.items(), json.loads(done.stdout), strict=True):
        assert (reason is None) == (name in ("sound", "large", "shared")), reason
        # A description of up to 4 MiB is parsed whole, and an empty list takes 20 times its text.
        assert peak < 4 * len(data) + (120 << 20), name
