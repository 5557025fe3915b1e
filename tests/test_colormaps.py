"""Colour tables against their published forms."""

import pytest
import torch

from camfuse.colormaps import COLORMAPS, color_table


@pytest.mark.parametrize("name", COLORMAPS)
def test_tables_are_256_rgb_colours(name):
    table = color_table(name)
    assert table.shape == (256, 3)
    assert table.dtype == torch.uint8
    assert (table[1:].int() - table[:-1].int()).abs().max() <= 8, "a step in the colours"


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("turbo", (48, 18, 59), (122, 4, 3)),
        ("jet", (0, 0, 128), (128, 0, 0)),
        ("viridis", (68, 1, 84), (253, 231, 37)),
        ("magma", (0, 0, 4), (252, 253, 191)),
    ],
)
def test_ends_are_the_published_colours(name, first, last):
    table = color_table(name)
    assert tuple(table[0].tolist()) == first
    assert tuple(table[-1].tolist()) == last


@pytest.mark.parametrize("name", ["turbo", "viridis", "magma"])
def test_tables_agree_with_matplotlib(name):
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    published = torch.tensor(matplotlib.colormaps[name](range(256))[:, :3]) * 255
    assert (color_table(name) - published).abs().max() <= 1.5


def test_names_of_matplotlib_work_where_it_is_installed():
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    published = torch.tensor(matplotlib.colormaps["coolwarm"](range(256))[:, :3]) * 255
    assert (color_table("coolwarm") - published).abs().max() <= 0.5


@pytest.mark.parametrize("installed", [True, False])
def test_unknown_names_are_an_error_that_lists_the_known(installed, monkeypatch):
    if installed:
        pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    else:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"colormap: .*turbo, jet, viridis, magma.*'rainbowish'"):
        color_table("rainbowish")


def test_a_table_of_ones_own_is_taken_as_it_is():
    table = torch.arange(768).view(256, 3).to(torch.uint8)
    for given in (table, table.numpy()):
        taken = color_table(given)
        assert torch.equal(taken, table)
        assert taken.data_ptr() != table.data_ptr(), "the caller may change theirs"


@pytest.mark.parametrize(
    "table", [torch.zeros(255, 3, dtype=torch.uint8), torch.zeros(256, 3), torch.zeros(256, 4)]
)
def test_a_table_of_another_shape_or_type_is_an_error(table):
    with pytest.raises(ValueError, match=r"colormap: expected \[256, 3\] of uint8, got \["):
        color_table(table)
