"""Which pixels a segmentation network's pixels of one class depend on."""

import sys

import numpy as np
import torch
from pytorch_grad_cam import GradCAM, SegEigenCAM
from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget
from torchvision.models.segmentation import lraspp_mobilenet_v3_large


class SegmentationModelOutputWrapper(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)["out"]


class OwnTarget:
    """The sum of one class's output inside a mask."""

    def __init__(self, category, mask):
        self.category = category
        self.mask = torch.from_numpy(mask)

    def __call__(self, model_output):
        return (model_output[self.category, :, :] * self.mask).sum()


torch.manual_seed(0)
model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5).eval()
model = SegmentationModelOutputWrapper(model)
input_tensor = torch.rand(1, 3, 96, 96)
output = model(input_tensor)
category = int(output[0].mean((1, 2)).argmax())
scores = output[0, category].detach().numpy()
mask = np.float32(scores > np.median(scores))

results = {"mask": mask}
target_layers = [model.model.backbone["16"]]
for name, target in {
    "own": OwnTarget(category, mask),
    "theirs": SemanticSegmentationTarget(category, mask),
}.items():
    with GradCAM(model=model, target_layers=target_layers) as cam:
        results[name] = cam(input_tensor=input_tensor, targets=[target])[0, :]
with SegEigenCAM(model=model, target_layers=target_layers) as cam:
    results["segeigencam"] = cam(input_tensor, [OwnTarget(category, mask)])
np.savez(sys.argv[1], **results)
