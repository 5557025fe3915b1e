"""As torchcam's users begin: an extractor around their own forward pass, and an overlay."""

import sys

import numpy as np
import torch
from skimage.data import chelsea
from torchcam.methods import GradCAM, LayerCAM, SmoothGradCAMpp
from torchcam.metrics import ClassificationMetric
from torchcam.utils import overlay_mask
from torchvision.models import resnet18
from torchvision.transforms.functional import normalize, resize, to_pil_image

torch.manual_seed(0)
model = resnet18(weights=None).eval()
img = torch.from_numpy(chelsea().copy()).permute(2, 0, 1)
input_tensor = normalize(
    resize(img, (96, 96), antialias=True) / 255.0, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
)

results = {}
with SmoothGradCAMpp(model) as cam_extractor:
    out = model(input_tensor.unsqueeze(0))
    torch.manual_seed(1)
    activation_map = cam_extractor(out.squeeze(0).argmax().item(), out)
results["smooth"] = np.array(activation_map[0].shape)  # values differ: theirs are of one sample

with GradCAM(model, target_layer="layer4") as extractor:
    batch = torch.stack([input_tensor, input_tensor.flip(-1)])
    out = model(batch)
    results["batch"] = extractor([3, 4], out)[0].numpy()

with LayerCAM(model, ["layer2", "layer3", "layer4"]) as extractor:
    out = model(input_tensor.unsqueeze(0))
    maps = extractor(out.squeeze(0).argmax().item(), out)
    results.update({f"layercam{i}": one.numpy() for i, one in enumerate(maps)})
    fused = extractor.fuse_cams(maps)
results["fused"] = fused.numpy()

overlay = overlay_mask(to_pil_image(img), to_pil_image(fused, mode="F"), alpha=0.5)
results["overlay"] = np.asarray(overlay).astype(np.int64)

metric = ClassificationMetric(LayerCAM(model, "layer4"), torch.nn.Softmax(dim=-1))
metric.update(input_tensor.unsqueeze(0))
results.update({name: np.array(value) for name, value in metric.summary().items()})
np.savez(sys.argv[1], **results)
