"""The emulated ``render_frames`` against the op on the CPU, whose frames it must equal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch

from emulation import LARGE, Device, Emulator, In, InOut, Out, Work
from test_render_frames import Scene, make_scene

FORMATS = ("rgb24", "i420", "nv12")
KINDS = ("source", "layer", "global")
# Few threads fill it, so that each paints many rows: 16 of them on 20 frames of 52 x 104.
TINY = Device(1, 48 << 10)
TALL = ((13, 17), (1, 1), (7, 9), (1, 7), (40, 30)) * 4
# Elements that an array lies past an address aligned to 16 bytes.
Offsets = dict[str, int]
MISALIGNED: Offsets = {"out": 1, "overlay": 3, "source": 1, "colours": 5, "maps": 1}


def render(
    run: Emulator,
    scene: Scene,
    *,
    device: Device = LARGE,
    seeds: Iterable[int] = (0, 1),
    offsets: Offsets | None = None,
) -> torch.Tensor:
    """The frames of a scene, rendered by the emulated op."""
    offsets = offsets or {}
    H, W = scene.canvas
    frames = scene.ranges.shape[0]
    size = 3 * H * W if scene.pixel_format == "rgb24" else 3 * H * W // 2
    painted = sorted(scene.panels, key=lambda panel: (panel[0] != "source", panel[1]))
    panels = [(KINDS.index(kind), *rest) for kind, *rest in painted]
    tops = np.cumsum([0, *(height for _, height in scene.strips)])
    strips = [(top, height, row) for (top, height), row in zip(scene.strips, tops, strict=False)]

    def on_device(name: str) -> In | None:
        tensor = getattr(scene, name)
        if tensor is None:
            return None
        return In(tensor.contiguous().numpy(), offset=offsets.get(name, 0))

    def on_host(numbers: object, *shape: int) -> In:
        return In(np.array(numbers, np.int64).reshape(*shape), host=True)

    arguments = {
        **{name: on_device(name) for name in ("maps", "ranges", "global_ranges")},
        **{name: on_device(name) for name in ("source", "colours", "overlay")},
        "f64": scene.maps.dtype == torch.float64,
        "offsets": on_host(scene.offsets, -1),
        "sizes": on_host(scene.sizes, -1, 2),
        "panels": on_host(panels, -1, 4),
        "strips": on_host(strips, -1, 3),
        "relu": scene.relu,
        "colour_weight": int(scene.blend * 256 + 0.5),
        "height": H,
        "width": W,
        "background": scene.background,
        "layout": FORMATS.index(scene.pixel_format),
        "out": Out((frames, size), np.uint8, offset=offsets.get("out", 0)),
    }
    needs = InOut(np.zeros(1, np.int64), host=True)
    asked = run("render_frames_workspace", **arguments, bytes=needs, device=device, seeds=[0])
    workspace = Work(int(asked["bytes"][0]), np.uint8)
    done = run("render_frames", **arguments, workspace=workspace, device=device, seeds=seeds)
    return torch.from_numpy(done["out"])


def assert_equal_frames(run: Emulator, scene: Scene, **options: object) -> None:
    """Compares the emulated op with the CPU's."""
    assert_same(render(run, scene, **options), scene.native(), scene)


def assert_same(actual: torch.Tensor, expected: torch.Tensor, scene: Scene) -> None:
    """Says where the first of the differing bytes is."""
    differ = (actual != expected).nonzero()
    assert len(differ) == 0, (
        f"{len(differ)} of {actual.numel()} bytes differ, the first at frame and byte "
        f"{differ[0].tolist()} of {scene.canvas} {scene.pixel_format}"
    )


def overlapping(scene: Scene) -> Scene:
    """The scene with two maps a frame in panels that cover one another and the photograph."""
    Hp, Wp, _ = scene.source.shape
    panels = [
        ("layer", 1, 2, 6),
        ("global", 0, 4, 4),
        ("source", 0, 0, 0),
        ("layer", 0, 8, 4 + Wp - 10),
        ("source", 0, 6, Wp + 4),
        ("global", 1, 10, Wp + 8),
    ]
    return replace(scene, panels=panels, canvas=(Hp + 12, 2 * Wp + 14), overlay=None, strips=())


def crowded() -> Scene:
    """More maps, panels and strips than one launch's parameters hold, in one frame."""
    random = np.random.default_rng(0)
    maps, H, W = 1300, 270, 9
    scene = make_scene(((2, 3),) * maps, (4, 3), count=maps, dtype=torch.float32, text=False)
    places = random.integers(0, (H - 3, W - 2), (600, 2)).tolist()
    panels = [
        (KINDS[i % 3], 0 if i % 3 == 0 else int(random.integers(maps)), *place)
        for i, place in enumerate(places)
    ]
    panels[-1] = ("layer", maps - 1, 200, 2)
    overlay = torch.from_numpy(random.integers(0, 256, (1, H - 2, W, 2)).astype(np.uint8))
    strips = tuple((y, 1) for y in random.permutation(H)[: H - 2].tolist())
    return replace(scene, canvas=(H, W), panels=panels, overlay=overlay, strips=strips)


def scenes() -> Iterator[tuple[Scene, Device]]:
    """Few and small, yet between them they take every path of the kernels."""
    sizes = ((13, 17), (1, 1), (7, 9), (1, 7), (40, 30), (5, 5))
    for seed, pixel_format in enumerate(FORMATS):
        for dtype, count in ((torch.float32, 1), (torch.float64, 3)):
            options = {"dtype": dtype, "count": count, "pixel_format": pixel_format, "seed": seed}
            # Panels aligned to groups of pixels, then not.
            yield make_scene(sizes[:3], (16, 24), gap=8, **options), LARGE
            odd = {"panel": (21, 19), "gap": 3} if pixel_format == "rgb24" else {"panel": (22, 18)}
            yield make_scene(sizes[-3:], **odd, relu=False, **options), LARGE
        both = make_scene(sizes[:2], (16, 22), count=2, pixel_format=pixel_format)
        yield overlapping(both), LARGE
        yield (
            make_scene(TALL, (40, 26), dtype=torch.float32, gap=6, pixel_format=pixel_format),
            TINY,
        )
    yield crowded(), LARGE


def check_render_frames(run: Emulator) -> None:
    """Raises AssertionError, EmulatorError or EmulatorCrash if the library's op is not right."""
    for scene, device in scenes():
        assert_equal_frames(run, scene, device=device)
    scene = make_scene(((3, 4),), (10, 12), pixel_format="nv12", dtype=torch.float32)
    assert_equal_frames(run, scene, offsets=MISALIGNED)
