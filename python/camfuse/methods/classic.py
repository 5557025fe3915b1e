"""The first class activation map: of the layer that pooling and one linear layer follow."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from camfuse.methods.base import Pair, UndefinedError, WeightMethod

_ROUNDINGS = 8


def classifier_weights(pair: Pair) -> Tensor:
    """The classifier's weight of each channel for the target ``[B, C]``, found from gradients.

    Behind a global average pooling every position of a channel has the same gradient, the
    derivative of the score by the channel's mean over the number of positions. Their sum is that
    derivative, and if one linear layer makes the score, its weight. No name and no structure of the
    model is needed.

    What gradients cannot tell: whether more than one linear layer follows the pooling. Behind a
    nonlinear one (the heads of VGG with 1 x 1 pooling, MobileNetV3) the weights are the derivatives
    at this input, and the map is Grad-CAM's times the number of positions. Likewise a ReLU between
    layer and pooling goes unnoticed where it changes nothing, and a layer that the score does not
    depend on, whose gradients are all 0, has a map of 0. A channel of one position tells nothing,
    so maps of 1 x 1 are refused.

    The host waits for a GPU once per layer, to look at the gradients.

    Raises:
        UndefinedError: If the gradients within a channel differ by more than rounding.
    """
    G = pair.known_gradients
    if not _is_pooled(G.detach()):
        raise UndefinedError(
            "defined only for the layer that global average pooling and one linear layer follow"
        )
    return G.sum((2, 3))


def _is_pooled(G: Tensor) -> bool:
    if G.shape[2] * G.shape[3] == 1:
        return False
    if G.is_meta or isinstance(G, FakeTensor):
        return True  # a rehearsal: there are no values, and maps need more memory than none
    low, high = G.amin((2, 3)), G.amax((2, 3))
    largest = torch.maximum(low.abs(), high.abs())
    # Not "no more than": what is not finite is to be reported as such.
    return not bool((high - low > _ROUNDINGS * torch.finfo(G.dtype).eps * largest).any())


CLASSIC_METHODS = (
    WeightMethod(
        name="cam",
        title="CAM",
        weights=classifier_weights,
        formula="sum_k w_k A_k, w_k the classifier's weight, found as sum_p G_k",
        source="Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016",
        only="the layer that global average pooling and one linear layer follow",
    ),
)
