"""One picture of every method, for docs/methods.md: EfficientNet-Lite0 looks at a cat."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import torch
from PIL import Image
from skimage import data
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import VisionTransformer

import camfuse
from camfuse.methods.base import Method

SIZE = 224
LAYER = "_blocks.10._bn2"  # 14 x 14 positions, 112 channels
EARLY = "_blocks.4._bn2"  # 40 channels, where 112 would take SS-CAM a quarter of an hour
LAST = "_swish"  # its second call is what global average pooling and one linear layer follow
EPOCHS = 12
STAGES = ["_blocks.4._bn2", "_blocks.10._bn2", "_blocks.15._bn2"]


@functools.cache
def cat() -> tuple[Image.Image, torch.nn.Module, Tensor]:
    """The photograph, the model, and what the model gets to see."""
    photograph = Image.fromarray(data.cat())
    loaded = camfuse.load_model("efficientnet-lite:0")
    return photograph, loaded.module, loaded.preprocessing(photograph)


def draw(method: Method) -> Image.Image:
    """What the method shows, over the photograph."""
    photograph, model, x = cat()
    if method.whole:
        heat = WHOLE[method.name](model, x)
        return camfuse.still(_as_stack(heat), photograph, 0, size=SIZE)
    if method.name == "legrad":
        return _attention_to_a_digit()
    layer = {"cam": LAST, "sscam": EARLY}.get(method.name, LAYER)
    stack = camfuse.layer_cams(model, x, method=method.name, layers=layer)
    return camfuse.still(stack, photograph, stack.names[-1], size=SIZE)


def _as_stack(heat: Tensor) -> camfuse.CamStack:
    """Finished maps ``[1, H, W]`` in the place of a layer's."""
    _, model, x = cat()
    stack = camfuse.layer_cams(model, x, layers=LAYER)
    ends = torch.stack([heat.min(), heat.max()]).expand(1, 1, 1, 2)
    return dataclasses.replace(
        stack,
        layers=(dataclasses.replace(stack.layers[0], shape=(1, *heat.shape[1:])),),
        flat=heat.flatten(),
        ranges=ends[None],
        global_ranges=ends,
    )


def _refined(model: torch.nn.Module, x: Tensor) -> Tensor:
    stack = camfuse.layer_cams(model, x, method="gradcam++", layers=STAGES)
    return camfuse.refine_cam(stack)[0, 0]


def _first_concept(model: torch.nn.Module, x: Tensor) -> Tensor:
    return camfuse.factorize(model, x, LAYER, concepts=3).maps[:, 0]


def _attention_to_a_digit() -> Image.Image:
    """No weights of a vision transformer come with pip: a small one learns digits here."""
    torch.manual_seed(0)
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32)[:, None].repeat(1, 3, 1, 1) / 8 - 1
    x, y = F.interpolate(x, 32, mode="bilinear"), torch.tensor(digits.target)
    model = VisionTransformer(32, 4, 4, 4, 64, 128, num_classes=10)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x) - 100).split(128):
            loss = F.cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        right = (model(x[-100:]).argmax(1) == y[-100:]).float().mean()
    print(f"the transformer knows {right:.0%} of 100 digits it has not seen")
    layer = "encoder.layers.encoder_layer_3"
    stack = camfuse.layer_cams(model, x[-1:], method="legrad", layers=layer)
    picture = Image.fromarray(((x[-1] + 1) * 127.5).byte().permute(1, 2, 0).numpy())
    picture = picture.resize((SIZE, SIZE), Image.Resampling.NEAREST)
    return camfuse.still(stack, picture, layer, size=SIZE)


WHOLE: dict[str, Callable[[torch.nn.Module, Tensor], Tensor]] = {
    "refinecam": _refined,
    "sess": lambda model, x: camfuse.sess(model, x, LAYER),
    "dff": _first_concept,
}
