"""``render_frames`` against OpenCV doing the same work, same threads.

Both turn the raw maps of every frame into finished frames with three panels (photograph, layer
range, global range). OpenCV resizes the rectified map once, then for each panel scales it to 8
bits, applies the colour map and blends it with the photograph into the canvas; for i420 it converts
the canvas with ``COLOR_RGB2YUV_I420``. Its photograph panel and background are prepared beforehand,
outside the timing; ours are made within it. The RGB frames of both are first seen to agree.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch

from benchmarks.harness import Claim, Work, compare
from camfuse import _C, ops

GAP = 8
FRAMES = 16  # of a call
# Sides of a map, and the height and width of a panel.
CASES = ((112, (336, 448)), (14, (336, 448)), (56, (448, 448)), (56, (224, 224)))


def run(quick: bool) -> list[Claim]:
    """A claim per map, panel and pixel format; i420, which videos take, has a goal."""
    cv2.setNumThreads(torch.get_num_threads())
    claims = []
    for side, panel in CASES[:1] if quick else CASES:
        for pixel_format, goal in (("i420", ">= 3"), ("rgb24", None)):
            opencv, ours = contestants(side, panel, pixel_format)
            pair = compare(ours, opencv, quick=quick, seconds=0.1)
            case = f"maps {side} x {side}, panels {panel[0]} x {panel[1]}"
            detail = pair.detail() | {"frames": FRAMES, "isa": str(_C.build_info()["isa"])}
            claims.append(
                Claim(f"OpenCV / render_frames to {pixel_format}", case, pair.ratio, goal, detail)
            )
            print(f"{case}, {pixel_format}: {pair.ratio:.2f}", flush=True)
    return claims


def contestants(
    side: int, panel: tuple[int, int], pixel_format: ops.PixelFormat, frames: int = FRAMES
) -> tuple[Work, Work]:
    """The two sides as functions without arguments; their results are compared first."""
    Hp, Wp = panel
    H, W = Hp, 3 * Wp + 2 * GAP
    rng = np.random.default_rng(0)
    coarse = rng.standard_normal((frames, 7, 7)).astype(np.float32)
    maps = np.stack([cv2.resize(m, (side, side), interpolation=cv2.INTER_CUBIC) for m in coarse])
    photograph = cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), (Wp, Hp))
    levels_256 = np.arange(256, dtype=np.uint8)[:, None]
    # OpenCV's own table is BGR; one in RGB spares it a channel swap. [256, 1, 3]
    table = np.ascontiguousarray(cv2.applyColorMap(levels_256, cv2.COLORMAP_TURBO)[..., ::-1])
    ranges = [(max(float(m.min()), 0.0), max(float(m.max()), 0.0)) for m in maps]
    global_range = (0.0, max(high for _, high in ranges))
    lefts = [i * (Wp + GAP) for i in range(3)]

    still = np.full((H, W, 3), 16, np.uint8)
    still[:, :Wp] = photograph

    def opencv() -> list[np.ndarray]:
        results = []
        for map_, layer_range in zip(maps, ranges, strict=True):
            canvas = still.copy()
            up = cv2.resize(np.maximum(map_, 0), (Wp, Hp), interpolation=cv2.INTER_LINEAR)
            for left, (low, high) in zip(lefts[1:], (layer_range, global_range), strict=True):
                scale = 255 / (high - low)
                # convertScaleAbs takes the magnitude, harmless at v >= low.
                levels = cv2.convertScaleAbs(up, alpha=scale, beta=-low * scale)
                heat = cv2.applyColorMap(levels, table)
                cv2.addWeighted(photograph, 0.5, heat, 0.5, 0, dst=canvas[:, left : left + Wp])
            if pixel_format == "i420":
                canvas = cv2.cvtColor(canvas, cv2.COLOR_RGB2YUV_I420)
            results.append(canvas)
        return results

    flat = torch.from_numpy(maps.reshape(-1))
    signed = torch.from_numpy(np.stack([maps.min((1, 2)), maps.max((1, 2))], 1))
    arguments = (
        flat,
        [n * side * side for n in range(frames)],
        [(side, side)] * frames,
        signed[:, None],
        torch.tensor([global_range]),
        torch.from_numpy(photograph),
        torch.from_numpy(table[:, 0]),
        [(k, 0, 0, x) for k, x in zip(("source", "layer", "global"), lefts, strict=True)],
        (H, W),
    )

    def camfuse() -> torch.Tensor:
        return ops.render_frames(*arguments, background=16, pixel_format=pixel_format)

    # OpenCV converts with BT.601, so only its RGB frames can be compared.
    if pixel_format == "rgb24":
        difference = np.abs(np.stack(opencv()).astype(int) - camfuse().numpy().reshape(-1, H, W, 3))
        if difference.mean() >= 0.5:
            raise AssertionError(
                f"expected OpenCV's frames, got {difference.mean():.2g} levels off"
            )
    return opencv, camfuse
