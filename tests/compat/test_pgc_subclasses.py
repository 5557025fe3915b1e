"""What people write on top of pytorch-grad-cam does the same on camfuse's face of it.

Each class body is made twice, on the peer's base and on ours.
"""

from __future__ import annotations

import functools
import unittest.mock

import numpy as np
import pytest
import torch
from pgc_cases import LIBRARIES, Case, classes, forget, quiet
from pytorch_grad_cam.base_cam import BaseCAM as PeerBaseCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from torch import nn

import camfuse.compat.pytorch_grad_cam as ours
from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM

CASE = Case("VGG")
BASES = {"peer": PeerBaseCAM, "ours": BaseCAM}


def own_weights(base, library):
    class Own(library.GradCAM):
        def get_cam_weights(self, input_tensor, target_layer, target_category, activations, grads):
            assert isinstance(grads, np.ndarray)
            return np.max(np.abs(grads), axis=(2, 3)) * np.mean(activations, axis=(2, 3))

    return Own


def weights_of_the_base(base, library):
    class Own(base):
        def get_cam_weights(self, input_tensor, target_layers, targets, activations, grads):
            return np.sum(grads > 0, axis=(2, 3)) / grads.shape[-1]

    return Own


def changed_weights(base, library):
    class Own(library.GradCAMPlusPlus):
        def get_cam_weights(self, *args, **kwargs):
            return np.maximum(super().get_cam_weights(*args, **kwargs), 0) ** 2

    return Own


def own_image(base, library):
    class Own(base):
        def get_cam_image(
            self, input_tensor, target_layer, target_category, activations, grads, eigen_smooth
        ):
            return np.abs(activations * grads).sum(axis=1)

    return Own


def changed_image(base, library):
    class Own(library.LayerCAM):
        def get_cam_image(self, *args, **kwargs):
            found = super().get_cam_image(*args, **kwargs)
            assert isinstance(found, np.ndarray)
            return np.tanh(found)

    return Own


def two_parents(base, library):
    class Own(library.XGradCAM):
        def get_cam_image(self, x, layer, targets, A, G, eigen_smooth=False):
            more = library.HiResCAM.get_cam_image(self, x, layer, targets, A, G, eigen_smooth)
            return super().get_cam_image(x, layer, targets, A, G, eigen_smooth) + more

    return Own


def unnormalized(base, library):
    """Without either of the two scalings."""

    class Mixin:
        def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth):
            activations_list = [
                a.cpu().data.numpy() for a in self.activations_and_grads.activations
            ]
            grads_list = [g.cpu().data.numpy() for g in self.activations_and_grads.gradients]
            found = []
            for i in range(len(self.target_layers)):
                A = activations_list[i] if i < len(activations_list) else None
                G = grads_list[i] if i < len(grads_list) else None
                cam = self.get_cam_image(
                    input_tensor, self.target_layers[i], targets, A, G, eigen_smooth
                )
                cam = np.maximum(cam, 0)
                found.append(
                    torch.nn.functional.interpolate(
                        torch.from_numpy(cam)[:, None], (64, 64), mode="nearest"
                    ).numpy()
                )
            return found

        def aggregate_multi_layers(self, cam_per_target_layer):
            return np.max(np.concatenate(cam_per_target_layer, axis=1), axis=1)

    class Own(Mixin, library.GradCAM):
        pass

    return Own


def own_aggregation(base, library):
    class Own(library.HiResCAM):
        def aggregate_multi_layers(self, cam_per_target_layer):
            assert all(one.shape[1] == 1 for one in cam_per_target_layer)
            joined = np.concatenate(cam_per_target_layer, axis=1)
            return scale_cam_image(np.prod(joined + 0.1, axis=1))

    return Own


def own_pass(base, library):
    class Own(library.GradCAM):
        def forward(self, input_tensor, targets=None, eigen_smooth=False):
            input_tensor = input_tensor.to(self.device)
            self.outputs = outputs = self.activations_and_grads(input_tensor)
            if targets is None:
                chosen = np.argmax(outputs.cpu().data.numpy(), axis=-1)
                loss = sum(output[one] for output, one in zip(outputs, chosen))  # noqa: B905
            else:
                loss = sum(target(output) for target, output in zip(targets, outputs))  # noqa: B905
            self.model.zero_grad()
            (loss * 2).backward(retain_graph=True)
            cam = self.compute_cam_per_layer(input_tensor, targets, eigen_smooth)
            return self.aggregate_multi_layers(cam)

    return Own


def with_the_graph(base, library):
    class Own(base):
        def __init__(self, model, target_layers, reshape_transform=None):
            super().__init__(
                model,
                target_layers,
                reshape_transform,
                compute_input_gradient=True,
                uses_gradients=True,
                detach=False,
            )

        def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
            (again,) = torch.autograd.grad(
                grads, activations, activations, retain_graph=True, allow_unused=True
            )
            weights = grads if again is None else grads - again
            return weights.detach().cpu().numpy().mean((2, 3))

    return Own


def of_the_image(base, library):
    class Own(base):
        def __init__(self, model, target_layers, reshape_transform=None):
            super().__init__(model, target_layers, reshape_transform, compute_input_gradient=True)

        def get_cam_image(self, x, layer, targets, activations, grads, eigen_smooth=False):
            saliency = x.grad.data.cpu().numpy() * x.data.cpu().numpy()
            return np.abs(saliency).sum(axis=1)

    return Own


def without_gradients(base, library):
    class Own(base):
        def __init__(self, model, target_layers, reshape_transform=None):
            super().__init__(model, target_layers, reshape_transform, uses_gradients=False)

        def get_cam_image(self, x, layer, targets, activations, grads, eigen_smooth=False):
            assert grads is None
            return activations.max(axis=1)

    return Own


BODIES = [
    own_weights,
    weights_of_the_base,
    changed_weights,
    own_image,
    changed_image,
    two_parents,
    unnormalized,
    own_aggregation,
    own_pass,
    with_the_graph,
    of_the_image,
    without_gradients,
]


def call(make, name, targets="own", case=CASE, **arguments):
    library = LIBRARIES[name]
    cam = make(BASES[name], library)(case.model, case.target_layers, case.fold)
    if isinstance(targets, str):
        targets = classes(library, case.batch)
    try:
        with quiet():
            return cam(case.x, targets, **arguments)
    finally:
        forget(cam)


@pytest.mark.parametrize("make", BODIES)
def test_subclasses_make_the_maps_that_they_made_on_the_peer(make):
    expected, found = (call(make, name) for name in BASES)
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("make", BODIES)
def test_subclasses_may_leave_the_class_to_the_model(make):
    expected, found = (call(make, name, None) for name in BASES)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("make", [own_weights, own_image, without_gradients, own_pass])
def test_subclasses_get_what_the_reshape_makes(make):
    case = Case("ViT", batch=2)
    expected, found = (call(make, name, case=case) for name in BASES)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def spy_by_assignment(cam, seen):
    original = cam.get_cam_weights

    def spy(*args, **kwargs):
        seen.append(original(*args, **kwargs))
        return seen[-1] * 0 + 1

    cam.get_cam_weights = spy


def spy_that_wraps(cam, seen):
    original = cam.get_cam_weights

    @functools.wraps(original)
    def spy(*args, **kwargs):
        seen.append(original(*args, **kwargs))
        return seen[-1] * 0 + 1

    cam.get_cam_weights = spy


def spy_of_mock(cam, seen):
    original = cam.get_cam_weights

    def spy(*args, **kwargs):
        seen.append(original(*args, **kwargs))
        return seen[-1] * 0 + 1

    cam.get_cam_weights = unittest.mock.Mock(side_effect=spy)


@pytest.mark.parametrize("spy", [spy_by_assignment, spy_that_wraps, spy_of_mock])
def test_hooks_on_the_object_are_called(spy):
    made = []
    for library in LIBRARIES.values():
        cam, seen = CASE.cam(library, "GradCAM"), []
        spy(cam, seen)
        made.append((CASE.call(library, cam), seen))
    (expected, weights), (found, own) = made
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert len(own) == len(weights) == 2
    for one, other in zip(own, weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7)


def test_hooks_on_the_class_are_called(monkeypatch):
    made = []
    for library in LIBRARIES.values():
        original = library.GradCAM.get_cam_weights

        @functools.wraps(original)
        def changed(self, *args, original=original):
            return np.abs(original(self, *args))

        monkeypatch.setattr(library.GradCAM, "get_cam_weights", changed)
        made.append(CASE.call(library, CASE.cam(library, "GradCAM")))
    np.testing.assert_allclose(made[1], made[0], atol=1e-4)


class Own:
    """What scripts for YOLO put in the place of the hooks: outputs go through a function."""

    def __init__(self, model, target_layers, reshape_transform):
        self.model = model
        self.gradients = []
        self.activations = []
        self.reshape_transform = reshape_transform
        self.handles = []
        for target_layer in target_layers:
            self.handles.append(target_layer.register_forward_hook(self.save_activation))
            self.handles.append(target_layer.register_forward_hook(self.save_gradient))

    def save_activation(self, module, input, output):
        self.activations.append(output.cpu().detach())

    def save_gradient(self, module, input, output):
        def store(grad):
            self.gradients = [grad.cpu().detach(), *self.gradients]

        if output.requires_grad:
            output.register_hook(store)

    def __call__(self, x):
        self.gradients = []
        self.activations = []
        scores = self.model(x)
        return [[scores.sort(1, descending=True)[0], scores]]

    def release(self):
        for handle in self.handles:
            handle.remove()


class OfPairs(nn.Module):
    def forward(self, data):
        post, scores = data
        return sum(post[0, i] + scores[0, i] for i in range(3))


@pytest.mark.parametrize("method", ["GradCAM", "LayerCAM", "RandomCAM", "FEM"])
def test_hooks_may_be_replaced_by_the_users(method):
    case = Case("VGG", batch=1)
    made = []
    for library in LIBRARIES.values():
        cam = case.cam(library, method)
        cam.activations_and_grads.release()
        cam.activations_and_grads = Own(case.model, case.target_layers, None)
        np.random.seed(0)
        try:
            made.append(cam(case.x, [OfPairs()]))
        finally:
            cam.activations_and_grads.release()
    expected, found = made
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_hooks_that_were_replaced_see_a_model_in_eval_mode():
    case = Case("ResNet", batch=1, layers=1)
    expected = case.call(ours, case.cam(ours, "GradCAM"))
    model = case.model.train()
    model.zero_grad()
    try:
        cam = case.cam(ours, "GradCAM")
        own = Own(model, case.target_layers, None)
        cam.activations_and_grads = own
        target = ours.utils.model_targets.ClassifierOutputTarget(0)
        found = cam(case.x, [lambda data: target(data[1][0])])
        own.release()
        assert model.training
        assert all(one.grad is None for one in model.parameters())
    finally:
        model.eval()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_passes_and_gradients_may_be_asked_for_directly():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 5, 3)).eval()
    made = []
    for library in LIBRARIES.values():
        inner = library.ActivationsAndGradients(model, [model[0], model[1]], None)
        output = inner(CASE.x)
        output[:, 1].sum().backward()
        made.append(([one.clone() for one in inner.activations], list(inner.gradients)))
        inner.release()
        assert not any(module._forward_hooks for module in model)
        assert not inner.activations
    (A, G), (own_A, own_G) = made
    torch.testing.assert_close(own_A, A)
    torch.testing.assert_close(own_G, G)


def test_layers_may_be_finished_one_by_one():
    made = []
    for library in LIBRARIES.values():
        cam = CASE.cam(library, "GradCAM")
        targets = classes(library, CASE.batch)
        CASE.call(library, cam)
        layers = cam.compute_cam_per_layer(CASE.x, targets, False)
        made.append([*layers, cam.aggregate_multi_layers(layers)])
    for found, expected in zip(made[1], made[0], strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_subclass_that_defines_nothing_says_so():
    with pytest.raises(NotImplementedError):
        BaseCAM(CASE.model, CASE.target_layers)(CASE.x, None)
