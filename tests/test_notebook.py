"""How results show themselves in a notebook."""

from __future__ import annotations

import base64
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import pytest

from camfuse.notebook import media_html


@pytest.mark.parametrize(
    ("ending", "tag", "kind"),
    [
        ("mp4", "video", "video/mp4"),
        ("webm", "video", "video/webm"),
        ("gif", "img", "image/gif"),
        ("webp", "img", "image/webp"),
    ],
)
def test_what_browsers_play_is_embedded(tmp_path, ending, tag, kind):
    path = tmp_path / f"x.{ending}"
    path.write_bytes(b"some bytes")
    text = media_html(path)
    assert text.startswith(f"<{tag} ")
    (encoded,) = re.findall(rf'src="data:{kind};base64,([^"]+)"', text)
    assert base64.b64decode(encoded) == b"some bytes"


def test_what_is_larger_than_20_mb_is_linked(tmp_path):
    path = tmp_path / "x.mp4"
    path.touch()
    os.truncate(path, 20_000_000)
    assert "base64" in media_html(path)
    os.truncate(path, 20_000_001)
    assert f'src="{path}"' in media_html(path)
    assert "base64" not in media_html(path)


def test_what_browsers_do_not_play_is_a_link(tmp_path):
    assert media_html(tmp_path / "x.mkv") == f'<a href="{tmp_path}/x.mkv">{tmp_path}/x.mkv</a>'


def test_a_video_that_is_gone_is_said_to_be(tmp_path):
    assert "No such file" in media_html(tmp_path / "x.mp4")


def test_names_cannot_break_out_of_the_html(tmp_path):
    path = tmp_path / '"><script>.mp4'
    path.write_bytes(b"x")
    assert "<script>" not in media_html(path)


@pytest.mark.parametrize(
    "name", ["a#b?c", "50%20", "two words", "two\nlines", "a&amp;b", "'\"<é>", "x:y", b"\xff"]
)
@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_links_lead_to_the_file_whatever_it_is_called(tmp_path, monkeypatch, name, ending):
    monkeypatch.chdir(tmp_path)
    path = Path(os.fsdecode(name) + ending)
    path.touch()
    os.truncate(path, 20_000_001)
    found = []

    class Links(HTMLParser):
        def handle_starttag(self, tag, attributes):
            found.extend(value for key, value in attributes if key in ("href", "src"))

    Links().feed(media_html(path))
    assert len(found) == 1 + (ending == ".mp4")
    for link in found:
        url = urlsplit(urljoin("file:///folder/", link))
        assert unquote_to_bytes(url.path) == os.fsencode(f"/folder/{path}")
        assert (url.query, url.fragment) == ("", "")
