"""Methods that explain what sets a class apart from those that resemble it."""

from __future__ import annotations

from camfuse.class_targets import Contrast
from camfuse.methods.base import RuleMethod
from camfuse.targets import Each, Target


def contrasted(target: Target) -> Target:
    """The contrast of each class, but those that are contrasts already.

    Raises:
        ValueError: If a target is no class.
    """
    if isinstance(target, Each):
        return Each([contrasted(one) for one in target.targets])
    return target if isinstance(target, Contrast) else Contrast(target)


CONTRAST_METHODS = (
    RuleMethod(
        name="finercam",
        title="Finer-CAM",
        rule="gradcam",
        target=contrasted,
        formula="sum_k w_k A_k, w_k = mean_p G_k, G of y_c - mean_d y_d, d the 3 classes nearest "
        "to y_c",
        source="Zhang et al., Finer-CAM, CVPR 2025, arXiv 2501.11309",
        cost="one pass for all layers; beside other methods, one more backward pass",
    ),
)
