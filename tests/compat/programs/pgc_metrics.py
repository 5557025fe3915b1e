"""How much confidence a map explains, by pytorch-grad-cam's metrics."""

import sys

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.metrics.cam_mult_image import CamMultImageConfidenceChange, DropInConfidence
from pytorch_grad_cam.metrics.road import (
    ROADCombined,
    ROADLeastRelevantFirst,
    ROADMostRelevantFirst,
)
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torchvision.models import resnet18

torch.manual_seed(0)
model = resnet18(weights=None, num_classes=5)
images = torch.rand(2, 3, 48, 48)
targets = [ClassifierOutputSoftmaxTarget(1), ClassifierOutputSoftmaxTarget(2)]
maps = GradCAM(model, [model.layer3])(images, targets)

results = {"maps": maps}
scores, visualizations = CamMultImageConfidenceChange()(
    images, maps, targets, model, return_visualization=True
)
results["change"], results["masked"] = np.array(scores), torch.stack(list(visualizations)).numpy()
results["drop"] = np.array(DropInConfidence()(images, maps, targets, model))
torch.manual_seed(1)
results["morf"] = np.array(ROADMostRelevantFirst(percentile=75)(images, maps, targets, model))
results["lerf"] = np.array(ROADLeastRelevantFirst(percentile=75)(images, maps, targets, model))
results["road"] = np.array(ROADCombined(percentiles=[20, 40, 60, 80])(images, maps, targets, model))
np.savez(sys.argv[1], **results)
