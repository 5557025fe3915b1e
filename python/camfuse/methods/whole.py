"""Methods that make one map of several layers or crops, or maps of no class: functions apart."""

from __future__ import annotations

from camfuse.methods.base import Method

WHOLE_METHODS = (
    Method(
        name="refinecam",
        title="RefineCAM",
        formula="the product of the layers' maps, each ReLU'd and by its own range",
        source="How to Evaluate and Refine your CAM, arXiv 2605.14641",
        cost="none beyond the stack's",
        native="",
        differentiable=False,
        whole="it combines layers; call camfuse.refine_cam(stack) on what layer_cams() returns",
    ),
    Method(
        name="sess",
        title="SESS",
        formula="the mean of windows' maps over several scales, by their scores",
        source="Tursun et al., SESS, ECCV 2022, arXiv 2207.01769",
        cost="one pass per batch of windows",
        differentiable=False,
        whole="it combines crops of the image; call camfuse.sess(model, inputs, layer)",
    ),
    Method(
        name="dff",
        title="Deep Feature Factorization",
        formula="A ~ sum_i map_i concept_i, all at least 0",
        source="Collins et al., Deep Feature Factorization, ECCV 2018, arXiv 1806.10206",
        gradients=False,
        cost="one forward pass, and the factorisation",
        native="",
        differentiable=False,
        whole="it finds concepts, not evidence for a class; call "
        "camfuse.factorize(model, inputs, layer)",
    ),
)
