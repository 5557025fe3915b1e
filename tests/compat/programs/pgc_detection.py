"""What a detector's boxes depend on: all levels of its pyramid, joined."""

import sys

import numpy as np
import torch
from pytorch_grad_cam import AblationCAM
from pytorch_grad_cam.ablation_layer import AblationLayerFasterRCNN
from pytorch_grad_cam.utils.model_targets import FasterRCNNBoxScoreTarget
from pytorch_grad_cam.utils.reshape_transforms import fasterrcnn_reshape_transform
from torchvision.models.detection import fasterrcnn_resnet50_fpn

torch.manual_seed(0)
model = fasterrcnn_resnet50_fpn(
    weights=None,
    weights_backbone=None,
    num_classes=4,
    min_size=192,
    max_size=192,
    box_score_thresh=0.0,
    box_detections_per_img=5,
    rpn_post_nms_top_n_test=20,
)
model.eval()
input_tensor = torch.rand(1, 3, 192, 192)
with torch.no_grad():
    found = model(input_tensor)[0]
targets = [FasterRCNNBoxScoreTarget(labels=found["labels"][:2], bounding_boxes=found["boxes"][:2])]
cam = AblationCAM(
    model,
    [model.backbone],
    reshape_transform=fasterrcnn_reshape_transform,
    ablation_layer=AblationLayerFasterRCNN(),
    ratio_channels_to_ablate=0.01,
)
grayscale_cam = cam(input_tensor, targets=targets)
np.savez(sys.argv[1], boxes=found["boxes"].numpy(), ablation=grayscale_cam[0, :])
