"""Weakly supervised localization against a naive statement of its official procedure."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("cv2")
pytest.importorskip("torchmetrics")

import cv2
from torchmetrics import MetricCollection

from camfuse import metrics
from camfuse.metrics.wsol import score_maps

AS_IS = {"size": None, "normalize": True}


def naive_boxes(score: np.ndarray, tau: float) -> tuple[list[int], list[list[int]]]:
    """The box of the largest contour, and all boxes, of one map at one threshold."""
    height, width = score.shape
    map8 = (score * 255).astype(np.uint8)
    _, binary = cv2.threshold(map8, int(tau * map8.max()), 255, cv2.THRESH_BINARY)
    contours, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return [0, 0, 0, 0], [[0, 0, 0, 0]]

    def box(contour: np.ndarray) -> list[int]:
        x, y, w, h = cv2.boundingRect(contour)
        return [x, y, min(x + w, width - 1), min(y + h, height - 1)]

    return box(max(contours, key=cv2.contourArea)), [box(one) for one in contours]


def naive_iou(a: list[int], b: list[int]) -> float:
    """Corners are inside."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    common = max(width, 0) * max(height, 0)
    areas = [(one[2] - one[0] + 1) * (one[3] - one[1] + 1) for one in (a, b)]
    return common / (sum(areas) - common)


def blobs(count: int = 3, side: int = 24) -> torch.Tensor:
    small = torch.rand(count, 6, 6, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(small[:, None], (side, side), mode="bilinear")[:, 0]


TRUTH = [
    torch.tensor([[2, 3, 11, 12], [12, 12, 22, 23]]),
    torch.tensor([[0, 0, 23, 23]]),
    torch.tensor([[5, 5, 5, 9]]),
]


def test_overlaps_are_those_of_a_thousand_thresholds_one_by_one():
    maps = blobs()
    found = metrics.box_overlaps(maps, TRUTH, size=None)
    assert found.largest.shape == (3, 1000)
    scores = score_maps(maps, None).numpy()
    for score, truth, largest, every in zip(scores, TRUTH, *found, strict=True):
        for t, tau in enumerate(np.arange(0, 1, 0.001)):
            one, boxes = naive_boxes(score, tau)
            assert largest[t] == max(naive_iou(one, b) for b in truth.tolist())
            assert every[t] == max(naive_iou(a, b) for a in boxes for b in truth.tolist())


def test_a_box_worked_by_hand():
    maps = torch.zeros(1, 10, 10)
    maps[0, 2:5, 3:8] = 1  # columns 3 to 7, rows 2 to 4; the box ends one pixel later, at 8 and 5
    exact = metrics.box_overlaps(maps, [torch.tensor([[3, 2, 8, 5]])], **AS_IS)
    assert exact.largest.unique().tolist() == [1]
    tight = metrics.box_overlaps(maps, [torch.tensor([[3, 2, 7, 4]])], **AS_IS)
    assert tight.largest.unique().tolist() == [15 / 24]
    maps[0, :, :] = maps.flip(1, 2)[0]  # columns 2 to 6, rows 5 to 7
    maps[0, 9, 9] = 2  # half of the maximum is not above half of it
    found = metrics.box_overlaps(maps, [torch.tensor([[2, 5, 7, 8]])], step=0.5, **AS_IS)
    assert found.largest[0].tolist() == [1, 0]


def test_nothing_above_a_threshold_is_the_first_pixel():
    for empty in (torch.zeros(1, 4, 4), torch.full((1, 4, 4), torch.nan), torch.ones(1, 4, 4)):
        found = metrics.box_overlaps(empty, [torch.tensor([[0, 0, 1, 1]])], size=None)
        assert found.every.unique().tolist() == [1 / 4]


def test_of_two_blobs_all_contours_find_the_smaller_one():
    maps = torch.zeros(1, 20, 20)
    maps[0, 1:9, 1:9] = 1
    maps[0, 12:16, 12:16] = 1
    small = [torch.tensor([[12, 12, 16, 16]])]
    largest, every = metrics.MaxBoxAcc(size=None), metrics.MaxBoxAccV2(size=None)
    for metric in (largest, every):
        metric.update(maps, small)
    assert (largest.compute(), every.compute()) == (0, 1)


def test_the_contour_of_a_hole_counts():
    maps = torch.ones(1, 21, 21)
    maps[0, 7:14, 7:14] = 0
    # The hole's contour runs on the ring's own pixels around it, from 6 to 14, and 15 is its end.
    found = metrics.box_overlaps(maps, [torch.tensor([[6, 6, 15, 15]])], **AS_IS)
    assert found.every.unique().tolist() == [1]
    assert found.largest.unique().tolist() == [100 / 441]


def test_accuracies_take_one_threshold_for_all_images():
    # Each of two images is right in its own half of the thresholds.
    maps = torch.zeros(2, 12, 12)
    maps[:, 2:10, 2:10] = 0.5
    maps[:, 4:7, 4:7] = 1
    truth = [torch.tensor([[2, 2, 10, 10]]), torch.tensor([[4, 4, 7, 7]])]
    logits = torch.tensor([[0.1, 0.9], [0.2, 0.8]])
    options = {"size": None, "step": 0.1}
    collection = MetricCollection(
        {
            "known": metrics.MaxBoxAcc(**options),
            "v2": metrics.MaxBoxAccV2(**options),
            "top1": metrics.TopLocalization(1, **options),
            "top5": metrics.TopLocalization(5, **options),
        }
    )
    collection.update(maps, truth, logits, torch.tensor([1, 0]))
    assert {name: float(value) for name, value in collection.compute().items()} == {
        "known": 0.5,
        "v2": 0.5,
        "top1": 0.5,
        "top5": 0.5,
    }
    assert len(collection.compute_groups) == 1  # contours are found once for all four
    both_wrong = metrics.TopLocalization(1, **options)
    both_wrong.update(maps, truth, logits, torch.tensor([0, 0]))
    assert both_wrong.compute() == 0


def test_an_overlap_of_just_so_much_is_right():
    maps = torch.zeros(1, 10, 10)
    maps[0, :4, :4] = 1  # its box is 5 x 5, half of what is looked for
    for delta, right in ((0.5, 1), (0.51, 0)):
        metric = metrics.MaxBoxAcc(delta, size=None, step=0.5)
        metric.update(maps, [torch.tensor([[0, 0, 4, 9]])])
        assert metric.compute() == right


def test_metrics_that_resize_otherwise_stay_apart_in_a_collection():
    ways = {way: metrics.PxAP(0.1, resize=way) for way in ("official", "bilinear")}
    collection = MetricCollection(ways)
    masks = blobs() > 0.5
    collection.update(blobs(), masks)  # of the masks' size: nothing is resized
    collection.update(blobs()[:, ::4, ::4], masks)
    found = collection.compute()
    assert found["official"] != found["bilinear"]


def test_pixel_precision_worked_by_hand():
    maps = torch.tensor([[[0.0, 0.5, 0.5, 1.0, 0.2, 0.9]]])
    masks = torch.tensor([[[False, True, False, True, True, False]]])
    ignore = torch.tensor([[[False, False, False, True, False, True]]])  # 1.0 is the object's
    counts = metrics.pixel_counts(maps, masks, ignore=ignore, step=0.25)
    # From 0, 0.25, 0.5, 0.75 and 1 on:
    assert counts.tolist() == [[1, 0, 1, 0, 0], [1, 0, 1, 0, 1]]
    expected = 1 / 1 * 1 / 3 + 2 / 3 * 1 / 3 + 3 / 5 * 1 / 3
    assert metrics.average_precision(counts).item() == pytest.approx(expected)


def test_pixel_precision_pools_all_images_even_those_without_object():
    maps, ap = blobs(), metrics.PxAP(step=0.01)
    masks = maps > 0.6
    masks[1] = False
    ap.update(maps[:1], masks[:1])
    ap.update(maps[1:], masks[1:])
    scores = score_maps(maps, None).numpy()
    edges = [*np.arange(0, 1, 0.01), 1, 2, 3]
    right, wrong = (
        np.histogram(scores[chosen.numpy()], edges)[0][::-1].cumsum() for chosen in (masks, ~masks)
    )
    seen = right + wrong
    precision = np.divide(right, seen, where=seen > 0, out=np.zeros(len(seen)))
    expected = (precision[1:] * np.diff(right / right[-1])).sum()
    assert ap.compute().item() == pytest.approx(expected, rel=1e-12)


def test_a_perfect_map_has_a_precision_of_one():
    masks = blobs() > 0.6
    counts = metrics.pixel_counts(masks.float(), masks)
    assert metrics.average_precision(counts) == 1


def test_small_maps_grow_as_opencv_lets_them():
    maps = torch.rand(1, 7, 7, generator=torch.Generator().manual_seed(0)).double()
    grown = cv2.resize(maps[0].numpy(), (30, 40), interpolation=cv2.INTER_CUBIC)
    grown = (grown - grown.min()) / (grown - grown.min()).max()
    np.testing.assert_allclose(score_maps(maps, (40, 30))[0], grown, atol=2e-6)
    displayed = torch.nn.functional.interpolate(maps[:, None], (40, 30), mode="bilinear")[:, 0]
    scores = score_maps(maps, (40, 30), resize="bilinear")
    torch.testing.assert_close(scores, score_maps(displayed, None))


def test_boxes_follow_their_image_cut_to_whole_pixels():
    boxes = metrics.resized_boxes(torch.tensor([[10, 21, 333, 250]]), (250, 333), (224, 224))
    assert boxes.tolist() == [[6, 18, 224, 224]]


def test_the_order_of_a_batch_and_the_scale_of_maps_do_not_matter():
    found = metrics.box_overlaps(blobs(), TRUTH, size=None)
    turned = metrics.box_overlaps(blobs().flip(0) * 4, TRUTH[::-1], size=None)
    assert torch.equal(found.every.flip(0), turned.every)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"boxes": TRUTH[:2]}, "boxes: expected those of 3 samples, got 2"),
        ({"boxes": [TRUTH[0].flip(1)] * 3}, r"boxes\[0\]: expected x1 <= x2 and y1 <= y2"),
        ({"boxes": [TRUTH[0] + 5] * 3}, r"boxes\[0\]: expected boxes within 24 x 24 pixels"),
        ({"step": 0}, "step: expected more than 0 and at most 1, got 0"),
        ({"resize": "cubic"}, "resize: expected 'official' or 'bilinear', got 'cubic'"),
        ({"maps": blobs() * 2, "normalize": False}, r"maps: expected numbers in \[0, 1\]"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        metrics.box_overlaps(**{"maps": blobs(), "boxes": TRUTH, "size": None} | arguments)


def test_metrics_refuse_what_they_cannot_answer():
    maps, masks = blobs(), torch.zeros(3, 24, 24, dtype=torch.bool)
    ap, top = metrics.PxAP(), metrics.TopLocalization(size=None, step=0.1)
    ap.update(maps, masks)
    with pytest.raises(ValueError, match="masks: expected a pixel inside an object or more"):
        ap.compute()
    top.update(maps, TRUTH)
    with pytest.raises(ValueError, match="logits: expected those of all 3 images, got 0"):
        top.compute()
    with pytest.raises(ValueError, match=r"labels: expected 0\.\.1, got \[0, 1, 2\]"):
        top.update(maps, TRUTH, torch.zeros(3, 2), torch.arange(3))
    with pytest.raises(ValueError, match="logits: expected together with labels"):
        top.update(maps, TRUTH, torch.zeros(3, 2))
    with pytest.raises(ValueError, match="k: expected 1 or 5, got 2"):
        metrics.TopLocalization(2)
    with pytest.raises(ValueError, match=r"deltas: expected numbers in \(0, 1\], got \[0\]"):
        metrics.MaxBoxAccV2([0])
