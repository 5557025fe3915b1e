"""Below the panels: a track that fills, and scores as curves with a marker."""

from __future__ import annotations

import numpy as np
import pytest

from camfuse.footer import Curve, Footer

WIDTH, MARGIN, FONT = 400, 10, 13


def drawn(frame: int, frames: int, *curves: Curve) -> np.ndarray:
    footer = Footer(WIDTH, MARGIN, FONT, frames, curves)
    opacity = np.zeros((footer.height, WIDTH), np.uint8)
    footer.draw(opacity, frame)
    return opacity


def test_the_track_fills_from_left_to_right_and_is_full_at_the_end() -> None:
    done = []
    for frame in range(4):
        track = drawn(frame, 4)[0]
        assert not track[:MARGIN].any()
        assert not track[-MARGIN:].any()
        inside = track[MARGIN:-MARGIN].astype(int)
        assert (np.diff(inside) <= 0).all(), "one step from done to not yet done"
        done.append(int((inside == inside[0]).sum()))
    assert done == [95, 190, 285, 380]


def test_a_curve_rises_where_its_values_do() -> None:
    values = tuple(float(i) for i in range(20))
    rows = curve_rows(Curve("", values))
    columns = [int(x) for x in np.linspace(20, WIDTH - 20, 10)]
    heights = [int(np.argmax(rows[:, x])) for x in columns]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] - heights[-1] > len(rows) // 2


def curve_rows(*curves: Curve) -> np.ndarray:
    """The rows that hold curves, without the marker and the numbers of any frame."""
    footer = Footer(WIDTH, MARGIN, FONT, len(curves[0].values), curves)
    return footer._still[2 * (FONT * 3 // 4) : footer._curve_bottom]


def test_the_marker_stands_at_the_frame() -> None:
    curve = Curve("score", (0.0,) * 10)
    for frame in range(10):
        marked = drawn(frame, 10, curve)[40:50].min(0)
        expected = MARGIN + (frame + 0.5) / 10 * (WIDTH - 2 * MARGIN)
        assert abs(int(np.argmax(marked)) - expected) <= 1


def test_the_number_of_the_frame_is_written() -> None:
    curve = Curve("score", (0.25, 0.75, 0.25))
    first, second, third = (drawn(frame, 3, curve)[:16] for frame in range(3))
    assert first.any()
    assert not np.array_equal(first, second)
    assert np.array_equal(first, third)


@pytest.mark.parametrize("gap", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_leaves_a_gap(gap: float) -> None:
    whole = curve_rows(Curve("", (1.0, 1.0, 1.0, 1.0, 2.0)))
    broken = curve_rows(Curve("", (1.0, 1.0, gap, 1.0, 2.0)))
    middle = slice(WIDTH // 2 - 30, WIDTH // 2 + 30)
    assert whole[:, middle].any()
    assert not broken[:, middle].any()
    assert np.array_equal(whole[:, :60], broken[:, :60])


def test_nothing_but_gaps_is_an_empty_plot() -> None:
    assert not curve_rows(Curve("", (np.nan,) * 3)).any()


def test_curves_share_one_scale() -> None:
    low, high = (np.argmax(curve_rows(*pair)[:, 200]) for pair in (
        (Curve("a", (1.0, 1.0)), Curve("b", (0.0, 4.0))),
        (Curve("a", (3.0, 3.0)), Curve("b", (0.0, 4.0))),
    ))  # fmt: skip
    assert low > high


def test_a_value_is_needed_for_every_frame() -> None:
    with pytest.raises(ValueError, match="curve 'score': expected one value for each of 3 frames"):
        Footer(WIDTH, MARGIN, FONT, 3, [Curve("score", (1.0, 2.0))])
