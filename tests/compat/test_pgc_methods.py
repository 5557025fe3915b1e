"""Each method makes the maps of pytorch-grad-cam's, from arrays and from a model."""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pytest
import pytorch_grad_cam as peer
import torch
from parity import SUBJECTS
from pgc_cases import Case, classes, forget, quiet
from torch import nn

import camfuse.compat.pytorch_grad_cam as ours

GRADIENT = ["GradCAM", "GradCAMPlusPlus", "XGradCAM", "HiResCAM", "GradCAMElementWise", "LayerCAM"]
PRINCIPAL = ["EigenCAM", "EigenGradCAM", "SegEigenCAM", "KPCA_CAM"]
WITH_PASSES = ["ScoreCAM", "AblationCAM"]
OF_ONE_LAYER = [*GRADIENT, *PRINCIPAL, "FEM", "RandomCAM", *WITH_PASSES]
META = ["FinerCAM", "RefineCAM", "SESS"]
METHODS = [*OF_ONE_LAYER, "ShapleyCAM", "FullGrad", *META]
OPTIONS = {"SESS": {"num_scales": 2}}
# Whose sign is LAPACK's there.
ANY_SIGN = ("EigenCAM", "EigenGradCAM")
# What the peer's raises on.
UNDEFINED = {
    **{("ShapleyCAM", name, 2): "a second layer" for name in SUBJECTS if name != "VGG"},
    **{("ShapleyCAM", name, 1): "reshape" for name in ("ViT", "Swin")},
    ("ShapleyCAM", "MobileNetV3", 1): "no second derivative",
}
TOLERANCE = {
    "KPCA_CAM": 5e-3,  # scikit-learn's kernel and eigenvectors are in f32
    # Where two singular values nearly coincide, their vectors are known less well than the terms.
    **dict.fromkeys(["EigenCAM", "EigenGradCAM", "SegEigenCAM"], 1e-3),
    "AblationCAM": 1e-3,  # differences of scores that are nearly the same
}
FROM_ARRAYS = {
    **TOLERANCE,
    "ScoreCAM": 1e-5,  # the model's passes over other batches round differently
    "XGradCAM": 1e-3,  # behind a LayerNorm, sums of activations cancel
}

QUICK = [Case("VGG"), Case("ViT")]
FULL = [
    Case(name, batch, layers)
    for name, batch, layers in itertools.product(SUBJECTS, (1, 3), (1, 2))
    if Case(name, batch, layers) not in QUICK
]
CASES = [*QUICK, *(pytest.param(case, marks=pytest.mark.slow, id=str(case)) for case in FULL)]
grid = pytest.mark.parametrize("case", CASES, ids=str)


def skip_undefined(method, case):
    why = UNDEFINED.get((method, case.name, case.layers))
    if why is not None:
        pytest.skip(f"the peer's raises: {why}")


def spied(cam):
    """Raw maps and what they were made of, as they come."""
    made = []
    original = cam.get_cam_image

    def spy(x, layer, targets, A, G, eigen_smooth):
        made.append((original(x, layer, targets, A, G, eigen_smooth), layer, A, G))
        return made[-1][0]

    cam.get_cam_image = spy
    return made


def turn(found, like):
    """Maps with the sign of others."""
    grid = tuple(range(1, found.ndim))
    return found * np.where((found * like).sum(grid, keepdims=True) < 0, -1, 1)


@grid
@pytest.mark.parametrize("method", METHODS)
def test_finished_maps_are_the_peers(method, case):
    skip_undefined(method, case)
    options = OPTIONS.get(method, {})
    theirs = case.cam(peer, method, **options)
    raw = spied(theirs) if method in ANY_SIGN else []
    expected = case.call(peer, theirs)
    cam = case.cam(ours, method, **options)
    if method in ANY_SIGN:
        original, signs = cam.get_cam_image, iter(raw)
        cam.get_cam_image = lambda *args: turn(original(*args), next(signs)[0])
    found = case.call(ours, cam)
    assert found.dtype == expected.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=TOLERANCE.get(method, 1e-4), rtol=0)


@grid
@pytest.mark.parametrize("eigen_smooth", [False, True])
@pytest.mark.parametrize("method", OF_ONE_LAYER)
def test_hooks_make_the_peers_maps_of_the_same_arrays(method, eigen_smooth, case):
    theirs = case.cam(peer, method)
    made = spied(theirs)
    case.call(peer, theirs, eigen_smooth=eigen_smooth)
    cam = case.cam(ours, method)
    targets = classes(ours, case.batch)
    np.random.seed(0)
    for expected, layer, A, G in made:
        with quiet():
            found = cam.get_cam_image(case.x, layer, targets, A, G, eigen_smooth)
        assert found.shape == expected.shape
        smoothed = eigen_smooth and method not in ("FEM", *PRINCIPAL)
        if smoothed or method in ANY_SIGN:
            found = turn(found, expected)
        # The peer's sums are in f32, and terms of both signs cancel in part.
        tolerance = max(FROM_ARRAYS.get(method, 3e-6), 1e-3 if smoothed else 0)
        scale = max(np.abs(expected).max(), 1e-12)
        np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance, rtol=0)


@grid
@pytest.mark.parametrize("eigen_smooth", [False, True])
@pytest.mark.parametrize("method", OF_ONE_LAYER)
def test_native_maps_are_those_of_the_hooks(method, eigen_smooth, case):
    native = case.call(ours, case.cam(ours, method), eigen_smooth=eigen_smooth)
    cam = case.cam(ours, method)
    made = spied(cam)
    by_hooks = case.call(ours, cam, eigen_smooth=eigen_smooth)
    assert len(made) == case.layers
    assert all(isinstance(A, np.ndarray) for _, _, A, _ in made)
    np.testing.assert_allclose(native, by_hooks, atol=TOLERANCE.get(method, 1e-4), rtol=0)


@pytest.mark.parametrize("name", ["VGG", "ViT"])
@pytest.mark.parametrize("method", ["GradCAM", "FEM", "ScoreCAM", "ShapleyCAM", "FullGrad"])
def test_augmented_maps_are_the_peers(method, name):
    case = Case(name, batch=2, layers=1)
    skip_undefined(method, case)
    expected = case.call(peer, case.cam(peer, method), aug_smooth=True)
    found = case.call(ours, case.cam(ours, method), aug_smooth=True)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["VGG", "ResNet"])
def test_smoothed_full_gradients_are_the_peers(name):
    case = Case(name)
    theirs = case.cam(peer, "FullGrad")
    expected = case.call(peer, theirs, eigen_smooth=True)
    found = case.call(ours, case.cam(ours, "FullGrad"), eigen_smooth=True)
    for one, other in zip(found, expected, strict=True):
        # Scaling turns what was negative round with the sign.
        distance = min(np.abs(one - other).max(), np.abs(1 - one - other).max())
        assert distance < 1e-3


@pytest.mark.parametrize("k", [0, 1, 2.5])
def test_fem_takes_other_thresholds(k):
    case = Case("VGG")
    expected = case.call(peer, case.cam(peer, "FEM", k=k))
    np.testing.assert_allclose(
        case.call(ours, case.cam(ours, "FEM", k=k)), expected, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("kernel", "gamma"), [("rbf", None), ("rbf", 0.5), ("poly", 0.1), ("cosine", None)]
)
def test_kernel_pca_takes_other_kernels(kernel, gamma):
    case = Case("ResNet", batch=2, layers=1)
    options = {"kernel": kernel, "gamma": gamma}
    expected = case.call(peer, case.cam(peer, "KPCA_CAM", **options))
    found = case.call(ours, case.cam(ours, "KPCA_CAM", **options))
    np.testing.assert_allclose(found, expected, atol=5e-3, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
@pytest.mark.parametrize("method", ["ScoreCAM", "AblationCAM"])
def test_maps_do_not_depend_on_how_many_copies_run_at_once(method, batch_size):
    case = Case("VGG")
    expected = case.call(ours, case.cam(ours, method))
    cam = case.cam(ours, method)
    cam.batch_size = batch_size
    np.testing.assert_allclose(case.call(ours, cam), expected, atol=1e-4, rtol=0)


def test_score_cam_never_holds_more_copies_than_asked_for():
    case = Case("VGG", layers=1)
    cam = case.cam(ours, "ScoreCAM")
    cam.batch_size = 5
    seen = []
    handle = case.model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    try:
        case.call(ours, cam)
    finally:
        handle.remove()
    assert max(seen) == 5


def test_a_class_of_its_own_is_chosen_for_each_image():
    case = Case("VGG")
    with quiet():
        expected = case.cam(peer, "GradCAM")(case.x, None)
        found = case.cam(ours, "GradCAM")(case.x, None)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["ResNet", "Swin"])
def test_shapley_cam_of_a_layer_does_not_depend_on_other_layers(name):
    case = Case(name)
    cam = case.cam(ours, "ShapleyCAM")
    both = of_layers(case, cam)
    single = [of_layers(case, type(cam)(case.model, [one], case.fold)) for one in cam.target_layers]
    for found, (expected,) in zip(both, single, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_shapley_cam_reshapes_what_it_has_differentiated():
    """As if the layer had returned it so."""

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 3, padding=1)
            self.turn, self.back = Turn((0, 2, 3, 1)), Turn((0, 3, 1, 2))
            self.last = nn.Linear(6, 10)

        def forward(self, x):
            y = self.back(self.turn(self.conv(x).tanh()))
            return self.last((y * y.sigmoid()).mean((2, 3)).tanh())

    class Turn(nn.Module):
        def __init__(self, order):
            super().__init__()
            self.order = order

        def forward(self, x):
            return x.permute(self.order)

    torch.manual_seed(0)
    model = Turned().eval()
    x = torch.randn(2, 3, 16, 16)
    targets = classes(peer, 2)
    theirs = peer.ShapleyCAM(model, [model.back])
    expected = theirs(x, targets)
    forget(theirs)
    found = ours.ShapleyCAM(model, [model.turn], lambda y: y.permute(0, 3, 1, 2))(x, targets)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def of_layers(case, cam):
    """Each layer's map."""
    made = []
    original = cam.aggregate_multi_layers
    cam.aggregate_multi_layers = lambda maps: made.extend(maps) or original(maps)
    case.call(ours, cam)
    return made


def names_of(module):
    return {
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) or inspect.isfunction(value)
    }


def test_the_package_has_the_peers_names_and_submodules():
    assert names_of(peer) <= names_of(ours) | {"warn"}
    for path in (
        *("utils.model_targets", "utils.reshape_transforms", "utils.image"),
        *("metrics.cam_mult_image", "metrics.road"),
        *("grad_cam", "ablation_layer", "feature_factorization.deep_feature_factorization"),
    ):
        found, expected = ours, peer
        for part in path.split("."):
            found, expected = getattr(found, part), getattr(expected, part)
        assert inspect.ismodule(found)
        own = {one for one in names_of(expected) if _home(expected, one) == expected.__name__}
        assert own <= names_of(found), path


def _home(module, name):
    return getattr(module, name).__module__


@pytest.mark.parametrize("method", [*METHODS, "GuidedBackpropReLUModel"])
def test_methods_are_made_and_called_with_the_peers_arguments(method):
    for function in ("__init__", "__call__"):
        theirs, found = (
            inspect.signature(getattr(getattr(one, method), function)).parameters
            for one in (peer, ours)
        )
        if "args" in theirs:  # passed on to forward
            theirs = inspect.signature(getattr(peer, method).forward).parameters
        assert list(found)[: len(theirs)] == list(theirs)
        for name, parameter in theirs.items():
            if name not in ("base_method", "ablation_layer"):
                assert found[name].default == parameter.default, name
