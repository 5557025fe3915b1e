"""Where torchcam differs from what it documents, the formula is what counts."""

from __future__ import annotations

import pytest
import torch
import torchcam.methods as theirs
from torch import nn
from torch.testing import assert_close
from torchcam_models import call, images, net

import camfuse.compat.torchcam.methods as ours


def assert_alike(raw, expected):
    """Both say something, and the same."""
    assert float(expected.max()) > 0
    assert_close(raw, expected.clamp(min=0).float(), rtol=1e-4, atol=1e-5 * float(expected.max()))


def test_gradcam_plus_plus_is_its_formula():
    model, x = net(), images()
    (raw,), (A,), (G,) = call(ours.GradCAMpp, model, "last", x, [1, 2], normalized=False)
    a, g = A.double(), G.double()
    alpha = g**2 / (2 * g**2 + g**3 * a.sum((2, 3), keepdim=True) + 1e-6)
    weights = (alpha * g.clamp(min=0)).sum((2, 3), keepdim=True)
    assert_alike(raw, (weights * a).sum(1))


@pytest.mark.parametrize("method", ["GradCAM", "GradCAMpp", "XGradCAM", "LayerCAM"])
def test_weights_handed_to_subclasses_make_the_native_maps(method):
    class Sub(getattr(ours, method)):
        def _get_weights(self, class_idx, scores, **kwargs):
            return super()._get_weights(class_idx, scores, **kwargs)

    model, x = net(), images()
    native = call(getattr(ours, method), model, "last", x, [1, 2], normalized=False)[0]
    assert float(native[0].max()) > 0
    assert_close(call(Sub, model, "last", x, [1, 2], normalized=False)[0], native)


@pytest.mark.parametrize("method", ["GradCAMpp", "XGradCAM"])
def test_an_epsilon_of_the_users_own_is_used(method):
    model, x = net(), images()
    kind = getattr(ours, method)
    with kind(model, "last") as extractor:
        usual = extractor(1, model(x), normalized=False)
        large = extractor(1, model(x), normalized=False, eps=1e5)
    assert float(large[0].abs().max()) < 1e-2 * float(usual[0].abs().max())


def noisy_inputs(kind, model, x, **options):
    """What the model is called with when maps are asked for."""
    seen = []
    torch.manual_seed(3)
    with kind(model, "last", **options) as extractor:
        scores = model(x)
        handle = model.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
        extractor(1, scores)
        handle.remove()
    return [one.detach() for one in seen], torch.get_rng_state()


def test_smooth_gradcam_plus_plus_draws_the_peers_noise():
    model, x = net(), images()
    mine, other = (
        noisy_inputs(side.SmoothGradCAMpp, model, x, num_samples=3, std=0.2)
        for side in (ours, theirs)
    )
    assert len(mine[0]) == 3
    assert_close(mine[0], other[0], rtol=1e-6, atol=1e-6)
    assert torch.equal(mine[1], other[1])


def test_smooth_gradcam_plus_plus_is_its_formula():
    model, x = net(), images()
    noisy, _ = noisy_inputs(ours.SmoothGradCAMpp, model, x, num_samples=3, std=0.2)
    torch.manual_seed(3)
    with ours.SmoothGradCAMpp(model, "last", num_samples=3, std=0.2) as extractor:
        model(x)
        (raw,) = extractor(1, normalized=False)
    gradients = [call(ours.GradCAM, model, "last", one, 1)[2][0].double() for one in noisy]
    A = call(ours.GradCAM, model, "last", x, 1)[1][0].double()
    d1, d2, d3 = (torch.stack([g**n for g in gradients]).mean(0) for n in (1, 2, 3))
    alpha = d2 / (2 * d2 + d3 * A.sum((2, 3), keepdim=True) + 1e-8)
    weights = (alpha * d1.clamp(min=0)).sum((2, 3), keepdim=True)
    assert_alike(raw, (weights * A).sum(1))


def test_smooth_gradcam_plus_plus_without_noise_is_gradcam_plus_plus():
    model, x = net(), 50 * images()
    (smooth,) = call(ours.SmoothGradCAMpp, model, "last", x, 1, std=1e-9)[0]
    with ours.GradCAMpp(model, "last") as extractor:
        (plain,) = extractor(1, model(x), eps=1e-8)
    assert_close(smooth, plain, rtol=0, atol=1e-4)


def test_what_is_overwritten_in_place_is_shown_as_the_layer_returned_it():
    x = images()
    expected = call(ours.GradCAM, net(), ["first", "norm", "second"], x, [1, 2])
    found = call(ours.GradCAM, net(inplace=True), ["first", "norm", "second"], x, [1, 2])
    for one, two in zip(found, expected, strict=True):
        assert_close(one, two)
    # torchcam's activations are what the ReLU left behind
    assert float(call(theirs.GradCAM, net(inplace=True), "norm", x, [1, 2])[1][0].min()) == 0


def test_a_module_that_is_called_twice_counts_by_its_last_call():
    model, x = net(), images()
    mine, other = (call(side.GradCAM, model, "relu", x, [1, 2]) for side in (ours, theirs))
    for one, two in zip(mine, other, strict=True):
        assert_close(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("method", ["GradCAM", "LayerCAM", "SmoothGradCAMpp", "ScoreCAM"])
def test_maps_have_the_models_dtype_and_are_as_good_as_it_allows(method, dtype):
    kind = getattr(ours, method)
    expected = call(kind, net(), "last", images(), 1)[0]
    found = call(kind, net().to(dtype), "last", images().to(dtype), 1)[0]
    assert found[0].dtype == dtype
    assert_close(found[0].float(), expected[0], rtol=0, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_map_without_evidence_is_zero(dtype):
    model = net().to(dtype)
    nn.init.zeros_(model.fc.weight)
    (found,) = call(ours.GradCAM, model, "last", images().to(dtype), 1)[0]
    assert torch.equal(found, torch.zeros_like(found))


def test_a_map_of_one_position_is_zero_as_the_peers():
    model = nn.Sequential(nn.Conv2d(3, 4, 16), nn.Flatten(), nn.Linear(4, 3)).eval()
    mine, other = (call(side.GradCAM, model, "0", images(), 1)[0] for side in (ours, theirs))
    assert_close(mine, other)
    assert mine[0].shape == (2, 1, 1)


def test_what_is_not_a_number_is_not_hidden():
    model, x = net(), images()
    x[1] = torch.nan
    (found,) = call(ours.GradCAM, model, "last", x, 1)[0]
    assert found[0].isfinite().all()
    assert found[1].isnan().all()
