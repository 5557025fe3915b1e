"""The face of pytorch-grad-cam (grad-cam 1.5): its public API, on camfuse's kernels."""

from camfuse.compat.pytorch_grad_cam.activations_and_gradients import ActivationsAndGradients
from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.eigen_cam import EigenCAM
from camfuse.compat.pytorch_grad_cam.eigen_grad_cam import EigenGradCAM
from camfuse.compat.pytorch_grad_cam.grad_cam import GradCAM
from camfuse.compat.pytorch_grad_cam.grad_cam_elementwise import GradCAMElementWise
from camfuse.compat.pytorch_grad_cam.grad_cam_plusplus import GradCAMPlusPlus
from camfuse.compat.pytorch_grad_cam.hirescam import HiResCAM
from camfuse.compat.pytorch_grad_cam.layer_cam import LayerCAM
from camfuse.compat.pytorch_grad_cam.seg_eigen_cam import SegEigenCAM
from camfuse.compat.pytorch_grad_cam.xgrad_cam import XGradCAM

__all__ = [
    "ActivationsAndGradients",
    "BaseCAM",
    "EigenCAM",
    "EigenGradCAM",
    "GradCAM",
    "GradCAMElementWise",
    "GradCAMPlusPlus",
    "HiResCAM",
    "LayerCAM",
    "SegEigenCAM",
    "XGradCAM",
]
