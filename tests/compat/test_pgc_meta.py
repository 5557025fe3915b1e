"""Methods about methods: Finer-CAM, RefineCAM and SESS, with all their options."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import pytorch_grad_cam as peer
import torch
from pgc_cases import Case, classes, forget, quiet
from torch import nn

import camfuse.compat.pytorch_grad_cam as ours

CASE = Case("VGG")


def call(library, method, targets="own", case=CASE, arguments=None, **options):
    with quiet():
        cam = case.cam(library, method, **options)
    if isinstance(targets, str):
        targets = classes(library, case.batch)
    np.random.seed(0)
    try:
        with quiet():
            return cam(case.x, targets, **(arguments or {}))
    finally:
        forget(cam)


def assert_same(found, expected):
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


@pytest.fixture
def passes():
    """How many images went through the model in each pass."""
    seen = []
    handle = CASE.model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    yield seen
    handle.remove()


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"alpha": 0.3},
        {"alpha": 0},
        {"comparison_categories": [1]},
        {"comparison_categories": [2, 5, 99]},
        {"target_idx": 4},
        {"target_idx": 4, "alpha": 0.6, "comparison_categories": [1, 3]},
    ],
    ids=str,
)
def test_finer_cam_tells_the_peers_classes_apart(arguments):
    expected = call(peer, "FinerCAM", None, arguments=arguments)
    assert_same(call(ours, "FinerCAM", None, arguments=arguments), expected)


@pytest.mark.parametrize("base", ["LayerCAM", "XGradCAM", "ShapleyCAM", "FEM"])
def test_finer_cam_takes_other_methods(base):
    case = Case("VGG", layers=1)
    expected, found = (
        call(one, "FinerCAM", None, case, base_method=getattr(one, base)) for one in (peer, ours)
    )
    assert_same(found, expected)


def test_finer_cam_takes_a_method_of_the_users():
    def made(library):
        class Own(library.GradCAM):
            def get_cam_weights(self, x, layer, targets, A, G):
                return np.maximum(G, 0).mean((2, 3))

        return call(library, "FinerCAM", None, base_method=Own)

    assert_same(made(ours), made(peer))


def test_finer_cam_takes_one_pass(passes):
    call(ours, "FinerCAM", None)
    assert passes == [CASE.batch]


def test_finer_cam_of_two_classes_compares_with_the_other():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    ).eval()
    x = torch.randn(2, 3, 8, 8)
    expected, found = (one.FinerCAM(model, [model[1]])(x) for one in (peer, ours))
    assert_same(found, expected)


def test_finer_cam_needs_outputs_of_classes():
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    with pytest.raises(ValueError, match="model: expected outputs"):
        ours.FinerCAM(model, [model[0]])(torch.randn(1, 3, 8, 8))


def test_finer_cam_needs_a_method_that_it_knows():
    with pytest.raises(ValueError, match="base_method: expected a subclass of BaseCAM"):
        ours.FinerCAM(CASE.model, CASE.target_layers, base_method=ours.RefineCAM)


@pytest.mark.parametrize(
    "base", ["GradCAM", "HiResCAM", "RandomCAM", "ScoreCAM", "AblationCAM", "FEM"]
)
def test_refine_cam_takes_other_methods(base):
    expected, found = (
        call(one, "RefineCAM", base_method=getattr(one, base)) for one in (peer, ours)
    )
    assert_same(found, expected)


def test_refine_cam_passes_arguments_to_the_method():
    options = {"k": 0.5}
    expected, found = (
        call(one, "RefineCAM", base_method=one.FEM, **options) for one in (peer, ours)
    )
    assert_same(found, expected)
    assert np.abs(found - call(ours, "RefineCAM", base_method=ours.FEM)).max() > 0.01


def test_refine_cam_chooses_classes_itself():
    assert_same(call(ours, "RefineCAM", None), call(peer, "RefineCAM", None))


def test_refine_cam_smooths_what_it_is_asked_to():
    """Its peer passes the argument on as another one, and averages over augmentations."""
    cam = CASE.cam(ours, "RefineCAM")
    targets = classes(ours, CASE.batch)
    maps = [one(CASE.x, targets, eigen_smooth=True) for one in cam.base_cam_per_layer]
    expected = ours.utils.image.scale_cam_image(np.prod(maps, axis=0))
    assert_same(cam(CASE.x, targets, eigen_smooth=True), expected)


@pytest.mark.parametrize("base", ["GradCAM", "KPCA_CAM", "FEM", "RandomCAM"])
def test_refine_cam_takes_one_pass_for_all_layers(passes, base):
    call(ours, "RefineCAM", base_method=getattr(ours, base))
    assert passes == [CASE.batch]


def changed_weights(library):
    class Own(library.GradCAM):
        def get_cam_weights(self, x, layer, targets, A, G):
            assert self.target_layers == [layer]
            return np.maximum(G, 0).mean((2, 3))

    return Own


def changed_aggregation(library):
    class Own(library.GradCAM):
        def aggregate_multi_layers(self, maps):
            return super().aggregate_multi_layers(maps) ** 2

    return Own


def changed_pass(library):
    class Own(library.GradCAM):
        def forward(self, x, targets, eigen_smooth=False):
            return super().forward(x * 0.5, targets, eigen_smooth)

    return Own


@pytest.mark.parametrize("make", [changed_weights, changed_aggregation, changed_pass])
def test_refine_cam_takes_methods_of_the_users(make):
    expected, found = (call(one, "RefineCAM", base_method=make(one)) for one in (peer, ours))
    assert_same(found, expected)


def test_refine_cam_takes_finer_cam():
    expected, found = (
        call(one, "RefineCAM", None, base_method=one.FinerCAM) for one in (peer, ours)
    )
    assert_same(found, expected)


def test_refine_cam_takes_full_gradients():
    expected, found = (call(one, "RefineCAM", base_method=one.FullGrad) for one in (peer, ours))
    assert_same(found, expected)


def test_a_method_that_was_changed_is_not_joined_with_others(passes):
    cam = CASE.cam(ours, "RefineCAM", base_method=ours.FEM)
    cam.base_cam_per_layer[1].k = 0
    with quiet():
        found = cam(CASE.x, None)
    theirs = CASE.cam(peer, "RefineCAM", base_method=peer.FEM)
    theirs.base_cam_per_layer[1].k = 0
    with quiet():
        assert_same(found, theirs(CASE.x, None))


def test_refine_cam_is_a_context():
    with CASE.cam(ours, "RefineCAM") as cam:
        cam(CASE.x)
    assert all(not one.activations_and_grads.activations for one in cam.base_cam_per_layer)


@pytest.mark.parametrize(
    "options",
    [
        {"num_scales": 3},
        {"scales": [70, 96]},
        {"scale_step_ratio": 0.5, "num_scales": 2},
        {"window_size": 48, "num_scales": 2},
        {"window_size": 48, "step_size": 20, "num_scales": 2},
        {"pre_filter_ratio": 0.5, "num_scales": 3},
        {"theta": 0.3, "num_scales": 2},
        {"pool": "max", "num_scales": 2},
        {"smooth": False, "num_scales": 2},
        {"use_softmax_scores": False, "num_scales": 2},
        {"batch_size": 3, "num_scales": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (1, 3, 64, 80), (1, 3, 77, 64)], ids=str)
def test_sess_takes_the_peers_options(options, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))

    def made(library):
        cam = CASE.cam(library, "SESS", **options)
        with quiet():
            return cam(x, classes(library, len(x)))

    assert_same(made(ours), made(peer))


def test_sess_chooses_classes_itself():
    options = {"num_scales": 2}
    assert_same(call(ours, "SESS", None, **options), call(peer, "SESS", None, **options))


@pytest.mark.parametrize("base", ["LayerCAM", "FullGrad", "FEM"])
def test_sess_takes_other_methods(base):
    options = {"num_scales": 2}
    expected, found = (
        call(one, "SESS", base_method=getattr(one, base), **options) for one in (peer, ours)
    )
    assert_same(found, expected)


def test_sess_takes_one_pass_per_batch_of_windows(passes):
    call(ours, "SESS", num_scales=1, case=Case("VGG", batch=1))
    assert passes == [1]


def test_sess_takes_a_method_whose_pass_is_the_users():
    options = {"num_scales": 2}
    expected, found = (
        call(one, "SESS", base_method=changed_pass(one), **options) for one in (peer, ours)
    )
    assert_same(found, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "sum"}, "pool"),
        ({"pre_filter_ratio": 1.0}, "pre_filter_ratio"),
        ({"num_scales": 0}, "num_scales"),
    ],
)
def test_sess_refuses_what_its_peer_refuses(options, message):
    for library in (peer, ours):
        with pytest.raises(ValueError, match=message):
            CASE.cam(library, "SESS", **options)


def test_sess_refuses_scales_below_the_window():
    cam = CASE.cam(ours, "SESS", scales=[32])
    with pytest.raises(ValueError, match="scales: expected none below the window's side 64"):
        cam(CASE.x)


def test_meta_methods_need_a_target_for_each_image():
    for method in ("FinerCAM", "RefineCAM", "SESS"):
        with pytest.raises(ValueError, match="targets: expected one per image, 3, got 1"):
            CASE.cam(ours, method)(CASE.x, classes(ours, 1))


def test_meta_methods_have_the_peers_attributes():
    for method in ("FinerCAM", "RefineCAM", "SESS"):
        theirs, cam = (CASE.cam(one, method) for one in (peer, ours))
        assert vars(theirs).keys() <= vars(cam).keys()
        public = {name for name in dir(type(theirs)) if not name.startswith("_")}
        assert "forward" in public
        assert inspect.ismethod(cam.forward)
