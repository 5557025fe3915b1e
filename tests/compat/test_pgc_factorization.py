"""Deep feature factorization finds the peer's concepts."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from pgc_cases import Case, quiet
from PIL import Image
from pytorch_grad_cam import DeepFeatureFactorization as PeerFactorization
from pytorch_grad_cam.feature_factorization.deep_feature_factorization import dff as peer_dff
from torch import nn

from camfuse.compat.pytorch_grad_cam import DeepFeatureFactorization, run_dff_on_image
from camfuse.compat.pytorch_grad_cam.feature_factorization.deep_feature_factorization import dff

CASE = Case("VGG", batch=2, layers=1)
(LAYER,) = CASE.target_layers


def activations():
    found = np.random.default_rng(0).normal(size=(2, 6, 5, 4)).astype(np.float32)
    found[0, 1, 2, 3] = np.nan
    return found


def assert_same(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


def test_concepts_of_arrays_are_the_peers():
    with quiet():
        pairs = zip(dff(activations(), 3), peer_dff(activations(), 3), strict=True)
    for found, expected in pairs:
        assert_same(found, expected)


def test_arrays_are_left_as_they_were():
    A = activations()
    with quiet():
        dff(A, 2)
    np.testing.assert_array_equal(A, activations())


@pytest.mark.parametrize("classifier", [None, nn.Linear(16, 10)], ids=["without", "with"])
def test_concepts_of_models_are_the_peers(classifier):
    with quiet():
        expected = PeerFactorization(CASE.model, LAYER, computation_on_concepts=classifier)(
            CASE.x, 4
        )
        found = DeepFeatureFactorization(CASE.model, LAYER, computation_on_concepts=classifier)(
            CASE.x, 4
        )
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


def test_tokens_are_reshaped():
    case = Case("ViT", batch=1, layers=1)
    with quiet():
        expected, found = (
            kind(case.model, case.target_layers[0], case.fold)(case.x, 3)
            for kind in (PeerFactorization, DeepFeatureFactorization)
        )
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


def test_a_picture_names_the_concepts():
    model = CASE.model
    model.config = SimpleNamespace(id2label={i: f"class {i}, or so" for i in range(10)})
    img = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8))
    try:
        with quiet():
            found = run_dff_on_image(model, LAYER, nn.Linear(16, 10), img, CASE.x[0])
    finally:
        del model.config
    assert found.shape == (64, 192, 3)
    np.testing.assert_array_equal(found[:, :64], np.array(img))


def test_without_scikit_learn_an_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)
    with pytest.raises(ImportError, match=r"pip install camfuse\[compat\]"):
        dff(activations(), 2)


def test_a_layer_that_is_not_executed_is_refused():
    with pytest.raises(ValueError, match="target_layer: expected a layer that the model executes"):
        DeepFeatureFactorization(CASE.model, nn.ReLU())(CASE.x)


def test_the_models_mode_is_kept():
    model = CASE.model.train()
    try:
        with quiet(), DeepFeatureFactorization(model, LAYER) as factorize:
            factorize(CASE.x, 2)
        assert all(module.training for module in model.modules())
    finally:
        model.eval()
