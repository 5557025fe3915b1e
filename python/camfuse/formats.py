"""The video formats there are: containers, codecs, encoders, their limits and ffmpeg's options.

The file's ending chooses the container, and the first codec of that is the default::

    .mp4   h264, av1               chapters, ready for streaming
    .webm  vp9, av1                chapters
    .mkv   ffv1, h264, vp9, av1    chapters; ffv1 is lossless
    .gif   gif                     loops; 256 colours for each frame, at most 50 frames a second
    .webp  webp                    loops; sides of at most 16383
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from camfuse.encoder import VideoError
from camfuse.ffmpeg_probe import NVENC, encoders_of, find_ffmpeg, nvenc_opens

PixelFormat: TypeAlias = Literal["i420", "nv12", "rgb24"]
Effort: TypeAlias = Literal["fast", "small"]
Options: TypeAlias = Mapping[str, Any]

_USUAL_SIDE = 448  # that every encoder takes
_MIN_SIDE = 16  # FFV1 in ffmpeg 5 silently spoils frames of a few pixels

BT709 = {
    "color_range": "tv",
    "colorspace": "bt709",
    "color_primaries": "bt709",
    "color_trc": "bt709",
}
_EXACT = "flags=accurate_rnd+full_chroma_int+full_chroma_inp"
# Left alone, ffmpeg would convert RGB with BT.601's matrix, and recent versions would drop the tags
# that the RGB frames lack.
_TO_BT709 = (
    f"scale=out_color_matrix=bt709:out_range=tv:{_EXACT},format=yuv420p,"
    "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
)
_FROM_BT709 = f"scale=in_color_matrix=bt709:in_range=tv:{_EXACT},format=gbrp"


@dataclass(frozen=True)
class EncoderSpec:
    """One of ffmpeg's encoders, its options, and what it can take."""

    name: str
    fast: Options = field(default_factory=dict)
    small: Options = field(default_factory=dict)
    quality: Callable[[int], Options] = lambda crf: {"crf": crf}
    min_side: int = _MIN_SIDE
    max_width: int = 65535
    max_height: int = 65535
    min_fps: Fraction = Fraction(0)
    max_fps: Fraction = Fraction(1000)
    takes_nv12: bool = False
    why: str = ""  # added to an error about fps

    def refusal(self, width: int, height: int, fps: Fraction) -> str | None:
        """Why frames of this size and rate cannot be encoded, if so."""
        for name, value, most in (
            ("width", width, self.max_width),
            ("height", height, self.max_height),
        ):
            if not self.min_side <= value <= most:
                return f"{name} must lie in [{self.min_side}, {most}] for {self.name}, got {value}"
        if not self.min_fps <= fps <= self.max_fps:
            limits = f"[{self.min_fps}, {self.max_fps}]"
            return f"fps must lie in {limits} for {self.name}{self.why}, got {fps}"
        return None


@dataclass(frozen=True)
class Codec:
    """What it stores, by which encoders, the preferred one first, and its range of quality."""

    stores: Literal["yuv", "rgb", "both"]  # frames of the other kind are converted
    encoders: tuple[EncoderSpec, ...]
    crf: tuple[int, int] | None = None  # best, worst
    usual_crf: int = 20


@dataclass(frozen=True)
class Container:
    """What a file ending stands for."""

    muxer: str
    codecs: tuple[str, ...]
    options: Options = field(default_factory=dict)
    chapters: bool = True


# A palette for each frame, made from that frame alone: nothing waits for the end of the video. Of
# a large frame, every fourth pixel of every fourth row will do, and takes a third of the time.
_GIF = (
    "split[frame][seen];"
    "[seen]scale=w='max(iw/4,min(iw,256))':h='max(ih/4,min(ih,256))':flags=neighbor,"
    "palettegen=stats_mode=single:reserve_transparent=0[palette];"
    "[frame][palette]paletteuse=new=1:dither="
)
# High profile: "ultrafast" leaves out the transform that makes it so.
_H264 = {"8x8dct": 1}
CODECS: Mapping[str, Codec] = {
    "h264": Codec(
        "yuv",
        (
            EncoderSpec(
                NVENC,
                {"preset": "p1", "profile": "high"},
                {"preset": "p7", "profile": "high"},
                lambda crf: {"rc": "vbr", "cq": crf, "b:v": 0},
                min_side=160,
                max_width=4096,
                max_height=4096,
                takes_nv12=True,
            ),
            EncoderSpec(
                "libx264",
                # Blocks of 8 x 8 predicted from their neighbors: a tenth fewer bytes, no more time.
                {"preset": "ultrafast", "partitions": "i8x8", **_H264},
                {"preset": "slow", **_H264},
                max_width=16384,
                max_height=16384,
                takes_nv12=True,
            ),
        ),
        crf=(1, 51),  # 0 would be lossless, and no longer High
        usual_crf=23,
    ),
    "vp9": Codec(
        "yuv",
        (
            EncoderSpec(
                "libvpx-vp9",
                {"deadline": "realtime", "cpu-used": 8, "row-mt": 1},
                {"deadline": "good", "cpu-used": 2, "row-mt": 1},
                lambda crf: {"crf": crf, "b:v": 0},
                max_width=16384,
                max_height=16384,
            ),
        ),
        crf=(0, 63),
    ),
    "av1": Codec(
        "yuv",
        (
            EncoderSpec(
                "libsvtav1",
                {"preset": 12},
                {"preset": 6},
                min_side=64,
                max_width=16384,
                max_height=8704,
                min_fps=Fraction(1, 60),
                max_fps=Fraction(240),
            ),
            EncoderSpec(
                "libaom-av1",
                {"cpu-used": 8, "row-mt": 1},
                {"cpu-used": 5, "row-mt": 1},
                lambda crf: {"crf": crf, "b:v": 0},
                min_fps=Fraction(1),
            ),
            EncoderSpec(
                "librav1e",
                {"speed": 10},
                {"speed": 6},
                lambda crf: {"qp": 4 * crf},  # of 255
            ),
        ),
        crf=(0, 63),
    ),
    "ffv1": Codec(
        "both",
        (
            EncoderSpec(
                "ffv1",
                {"level": 3, "g": 1},
                {"level": 3, "g": 1, "coder": "range_tab", "context": 1},
            ),
        ),
    ),
    "gif": Codec(
        "rgb",
        (
            EncoderSpec(
                "gif",
                {"vf": _GIF + "bayer:bayer_scale=4"},
                {"vf": _GIF + "none"},
                min_fps=Fraction(1, 655),
                max_fps=Fraction(50),
                why=" (it counts hundredths of a second, and players slow down below two)",
            ),
        ),
    ),
    # Its YUV is BT.601's: libwebp itself converts, from bgra. "libwebp" encodes frame by frame,
    # where "libwebp_anim" would keep all until the end and merge equal frames.
    "webp": Codec(
        "rgb",
        (
            EncoderSpec(
                "libwebp",
                {"pix_fmt": "bgra", "quality": 90, "compression_level": 0},
                {"pix_fmt": "bgra", "quality": 90, "compression_level": 4},
                max_width=16383,
                max_height=16383,
                min_fps=Fraction(1, 16777),
            ),
        ),
    ),
}

FORMATS: Mapping[str, Container] = {
    ".mp4": Container("mp4", ("h264", "av1"), {"movflags": "+faststart"}),
    ".webm": Container("webm", ("vp9", "av1")),
    ".mkv": Container("matroska", ("ffv1", "h264", "vp9", "av1")),
    ".gif": Container("gif", ("gif",), {"loop": 0}, chapters=False),
    ".webp": Container("webp", ("webp",), {"loop": 0}, chapters=False),
}


def preferred_pixel_format(
    path: str | os.PathLike[str], codec: str | None = None, ffmpeg: str | Path | None = None
) -> PixelFormat:
    """What to render for ``path``, so that it is neither converted later nor loses anything.

    Args:
        path: the video file; only its ending counts.
        codec: one that the ending allows; by default its first.
        ffmpeg: the executable to run; see :func:`~camfuse.ffmpeg_probe.find_ffmpeg`.

    Returns:
        ``"rgb24"`` for GIF and WebP, ``"nv12"`` where NVENC will encode, else ``"i420"``.

    Raises:
        ValueError: the ending or ``codec`` is none of ours, or ``ffmpeg`` is no executable.
        camfuse.video.VideoError: there is no ffmpeg, or it has no encoder for the codec.
    """
    chosen = codec_for(Path(path), codec)
    available = _available(chosen, find_ffmpeg(ffmpeg))
    if CODECS[chosen].stores == "rgb":
        return "rgb24"
    return "nv12" if available[0].name == NVENC else "i420"


def codecs_of(ffmpeg: str | Path | None = None) -> dict[str, str]:
    """By codec, the encoder that ``ffmpeg`` would use; codecs that it lacks are left out.

    Raises:
        ValueError: ``ffmpeg`` is no executable.
        camfuse.video.VideoError: there is no ffmpeg, or it does not answer.
    """
    executable = find_ffmpeg(ffmpeg)
    encoders_of(executable)  # an ffmpeg that fails is no ffmpeg without codecs
    found = {}
    for codec in CODECS:
        with contextlib.suppress(VideoError):
            found[codec] = _available(codec, executable)[0].name
    return found


def codec_for(path: Path, codec: str | None = None) -> str:
    """``codec``, or the default of ``path``'s ending; ValueError unless the two go together."""
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise ValueError(f"path must end in {one_of(FORMATS)}, got {str(path)!r}")
    allowed = FORMATS[ending].codecs
    if codec is not None and codec not in allowed:
        raise ValueError(f"codec must be {one_of(allowed)} for {ending}, got {codec!r}")
    return codec or allowed[0]


def choose(
    path: Path,
    *,
    codec: str | None,
    crf: int | None,
    effort: Effort,
    pixel_format: PixelFormat,
    width: int,
    height: int,
    fps: Fraction,
    chapters: bool,
    ffmpeg: str | Path | None,
) -> tuple[str, dict[str, Any]]:
    """The ffmpeg to run and its output options; arguments as of :class:`camfuse.VideoWriter`.

    Raises:
        ValueError: an argument is wrong, or no encoder takes frames of this size or rate.
        VideoError: there is no ffmpeg, or it has no encoder for the codec.
    """
    codec = codec_for(path, codec)
    container = FORMATS[path.suffix.lower()]
    if chapters and not container.chapters:
        able = one_of(ending for ending, other in FORMATS.items() if other.chapters)
        raise ValueError(f"chapters need a file that ends in {able}, got {str(path)!r}")
    if pixel_format not in get_args(PixelFormat):
        raise ValueError(
            f"pixel_format must be {one_of(get_args(PixelFormat))}, got {pixel_format!r}"
        )
    crf = check_choices(path, codec=codec, crf=crf, effort=effort, fps=fps)
    stores = CODECS[codec].stores
    _check_size(width, height, even=pixel_format != "rgb24" or stores == "yuv")
    _fitting(CODECS[codec].encoders, width, height, fps)  # before any ffmpeg is looked for
    executable = find_ffmpeg(ffmpeg)
    encoder = _fitting(_available(codec, executable), width, height, fps)[0]
    options = {
        "format": container.muxer,
        "vcodec": encoder.name,
        **_colour(stores, encoder, pixel_format),
        **container.options,
        **(encoder.fast if effort == "fast" else encoder.small),
        **({} if crf is None else encoder.quality(crf)),
    }
    if chapters:
        options |= {"map": "0:v", "map_chapters": 1, "map_metadata": 1}
        if container.muxer == "mp4":
            # Exact times, in QuickTime's text track. Nero's list, which some players would rather
            # read, ends at 255 chapters and 255 bytes of title.
            options |= {"movie_timescale": fps.numerator, "movflags": "+faststart+disable_chpl"}
    if stores == "rgb" and pixel_format != "rgb24":
        options["vf"] = ",".join(filter(None, (_FROM_BT709, options.get("vf"))))
    return executable, options


def check_choices(
    path: Path,
    *,
    codec: str | None,
    crf: int | None,
    effort: str,
    fps: Fraction,
    size: tuple[int, int] = (_USUAL_SIDE, _USUAL_SIDE),
) -> int | None:
    """Checks what can be known before there is a frame, its size ``(width, height)`` perhaps.

    Returns:
        The quality to encode with, or None where there is no choice.

    Raises:
        ValueError: The ending, the codec, the quality or the effort is none of ours, or no encoder
            takes such a rate or size.
    """
    codec = codec_for(path, codec)
    if effort not in get_args(Effort):
        raise ValueError(f"effort must be {one_of(get_args(Effort))}, got {effort!r}")
    _fitting(CODECS[codec].encoders, *size, fps)
    return _checked_crf(codec, crf)


def one_of(names: Iterable[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _checked_crf(codec: str, crf: int | None) -> int | None:
    limits = CODECS[codec].crf
    if limits is None:
        if crf is not None:
            raise ValueError(f"crf means nothing for {codec}, got {crf!r}")
        return None
    best, worst = limits
    if crf is None:
        return CODECS[codec].usual_crf
    if not isinstance(crf, int) or not best <= crf <= worst:
        raise ValueError(f"crf must be an integer in [{best}, {worst}] for {codec}, got {crf!r}")
    return crf


def _check_size(width: int, height: int, *, even: bool) -> None:
    for name, value in (("width", width), ("height", height)):
        if value < _MIN_SIDE:
            raise ValueError(f"{name} must be at least {_MIN_SIDE}, got {value}")
        if even and value % 2:
            raise ValueError(f"{name} must be even for yuv420p, got {value}")


def _fitting(
    encoders: Sequence[EncoderSpec], width: int, height: int, fps: Fraction
) -> list[EncoderSpec]:
    """Those that take such frames; ValueError, in the words of the last, if none does."""
    refusals = [encoder.refusal(width, height, fps) for encoder in encoders]
    if all(refusals):
        raise ValueError(refusals[-1])
    return [encoder for encoder, no in zip(encoders, refusals, strict=True) if no is None]


def _available(codec: str, executable: str) -> list[EncoderSpec]:
    """The encoders of a codec that ``executable`` has; VideoError if it has none."""
    listed = encoders_of(executable)
    found = [
        spec
        for spec in CODECS[codec].encoders
        if spec.name in listed and (spec.name != NVENC or nvenc_opens(executable))
    ]
    if not found:
        names = one_of(spec.name for spec in CODECS[codec].encoders if spec.name != NVENC)
        raise VideoError(f"{executable!r} cannot encode {codec}: it lacks {names}")
    return found


def _colour(stores: str, encoder: EncoderSpec, pixel_format: PixelFormat) -> Options:
    """How the frames are stored, and how they get there."""
    if stores == "rgb":
        return {}
    if pixel_format == "rgb24":
        if stores == "both":
            return {"pix_fmt": "bgr0"}  # the 8-bit RGB of FFV1
        return {"pix_fmt": "yuv420p", "vf": _TO_BT709, **BT709}
    as_is = pixel_format == "nv12" and encoder.takes_nv12
    return {"pix_fmt": "nv12" if as_is else "yuv420p", **BT709}
