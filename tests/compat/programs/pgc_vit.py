"""A vision transformer, whose tokens are folded back into an image."""

import sys

import numpy as np
import timm
import torch
from pytorch_grad_cam import AblationCAM, GradCAM, GradCAMPlusPlus, HiResCAM, ScoreCAM
from pytorch_grad_cam.ablation_layer import AblationLayerVit
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget


def reshape_transform(tensor, height=4, width=4):
    result = tensor[:, 1:, :].reshape(tensor.size(0), height, width, tensor.size(2))
    return result.transpose(2, 3).transpose(1, 2)


torch.manual_seed(0)
model = timm.create_model("deit_tiny_patch16_224", img_size=64, depth=3, num_classes=20)
model.eval()
target_layers = [model.blocks[-1].norm1]
input_tensor = torch.rand(2, 3, 64, 64)

results = {}
for method in (GradCAM, GradCAMPlusPlus, HiResCAM, ScoreCAM):
    with method(
        model=model, target_layers=target_layers, reshape_transform=reshape_transform
    ) as cam:
        cam.batch_size = 32
        results[method.__name__] = cam(input_tensor=input_tensor, targets=None)
with AblationCAM(
    model=model,
    target_layers=target_layers,
    reshape_transform=reshape_transform,
    ablation_layer=AblationLayerVit(),
) as cam:
    results["AblationCAM"] = cam(input_tensor, [ClassifierOutputTarget(3)] * 2)
np.savez(sys.argv[1], **results)
