"""How results show themselves in a notebook."""

from __future__ import annotations

import base64
import html
import os
from pathlib import Path
from urllib.parse import quote

_EMBEDDED_BYTES = 20_000_000
_MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".gif": "image/gif",
    ".webp": "image/webp",
}


def media_html(path: str | os.PathLike[str]) -> str:
    """HTML that plays a video or an animated picture.

    Up to 20 MB are embedded, so that the notebook shows them wherever it goes; what is larger is
    linked, and so are the formats that browsers do not play.
    """
    path = Path(path)
    name = html.escape(str(path), quote=True)
    url = quote(os.fsencode(path.as_posix()))  # which leaves nothing that HTML would read
    link = f'<a href="{url}">{name}</a>'
    kind = _MEDIA_TYPES.get(path.suffix.lower())
    if kind is None:
        return link
    try:
        source = url
        if path.stat().st_size <= _EMBEDDED_BYTES:
            source = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    except OSError as error:
        return f"{link} ({html.escape(error.strerror or str(error))})"
    if kind.startswith("image"):
        return f'<img src="{source}" alt="{name}" style="max-width: 100%">'
    return f'<video src="{source}" controls loop muted style="max-width: 100%">{link}</video>'
