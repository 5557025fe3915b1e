"""Metrics of pytorch-grad-cam's face: the peer's numbers, noise included; models are left alone."""

import copy

import cv2
import numpy as np
import pytest
import pytorch_grad_cam.metrics.arcc as peer_arcc
import pytorch_grad_cam.metrics.cam_mult_image as peer_mult
import pytorch_grad_cam.metrics.perturbation_confidence as peer_confidence
import pytorch_grad_cam.metrics.road as peer_road
import torch
from pytorch_grad_cam import GradCAM
from torch import nn

from camfuse.compat.pytorch_grad_cam.metrics import (
    arcc,
    cam_mult_image,
    perturbation_confidence,
    road,
)
from camfuse.compat.pytorch_grad_cam.utils.model_targets import (
    ClassifierOutputSoftmaxTarget,
    RawScoresOutputTarget,
)

SINGLE = [
    (peer_mult, cam_mult_image, "CamMultImageConfidenceChange"),
    (peer_mult, cam_mult_image, "DropInConfidence"),
    (peer_mult, cam_mult_image, "IncreaseInConfidence"),
    (peer_road, road, "ROADMostRelevantFirst"),
    (peer_road, road, "ROADLeastRelevantFirst"),
]
AVERAGES = ["ROADMostRelevantFirstAverage", "ROADLeastRelevantFirstAverage", "ROADCombined"]


@pytest.fixture
def model():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(), nn.Linear(32, 5)).eval()


def images(batch=3, channels=3):
    return torch.randn(batch, channels, 24, 21, generator=torch.Generator().manual_seed(1))


def cams(batch=3):
    return np.random.default_rng(0).random((batch, 24, 21), dtype=np.float32)


def targets(batch=3):
    return [ClassifierOutputSoftmaxTarget(i % 5) for i in range(batch)]


def seeded(metric, *arguments, **options):
    torch.manual_seed(5)
    return metric(*arguments, **options)


@pytest.mark.parametrize(("peer", "face", "name"), SINGLE)
def test_changes_are_the_peers(peer, face, name, model):
    arguments = images(), cams(), targets(), model

    found = seeded(getattr(face, name)(), *arguments)

    assert found.dtype == np.float32
    np.testing.assert_allclose(found, seeded(getattr(peer, name)(), *arguments), atol=1e-6)


@pytest.mark.parametrize("percentile", [0, 10, 37.5, 90, 99.9])
@pytest.mark.parametrize("name", ["ROADMostRelevantFirst", "ROADLeastRelevantFirst"])
def test_imputed_images_are_the_peers_with_their_noise(name, percentile, model):
    arguments = images(), cams(), targets(), model
    options = {"return_visualization": True, "return_diff": False}

    found, shown = seeded(getattr(road, name)(percentile), *arguments, **options)

    scores, expected = seeded(getattr(peer_road, name)(percentile), *arguments, **options)
    torch.testing.assert_close(shown, expected, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found, scores, atol=1e-4)


@pytest.mark.parametrize("percentiles", [None, [20, 50]])
@pytest.mark.parametrize("name", AVERAGES)
def test_means_over_percentiles_are_the_peers_and_draw_as_much_noise(name, percentiles, model):
    arguments = images(), cams(), targets(), model
    options = {} if percentiles is None else {"percentiles": percentiles}

    results = []
    for module in (road, peer_road):
        metric = getattr(module, name)(**options)
        results.append((seeded(metric, *arguments), torch.get_rng_state()))

    (found, state), (expected, other_state) = results
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert torch.equal(state, other_state)


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("removed", [0, 1, 40, 503, 504])
def test_an_imputer_fills_in_what_the_peers_does(channels, removed):
    image = images(1, channels)[0]
    mask = torch.ones(24 * 21)
    mask[torch.randperm(24 * 21, generator=torch.Generator().manual_seed(0))[:removed]] = 0
    arguments = image, mask.view(24, 21)

    found = seeded(road.NoisyLinearImputer(), *arguments)

    if removed == 504:  # nothing to solve for: the peer's answer depends on its solver
        assert found.abs().max() < 0.1
    elif removed == 0:
        assert torch.equal(found, image)
    else:
        expected = seeded(peer_road.NoisyLinearImputer(), *arguments)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_noise_is_drawn_on_the_cpu_whatever_the_default_device():
    arguments = images(1)[0], torch.zeros(24, 21)
    expected = seeded(road.NoisyLinearImputer(), *arguments)

    torch.manual_seed(5)
    with torch.device("meta"):
        found = road.NoisyLinearImputer()(*arguments)

    assert torch.equal(found, expected)


def test_the_weights_of_neighbors_are_the_peers_and_no_others_are_taken():
    assert dict(road.neighbors_weights) == dict(peer_road.neighbors_weights)
    road.NoisyLinearImputer(weighting=peer_road.neighbors_weights)

    with pytest.raises(ValueError, match=r"^weighting: expected neighbors_weights"):
        road.NoisyLinearImputer(weighting=[((0, 1), 1.0)])


@pytest.mark.parametrize("name", ["RemoveMostRelevantFirst", "RemoveLeastRelevantFirst"])
def test_imputers_are_given_the_peers_masks(name):
    given = []
    for module in (perturbation_confidence, peer_confidence):
        remove = getattr(module, name)(30, lambda image, mask: given.append(mask))
        remove(images(1)[0], torch.from_numpy(cams(1)[0]))

    torch.testing.assert_close(*given, rtol=0, atol=0)


@pytest.mark.parametrize("seed", range(5))
def test_auto_removes_what_is_above_otsus_threshold(seed):
    cam = np.random.default_rng(seed).beta(1 + seed, 2, (24, 21)).astype(np.float32)
    _, above = cv2.threshold(np.uint8(cam * 255), 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)

    remove = perturbation_confidence.RemoveMostRelevantFirst("auto", lambda image, mask: mask)
    kept = remove(images(1)[0], torch.from_numpy(cam))

    assert kept.dtype == torch.float32
    np.testing.assert_array_equal(kept.numpy(), 1 - above)


def test_the_mean_of_any_metric_is_taken():
    average = perturbation_confidence.AveragerAcrossThresholds(
        lambda percentile: lambda *arguments: [percentile, 0.0], [1, 2, 6]
    )

    np.testing.assert_allclose(average(None, None, None, None), [3, 0])


def test_percentiles_of_one_metric_are_not_those_of_another():
    road.ROADCombined().percentiles.append(95)

    assert 95 not in road.ROADCombined().percentiles


@pytest.mark.parametrize(("_peer", "face", "name"), SINGLE)
def test_every_change_comes_with_the_images_if_wanted(_peer, face, name, model):
    metric = getattr(face, name)()

    found, shown = seeded(metric, images(), cams(), targets(), model, return_visualization=True)

    assert found.shape == (3,)
    assert shown.shape == images().shape


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("trainable", [True, False])
def test_a_model_is_left_as_it_was(model, mode, trainable):
    model.train(mode == "train").requires_grad_(trainable)
    model[5].eval()
    modes = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    expected = seeded(road.ROADCombined([50]), images(), cams(), targets(), model.eval())
    model.train(mode == "train")
    model[5].eval()

    found = seeded(road.ROADCombined([50]), images(), cams(), targets(), model)

    np.testing.assert_array_equal(found, expected)
    assert [module.training for module in model.modules()] == modes
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert all(p.grad is None and p.requires_grad == trainable for p in model.parameters())


def test_a_model_that_fails_is_left_in_its_mode(model):
    model.train()

    with pytest.raises(RuntimeError):
        road.ROADMostRelevantFirst()(images(channels=4), cams(), targets(), model)

    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("name", ["ROADCombined", "ROADMostRelevantFirst"])
def test_a_model_in_bf16_has_scores_like_one_in_f32(name, model):
    expected = seeded(getattr(road, name)(), images(), cams(), targets(), model)

    found = seeded(getattr(road, name)(), images().bfloat16(), cams(), targets(), model.bfloat16())

    np.testing.assert_allclose(found, expected, atol=0.01)


def test_images_in_bf16_are_multiplied_by_maps_and_stay_so(model):
    metric = cam_mult_image.DropInConfidence()

    _, shown = metric(
        images().bfloat16(), cams(), targets(), model.bfloat16(), return_visualization=True
    )

    assert shown.dtype == torch.bfloat16


def test_maps_may_be_tensors_and_images_may_want_gradients(model):
    arguments = targets(), model
    metric = road.ROADMostRelevantFirst()

    found = seeded(metric, images().requires_grad_(), torch.from_numpy(cams()), *arguments)

    np.testing.assert_array_equal(found, seeded(metric, images(), cams(), *arguments))


def test_a_model_may_be_any_function_and_a_target_any_part_of_its_output(model):
    metric = cam_mult_image.CamMultImageConfidenceChange()

    found = metric(images(), cams(), [RawScoresOutputTarget()] * 3, lambda x: model(x))

    assert found.shape == (3, 5)


@pytest.mark.parametrize(
    ("maps", "goals", "argument"),
    [(cams(2), targets(), "cams"), (cams(), targets(1), "targets"), (cams(4), targets(), "cams")],
)
def test_too_few_or_too_many_maps_or_targets_are_refused(maps, goals, argument, model):
    with pytest.raises(ValueError, match=f"^{argument}: expected 3, one per image"):
        road.ROADCombined()(images(), maps, goals, model)


def test_a_target_per_output_is_needed(model):
    with pytest.raises(ValueError, match=r"^targets: expected one per output, got 3 for 1"):
        road.ROADCombined()(images(), cams(), targets(), lambda x: [model(x)])


def test_complexity_is_the_peers():
    np.testing.assert_allclose(arcc.Complexity()(cams()), peer_arcc.Complexity()(cams()), rtol=1e-5)


def test_correlations_are_the_peers_and_those_of_constants_0():
    a, b = cams(), cams() ** 2 + cams()[::-1]
    b[2] = 0.5

    found = arcc.batch_pearson_coherency(a, b)

    np.testing.assert_allclose(found, peer_arcc.batch_pearson_coherency(a, b), atol=1e-5)
    assert found[2] == 0


def test_coherency_and_arcc_are_the_peers(model):
    method = GradCAM(model, [model[0]])
    maps = method(images(), targets())
    arguments = images(), maps, targets(), model

    found = arcc.Coherency()(*arguments, method)
    np.testing.assert_allclose(found, peer_arcc.Coherency()(*arguments, method), atol=1e-5)

    found, expected = (seeded(one.ARCC(method), *arguments) for one in (arcc, peer_arcc))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
