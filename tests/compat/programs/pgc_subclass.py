"""Methods of one's own, on top of BaseCAM and of a method that is there."""

import sys

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torchvision.models import densenet121


class StrongestGradientCAM(BaseCAM):
    """Channels weighted by their largest gradient."""

    def __init__(self, model, target_layers, reshape_transform=None):
        super().__init__(model, target_layers, reshape_transform)

    def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
        return np.max(grads, axis=(2, 3))


class SquaredCAM(GradCAM):
    """A Grad-CAM whose map is squared."""

    def get_cam_image(
        self, input_tensor, target_layer, targets, activations, grads, eigen_smooth=False
    ):
        image = super().get_cam_image(
            input_tensor, target_layer, targets, activations, grads, eigen_smooth
        )
        return np.maximum(image, 0) ** 2


class UnnormalizedCAM(GradCAM):
    """Maps as they are, for scores that are to be compared between images."""

    def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth):
        activations = [a.cpu().data.numpy() for a in self.activations_and_grads.activations]
        gradients = [g.cpu().data.numpy() for g in self.activations_and_grads.gradients]
        maps = []
        for layer, a, g in zip(self.target_layers, activations, gradients, strict=True):
            cam = self.get_cam_image(input_tensor, layer, targets, a, g, eigen_smooth)
            maps.append(np.maximum(cam, 0)[:, None])
        return maps

    def aggregate_multi_layers(self, cam_per_target_layer):
        return np.mean(np.concatenate(cam_per_target_layer, axis=1), axis=1)


class OwnPassCAM(GradCAM):
    """Runs the passes itself, with a loss of its own."""

    def forward(self, input_tensor, targets, eigen_smooth=False):
        output = self.activations_and_grads(input_tensor)
        self.model.zero_grad()
        output.square().sum().backward(retain_graph=True)
        cam_per_layer = self.compute_cam_per_layer(input_tensor, targets, eigen_smooth)
        self.activations_and_grads.release()
        return self.aggregate_multi_layers(cam_per_layer)


torch.manual_seed(0)
model = densenet121(weights=None)
images = torch.rand(2, 3, 64, 64)
layers = [model.features.denseblock4]
targets = [ClassifierOutputTarget(7), ClassifierOutputTarget(8)]
np.savez(
    sys.argv[1],
    **{
        method.__name__: method(model, layers)(images, targets)
        for method in (StrongestGradientCAM, SquaredCAM, UnnormalizedCAM, OwnPassCAM)
    },
)
