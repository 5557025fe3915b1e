"""captum's Grad-CAM of a layer, enlarged to the image, alone and inside a noise tunnel."""

import sys

import numpy as np
import torch
from captum.attr import GuidedGradCam, LayerAttribution, LayerGradCam, NoiseTunnel
from torchvision.models import resnet18

torch.manual_seed(0)
model = resnet18(weights=None).eval()
for module in model.modules():
    if isinstance(module, torch.nn.ReLU):
        module.inplace = False
images = torch.rand(2, 3, 64, 64)

layer_gc = LayerGradCam(model, model.layer3)
attributions = layer_gc.attribute(images, target=(1))
large = LayerAttribution.interpolate(attributions, images.shape[2:])
torch.manual_seed(1)
smooth = NoiseTunnel(layer_gc).attribute(
    images, nt_type="smoothgrad", nt_samples=3, stdevs=0.1, target=torch.tensor([1, 2])
)
guided = GuidedGradCam(model, model.layer3).attribute(images, target=1)
np.savez(
    sys.argv[1],
    attributions=attributions.detach().numpy(),
    large=large.detach().numpy(),
    smooth=smooth.detach().numpy(),
    guided=guided.detach().numpy(),
)
