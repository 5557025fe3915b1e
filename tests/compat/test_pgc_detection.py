"""Detectors: feature pyramids, outputs that are lists of dicts, targets about boxes."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_grad_cam as peer
import torch
from pgc_cases import LIBRARIES, quiet
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

import camfuse.compat.pytorch_grad_cam as ours


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    found = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=3,
        min_size=192,  # three positions a side at the coarsest level
        max_size=192,
        rpn_post_nms_top_n_test=20,
        box_score_thresh=0.0,
        box_detections_per_img=4,
    ).eval()
    for module in found.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    return found


@pytest.fixture
def x():
    return torch.rand(1, 3, 192, 192, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def boxes(model, x):
    """What the model finds, which is then asked about."""
    with torch.no_grad():
        found = model(x)[0]
    assert len(found["boxes"])
    return found["labels"][:2], found["boxes"][:2]


def call(library, method, model, x, boxes, **options):
    target = library.utils.model_targets.FasterRCNNBoxScoreTarget(*boxes)
    reshape = library.utils.reshape_transforms.fasterrcnn_reshape_transform
    cam = getattr(library, method)(model, [model.backbone], reshape, **options)
    with quiet():
        return cam, cam(x, [target])


@pytest.mark.parametrize("k", [0.5, 1])
def test_pyramids_are_shown_without_gradients(model, x, boxes, k):
    expected, found = (call(one, "FEM", model, x, boxes, k=k)[1] for one in LIBRARIES.values())
    assert expected.max() > 0.9
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


def peer_layer():
    class Layer(peer.AblationLayerFasterRCNN):
        """The peer's names five levels; these models have three."""

        def __call__(self, x):
            result = self.activations
            for i in range(len(result["pool"])):
                level, channel = divmod(int(self.indices[i]), 256)
                result[("0", "1", "pool")[level]][i, channel] = -1000
            return result

    return Layer()


def test_channels_of_pyramids_are_ablated(model, x, boxes):
    options = {"ratio_channels_to_ablate": 0.02, "batch_size": 8}
    _, expected = call(peer, "AblationCAM", model, x, boxes, ablation_layer=peer_layer(), **options)
    cam, found = call(
        ours,
        "AblationCAM",
        model,
        x,
        boxes,
        ablation_layer=ours.AblationLayerFasterRCNN(),
        **options,
    )
    assert found.max() > 0.9
    np.testing.assert_allclose(found, expected, atol=1e-2, rtol=0)
    assert cam.model.backbone is cam.target_layers[0]


def test_the_model_has_its_backbone_again_after_an_error(model, x, boxes):
    backbone = model.backbone

    class Failing(ours.AblationLayerFasterRCNN):
        def __call__(self, x):
            assert model.backbone is self
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        call(ours, "AblationCAM", model, x, boxes, ablation_layer=Failing())
    assert model.backbone is backbone


def test_a_method_that_asks_for_no_score_needs_no_targets_of_a_detector(model, x):
    reshape = ours.utils.reshape_transforms.fasterrcnn_reshape_transform
    found = ours.EigenCAM(model, [model.backbone], reshape)(x, None)
    np.testing.assert_array_equal(found, ours.EigenCAM(model, [model.backbone], reshape)(x, [len]))
    with pytest.raises(ValueError, match="targets: expected one per image"):
        ours.AblationCAM(model, [model.backbone], reshape)(x, None)


@pytest.mark.parametrize("method", ["GradCAM", "LayerCAM"])
def test_gradients_reach_a_layer_of_the_backbone(model, x, boxes, method):
    def made(library):
        target = library.utils.model_targets.FasterRCNNBoxScoreTarget(*boxes)
        layer = model.backbone.fpn.layer_blocks[0]
        cam = getattr(library, method)(model, [layer])
        with quiet():
            return cam(x, [target])

    np.testing.assert_allclose(made(ours), made(peer), atol=1e-3, rtol=0)
