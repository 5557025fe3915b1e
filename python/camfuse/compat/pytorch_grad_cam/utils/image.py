"""Images and maps: to tensors and back, scaled, laid over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from camfuse.compat.optional import optional
from camfuse.compat.pytorch_grad_cam.arrays import Array, FloatArray, float32_of, tensor_of
from camfuse.compat.pytorch_grad_cam.utils.palettes import palette, shades
from camfuse.compat.pytorch_grad_cam.utils.resizing import resized

ByteArray = npt.NDArray[np.uint8]


def preprocess_image(
    img: Any, mean: Sequence[float] = (0.5, 0.5, 0.5), std: Sequence[float] = (0.5, 0.5, 0.5)
) -> Tensor:
    """A photograph as a model wants it: ``[1, C, H, W]``, less the mean, over the deviation.

    Args:
        img: ``[H, W, C]`` or ``[H, W]``: uint8, which is divided by 255, or floating in [0, 1]; or
            an image of PIL's.
        mean: Of each channel.
        std: Of each channel.

    Returns:
        f32, or the type of a floating image.

    Raises:
        ValueError: If the image is neither uint8 nor floating, or a deviation is 0.
    """
    image = torch.from_numpy(np.array(img))
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or not (image.dtype == torch.uint8 or image.is_floating_point()):
        raise ValueError(
            f"img: expected (H, W, C) of uint8 or floating, got {tuple(image.shape)} of "
            f"{image.dtype}"
        )
    if 0 in std:
        raise ValueError(f"std: expected deviations other than 0, got {tuple(std)}")
    image = image.movedim(-1, 0).contiguous()
    if image.dtype == torch.uint8:
        image = image.float() / 255
    center, spread = (image.new_tensor(list(of))[:, None, None] for of in (mean, std))
    return (image - center).div_(spread)[None]


def deprocess_image(img: Array) -> ByteArray:
    """A gradient as an image: its mean gray, its standard deviation a tenth of the range.

    Args:
        img: Of any shape, floating.

    Returns:
        uint8 of the same shape.
    """
    standard = (img - np.mean(img)) / (np.std(img) + 1e-5)
    image: ByteArray = (np.clip(standard * 0.1 + 0.5, 0, 1) * 255).astype(np.uint8)
    return image


def show_cam_on_image(
    img: Array,
    mask: Array,
    use_rgb: bool = False,
    colormap: int = 2,
    image_weight: float = 0.5,
) -> ByteArray:
    """A map in colors, blended over its image; the brightest value of the blend becomes 255.

    Args:
        img: ``[H, W, 3]``, floating in [0, 1].
        mask: The map ``[H, W]`` in [0, 1]; what is outside counts as the nearest end, NaN as 0.
        use_rgb: Whether the image is RGB, and so the colors; else they are BGR.
        colormap: One of OpenCV's numbers, such as ``cv2.COLORMAP_JET``, which is 2. Others than
            that need OpenCV.
        image_weight: Share of the image in the blend, in [0, 1].

    Returns:
        ``[H, W, 3]``, uint8.

    Raises:
        ValueError: If the image is above 1, the weight outside [0, 1], or the map of another size.
        ImportError: If OpenCV is needed and missing.
    """
    if np.max(img) > 1:
        raise ValueError(f"img: expected floats in [0, 1], got up to {np.max(img):.4g}")
    if not 0 <= image_weight <= 1:
        raise ValueError(f"image_weight: expected a number in [0, 1], got {image_weight}")
    if np.shape(mask) != np.shape(img)[:2]:
        raise ValueError(f"mask: expected shape {np.shape(img)[:2]}, got {np.shape(mask)}")
    colors = palette(int(colormap))[:, :: 1 if use_rgb else -1]
    heat = (1 - image_weight) * (colors.astype(np.float32) / 255)
    levels = np.minimum(np.fmax(255 * mask, 0), 255).astype(np.uint8)  # fmax passes over NaN
    blend = heat.take(levels, 0) + image_weight * img
    blend /= np.max(blend) or 1
    blend *= 255
    result: ByteArray = blend.astype(np.uint8)
    return result


def create_labels_legend(
    concept_scores: Array, labels: Mapping[int, str] | Sequence[str], top_k: int = 2
) -> list[str]:
    """What concepts look like to a classifier, for :func:`show_factorization_on_image`.

    Args:
        concept_scores: ``[concepts, classes]``.
        labels: Name of each class, of which the first three parts between commas are shown.
        top_k: How many classes per concept.

    Returns:
        A text per concept, ``name:score`` by line, highest first.
    """
    best = np.argsort(concept_scores, axis=1)[:, ::-1][:, :top_k]
    return [
        "\n".join(f"{','.join(labels[one].split(',')[:3])}:{scores[one]:.2f}" for one in row)
        for scores, row in zip(concept_scores, best, strict=True)
    ]


def show_factorization_on_image(
    img: Array,
    explanations: Array,
    colors: Sequence[Array] | None = None,
    image_weight: float = 0.5,
    concept_labels: Sequence[str] | None = None,
) -> ByteArray:
    """Several maps over an image, each in its own color; a pixel shows the largest of them.

    Args:
        img: ``[H, W, 3]``, RGB, floating in [0, 1].
        explanations: n maps ``[n, H, W]`` in [0, 1], the brightness of the colors.
        colors: n of them, RGB in [0, 1]; None takes them from matplotlib's ``gist_rainbow``.
        image_weight: Share of the image in the blend, in [0, 1].
        concept_labels: n texts, drawn by matplotlib as a legend to the right of the image.

    Returns:
        ``[H, W, 3]``, uint8; with a legend ``[H, 2 W, 3]``.

    Raises:
        ValueError: If there are not as many colors or labels as maps.
        ImportError: If OpenCV, or matplotlib where it is needed, is missing.
    """
    count = len(explanations)
    if colors is None:
        rainbow = optional("matplotlib", "default colors").colormaps["gist_rainbow"]
        colors = [np.array(rainbow(i)) for i in np.arange(0, 1, 1 / count)[:count]]
    for name, given in (("colors", colors), ("concept_labels", concept_labels)):
        if given is not None and len(given) != count:
            raise ValueError(f"{name}: expected {count}, one per map, got {len(given)}")
    which = explanations.argmax(0)
    values = np.take_along_axis(explanations, which[None], 0)[0]
    table = shades(colors).astype(np.float32) / 255
    heat = table[which, (255 * values).astype(np.uint8)]
    blend = (img * image_weight + heat * (1 - image_weight)) * 255
    result: ByteArray = blend.astype(np.uint8)
    if concept_labels is None:
        return result
    return np.hstack([result, _legend(colors, concept_labels, *result.shape[:2])])


def scale_cam_image(
    cam: Array | Tensor | Sequence[Array], target_size: Sequence[int] | None = None
) -> FloatArray:
    """Maps, each normalized to [0, 1] and then resized.

    Images are resized bilinearly, as ``cv2.resize`` does (within 2e-7, also to smaller sizes);
    volumes by cubic splines, as ``scipy.ndimage.zoom`` does.

    Args:
        cam: ``[B, h, w]`` or ``[B, d, h, w]``.
        target_size: ``(W, H)`` or ``(W, H, D)``; None leaves the size.

    Returns:
        ``[B, H, W]`` or ``[B, D, H, W]``, f32. A constant map becomes 0.

    Raises:
        ValueError: If maps and size do not have as many axes.
    """
    maps = tensor_of(cam if isinstance(cam, Tensor) else np.asarray(cam)).cpu()
    if maps.ndim < 3 or (target_size is not None and len(target_size) != maps.ndim - 1):
        raise ValueError(
            "cam: expected (B, h, w) for a target_size (W, H) or (B, d, h, w) for (W, H, D), got "
            f"{tuple(maps.shape)} for {target_size}"
        )
    if maps.dtype != torch.float64:
        maps = maps.float()
    grid = tuple(range(1, maps.ndim))
    maps = maps - maps.amin(grid, keepdim=True)
    maps = (maps / (1e-7 + maps.amax(grid, keepdim=True))).float()
    return float32_of(maps if target_size is None else resized(maps, target_size[::-1]))


def scale_accross_batch_and_channels(
    tensor: Array | Tensor, target_size: Sequence[int]
) -> FloatArray:
    """:func:`scale_cam_image` of every channel.

    Args:
        tensor: ``[B, C, h, w]`` or ``[B, C, d, h, w]``.
        target_size: ``(W, H)`` or ``(W, H, D)``.

    Returns:
        ``[B, C, H, W]`` or ``[B, C, D, H, W]``, f32.
    """
    maps = tensor_of(tensor)
    scaled = scale_cam_image(maps.flatten(0, 1), target_size)
    return scaled.reshape(*maps.shape[:2], *scaled.shape[1:])


def _legend(colors: Sequence[Array], labels: Sequence[str], H: int, W: int) -> ByteArray:
    """Drawn without pyplot, whose figures and settings are the caller's."""
    optional("matplotlib", "legends")
    from matplotlib import rcParams
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    dpi = rcParams["figure.dpi"]
    # A hundredth of a pixel more: the canvas is rounded down.
    figure = Figure(figsize=((W + 0.01) / dpi, (H + 0.01) / dpi), dpi=dpi)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.legend(
        [Line2D([0], [0], color=tuple(color), lw=5 * H / 256) for color in colors],
        labels,
        mode="expand",
        fancybox=True,
        shadow=True,
        fontsize=int(14 * H / 256 / max(1, len(colors) / 6)),
    )
    figure.tight_layout(pad=0, w_pad=0, h_pad=0)
    axes.axis("off")
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]
