"""Drop, increase and gain under the map's mask: by hand, torchcam and pytorch-grad-cam."""

from __future__ import annotations

import math

import pytest
import torch

from camfuse.metrics import (
    Confidence,
    confidence_drop,
    confidence_increase,
    masked_confidence,
)
from faithful import LinearModel, seeded, small_net, unit_maps
from test_deletion_insertion import Extractor

IMAGES = seeded(6, 3, 8, 8, seed=2, dtype=torch.float32)
MAPS = unit_maps(6, 8, 8)
CLASSES = [0, 1, 2, 3, 4, 0]


def test_shares_of_what_could_be_lost_and_won():
    found = Confidence(torch.tensor([0.8, 0.2, 0.5, 0.0, 1.0]), torch.tensor([0.2, 0.8, 0.5, 0, 1]))
    assert found.drop.tolist() == pytest.approx([0.75, 0, 0, 0, 0])
    assert found.increase.tolist() == [0, 1, 0, 0, 0]
    assert found.gain.tolist() == pytest.approx([0, 0.75, 0, 0, 0])


def test_a_pixel_counts_as_much_as_the_map_says():
    model = LinearModel(torch.tensor([[[[0.5, 0.25], [0.125, 0.125]]]])).eval()
    maps = torch.tensor([[[1.0, 0.5], [0.0, 1.0]]])
    found = masked_confidence(model, torch.ones(1, 1, 2, 2), maps, 0, output="logit")
    assert (found.before.tolist(), found.after.tolist()) == ([1.0], [0.75])


def test_drop_and_increase_are_those_of_torchcam():
    from torchcam.metrics import ClassificationMetric

    model, maps = small_net(), unit_maps(6, 4, 4)
    peer = ClassificationMetric(Extractor(model, maps), lambda y: y.softmax(1))
    peer.update(IMAGES, CLASSES)
    found = {
        "avg_drop": confidence_drop(model, IMAGES, maps, CLASSES),
        "conf_increase": confidence_increase(model, IMAGES, maps, CLASSES),
    }
    assert 0 < found["conf_increase"].mean() < 1
    assert {name: float(one.mean()) for name, one in found.items()} == pytest.approx(
        peer.summary(), abs=1e-6
    )


def test_pytorch_grad_cam_drops_points_rather_than_shares():
    # Its drop is not divided by the score before, as the definition has it.
    from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    model = small_net()
    arguments = (IMAGES, MAPS.numpy(), [ClassifierOutputSoftmaxTarget(c) for c in CLASSES], model)
    found = masked_confidence(model, IMAGES, MAPS, CLASSES)
    assert (found.drop * found.before).tolist() == pytest.approx(
        DropInConfidence()(*arguments).tolist(), abs=1e-6
    )
    assert found.increase.tolist() == IncreaseInConfidence()(*arguments).tolist()


def test_the_class_is_that_of_the_unmasked_image():
    model = LinearModel(torch.tensor([[[[1.0, 0.0]]], [[[0.0, 2.0]]]])).eval()
    maps = torch.tensor([[[1.0, 0.0]]])  # hides what the image was taken for
    found = masked_confidence(model, torch.ones(1, 1, 1, 2), maps)
    e = math.e
    assert float(found.before) == pytest.approx(e**2 / (e + e**2))
    assert float(found.after) == pytest.approx(1 / (e + 1))


def test_maps_beyond_a_mask_are_refused_by_sample():
    maps = MAPS.clone()
    maps[4, 0, 0] = 1.5
    with pytest.raises(ValueError, match=r"maps: expected values in \[0, 1\].* 1.5 in sample 4"):
        masked_confidence(small_net(), IMAGES, maps)


def test_scores_of_which_there_is_no_share_are_refused():
    with pytest.raises(ValueError, match=r"output: expected scores in \[0, 1\]"):
        masked_confidence(LinearModel(torch.ones(2, 3, 8, 8)).eval(), IMAGES, MAPS, output="logit")
