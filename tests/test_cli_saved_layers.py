"""Which layers of saved maps ``camfuse render --layers`` shows."""

from __future__ import annotations

import pytest
import torch

from camfuse import layer_cams
from camfuse.saved_layers import choose_layers
from camfuse.stack import CamStack
from own_model import OWN


@pytest.fixture(scope="module")
def stack() -> CamStack:
    """A padding, 0, which is not shown, then layers of three sizes."""
    space: dict[str, object] = {}
    exec(OWN, space)
    nn = torch.nn
    model = nn.Sequential(nn.ZeroPad2d(1), *space["make"]())
    return layer_cams(model.eval(), torch.rand(1, 3, 32, 32))


def names(stack: CamStack, *layers: str) -> list[str]:
    return list(choose_layers(stack, layers).shown().names)


def test_names_globs_and_classes_are_chosen_in_the_order_of_execution(stack):
    assert names(stack, "4", "1") == ["1", "4"]
    assert names(stack, "[1-3]", "type:Hard*") == ["1", "2", "3", "5"]
    assert names(stack, "type:Conv2d") == ["1", "4"]


def test_a_layer_that_is_not_shown_is_chosen_by_its_name_alone(stack):
    assert stack.names[0] == "0"
    assert not stack.layers[0].shown
    assert names(stack, "*") == names(stack, "every:1") == ["1", "2", "3", "4", "5"]
    assert names(stack, "0", "1") == ["0", "1"]
    assert "0" not in [one.name for one in choose_layers(stack, ["0"]).skipped]
    with pytest.raises(ValueError, match="no saved layer matches 'type:ZeroPad2d'"):
        choose_layers(stack, ["type:ZeroPad2d"])


def test_thinning_comes_last(stack):
    assert names(stack, "stage-ends") == ["2", "3", "5"]
    assert names(stack, "every:2") == ["1", "3", "5"]
    assert names(stack, "every:2", "type:Conv2d") == ["4"]


def test_maps_and_the_global_range_stay_what_they_were(stack):
    chosen = choose_layers(stack, ["3"])
    assert torch.equal(chosen["3"], stack["3"])
    assert torch.equal(chosen.global_ranges, stack.global_ranges)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["typ:Conv2d"], "no saved layer matches 'typ:Conv2d'$"),
        (["type:Conv1d"], "'type:Conv1d'; close: type:Conv2d"),
        (["1", "11"], "'11'; close: 1$"),
        (["x*"], "no saved layer matches 'x\\*'"),
        (["8"], "'8' was not saved: no spatial extent"),
        (["every:0"], "expected every:N"),
        ([], "expected at least one layer"),
    ],
)
def test_what_matches_nothing_is_named(stack, layers, message):
    with pytest.raises(ValueError, match=f"^layers: .*{message}"):
        choose_layers(stack, layers)
