"""FullGrad: what the input and all biases of a network contribute to a score, in one map.

The score of a ReLU network is the sum of the input times its gradient and of every bias times its
own. Each layer's terms are added at the layer's resolution, during the backward pass, and enlarged
once: no more than one layer's gradients are held, and as enlarging is linear, the sum is that of
the enlarged terms.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from camfuse.capture import Rehearsal, capture
from camfuse.captured import Captured, Reshape
from camfuse.inputs import Inputs, first_image
from camfuse.layers import unwrap
from camfuse.methods.base import wide
from camfuse.methods.fullgrad import bias_term, has_bias, rescaled
from camfuse.model_checks import check_model
from camfuse.targets import Each, Target, count_targets


def full_grad(
    model: nn.Module, inputs: Inputs, *, target: Target = None, reshape: Reshape | None = None
) -> Tensor:
    """The saliency of every pixel by FullGrad (Srinivas and Fleuret, NeurIPS 2019).

    The sum over the channels of psi(input times gradient), and over all convolutions, linear layers
    and batch normalisations, and their channels, of psi(bias times gradient), enlarged bilinearly.
    psi takes magnitudes and maps the range within each channel to [0, 1], as pytorch-grad-cam does.
    So every channel counts alike, and the size of its bias no longer matters, only that there is
    one; the authors' own code maps the range of all channels of a sample together.

    Layers without spatial extent, such as classifiers, and those whose layout is unknown add
    nothing. See ``method="fullgrad"`` of :func:`camfuse.layer_cams` for one layer's part.

    Args:
        model: In eval mode; it is left exactly as it was found, also after an exception.
        inputs: As for :func:`camfuse.layer_cams`; the first image among them is explained.
        target: The score, as for :func:`camfuse.layer_cams`.
        reshape: From outputs whose layout is unknown to ``[B, C, h, w]``.

    Returns:
        ``[B, H, W]`` at the image's size, f64 for f64 inputs, else f32; raw: each term is in
        [0, 1], their sum is not. With several targets (``[T, B]`` or :class:`camfuse.Each`)
        ``[T, B, H, W]``.

    Raises:
        ValueError: If an argument does not fit, or there is no image among the inputs.
    """
    model = unwrap(model)
    check_model(model, allow_training=False)
    image = first_image(inputs)
    if image.ndim != 4 or not image.is_floating_point():
        raise ValueError(
            "inputs: expected a floating image [B, C, H, W] among them, got "
            f"{image.dtype} {tuple(image.shape)}"
        )
    watched = _WithImage(model)
    size = image.shape[-2:]
    dtype = torch.promote_types(image.dtype, torch.float32)
    total = image.new_zeros(count_targets(target), len(image), *size, dtype=dtype)

    def visit(layer: Captured, t: int, A: Tensor, G: Tensor | None) -> None:
        assert G is not None
        if layer.module is watched.image:
            total[t] += rescaled(wide(A) * wide(G)).to(total)
            return
        term = bias_term(layer.module, G).to(total)
        total[t] += F.interpolate(term[:, None], size, mode="bilinear", align_corners=False)[:, 0]

    capture(
        watched,
        inputs,
        visit,
        layers=[watched.image, *(one for one in model.modules() if has_bias(one))],
        target=target,
        reshape=reshape,
        # What the pass learns is kept for the model, as what is watched ends with this call.
        rehearsal=Rehearsal((), _learned.setdefault(model, {})),
    )
    several = isinstance(target, Each) or (isinstance(target, Tensor) and target.ndim == 2)
    return total if several else total[0]


_learned: weakref.WeakKeyDictionary[nn.Module, dict[str, bool]] = weakref.WeakKeyDictionary()


class _WithImage(nn.Module):
    """A model whose image passes through a layer first, so that its gradient is told."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.image, self.model = nn.Identity(), model
        self.training = self.image.training = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the model."""
        image = first_image(args or kwargs)
        args, kwargs = tree_map(
            lambda one: self.image(one) if one is image else one, (args, kwargs)
        )
        return self.model(*args, **kwargs)
