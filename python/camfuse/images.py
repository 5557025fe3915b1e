"""Reading images from any usual source safely, and preparing them for a model."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from camfuse.quiet import quiet

ImageSource: TypeAlias = str | os.PathLike[str] | Image.Image | npt.NDArray[Any] | Tensor
Interpolation: TypeAlias = Literal["bilinear", "bicubic", "lanczos", "nearest"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_CHANNELS = (1, 3, 4)
_SIXTEEN_BIT_MAX = 65535


class ImageError(ValueError):
    """An image that cannot be read or is refused; one line that names it and says why."""


def read_image(source: ImageSource, *, max_pixels: int = 100_000_000) -> Image.Image:
    """The image as 8-bit RGB, the way a viewer would show it.

    EXIF orientation is applied, transparency is laid over white, 16-bit greyscale is scaled to
    8 bits, and an animation gives its first frame. ``source`` is left as it is.

    Args:
        source: a path; a PIL image; an array ``[H, W]`` or ``[H, W, C]``; or a tensor ``[H, W]``,
            ``[C, H, W]`` or ``[1, C, H, W]`` on any device. C is 1 (grey), 3 (RGB) or 4 (RGBA).
            Arrays and tensors hold uint8, or floats in [0, 1].
        max_pixels: larger images are refused before they are decoded. Files of more than twice
            ``PIL.Image.MAX_IMAGE_PIXELS`` pixels always are, by Pillow itself.

    Raises:
        ImageError: the image is missing, broken, too large, or not one of the above.
    """
    if isinstance(source, Tensor):
        return _from_array(_tensor_to_array(source), "tensor", max_pixels)
    if isinstance(source, np.ndarray):
        if source.ndim != 2 and not (source.ndim == 3 and source.shape[2] in _CHANNELS):
            raise ImageError(
                f"image array must have the shape [H, W] or [H, W, C] with C in {_CHANNELS}, "
                f"got {source.shape}"
            )
        return _from_array(source, "array", max_pixels)
    if isinstance(source, Image.Image):
        with _reading("given as a PIL image"):
            return _to_rgb(source, "given as a PIL image", max_pixels)
    if isinstance(source, (str, os.PathLike)):
        return _read_file(Path(source), max_pixels)
    raise ImageError(
        f"image must be a path, a PIL image, an array or a tensor, got {type(source).__name__}"
    )


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a model's input: resized whole (no crop), scaled, normalised.

    Attributes:
        size: height and width of the input, in pixels.
        mean: subtracted from each channel (R, G, B) of the image in [0, 1].
        std: what each channel is then divided by.
        interpolation: Pillow's filter of the resize; all but "nearest" are antialiased.
    """

    size: tuple[int, int]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        """Refuse values that no input could be made with."""
        if len(self.size) != 2 or not all(isinstance(n, int) and n > 0 for n in self.size):
            raise ValueError(f"size must be (height, width), both positive, got {self.size}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise ValueError(f"{name} must be three finite numbers, got {values}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")
        if self.interpolation not in get_args(Interpolation):
            expected = ", ".join(get_args(Interpolation))
            raise ValueError(f"interpolation must be one of {expected}, got {self.interpolation!r}")

    def __call__(self, image: Image.Image) -> Tensor:
        """The input ``[1, 3, height, width]``, f32, of an RGB image as :func:`read_image` gives."""
        if image.mode != "RGB":
            raise ValueError(f"image must be RGB (see read_image), got mode {image.mode}")
        height, width = self.size
        resized = image.resize((width, height), Image.Resampling[self.interpolation.upper()])
        pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return pixels.float().div_(255).sub_(mean).div_(std)[None]

    def as_dict(self) -> dict[str, Any]:
        """The attributes as JSON-ready values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }


def _read_file(path: Path, max_pixels: int) -> Image.Image:
    name = repr(str(path))
    with _reading(name):
        if path.is_dir():
            raise ImageError(f"image {name} is a folder")
        if not path.is_file():  # opening a pipe could wait for ever
            raise ImageError(f"image {name} {'is no file' if path.exists() else 'does not exist'}")
    with _reading(name), path.open("rb") as file:
        # Of images that are large by its measure, or cut off: a line beside our error at best.
        with quiet():
            image = Image.open(file)
        with image:
            if image.format == "EPS":
                raise ImageError(f"image {name} is EPS, a program that would have to be run")
            return _to_rgb(image, name, max_pixels)


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises into an ImageError: its many decoders raise many kinds."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"image {name} is empty or of no known format") from None
    except Exception as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"image {name} cannot be read: {what}") from error


def _to_rgb(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    _check_size(name, image.width, image.height, max_pixels)
    image.load()
    # Unreadable EXIF data says nothing about the orientation, and nothing against the pixels.
    with contextlib.suppress(Exception):
        image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_to_bytes(np.asarray(image), name)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _from_array(array: npt.NDArray[Any], name: str, max_pixels: int) -> Image.Image:
    """An array ``[H, W]`` or ``[H, W, C]``, C in (1, 3, 4)."""
    _check_size(name, array.shape[1], array.shape[0], max_pixels)
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise ImageError(f"image {name} must hold uint8 or floats in [0, 1], got {array.dtype}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    return _to_rgb(Image.fromarray(_to_bytes(array, name)), name, max_pixels)


def _tensor_to_array(tensor: Tensor) -> npt.NDArray[Any]:
    image = tensor.detach()
    if image.ndim == 4 and image.shape[0] == 1:
        image = image[0]
    if image.ndim == 3 and image.shape[0] in _CHANNELS:
        image = image.permute(1, 2, 0)
    elif image.ndim != 2:
        raise ImageError(
            "image tensor must have the shape [H, W], [C, H, W] or [1, C, H, W] with C in "
            f"{_CHANNELS}, got {tuple(tensor.shape)}"
        )
    if image.is_floating_point():
        image = image.float()  # NumPy has no bfloat16
    return image.cpu().numpy()


def _to_bytes(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    """uint8 as it is, floats from [0, 1], other integers from 16 bits."""
    if values.dtype == np.uint8:
        return values
    top = _SIXTEEN_BIT_MAX if np.issubdtype(values.dtype, np.integer) else 1
    if not np.isfinite(values).all():
        raise ImageError(f"image {name} holds NaN or infinity")
    # Values a rounding error outside of the range still become 0 or 255.
    levels: npt.NDArray[np.float32] = np.rint(values.astype(np.float32) * np.float32(255 / top))
    if levels.min() < 0 or levels.max() > 255:
        low, high = values.min(), values.max()
        raise ImageError(f"image {name} must lie in [0, {top}], got values from {low} to {high}")
    return levels.astype(np.uint8)


def _check_size(name: str, width: int, height: int, max_pixels: int) -> None:
    if width * height == 0:
        raise ImageError(f"image {name} is empty: {width} x {height} pixels")
    if width * height > max_pixels:
        raise ImageError(
            f"image {name} is too large: {width} x {height} pixels, more than {max_pixels}"
        )
