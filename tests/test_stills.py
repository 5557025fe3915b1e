"""Single maps and contact sheets."""

from __future__ import annotations

import base64
import dataclasses
import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from PIL import Image

from camfuse.render import render
from camfuse.stills import sheet, still
from test_render import IMAGE, make_stack

PHOTOGRAPH = Image.fromarray(IMAGE)
SVG = "{http://www.w3.org/2000/svg}"


def panel(frames, index: int) -> np.ndarray:
    _, _, top, left = frames.canvas.panels[-1]
    height, width = frames.canvas.panel_height, frames.canvas.panel_width
    return frames.frame(index)[top : top + height, left : left + width].numpy()


@pytest.mark.parametrize("normalize", ["layer", "global"])
def test_a_still_is_the_panel_of_a_video_without_its_text(normalize: str) -> None:
    stack = make_stack()
    frames = render(stack, IMAGE, panels=["source", normalize], size=64)
    for layer in (0, "block.3"):
        picture = still(stack, PHOTOGRAPH, layer, normalize=normalize, size=64)
        assert np.array_equal(np.asarray(picture), panel(frames, stack.position(layer)))


def test_a_still_has_the_size_of_the_photograph() -> None:
    assert still(make_stack(), PHOTOGRAPH, 0).size == PHOTOGRAPH.size


@pytest.mark.parametrize(("given", "made"), [((12, 8), (16, 10)), ((9000, 30), (8192, 28))])
def test_a_still_of_a_photograph_of_unusual_size_is_as_close_as_can_be(
    given: tuple[int, int], made: tuple[int, int]
) -> None:
    assert still(make_stack(), Image.new("RGB", given), 0).size == made


def test_a_photograph_may_be_given_in_any_usual_way(tmp_path) -> None:
    path = tmp_path / "photo.png"
    PHOTOGRAPH.save(path)
    pictures = [still(make_stack(), one, 0) for one in (PHOTOGRAPH, IMAGE, path, str(path))]
    assert all(one == pictures[0] for one in pictures)
    sheets = [sheet(make_stack(), one, size=64) for one in (PHOTOGRAPH, IMAGE, path, str(path))]
    assert all(one.to_image() == sheets[0].to_image() for one in sheets)
    assert sheets[-1].captions[0] == ("photograph", "90 x 60")


def test_a_photograph_is_shown_as_a_viewer_would() -> None:
    clear = Image.new("RGBA", (64, 32), (255, 0, 0, 0))
    white = Image.new("RGB", (64, 32), "white")
    assert still(make_stack(), clear, 0) == still(make_stack(), white, 0)
    turned = PHOTOGRAPH.copy()
    turned.getexif()[0x0112] = 6  # a quarter to the right
    assert still(make_stack(), turned, 0).size == PHOTOGRAPH.size[::-1]
    assert sheet(make_stack(), turned).captions[0] == ("photograph", "60 x 90")


def test_a_still_shows_one_of_several_methods_targets_and_samples() -> None:
    stack = make_stack(("gradcam", "layercam"), targets=2, batch=2)
    choice = {"method": "layercam", "target": 1, "sample": 1}
    one = stack.select(method="layercam", target=1, sample=1)
    assert still(stack, PHOTOGRAPH, 3, **choice) == still(one, PHOTOGRAPH, 3)
    with pytest.raises(ValueError, match="method, target: expected one map, got those of gradcam"):
        still(stack, PHOTOGRAPH, 3)


def test_a_layer_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError, match="absent: no such layer"):
        still(make_stack(), PHOTOGRAPH, "absent")


def test_a_sheet_holds_the_photograph_and_every_layer_in_order() -> None:
    stack = make_stack()
    made = sheet(stack, PHOTOGRAPH, size=64, columns=3)
    frames = render(stack, IMAGE, panels=["source", "layer"], size=64)
    assert len(made.tiles) == 6
    for i in range(5):
        assert np.array_equal(made.tiles[i + 1], panel(frames, i))
    assert [name for name, _ in made.captions] == ["photograph", *stack.names]
    picture = np.asarray(made.to_image())
    assert picture.shape[1::-1] == made.size
    for tile, (x, y) in zip(made.tiles, made._places(), strict=True):
        assert np.array_equal(picture[y : y + tile.shape[0], x : x + tile.shape[1]], tile)
    assert {y for _, y in made._places()} == {made._places()[0][1], made._places()[3][1]}


def test_the_svg_holds_the_same_pictures_and_text_that_can_be_searched() -> None:
    stack = dataclasses.replace(make_stack(), model="a<b>&c")
    made = sheet(stack, PHOTOGRAPH, size=64)
    root = ET.fromstring(made.to_svg())
    assert root.get("viewBox") == f"0 0 {made.size[0]} {made.size[1]}"
    images = root.findall(f"{SVG}image")
    for image, tile in zip(images, made.tiles, strict=True):
        _, encoded = image.get("href").split(",")
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
            assert np.array_equal(np.asarray(picture), tile)
    titles = [text.find(f"{SVG}title").text for text in root.findall(f"{SVG}text")]
    assert titles[0].startswith("a<b>&c · gradcam")
    assert set(stack.names) <= set(titles)


def test_characters_that_xml_has_no_room_for_become_spaces_in_the_svg() -> None:
    stack = make_stack()
    odd = dataclasses.replace(stack.layers[0], name="a\x01b\x1fc\ufffed\ud800e")
    stack = dataclasses.replace(stack, layers=(odd, *stack.layers[1:]))
    root = ET.fromstring(sheet(stack, PHOTOGRAPH, size=64).to_svg().encode())
    assert "a b c d e" in [title.text for title in root.iter(f"{SVG}title")]


def test_columns_are_chosen_so_that_a_sheet_is_wider_than_high() -> None:
    stack = make_stack()
    many = stack.select(layers=[stack.names[0]] * 40)
    width, height = sheet(many, PHOTOGRAPH, size=64).size
    assert 1 < width / height < 2.2
    assert sheet(many, PHOTOGRAPH, size=64, columns=99).columns == 41


def test_a_sheet_is_refused_where_it_would_be_ambiguous() -> None:
    stack = make_stack(("gradcam", "layercam"))
    with pytest.raises(ValueError, match="method, target: expected one map per layer, got 2"):
        sheet(stack, PHOTOGRAPH)
    assert len(sheet(stack, PHOTOGRAPH, method="layercam").tiles) == 6


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"columns": 0}, ValueError, "columns: expected at least 1, got 0"),
        ({"columns": 1.5}, TypeError, "columns: expected int, got float"),
        ({"size": "64"}, TypeError, "size: expected int, got str"),
        ({"size": 3}, ValueError, "size: expected 16 to 8192, got 3"),
        ({"colormap": "nope"}, ValueError, "colormap: expected one of turbo"),
        ({"normalize": "source"}, ValueError, "normalize: expected 'layer' or 'global'"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_photograph_is_read(
    options: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        sheet(make_stack(), "absent.png", **options)
    if "columns" not in options:
        with pytest.raises(error, match=message):
            still(make_stack(), "absent.png", 0, **options)


def test_names_too_long_for_their_picture_are_shortened() -> None:
    stack = make_stack()
    long = dataclasses.replace(stack.layers[0], name="a_very_long_name." * 20)
    stack = dataclasses.replace(stack, layers=(long, *stack.layers[1:]))
    made = sheet(stack, PHOTOGRAPH, size=64, columns=6)
    x, y = made._places()[1]
    beside = np.asarray(made.to_image())[y + made.tiles[0].shape[0] :, x + 66 : x + 66 + 2]
    assert torch.from_numpy(beside.copy()).unique().tolist() == [16]
