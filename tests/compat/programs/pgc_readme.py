"""As pytorch-grad-cam's users begin: one image, one target, one overlay; then every switch."""

import sys

import cv2
import numpy as np
import torch
from pytorch_grad_cam import (
    FEM,
    GradCAM,
    GradCAMElementWise,
    GradCAMPlusPlus,
    GuidedBackpropReLUModel,
    HiResCAM,
    LayerCAM,
    ScoreCAM,
    XGradCAM,
)
from pytorch_grad_cam.utils.image import deprocess_image, preprocess_image, show_cam_on_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from skimage.data import astronaut
from torchvision.models import resnet18

torch.manual_seed(0)
model = resnet18(weights=None)
target_layers = [model.layer4[-1]]

rgb_img = cv2.resize(astronaut(), (96, 80)).astype(np.float32) / 255
input_tensor = preprocess_image(rgb_img, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
targets = [ClassifierOutputTarget(281)]

results = {"input": input_tensor.numpy()}
with GradCAM(model=model, target_layers=target_layers) as cam:
    grayscale_cam = cam(input_tensor=input_tensor, targets=targets)
    grayscale_cam = grayscale_cam[0, :]
    visualization = show_cam_on_image(rgb_img, grayscale_cam, use_rgb=True)
    model_outputs = cam.outputs
results["gradcam"] = grayscale_cam
results["scores"] = torch.softmax(model_outputs, dim=-1).detach().numpy()
assert visualization.dtype == np.uint8

methods = {
    "gradcam++": GradCAMPlusPlus,
    "xgradcam": XGradCAM,
    "hirescam": HiResCAM,
    "elementwise": GradCAMElementWise,
    "layercam": LayerCAM,
    "fem": FEM,
    "scorecam": ScoreCAM,
}
for name, method in methods.items():
    with method(model=model, target_layers=[model.layer3[-1], model.layer4[-1]]) as cam:
        cam.batch_size = 64
        smooth = name != "scorecam"
        results[name] = cam(input_tensor=input_tensor, targets=None, aug_smooth=smooth)[0]

batch = torch.cat([input_tensor, input_tensor.flip(-1), 0.5 * input_tensor])
cam = GradCAM(model, target_layers)
results["batch"] = cam(batch, [ClassifierOutputTarget(1)] * 3)

guided = GuidedBackpropReLUModel(model=model, device="cpu")
gradients = guided(input_tensor, target_category=281)
mask = cv2.merge([results["gradcam"]] * 3)
results["guided"] = gradients
results["deprocessed"] = deprocess_image(mask * gradients).astype(np.int64)
np.savez(sys.argv[1], **results)
