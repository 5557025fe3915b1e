"""What is compared in a video, and how its columns are told apart."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from camfuse.views import choose_views, curves_of, labels_of, title_of
from test_render import make_stack

CAT = {"target_names": (("Egyptian cat",),), "probabilities": torch.tensor([[0.791]])}


def named(**changes: object):
    return dataclasses.replace(make_stack(model="resnet50"), **changes)


def test_every_target_of_every_method_is_a_view() -> None:
    stack = make_stack(("gradcam", "layercam"), targets=2, batch=3)
    views = choose_views([stack], sample=2)
    places = [(view.method, view.target, view.sample) for view in views]
    assert places == [(0, 0, 2), (0, 1, 2), (1, 0, 2), (1, 1, 2)]
    (one,) = choose_views([stack], method="layercam", target=1)
    assert (one.method, one.target, one.sample) == (1, 1, 0)
    assert len(choose_views([stack], method=["layercam", "gradcam"], target=[1])) == 2


def test_the_title_says_what_all_share_and_the_labels_what_not() -> None:
    views = choose_views([named(**CAT)])
    assert title_of(views) == "resnet50 · gradcam · Egyptian cat 79.1%"
    assert labels_of(views) == [""]
    methods = choose_views([dataclasses.replace(make_stack(("gradcam", "layercam")), **CAT)])
    assert title_of(methods) == "Egyptian cat 79.1%"
    assert labels_of(methods) == ["gradcam", "layercam"]
    models = choose_views([named(**CAT), named(model="vgg16", **CAT)])
    assert title_of(models) == "gradcam · Egyptian cat 79.1%"
    assert labels_of(models) == ["resnet50", "vgg16"]


def test_views_that_are_called_the_same_are_numbered() -> None:
    assert labels_of(choose_views([named(), named()])) == ["1", "2"]


def test_targets_without_a_name_are_told_by_class_score_or_position() -> None:
    (unnamed,) = choose_views([make_stack()])
    assert unnamed.target_text == "class 0 0.0%"
    function = {"targets": torch.tensor([[-1]]), "scores": torch.tensor([[2.5]])}
    (one,) = choose_views([named(**function)])
    assert one.target_text == "score 2.5"
    several = make_stack(targets=2)
    several = dataclasses.replace(several, targets=torch.full((2, 1), -1))
    assert [view.target_text for view in choose_views([several])] == ["target 0", "target 1"]


def test_layers_of_a_shallow_model_repeat_evenly() -> None:
    (view,) = choose_views([make_stack()])
    assert [view.layer_of(frame, 5) for frame in range(5)] == [0, 1, 2, 3, 4]
    assert [view.layer_of(frame, 10) for frame in range(10)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [view.layer_of(frame, 7) for frame in range(7)] == [0, 0, 1, 2, 2, 3, 4]


def test_evidence_is_the_height_of_each_map_against_all() -> None:
    stack = make_stack()
    (curve,) = curves_of(choose_views([stack]), "evidence", 5)
    highest = [float(stack.maps(i).max().clamp(min=0)) for i in range(5)]
    assert curve.values == pytest.approx([one / max(highest) for one in highest])
    assert max(curve.values) == 1
    nothing = dataclasses.replace(
        stack, ranges=-stack.ranges.abs(), global_ranges=-stack.global_ranges.abs()
    )
    assert curves_of(choose_views([nothing]), "evidence", 5)[0].values == (0,) * 5


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"method": "foo"}, "method: expected one of gradcam, got 'foo'"),
        ({"target": 1}, r"target: expected 0\.\.0, got 1"),
        ({"target": [0, -1]}, r"target: expected 0\.\.0, got -1"),
        ({"sample": 1}, r"sample: expected 0\.\.0, got 1"),
    ],
)
def test_what_a_stack_does_not_hold_is_an_error(choice: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_views([make_stack()], **choice)


def test_no_stack_is_an_error() -> None:
    with pytest.raises(ValueError, match="stacks: expected at least one map to show"):
        choose_views([])
