"""Chapters of a video, one for each frame, as the metadata text that ffmpeg reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

_MAX_BYTES = 65535  # what MP4 can store of one title
_NOT_IN_A_LINE = re.compile("\r\n|[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def chapter_metadata(titles: Sequence[str], fps: Fraction) -> bytes:
    r"""What tells ffmpeg that frame ``i`` of a video is a chapter called ``titles[i]``.

    A title is one line: a line break (``\r\n`` as well) or another control character becomes a
    space. All else is kept as it is.

    Raises:
        ValueError: ``titles`` is empty or not a sequence of strings, or one of them cannot be
            written as UTF-8 or takes more than 65535 bytes of it.
    """
    if isinstance(titles, str) or not isinstance(titles, Sequence):
        raise ValueError(f"chapters must be a sequence of titles, got {type(titles).__name__}")
    if not titles:
        raise ValueError("chapters must hold a title for each frame, got none")
    parts = [b";FFMETADATA1\n"]
    for i, title in enumerate(titles):
        start = f"[CHAPTER]\nTIMEBASE={fps.denominator}/{fps.numerator}\nSTART={i}\nEND={i + 1}\n"
        parts += [start.encode(), b"title=", _escaped(title, i), b"\n"]
    return b"".join(parts)


def _escaped(title: str, index: int) -> bytes:
    if not isinstance(title, str):
        raise ValueError(f"chapters[{index}] must be a string, got {type(title).__name__}")
    try:
        line = _NOT_IN_A_LINE.sub(" ", title).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"chapters[{index}] is no valid text: {error.reason}") from None
    if len(line) > _MAX_BYTES:
        raise ValueError(f"chapters[{index}] must take at most {_MAX_BYTES} bytes, got {len(line)}")
    # ffmpeg takes a line break after any backslash for an escaped one, even after an escaped
    # backslash; a zero byte between them ends the line too.
    return re.sub(rb"[=;#\\]", rb"\\\g<0>", line) + (b"\0" if line.endswith(b"\\") else b"")
