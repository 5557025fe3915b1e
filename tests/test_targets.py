"""What is explained: classes, functions of the output, several at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import camfuse
from camfuse.targets import box_score, resolve_targets, segmentation_mean
from oracle import autograd_pairs, relative_error
from small_models import Residual

OUTPUT = torch.tensor([[0.0, 2.0, 1.0], [5.0, 3.0, 4.0]])


def indices(target: object) -> list[list[int]]:
    return resolve_targets(target, OUTPUT, 2).indices.tolist()


def test_classes() -> None:
    assert indices(None) == [[1, 0]]
    assert indices(2) == [[2, 2]]
    assert indices([2, 1]) == [[2, 1]]
    assert indices(torch.tensor([2, 1])) == [[2, 1]]
    assert indices(torch.tensor([[2, 1], [0, 0]])) == [[2, 1], [0, 0]]
    assert indices(camfuse.Each([None, 1, [0, 2]])) == [[1, 0], [1, 1], [0, 2]]


def test_scores_and_probabilities() -> None:
    scores = resolve_targets([2, 1], OUTPUT, 2)
    assert scores.values[0].tolist() == [1.0, 3.0]
    expected = OUTPUT.softmax(1)
    torch.testing.assert_close(
        scores.probabilities[0], torch.stack([expected[0, 2], expected[1, 1]])
    )


def test_functions_have_no_index_and_no_probability() -> None:
    scores = resolve_targets(lambda out: out.sum(1), OUTPUT, 2)
    assert scores.values[0].tolist() == [3.0, 12.0]
    assert scores.indices.tolist() == [[-1, -1]]
    assert scores.probabilities.isnan().all()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (3, r"expected a class in 0\.\.2, got 3"),
        (-1, r"expected a class in 0\.\.2, got -1"),
        ([0], r"one class or one per sample \(2\), got shape \(1,\)"),
        ([0, 1, 2], r"got shape \(3,\)"),
        (1.5, "expected class indices, got torch.float32"),
        ([True, False], "expected class indices, got torch.bool"),
        (lambda out: 3.0, "must return a tensor, got float"),
        (lambda out: out, r"one floating score per sample \(2,\), got torch.float32 \(2, 3\)"),
        (lambda out: out.argmax(1), "floating score per sample"),
        (camfuse.Each([]), "at least one target"),
    ],
)
def test_targets_that_do_not_fit_say_why(target: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"target: .*{message}"):
        resolve_targets(target, OUTPUT, 2)


@pytest.mark.parametrize(
    "output",
    [
        {"out": OUTPUT},
        (OUTPUT,),
        [OUTPUT, torch.zeros(2, 3, 4, 4), None, "text"],
        {"logits": OUTPUT, "hidden": (torch.zeros(2, 5, 7), torch.zeros(2, dtype=torch.long))},
    ],
)
def test_the_only_class_scores_in_a_structure_are_found(output: object) -> None:
    assert resolve_targets(None, output, 2).indices.tolist() == [[1, 0]]
    assert resolve_targets([2, 1], output, 2).values[0].tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (None, "got 0 in None of no tensors"),
        ([OUTPUT[0]], r"got 0 in a list of float32 \(3,\)"),
        ((OUTPUT, OUTPUT.clone()), r"got 2 in a tuple of float32 \(2, 3\), float32 \(2, 3\)"),
        ({"out": OUTPUT.long()}, r"got 0 in a dict of int64 \(2, 3\)"),
        ([OUTPUT[:1]] * 9, r"got 0 in a list of float32 \(1, 3\); pass a function"),
    ],
)
def test_other_structures_need_a_function_and_are_described(output: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"target: .*one floating tensor.*{message}"):
        resolve_targets(0, output, 2)


def test_an_image_of_logits_points_to_segmentation() -> None:
    with pytest.raises(ValueError, match=r"got \(2, 3, 4, 4\).*segmentation_mean"):
        resolve_targets(0, torch.zeros(2, 3, 4, 4), 2)


def test_segmentation_mean() -> None:
    logits = torch.arange(2 * 3 * 2 * 2.0).view(2, 3, 2, 2)
    assert segmentation_mean(1)(logits).tolist() == [5.5, 17.5]
    mask = torch.tensor([[1, 0], [0, 1]])
    assert segmentation_mean(1, mask)({"out": logits}).tolist() == [5.5, 17.5]
    assert segmentation_mean(1, mask[:1].expand(2, 2))(logits).tolist() == [5.0, 17.0]
    both = {"out": logits, "aux": -logits}
    assert segmentation_mean(1, output="aux")(both).tolist() == [-5.5, -17.5]


@pytest.mark.parametrize(
    ("score", "output", "message"),
    [
        (
            segmentation_mean(3),
            torch.zeros(2, 3, 4, 4),
            r"category: expected a class in 0\.\.2, got 3",
        ),
        (segmentation_mean(-1), torch.zeros(2, 3, 4, 4), "category: .*got -1"),
        (segmentation_mean(0), OUTPUT, r"expected logits \(B, classes, H, W\).*got \(2, 3\)"),
        (segmentation_mean(0), {"aux": OUTPUT}, "output: expected one of 'aux', got 'out'"),
        (segmentation_mean(0, torch.ones(4)), torch.zeros(2, 3, 4, 4), r"mask: expected \(4, 4\)"),
    ],
)
def test_segmentation_that_does_not_fit_says_why(
    score: object, output: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        score(output)


def test_box_score_sums_overlapping_detections_of_the_label() -> None:
    detections = [
        {
            "boxes": torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 2, 2], [0, 0, 10, 10.0]]),
            "labels": torch.tensor([1, 1, 1, 2]),
            "scores": torch.tensor([0.5, 0.25, 0.9, 0.9]),
        }
    ]
    assert box_score(1, (0, 0, 10, 10))(detections).tolist() == [0.75]


def test_several_targets_share_one_forward_and_equal_single_ones() -> None:
    torch.manual_seed(0)
    model = Residual().double().eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    several = camfuse.layer_cams(model, x, target=camfuse.Each([0, [3, 1]]))
    assert len(calls) <= 1
    for t, target in enumerate([0, [3, 1]]):
        single = camfuse.layer_cams(model, x, target=target)
        chosen = several.select(target=t)
        assert torch.equal(chosen.flat, single.flat)
        assert torch.equal(chosen.ranges, single.ranges)
        assert torch.equal(chosen.scores, single.scores)


def test_a_function_target_reaches_the_layers() -> None:
    torch.manual_seed(0)
    model = Residual().double().eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)

    def difference(output: Tensor) -> Tensor:
        return output[:, 0] - output[:, 1]

    activation, gradient = autograd_pairs(model, x, difference)["conv"]
    expected = (activation * gradient).sum(1)
    stack = camfuse.layer_cams(model, x, method="hirescam", target=difference)
    assert relative_error(stack["conv"], expected) <= 1e-9


def test_detection_and_dict_outputs_work_through_functions() -> None:
    class Segmenter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.head = nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"out": self.head(self.conv(x).relu())}

    stack = camfuse.layer_cams(
        Segmenter().eval(), torch.randn(1, 3, 8, 8), target=segmentation_mean(1)
    )
    assert stack.names == ("conv", "head")
