"""A real browser plays what a notebook would show."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import numpy as np
import pytest

from camfuse.notebook import media_html
from camfuse.video import VideoWriter

WIDTH, HEIGHT, FRAMES = 64, 48, 6
FILES = {"a.mp4": None, "b.mp4": "av1", "c.webm": "vp9", "d.webm": "av1", "e.gif": None,
         "f.webp": None}  # fmt: skip

PAGE = """<!doctype html><title>waiting</title>{media}
<script>
const said = [], told = new Set();
const media = [...document.querySelectorAll("video, img")];
const tell = (one, text) => {{
  if (told.has(one)) return;
  told.add(one);
  said.push(media.indexOf(one) + ": " + text);
  if (said.length == media.length) document.title = "done " + said.sort().join("; ");
}};
for (const one of media) {{
  const size = () => (one.videoWidth || one.naturalWidth) + "x" +
    (one.videoHeight || one.naturalHeight) + " " + (one.duration || "");
  one.addEventListener(one.tagName == "IMG" ? "load" : "loadeddata", () => tell(one, size()));
  one.addEventListener("error", () => tell(one, "error"));
  if (one.complete && one.naturalWidth) tell(one, size());
}}
</script>"""


@pytest.fixture
def browser() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("CAMFUSE_REQUIRE_BROWSER") == "1":
            pytest.fail("a browser is required by CAMFUSE_REQUIRE_BROWSER=1; none is on PATH")
        pytest.skip("no Chromium on PATH")
    return found


def test_every_format_that_is_embedded_plays(tmp_path, browser):
    grey = np.full(WIDTH * HEIGHT * 3, 100, np.uint8)
    for name, codec in FILES.items():
        with VideoWriter(
            tmp_path / name, width=WIDTH, height=HEIGHT, fps=4, pixel_format="rgb24", codec=codec
        ) as out:
            for level in range(FRAMES):
                out.write(grey + np.uint8(20 * level))
    page = tmp_path / "page.html"
    media = "".join(media_html(tmp_path / name) for name in FILES)
    page.write_text(PAGE.format(media=media), encoding="utf-8")
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    quiet += ["--disable-background-networking", "--disable-component-update"]
    command = [browser, *quiet, f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, "--virtual-time-budget=10000", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    (title,) = re.findall("<title>(.*?)</title>", done.stdout)
    size = f"{WIDTH}x{HEIGHT}"
    expected = [f"{i}: {size} 1.5" for i in range(4)] + [f"{i}: {size} " for i in (4, 5)]
    assert title == "done " + "; ".join(expected)
