"""The geometry of a frame and the text above its panels."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camfuse import text
from camfuse.canvas import Canvas, FrameText
from camfuse.footer import Curve

LONG = FrameText("131/131 · " + ".".join(["denseblock"] * 30), "BatchNorm2d · 64 x 56 x 56")
KINDS = ("source", "layer", "global")


def ink(overlay):
    """Opacity of the text of each frame ``[N, rows, W]``."""
    return overlay[..., 1]


@given(
    image=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4),
    size=st.integers(16, 1200),
    title=st.sampled_from(["", "resnet50 · tabby 0.61"]),
    maps=st.integers(1, 4),
    frames=st.integers(1, 3),
    curve=st.booleans(),
)
def test_everything_is_even_and_nothing_overlaps(image, kinds, size, title, maps, frames, curve):
    canvas = Canvas.fit(
        image,
        kinds,
        size=size,
        title=title,
        labels=[f"method {i}" for i in range(maps)],
        frames=frames,
        curves=[Curve("score", (0.5,) * frames)] * curve,
    )
    lengths = [canvas.width, canvas.height, canvas.panel_height, canvas.panel_width]
    lengths += [side for _, _, top, left in canvas.panels for side in (top, left)]
    lengths += [side for strip in canvas.strips for side in strip]
    assert all(length % 2 == 0 and length >= 0 for length in lengths)
    assert min(canvas.width, canvas.height) >= 16
    covered = np.zeros((canvas.height, canvas.width), np.int8)
    for top, height in canvas.strips:
        covered[top : top + height] += 1
    for _, _, top, left in canvas.panels:
        assert left + canvas.panel_width < canvas.width
        assert top + canvas.panel_height < canvas.height
        covered[top : top + canvas.panel_height, left : left + canvas.panel_width] += 1
    assert covered.max() == 1


def test_one_maps_panels_lie_side_by_side():
    canvas = Canvas.fit((300, 451), KINDS)
    assert [(kind, shown) for kind, shown, _, _ in canvas.panels] == [(kind, 0) for kind in KINDS]
    assert len({top for _, _, top, _ in canvas.panels}) == 1
    lefts = [left for _, _, _, left in canvas.panels]
    assert lefts == sorted(set(lefts))


def test_compared_maps_have_a_column_each_and_a_row_for_each_way_to_show_them():
    canvas = Canvas.fit((300, 451), KINDS, labels=["gradcam", "layercam"])
    places = {(kind, shown): (top, left) for kind, shown, top, left in canvas.panels}
    assert len(canvas.panels) == len(places) == 5
    for shown in (0, 1):
        above, below = places["layer", shown], places["global", shown]
        assert above[1] == below[1]
        assert above[0] < below[0]
    source = places["source", 0]
    assert source[0] == places["layer", 0][0] == places["layer", 1][0]
    assert source[1] < places["layer", 0][1] < places["layer", 1][1]


def test_each_compared_map_is_labelled_above_its_panels():
    plain, labelled = (
        Canvas.fit((300, 451), KINDS, labels=labels).draw([[FrameText("")]])[0, ..., 1]
        for labels in (["", ""], ["gradcam", "layercam"])
    )
    canvas = Canvas.fit((300, 451), KINDS, labels=["", ""])
    changed = (plain != labelled).nonzero()
    columns = {left for kind, _, _, left in canvas.panels if kind != "source"}
    for left in columns:
        inside = (changed[:, 1] >= left) & (changed[:, 1] < left + canvas.panel_width)
        rows = changed[inside][:, 0]
        assert (rows < canvas.header_height).any(), "over the upper row"
        assert (rows >= canvas.header_height).any(), "over the lower row"
    assert changed[:, 1].min() >= min(columns)


@pytest.mark.parametrize(
    ("image", "panel"),
    [
        ((300, 451), (298, 448)),
        ((451, 300), (448, 298)),
        ((10, 10), (448, 448)),
        ((1, 9999), (2, 448)),
    ],
)
def test_panels_keep_the_aspect_of_the_photograph(image, panel):
    canvas = Canvas.fit(image)
    assert (canvas.panel_height, canvas.panel_width) == panel


@pytest.mark.parametrize("size", [16, 64, 448, 1080])
@pytest.mark.parametrize("kinds", [("layer",), KINDS])
@pytest.mark.parametrize("title", ["", "resnet50 · tabby 0.61 " * 20])
def test_any_text_fits_any_size(size, kinds, title):
    canvas = Canvas.fit((300, 451), kinds, size=size, title=title)
    overlay = canvas.draw([[LONG], [FrameText("", "")], [FrameText("a\nb\tc", "×…漢\x00")]])
    assert overlay.shape == (3, canvas.header_height, canvas.width, 2)
    assert overlay.dtype == torch.uint8
    margin = canvas.gap // 2  # letters may lean a little over the edge of their line
    assert not ink(overlay)[0, :, -margin:].any()
    if size >= 64:
        assert (ink(overlay)[0] > ink(overlay)[1]).any()


def test_frames_differ_only_in_their_own_text():
    canvas = Canvas.fit((300, 451), title="resnet50")
    one, two = FrameText("1/2 · a", "Conv2d"), FrameText("2/2 · b", "Conv2d")
    first, second, again = canvas.draw([[one], [two], [one]])
    assert torch.equal(first, again)
    differing = (first != second).any(-1).any(1).nonzero()
    assert len(differing) > 0
    assert differing.max() < canvas.header_height // 2, "title and captions are shared"


def test_a_title_takes_a_line_of_its_own():
    plain, titled = (Canvas.fit((300, 451), title=title) for title in ("", "resnet50"))
    assert titled.header_height > plain.header_height
    rows = ink(titled.draw([[FrameText("")]]))[0].any(1).sum()
    assert rows > ink(plain.draw([[FrameText("")]]))[0].any(1).sum()


def test_each_model_has_a_heading_of_its_own():
    two = Canvas.fit((300, 451), headings=2)
    first, second = FrameText("resnet50: 1/9 · a", "Conv2d"), FrameText("vgg16: 1/9 · b", "ReLU")
    both, one = ink(two.draw([[first, second], [first, FrameText("")]]))
    changed = (both != one).any(1).nonzero()
    assert changed.min() > Canvas.fit((300, 451)).header_height // 3
    assert two.header_height > Canvas.fit((300, 451)).header_height


def test_details_stand_right_where_there_is_room_and_below_where_not():
    wide, narrow = Canvas.fit((300, 451)), Canvas.fit((300, 451), ["layer"])
    details = [[FrameText("", "Conv2d")], [FrameText("", "")]]
    with_details, without = ink(wide.draw(details))
    assert (with_details > without).nonzero()[:, 1].min() > wide.width // 2
    with_details, without = ink(narrow.draw(details))
    assert (with_details > without).nonzero()[:, 1].min() < narrow.width // 2


@pytest.mark.parametrize("size", [15, 8193, -1])
def test_sizes_out_of_range_are_an_error(size):
    with pytest.raises(ValueError, match=f"size: expected 16 to 8192, got {size}"):
        Canvas.fit((10, 10), size=size)


@pytest.mark.parametrize("kinds", [(), ("photo",)])
def test_unknown_or_no_panels_are_an_error(kinds):
    with pytest.raises(ValueError, match="panels: expected some of source, layer, global"):
        Canvas.fit((10, 10), kinds)


@given(st.text(max_size=60), st.integers(7, 30), st.floats(0, 400))
def test_shortened_text_fits_and_keeps_both_ends(words, size, room):
    line = " ".join(words.split())
    short = text.shortened(words, size, room)
    assert text.length(short, size) <= room or short == line == ""
    if short not in ("", line):
        start, end = short.split(text.ELLIPSIS, 1) if "." not in line else ("", "")
        assert line.startswith(start)
        assert line.endswith(end)


def test_shortening_keeps_as_much_as_fits():
    line = "features.denseblock3.denselayer24.norm1"
    for room in range(60, int(text.length(line, 14)), 7):
        short = text.shortened(line, 14, room)
        kept = len(short) - len(text.ELLIPSIS)
        longer = line[: (kept + 2) // 2] + text.ELLIPSIS + line[len(line) - (kept + 1) // 2 :]
        assert text.length(short, 14) <= room < text.length(longer, 14)


def test_writing_past_every_edge_is_cut_off():
    whole = np.zeros((60, 200), np.uint8)
    text.write(whole, "Wgj", 20, baseline=30, left=40)
    assert whole.any()
    for dy, dx in itertools.product((-35, -10, 0, 25, 60), (-70, -45, 0, 140, 200)):
        part = np.zeros_like(whole)
        text.write(part, "Wgj", 20, baseline=30 + dy, left=40 + dx)
        expected = np.zeros_like(whole)
        rows = slice(max(dy, 0), 60 + min(dy, 0)), slice(max(-dy, 0), 60 - max(dy, 0))
        columns = slice(max(dx, 0), 200 + min(dx, 0)), slice(max(-dx, 0), 200 - max(dx, 0))
        expected[rows[0], columns[0]] = whole[rows[1], columns[1]]
        assert np.array_equal(part, expected), (dy, dx)
