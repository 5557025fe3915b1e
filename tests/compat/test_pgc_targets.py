"""Targets, scored as the peer scores them."""

import numpy as np
import pytest
import pytorch_grad_cam.utils.model_targets as peer
import torch

from camfuse.compat.pytorch_grad_cam.utils import model_targets as face

CLASSIFIERS = [
    ("ClassifierOutputTarget", (2,)),
    ("ClassifierOutputTarget", (-1,)),
    ("ClassifierOutputSoftmaxTarget", (2,)),
    ("ClassifierOutputReST", (2,)),
    ("BinaryClassifierOutputTarget", (0,)),
    ("BinaryClassifierOutputTarget", (1,)),
    ("SoftmaxOutputTarget", ()),
    ("RawScoresOutputTarget", ()),
    ("FinerWeightedTarget", (2, [0, 4, 1], 0.6)),
]


def both(name, *arguments):
    return getattr(face, name)(*arguments), getattr(peer, name)(*arguments)


def output(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def with_gradient(target, values):
    values = values.clone().requires_grad_()
    score = target(values)
    (gradient,) = torch.autograd.grad(score.sum(), values)
    return score.detach(), gradient


@pytest.mark.parametrize("shape", [(5,), (3, 5)])
@pytest.mark.parametrize(("name", "arguments"), CLASSIFIERS)
def test_classifiers_are_scored_alike_and_so_are_gradients(name, arguments, shape):
    target, other = both(name, *arguments)

    found, expected = (with_gradient(one, output(*shape)) for one in (target, other))

    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "arguments"), CLASSIFIERS)
def test_outputs_in_half_precision_have_scores(name, arguments, dtype):
    target, _ = both(name, *arguments)
    values = output(5, dtype=dtype)

    score, gradient = with_gradient(target, values)

    torch.testing.assert_close(score.float(), target(values.float()), rtol=0.02, atol=0.03)
    assert gradient.isfinite().all()


def test_a_class_of_a_dense_output_is_a_plane():
    target, other = both("ClassifierOutputTarget", 2)

    assert torch.equal(target(output(2, 5, 4, 4)), other(output(2, 5, 4, 4)))


@pytest.mark.parametrize("category", [5, -6])
def test_a_class_that_is_none_is_refused(category):
    with pytest.raises(IndexError, match=r"^category: expected a class in 0\.\.4"):
        face.ClassifierOutputTarget(category)(output(5))


@pytest.mark.parametrize("given", [{"out": output(5)}, torch.tensor(1.0)])
def test_an_output_without_classes_is_refused(given):
    with pytest.raises(ValueError, match=r"^model_output: expected a tensor"):
        face.ClassifierOutputTarget(0)(given)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32, np.float64])
def test_pixels_of_a_mask_are_summed(dtype):
    mask = (np.random.default_rng(0).random((6, 7)) > 0.5).astype(dtype)
    target, other = both("SemanticSegmentationTarget", 1, mask)

    found, expected = (with_gradient(one, output(3, 6, 7)) for one in (target, other))

    torch.testing.assert_close(found, expected)


def test_a_mask_may_be_a_tensor_and_the_output_bf16():
    target = face.SemanticSegmentationTarget(1, torch.ones(6, 7))

    assert torch.isfinite(target(output(3, 6, 7, dtype=torch.bfloat16)))


@pytest.mark.parametrize("shape", [(3, 6, 8), (1, 3, 6, 7), (3, 6)])
def test_a_mask_of_another_size_is_refused(shape):
    with pytest.raises(ValueError, match=r"^mask: expected an output"):
        face.SemanticSegmentationTarget(0, np.ones((6, 7)))(output(*shape))


def detections(count=20, dtype=torch.float32, seed=0):
    random = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=random) * 40
    size = torch.rand(count, 2, generator=random) * 40 + 1
    return {
        "boxes": torch.cat([corner, corner + size], 1).to(dtype),
        "labels": torch.randint(1, 3, (count,), generator=random),
        "scores": torch.rand(count, generator=random).to(dtype),
    }


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_detections_are_scored_alike_and_so_are_gradients(seed, threshold):
    wanted, given = detections(6, seed=seed + 10), detections(seed=seed)
    # Some are found for certain.
    wanted["boxes"][:2], wanted["labels"][:2] = given["boxes"][:2] + 0.2, given["labels"][:2]
    boxes, labels = wanted["boxes"].numpy(), wanted["labels"].numpy()

    results = []
    for target in both("FasterRCNNBoxScoreTarget", labels, boxes, threshold):
        leaves = [given[key].clone().requires_grad_() for key in ("boxes", "scores")]
        score = target({**given, "boxes": leaves[0], "scores": leaves[1]})
        results.append((score.detach(), *torch.autograd.grad(score.sum(), leaves)))

    assert results[0][0].shape == (1,)
    torch.testing.assert_close(*results)


def test_detections_in_bf16_have_a_score():
    wanted = detections(3)
    target = face.FasterRCNNBoxScoreTarget(wanted["labels"], wanted["boxes"])

    score = target(detections(3, torch.bfloat16))

    assert score.dtype == torch.bfloat16
    assert float(score) > 3


@pytest.mark.parametrize("count", [0, 5])
def test_a_score_without_matches_is_0_and_has_a_gradient(count):
    given = detections(count)
    given["boxes"].requires_grad_()
    target = face.FasterRCNNBoxScoreTarget([9], [[0.0, 0, 5, 5]])

    score = target(given)
    score.backward()

    assert score.tolist() == [0]
    assert not given["boxes"].grad.any()


def test_boxes_without_area_have_finite_gradients():
    given = detections(2)
    given["boxes"] = torch.tensor([[1.0, 1, 1, 1], [0, 0, 4, 4]], requires_grad=True)

    face.FasterRCNNBoxScoreTarget([1], [[1.0, 1, 1, 1]])(given).backward()

    assert given["boxes"].grad.isfinite().all()


@pytest.mark.parametrize(
    ("labels", "boxes"), [([1, 2], [[0, 0, 1, 1]]), ([1], [[0, 0, 1]]), ([1], [])]
)
def test_labels_without_boxes_are_refused(labels, boxes):
    with pytest.raises(ValueError, match=r"^bounding_boxes: expected"):
        face.FasterRCNNBoxScoreTarget(labels, boxes)


def test_a_comparison_with_nothing_is_refused():
    with pytest.raises(ValueError, match=r"^comparison_categories: expected at least one"):
        face.FinerWeightedTarget(0, [], 1.0)
