"""The native ops in plain PyTorch: readable, slow, and the oracle of every test.

Written for clarity, not speed, and valid for any dtype (run it in f64 to judge the native ops).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_GRADCAM_PLUS_PLUS_EPSILON = 1e-6
_XGRADCAM_EPSILON = 1e-7


def layer_cam(
    activations: Tensor,
    gradients: Tensor | None,
    rules: Sequence[str],
    *,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Maps ``[R, B, h, w]`` and ranges ``[R, B, 2]``; see :func:`camfuse.ops.layer_cam`."""
    maps = torch.stack([_rule_map(rule, activations, gradients, weights) for rule in rules])
    planes = maps.flatten(2)
    ranges = torch.stack([planes.amin(-1), planes.amax(-1)], dim=-1)
    return maps, ranges


def fused_cam(
    activations: Tensor,
    gradients: Tensor | None,
    rule: str,
    size: tuple[int, int],
    *,
    weights: Tensor | None = None,
    relu: bool = True,
) -> Tensor:
    """Finished map ``[B, H, W]``; see :func:`camfuse.ops.fused_cam`."""
    maps, _ = layer_cam(activations, gradients, [rule], weights=weights)
    map_ = maps[0].clamp(min=0) if relu else maps[0]
    low, high = map_.amin((1, 2), keepdim=True), map_.amax((1, 2), keepdim=True)
    normalized = torch.where(low == high, torch.zeros_like(map_), (map_ - low) / (high - low))
    return F.interpolate(normalized[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def channel_weights(rule: str, A: Tensor, G: Tensor) -> Tensor:
    """The weight ``[B, C]`` of each channel, for the rules that have one.

    gradcam: mean of ``G`` (Selvaraju et al. 2017, eq. 1). gradcam++: Chattopadhay et al. 2018,
    eq. 19, with the scores' higher derivatives as powers of ``G``. xgradcam: Fu et al. 2020, eq. 8.
    """
    if rule == "gradcam":
        return G.mean((2, 3))
    if rule == "gradcam++":
        total = A.sum((2, 3), keepdim=True)
        denominator = 2 * G**2 + G**3 * total + _GRADCAM_PLUS_PLUS_EPSILON
        alpha = torch.where(G == 0, torch.zeros_like(G), G**2 / denominator)
        return (G.clamp(min=0) * alpha).sum((2, 3))
    if rule == "xgradcam":
        return (G * A).sum((2, 3)) / (A.sum((2, 3)) + _XGRADCAM_EPSILON)
    raise ValueError(f"rule {rule!r} has no channel weights")


def principal_map(
    activations: Tensor,
    gradients: Tensor | None = None,
    terms: str = "activation",
    *,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Maps, ranges and scales of one layer; see :func:`camfuse.ops.principal_map`."""
    B, _, h, w = activations.shape
    rows = principal_rows(terms, activations, gradients, weights)
    energies = rows.square().sum(2)
    finite = rows.isfinite().all(2).all(1)
    centred = torch.where(finite[:, None, None], rows - rows.mean(1, keepdim=True), 0)
    U, S, _ = torch.linalg.svd(centred, full_matrices=False)
    planes = U[:, :, 0] * S[:, :1]
    sign = torch.where((planes * energies).sum(1) < 0, -1, 1)
    planes = torch.where(finite[:, None], planes * sign[:, None], math.nan)
    ranges = torch.stack([planes.amin(1), planes.amax(1)], dim=-1)
    scales = torch.where(finite, energies.amax(1).sqrt(), math.nan)
    return planes.view(B, h, w), ranges, scales


def principal_rows(terms: str, A: Tensor, G: Tensor | None, weights: Tensor | None) -> Tensor:
    """The matrix ``[B, h * w, C]`` of terms whose first principal component is taken.

    activation: Muhammad & Yeasin 2020 (EigenCAM). gradient_magnitude: SegEigenCAM.
    """
    if terms == "activation":
        layer = A
    elif terms == "product":
        layer = _given(G) * A
    elif terms == "positive_product":
        layer = (_given(G) * A).clamp(min=0)
    elif terms == "positive_gradient":
        layer = _given(G).clamp(min=0) * A
    elif terms == "gradient_magnitude":
        layer = _given(G).abs() * A
    else:
        layer = _given(weights)[:, :, None, None] * A
    return layer.flatten(2).mT


def _rule_map(rule: str, A: Tensor, G: Tensor | None, weights: Tensor | None) -> Tensor:
    """One signed map ``[B, h, w]``: a weighted sum over channels, or of an element-wise product."""
    if rule == "elementwise":
        return (_given(G) * A).clamp(min=0).sum(1)
    if rule == "layercam":  # Jiang et al. 2021, eq. 4
        return (_given(G).clamp(min=0) * A).sum(1)
    name = rule.strip("|")
    if name == "hirescam":  # Draelos & Carin 2020
        terms = _given(G) * A
    else:
        factors = _given(weights) if name == "weighted" else channel_weights(name, A, _given(G))
        terms = factors[:, :, None, None] * A
    return (terms if name == rule else terms.abs()).sum(1)


def _given(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


# BT.709 limited range (ITU-R BT.709-6, section 3): Y, U, V = matrix @ RGB + offset, levels 0..255.
_YUV_MATRIX = torch.tensor(
    [
        [0.2126 * 219, 0.7152 * 219, 0.0722 * 219],
        [-0.2126 / 1.8556 * 224, -0.7152 / 1.8556 * 224, 0.5 * 224],
        [0.5 * 224, -0.7152 / 1.5748 * 224, -0.0722 / 1.5748 * 224],
    ],
    dtype=torch.float64,
) / 255  # fmt: skip
_YUV_OFFSET = torch.tensor([16.0, 128.0, 128.0], dtype=torch.float64)


def render_frames(
    maps: Tensor,
    offsets: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    ranges: Tensor,
    global_ranges: Tensor,
    source: Tensor,
    colours: Tensor,
    panels: Sequence[tuple[str, int, int, int]],
    canvas: tuple[int, int],
    *,
    background: int = 0,
    blend: float = 0.5,
    relu: bool = True,
    overlay: Tensor | None = None,
    strips: Sequence[tuple[int, int]] = (),
    pixel_format: str = "rgb24",
) -> Tensor:
    """Frames ``[N, bytes]`` in f64, rounded once; see :func:`camfuse.ops.render_frames`.

    The native op is equal for rgb24 without overlay and within 1 otherwise, except where a map
    value lies within rounding of the middle between two entries of ``colours``.
    """
    Hp, Wp, _ = source.shape
    weight = math.floor(blend * 256 + 0.5) / 256
    count = len(global_ranges)
    views = [
        maps[offset : offset + h * w].view(h, w)
        for offset, (h, w) in zip(offsets, sizes, strict=True)
    ]
    frames = []
    for n in range(len(views) // count):
        frame = torch.full((*canvas, 3), background, dtype=torch.float64)
        for kind, v, top, left in sorted(
            panels, key=lambda panel: (panel[0] != "source", panel[1])
        ):
            panel = source.double()
            if kind != "source":
                display_range = ranges[n, v] if kind == "layer" else global_ranges[v]
                levels = map_levels(views[n * count + v], display_range, (Hp, Wp), relu=relu)
                heat = colours[(levels + 0.5).floor().long()].double()
                panel = (1 - weight) * panel + weight * heat
            frame[top : top + Hp, left : left + Wp] = panel
        text = None if overlay is None else _overlay_frame(overlay[n], strips, canvas)
        frames.append(_PIXELS[pixel_format](frame, text))
    size = math.prod(canvas) * 3 // (1 if pixel_format == "rgb24" else 2)
    return torch.stack(frames) if frames else torch.empty((0, size), dtype=torch.uint8)


def map_levels(map_: Tensor, display_range: Tensor, size: tuple[int, int], *, relu: bool) -> Tensor:
    """Where each pixel of a panel lies in the colour table, 0..255, before rounding; f64."""
    map_, (low, high) = map_.double(), display_range.double()
    if relu:
        map_, low, high = map_.clamp(min=0), low.clamp(min=0), high.clamp(min=0)
    if not high > low:
        return torch.zeros(size, dtype=torch.float64)
    values = _upsampled(_upsampled(map_.T, size[1]).T, size[0])
    levels: Tensor = (values - low) / (high - low) * 255
    return levels.nan_to_num(0.0, 255.0, 0.0).clamp(0, 255)


def _upsampled(rows: Tensor, size: int) -> Tensor:
    """Linear interpolation of ``[h, w]`` to ``[size, w]``: half-pixel centres, clamped border."""
    h = rows.shape[0]
    # The centre of output x is at ((2x + 1) h - size) / (2 size) inputs, as a quotient of integers.
    centre = ((2 * torch.arange(size) + 1) * h - size).clamp(min=0)
    upper, weight = centre // (2 * size), (centre % (2 * size)).double() / (2 * size)
    a, b = rows[upper], rows[(upper + 1).clamp(max=h - 1)]
    return a + weight[:, None] * (b - a)


def _overlay_frame(
    overlay: Tensor, strips: Sequence[tuple[int, int]], canvas: tuple[int, int]
) -> Tensor:
    """The strips ``[rows, W, 2]`` of one frame, laid out on the canvas as ``[H, W, 2]`` in f64."""
    text = torch.zeros((*canvas, 2), dtype=torch.float64)
    row = 0
    for top, height in strips:
        text[top : top + height] = overlay[row : row + height]
        row += height
    return text


def _rgb24(frame: Tensor, text: Tensor | None) -> Tensor:
    if text is not None:
        grey, alpha = text[..., :1], text[..., 1:] / 255
        frame = (1 - alpha) * frame + alpha * grey
    return (frame + 0.5).floor().to(torch.uint8).flatten()


def _yuv(frame: Tensor, text: Tensor | None) -> tuple[Tensor, Tensor]:
    """Y ``[H, W]``, U and V ``[2, H/2, W/2]``; text pulls U and V to 128 by its mean alpha."""
    yuv = frame @ _YUV_MATRIX.T + _YUV_OFFSET
    luma, chroma = yuv[..., 0], F.avg_pool2d(yuv[..., 1:].permute(2, 0, 1), 2)
    if text is not None:
        grey, alpha = text[..., 0], text[..., 1] / 255
        luma = (1 - alpha) * luma + alpha * (16 + grey * 219 / 255)
        chroma_alpha = F.avg_pool2d(alpha[None], 2)
        chroma = (1 - chroma_alpha) * chroma + chroma_alpha * 128
    return (luma + 0.5).floor().to(torch.uint8), (chroma + 0.5).floor().to(torch.uint8)


def _i420(frame: Tensor, text: Tensor | None) -> Tensor:
    luma, chroma = _yuv(frame, text)
    return torch.cat([luma.flatten(), chroma.flatten()])


def _nv12(frame: Tensor, text: Tensor | None) -> Tensor:
    luma, chroma = _yuv(frame, text)
    return torch.cat([luma.flatten(), chroma.permute(1, 2, 0).flatten()])


_PIXELS = {"rgb24": _rgb24, "i420": _i420, "nv12": _nv12}


_NEIGHBORS = torch.tensor([[1, 2, 1], [2, 0, 2], [1, 2, 1]]) / 12.0
_IMPUTED_TOLERANCE = 1e-12  # of residuals, against the right-hand side


def impute(image: Tensor, masks: Tensor) -> Tensor:
    """Imputed images ``[N, C, H, W]``, f64; see :func:`camfuse.ops.impute`.

    Conjugate gradients in f64 on ``A x = b``: row i of A holds the weights of removed pixel i's
    neighbors, b what those that were kept add up to.
    """
    removed = masks[:, None].double().expand(-1, image.shape[0], -1, -1)  # [N, C, H, W]
    kept = torch.where(removed > 0, 0.0, image.double())
    weight_sums = _weighted_neighbors(torch.ones_like(kept))

    def multiply(x: Tensor) -> Tensor:
        return removed * (weight_sums * x - _weighted_neighbors(x))

    def dot(x: Tensor, y: Tensor) -> Tensor:
        return (x * y).sum((2, 3), keepdim=True)

    x = torch.zeros_like(kept)
    residual = removed * _weighted_neighbors(kept)
    direction, square = residual, dot(residual, residual)
    enough = _IMPUTED_TOLERANCE**2 * square
    while (square > enough).any():
        product = multiply(direction)
        step = square / dot(direction, product).clamp(min=torch.finfo(torch.float64).tiny)
        x = x + step * direction
        residual = residual - step * product
        square, before = dot(residual, residual), square
        direction = (
            residual + square / before.clamp(min=torch.finfo(torch.float64).tiny) * direction
        )
    return kept + x


def _weighted_neighbors(x: Tensor) -> Tensor:
    """At each pixel of ``[N, C, H, W]`` the weighted sum over its neighbors in the image."""
    rows = F.conv2d(x.flatten(0, 1)[:, None], _NEIGHBORS.to(x)[None, None], padding=1)
    return rows[:, 0].reshape(x.shape)
