"""Methods whose map follows from activations A and gradients G alone.

Sums run over the positions p of a channel's plane; k runs over channels; no ReLU yet.
"""

from __future__ import annotations

from camfuse.methods.base import Method

GRADIENT_METHODS = (
    # sum_k w_k A_k, w_k = mean_p G_k
    Method("gradcam", "gradcam", "Selvaraju et al., Grad-CAM, ICCV 2017, eq. 1 and 2"),
    # sum_k w_k A_k, w_k = sum_p max(G_k, 0) G_k^2 / (2 G_k^2 + G_k^3 sum_p A_k)
    Method("gradcam++", "gradcam++", "Chattopadhay et al., Grad-CAM++, WACV 2018, eq. 19"),
    # sum_k w_k A_k, w_k = sum_p G_k A_k / sum_p A_k
    Method("xgradcam", "xgradcam", "Fu et al., Axiom-based Grad-CAM, BMVC 2020, eq. 8"),
    # sum_k G_k A_k, element-wise
    Method("hirescam", "hirescam", "Draelos and Carin, HiResCAM, 2020, arXiv 2011.08891"),
    # sum_k max(G_k A_k, 0)
    Method("elementwise", "elementwise", "GradCAMElementWise of pytorch-grad-cam"),
    # sum_k max(G_k, 0) A_k
    Method("layercam", "layercam", "Jiang et al., LayerCAM, IEEE TIP 2021, eq. 4 and 5"),
)
