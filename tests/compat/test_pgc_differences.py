"""Where camfuse's face does better than pytorch-grad-cam on purpose, and what is at the edges."""

from __future__ import annotations

import copy
import gc
import warnings
import weakref

import numpy as np
import pytest
import pytorch_grad_cam as peer
import torch
from pgc_cases import Case, classes, forget, quiet
from torch import nn
from torchvision.models import vgg
from torchvision.models.resnet import BasicBlock

import camfuse.compat.pytorch_grad_cam as ours

METHODS = {
    "GradCAM": {},
    "EigenCAM": {},
    "FEM": {},
    "KPCA_CAM": {},
    "ScoreCAM": {},
    "AblationCAM": {},
    "ShapleyCAM": {},
    "FullGrad": {},
    "FinerCAM": {},
    "RefineCAM": {},
    "SESS": {"num_scales": 2},
}
every_method = pytest.mark.parametrize("method", METHODS)
every_method_with_targets = pytest.mark.parametrize(
    "method", [one for one in METHODS if one not in ("EigenCAM", "FEM", "KPCA_CAM")]
)


class Narrow(nn.Module):
    """As a ResNet of torchvision: ReLUs overwrite what batch normalizations return."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(BasicBlock(8, 8))
        self.layer2 = nn.Sequential(BasicBlock(8, 16, 2, nn.Conv2d(8, 16, 1, 2)))
        self.layer3 = nn.Sequential(BasicBlock(16, 16))
        self.layer4 = nn.Sequential(BasicBlock(16, 16))
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        return self.fc(self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Narrow().eval()


@pytest.fixture
def x():
    return torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))


def make(model, method, layers=None):
    if layers is None:
        layers = [] if method == "FullGrad" else [model.layer2]
    return getattr(ours, method)(model, layers, **METHODS[method])


def explain(model, method, x, layers=None, count=None):
    cam = make(model, method, layers)
    found = cam(x, classes(ours, len(x) if count is None else count))
    assert found.shape == (len(x), *x.shape[2:])
    assert np.isfinite(found).all()
    return found


def state(model):
    """All that somebody else could notice."""
    modules = list(model.modules())
    return {
        "modules": [id(one) for one in modules],
        "training": [one.training for one in modules],
        "hooks": [
            (len(one._forward_hooks), len(one._forward_pre_hooks), len(one._backward_hooks))
            for one in modules
        ],
        "attributes": [sorted(vars(one)) for one in modules],
        "parameters": [(id(one), one.requires_grad, id(one.grad)) for one in model.parameters()],
        "buffers": [id(one) for one in model.buffers()],
        "values": [one.clone() for one in model.state_dict().values()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
    }


def assert_same_state(found, expected):
    for name, before in expected.items():
        if name in ("values", "gradients"):
            torch.testing.assert_close(found[name], before, rtol=0, atol=0)
        else:
            assert found[name] == before, name


@every_method
def test_the_model_is_left_as_it_was(model, x, method):
    model.train()
    model.layer1.eval()
    model.layer3.requires_grad_(False)
    for parameter in model.layer4.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = state(model)
    cam = make(model, method)
    assert_same_state(state(model), before)
    cam(x, classes(ours, 2))
    assert_same_state(state(model), before)


@every_method
def test_the_model_is_left_as_it_was_after_an_error(model, x, method):
    class Failing(nn.Module):
        def forward(self, x):
            raise RuntimeError("on purpose")

    model.train()
    model.layer4 = Failing()
    before = state(model)
    cam = make(model, method)
    with pytest.raises(RuntimeError, match="on purpose"):
        cam(x, classes(ours, 2))
    assert_same_state(state(model), before)


@every_method_with_targets
def test_the_model_is_left_as_it_was_after_a_target_failed(model, x, method):
    def refuse(output):
        raise KeyError("on purpose")

    before = state(model)
    cam = make(model, method)
    with pytest.raises(KeyError, match="on purpose"):
        cam(x, [refuse] * 2)
    assert_same_state(state(model), before)


@every_method
def test_models_in_training_mode_are_explained_in_eval_mode(model, x, method):
    expected = explain(model, method, x)
    np.testing.assert_array_equal(explain(model.train(), method, x), expected)


@every_method
def test_frozen_models_are_explained(model, x, method):
    expected = explain(model, method, x)
    np.testing.assert_array_equal(explain(model.requires_grad_(False), method, x), expected)


@every_method
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_gradients_need_not_be_enabled(model, x, method, context):
    expected = explain(model, method, x)
    with context():
        np.testing.assert_array_equal(explain(model, method, x.clone()), expected)


@every_method
def test_models_of_16_bits_are_explained(model, x, method):
    expected = explain(model, method, x)
    found = explain(copy.deepcopy(model).bfloat16(), method, x.bfloat16())
    assert found.dtype == np.float32
    if method != "AblationCAM":  # differences of scores that 8 bits do not tell apart
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.8


@every_method
def test_models_of_64_bits_are_explained(model, x, method):
    expected = explain(model, method, x)
    found = explain(copy.deepcopy(model).double(), method, x.double())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=5e-3)


@every_method
def test_outputs_hold_no_graph(model, x, method):
    cam = make(model, method)
    cam(x, classes(ours, 2))
    bases = getattr(cam, "base_cam_per_layer", [getattr(cam, "base_cam", cam)])
    for base in bases:
        outputs = getattr(base, "outputs", None)
        if outputs is not None:
            assert not outputs.requires_grad
        inner = base.activations_and_grads
        assert not any(one.requires_grad for one in [*inner.activations, *inner.gradients])


@every_method
def test_objects_are_freed_without_the_collector(model, x, method):
    gc.collect()
    gc.disable()
    try:
        cam = make(model, method)
        cam(x, classes(ours, 2))
        gone = weakref.ref(cam)
        del cam
        assert gone() is None
    finally:
        gc.enable()


@every_method_with_targets
def test_too_few_targets_are_refused(model, x, method):
    """Images without one would get maps of 0."""
    with pytest.raises(ValueError, match="targets: expected one per image, 2, got 1"):
        explain(model, method, x, count=1)


@pytest.mark.parametrize("method", ["GradCAM", "ScoreCAM", "AblationCAM"])
def test_too_many_targets_are_warned_about(model, x, method):
    with pytest.warns(UserWarning, match="targets: expected one per image, 2; 3 more are not used"):
        explain(model, method, x, count=5)


@pytest.mark.parametrize("method", ["GradCAM", "FinerCAM", "RefineCAM", "SESS", "FullGrad"])
def test_errors_inside_a_context_are_the_callers(model, method):
    with pytest.raises(IndexError), make(model, method):
        [][0]


@every_method
def test_no_hook_is_on_the_model_between_calls(model, x, method):
    cam = make(model, method)
    assert not any(one._forward_hooks for one in model.modules())
    cam(x, classes(ours, 2))
    assert not any(one._forward_hooks for one in model.modules())


def test_activations_are_what_a_layer_returned_though_it_is_overwritten():
    torch.manual_seed(0)
    model = vgg.VGG(vgg.make_layers([8, "M", 16]), num_classes=10, init_weights=False)
    model.avgpool, model.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(16, 10)
    x = torch.randn(1, 3, 32, 32)
    found = ours.GradCAM(model, [model.features[3]])(x, classes(ours, 1))
    overwritten = peer.GradCAM(model, [model.features[3]])(x, classes(peer, 1))
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    expected = peer.GradCAM(model, [model.features[3]])(x, classes(peer, 1))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(overwritten - expected).max() > 0.01


def test_layers_are_told_apart_in_any_order(model, x):
    names = ["layer3", "bn1", "layer1.0.bn1", "layer2"]
    layers = [model.get_submodule(name) for name in names]
    targets = classes(ours, 2)
    alone = [of_layers(ours.HiResCAM(model, [one]), x, targets)[0] for one in layers]
    together = of_layers(ours.HiResCAM(model, layers), x, targets)
    for found, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def of_layers(cam, x, targets):
    made = []
    original = cam.aggregate_multi_layers
    cam.aggregate_multi_layers = lambda maps: made.extend(maps) or original(maps)
    cam(x, targets)
    return made


def test_a_layer_that_is_called_twice_counts_by_its_first_call(model, x):
    """Its peer takes the second call for the next layer."""
    relu, after = model.layer1[0].relu, model.layer2
    targets = classes(ours, 2)
    alone = [of_layers(ours.HiResCAM(model, [one]), x, targets)[0] for one in (relu, after)]
    together = of_layers(ours.HiResCAM(model, [relu, after]), x, targets)
    for found, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("method", [one for one in METHODS if one != "FullGrad"])
def test_a_layer_that_is_not_executed_is_refused(model, x, method):
    with pytest.raises(ValueError, match="layer"):
        explain(model, method, x, layers=[nn.ReLU()])


def test_full_gradients_pass_over_layers_that_are_not_executed(model, x):
    expected = explain(model, "FullGrad", x)
    model.spare = nn.Conv2d(3, 3, 1)
    np.testing.assert_array_equal(explain(model, "FullGrad", x), expected)


def test_full_gradients_count_each_call_of_a_layer():
    class Net(nn.Module):
        def __init__(self, second):
            super().__init__()
            self.first = nn.Conv2d(3, 3, 3, padding=1)
            self.second = second or self.first
            self.last = nn.Linear(3, 10)

        def forward(self, x):
            return self.last(self.second(self.first(x).relu()).relu().mean((2, 3)))

    torch.manual_seed(0)
    shared = Net(None)
    twins = Net(nn.Conv2d(3, 3, 3, padding=1))
    for name in ("first", "second"):
        getattr(twins, name).load_state_dict(shared.first.state_dict())
    twins.last.load_state_dict(shared.last.state_dict())
    x = torch.randn(2, 3, 9, 9)
    np.testing.assert_allclose(
        explain(shared, "FullGrad", x), explain(twins, "FullGrad", x), atol=1e-5
    )


def test_full_gradients_are_of_all_biases_and_say_so(model, x):
    with pytest.warns(UserWarning, match="target_layers: not used"):
        cam = ours.FullGrad(model, [model.layer2])
    theirs = peer.FullGrad(model, [])
    for found, expected in zip(cam.bias_data, theirs.bias_data, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_full_gradients_need_a_bias(x):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Flatten(1))
    with pytest.raises(ValueError, match="model: expected a Conv2d or BatchNorm2d with a bias"):
        ours.FullGrad(model, [])


def test_score_cam_prints_nothing(model, x, capfd):
    explain(model, "ScoreCAM", x)
    assert capfd.readouterr() == ("", "")


def test_shapley_cam_says_what_torch_cannot_differentiate(x):
    case = Case("MobileNetV3", batch=1, layers=1)
    with pytest.raises(ValueError, match="model: torch cannot differentiate it twice"):
        case.call(ours, case.cam(ours, "ShapleyCAM"))


def test_shapley_cam_goes_no_further_back_than_its_layers(model, x):
    seen = []
    x.requires_grad_()
    x.register_hook(lambda gradient: seen.append(gradient))
    explain(model, "ShapleyCAM", x)
    assert not seen
    assert x.grad is None


@every_method
def test_batches_are_explained_image_by_image(model, x, method):
    whole = explain(model, method, x)
    for i in range(2):
        targets = classes(ours, 2)[i : i + 1]
        alone = make(model, method)(x[i : i + 1], targets)
        np.testing.assert_allclose(alone[0], whole[i], atol=1e-3)


class Volume(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(2, 6, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2))
        self.head = nn.Linear(6, 10)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3, 4)))


@pytest.mark.parametrize("method", ["GradCAM", "FEM", "KPCA_CAM", "RandomCAM", "ShapleyCAM"])
def test_volumes_are_explained_as_the_peers(method):
    torch.manual_seed(0)
    model = Volume().eval()
    x = torch.randn(2, 2, 8, 10, 12)
    made = []
    for library in (peer, ours):
        np.random.seed(0)
        cam = getattr(library, method)(model, [model.body])
        with quiet():
            made.append(cam(x, classes(library, 2)))
        forget(cam)
    expected, found = made
    assert found.shape == expected.shape == (2, 8, 10, 12)
    np.testing.assert_allclose(found, expected, atol=5e-3)


@pytest.mark.parametrize("method", ["ScoreCAM", "AblationCAM", "FinerCAM", "RefineCAM"])
def test_volumes_are_explained_by_methods_that_its_peer_has_for_images_alone(method):
    torch.manual_seed(0)
    model = Volume().eval()
    x = torch.randn(2, 2, 8, 10, 12)
    found = getattr(ours, method)(model, [model.body])(x, classes(ours, 2))
    assert found.shape == (2, 8, 10, 12)
    assert found.max() > 0.9


class Constant(nn.Module):
    """Its layer returns maps of a given size, all of one value."""

    def __init__(self, size, value=0.0):
        super().__init__()
        self.size, self.value = size, value
        self.conv = nn.Conv2d(3, 4, 1)
        self.layer = nn.Identity()
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        y = self.conv(x).mean((2, 3), keepdim=True) * self.value
        y = self.layer(y.expand(-1, -1, *self.size).clone())
        return self.head(y.mean((2, 3))) + 1


@pytest.mark.parametrize("size", [(1, 1), (5, 5)], ids=str)
@pytest.mark.parametrize(
    ("method", "value"),
    [
        (method, value)
        for method in METHODS
        for value in (0.0, 1.0)
        if method not in ("FullGrad", "KPCA_CAM", "SESS")
        if (method, value) != ("EigenCAM", 1.0)  # the mean of equal values rounds
    ],
)
def test_constant_maps_are_zero(method, size, value):
    torch.manual_seed(0)
    model = Constant(size, value).eval()
    found = explain(model, method, torch.randn(2, 3, 16, 16), layers=[model.layer])
    assert found.max() < 1e-3


@pytest.mark.parametrize("method", ["GradCAM", "LayerCAM", "FEM", "ScoreCAM", "AblationCAM"])
def test_maps_larger_than_the_image_are_made_smaller(method):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Upsample(scale_factor=1.7),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    ).eval()
    x = torch.randn(2, 3, 20, 24)
    made = []
    for library in (peer, ours):
        with quiet():
            made.append(getattr(library, method)(model, [model[2]])(x, classes(library, 2)))
    assert made[1].shape == (2, 20, 24)
    np.testing.assert_allclose(made[1], made[0], atol=1e-3)


def test_warnings_name_the_callers_line(model, x):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make(model, "GradCAM")(x, classes(ours, 3))
    assert [one.filename for one in caught] == [__file__]


def test_a_context_forgets_what_it_saw(model, x):
    with make(model, "GradCAM") as cam:
        cam(x, classes(ours, 2))
        assert cam.activations_and_grads.activations
    assert not cam.activations_and_grads.activations


def test_models_without_parameters_are_explained():
    model = nn.Sequential(nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.rand(1, 3, 8, 8)
    (chosen,) = x.mean((2, 3)).argmax(1)
    expected = ours.utils.image.scale_cam_image(x[:, chosen].numpy())
    np.testing.assert_allclose(ours.HiResCAM(model, [model[0]])(x, None), expected, atol=1e-5)
