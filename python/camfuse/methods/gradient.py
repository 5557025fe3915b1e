"""Methods whose map follows from activations and gradients alone, by a native rule."""

from __future__ import annotations

from camfuse.methods.base import RuleMethod

GRADIENT_METHODS = (
    RuleMethod(
        name="gradcam",
        title="Grad-CAM",
        rule="gradcam",
        formula="sum_k w_k A_k, w_k = mean_p G_k",
        source="Selvaraju et al., Grad-CAM, ICCV 2017, eq. 1 and 2",
    ),
    RuleMethod(
        name="gradcam++",
        title="Grad-CAM++",
        rule="gradcam++",
        formula="sum_k w_k A_k, w_k = sum_p max(G_k, 0) G_k^2 / (2 G_k^2 + G_k^3 sum_p A_k)",
        source="Chattopadhay et al., Grad-CAM++, WACV 2018, eq. 19",
    ),
    RuleMethod(
        name="xgradcam",
        title="XGrad-CAM",
        rule="xgradcam",
        formula="sum_k w_k A_k, w_k = sum_p G_k A_k / sum_p A_k",
        source="Fu et al., Axiom-based Grad-CAM, BMVC 2020, eq. 8",
    ),
    RuleMethod(
        name="hirescam",
        title="HiResCAM",
        rule="hirescam",
        formula="sum_k G_k A_k",
        source="Draelos and Carin, HiResCAM, 2020, arXiv 2011.08891",
    ),
    RuleMethod(
        name="elementwise",
        title="GradCAMElementWise",
        rule="elementwise",
        formula="sum_k max(G_k A_k, 0)",
        source="GradCAMElementWise of pytorch-grad-cam",
    ),
    RuleMethod(
        name="layercam",
        title="LayerCAM",
        rule="layercam",
        formula="sum_k max(G_k, 0) A_k",
        source="Jiang et al., LayerCAM, IEEE TIP 2021, eq. 4 and 5",
    ),
)
