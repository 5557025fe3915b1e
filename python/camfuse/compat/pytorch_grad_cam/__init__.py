"""The face of pytorch-grad-cam (grad-cam 1.5): its public API, on camfuse's kernels."""

import camfuse.compat.pytorch_grad_cam.metrics.cam_mult_image
import camfuse.compat.pytorch_grad_cam.metrics.road
import camfuse.compat.pytorch_grad_cam.utils.model_targets
import camfuse.compat.pytorch_grad_cam.utils.reshape_transforms  # noqa: F401
from camfuse.compat.pytorch_grad_cam.ablation_cam import AblationCAM
from camfuse.compat.pytorch_grad_cam.ablation_layer import (
    AblationLayer,
    AblationLayerFasterRCNN,
    AblationLayerVit,
)
from camfuse.compat.pytorch_grad_cam.activations_and_gradients import ActivationsAndGradients
from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.eigen_cam import EigenCAM
from camfuse.compat.pytorch_grad_cam.eigen_grad_cam import EigenGradCAM
from camfuse.compat.pytorch_grad_cam.feature_factorization.deep_feature_factorization import (
    DeepFeatureFactorization,
    run_dff_on_image,
)
from camfuse.compat.pytorch_grad_cam.fem import FEM
from camfuse.compat.pytorch_grad_cam.finer_cam import FinerCAM
from camfuse.compat.pytorch_grad_cam.fullgrad_cam import FullGrad
from camfuse.compat.pytorch_grad_cam.grad_cam import GradCAM
from camfuse.compat.pytorch_grad_cam.grad_cam_elementwise import GradCAMElementWise
from camfuse.compat.pytorch_grad_cam.grad_cam_plusplus import GradCAMPlusPlus
from camfuse.compat.pytorch_grad_cam.guided_backprop import GuidedBackpropReLUModel
from camfuse.compat.pytorch_grad_cam.hirescam import HiResCAM
from camfuse.compat.pytorch_grad_cam.kpca_cam import KPCA_CAM
from camfuse.compat.pytorch_grad_cam.layer_cam import LayerCAM
from camfuse.compat.pytorch_grad_cam.random_cam import RandomCAM
from camfuse.compat.pytorch_grad_cam.refine_cam import RefineCAM
from camfuse.compat.pytorch_grad_cam.score_cam import ScoreCAM
from camfuse.compat.pytorch_grad_cam.seg_eigen_cam import SegEigenCAM
from camfuse.compat.pytorch_grad_cam.sess import SESS
from camfuse.compat.pytorch_grad_cam.shapley_cam import ShapleyCAM
from camfuse.compat.pytorch_grad_cam.xgrad_cam import XGradCAM

__all__ = [
    "FEM",
    "KPCA_CAM",
    "SESS",
    "AblationCAM",
    "AblationLayer",
    "AblationLayerFasterRCNN",
    "AblationLayerVit",
    "ActivationsAndGradients",
    "BaseCAM",
    "DeepFeatureFactorization",
    "EigenCAM",
    "EigenGradCAM",
    "FinerCAM",
    "FullGrad",
    "GradCAM",
    "GradCAMElementWise",
    "GradCAMPlusPlus",
    "GuidedBackpropReLUModel",
    "HiResCAM",
    "LayerCAM",
    "RandomCAM",
    "RefineCAM",
    "ScoreCAM",
    "SegEigenCAM",
    "ShapleyCAM",
    "XGradCAM",
    "run_dff_on_image",
]
