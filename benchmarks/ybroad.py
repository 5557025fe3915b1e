"""ybROAD of a few layers against the perturbed forward passes alone, with the same batching.

Both sides push the same number of images of 224 x 224 through the same model, up to 32 at once;
ybROAD also ranks pixels, imputes, draws noise, scores, and proves that it may take faster passes
(batch norms folded, channels last). It is held against those faster passes, which is the harder
comparison, and against plain ones. Last, what a layer costs where there are more of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

import camfuse
from benchmarks.harness import Claim, Work, alternate, compare
from benchmarks.models import build
from benchmarks.photographs import cat
from camfuse.metrics.scoring import Scorer

BATCH_SIZE = 32
BASELINES = 6  # maps of ybROAD that are no layer's
COUNTS = (4, 12, 20)  # of layers, for the growth
COPIES = 8  # of each map: two directions, four percentages
# Model, layers, and how many times as long as the faster passes ybROAD may take.
LAYERS = {
    "resnet18": ["layer1", "layer2", "layer3", "layer4"],
    "resnet50": ["layer1", "layer2", "layer3", "layer4"],
    "efficientnet-lite0": ["_blocks.2", "_blocks.5", "_blocks.10", "_blocks.15"],
}
QUICK = {"resnet18": 1.15}
CASES = {"resnet50": 1.15, "efficientnet-lite0": 1.3}


def run(quick: bool) -> list[Claim]:
    """A claim per model and kind of pass, and one on the growth with the layers."""
    claims = []
    print(f"one image, up to {BATCH_SIZE} copies at once")
    for name, bound in (QUICK if quick else CASES).items():
        model, image = build(name).eval(), cat(224)
        stack = camfuse.layer_cams(model, image, layers=LAYERS[name])
        passes = Passes(model, image, (len(stack) + BASELINES) * COPIES)
        score = scoring(stack, model, image)
        check_same(model, passes.plain, score)
        for kind, alone in (("faster", passes.faster), ("plain", passes.plain)):
            pair = compare(alone, score, quick=quick, seconds=0)
            detail = pair.detail("passes", "ybroad")
            claims.append(Claim(f"ybROAD / {kind} passes", name, pair.ratio, f"<= {bound}", detail))
            print(f"{name}: ybROAD / {kind} passes {pair.ratio:.2f}", flush=True)
    claims.append(growth(name, model, image, quick))  # of the last, which is the quickest
    return claims


class Passes:
    """The forward passes alone, on images that are there already."""

    def __init__(self, model: nn.Module, image: Tensor, count: int) -> None:
        generator = torch.Generator().manual_seed(0)
        some = torch.randn(BATCH_SIZE, *image.shape[1:], generator=generator)
        self._model, self._image, self._count = model, image, count
        self._images = some[torch.arange(count) % BATCH_SIZE]

    def plain(self) -> None:
        """As the model is."""
        with torch.no_grad():
            self._run()

    def faster(self) -> None:
        """As a scorer makes them, and the proof that it may."""
        with Scorer(self._model, self._image, batch_size=BATCH_SIZE).session():
            self._run()

    def _run(self) -> None:
        for part in self._images.split(BATCH_SIZE):
            self._model(part)


def check_same(model: nn.Module, passes: Work, score: Work) -> None:
    """Raises unless both push as many images through the model, but for the unperturbed one."""
    pushed, scored = (images_seen(model, work) for work in (passes, score))
    if not pushed < scored <= pushed + BATCH_SIZE:
        raise AssertionError(f"expected {pushed} perturbed images of ybROAD too, got {scored}")


def images_seen(model: nn.Module, work: Work) -> int:
    """How many go through the model."""
    seen = 0

    def count(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        nonlocal seen
        seen += len(args[0])

    handle = model.register_forward_pre_hook(count)
    try:
        work()
    finally:
        handle.remove()
    return seen


def scoring(stack: camfuse.CamStack, model: nn.Module, image: Tensor) -> Callable[[], object]:
    """Scores all layers of the stack, with one seed."""
    return lambda: camfuse.ybroad(stack, model, image, seeds=(0,), batch_size=BATCH_SIZE)


def growth(name: str, model: nn.Module, image: Tensor, quick: bool) -> Claim:
    """What the third eight layers cost, over what the second eight cost."""
    stack = camfuse.layer_cams(model, image)
    # Aliases are scored with their originals. A module is selected with all its calls; only the
    # first of them has the module's name.
    own = [one.name for one in stack.layers if one.alias_of is None and "#" not in one.name]
    names = own[: max(COUNTS)]
    works = [scoring(stack.select(layers=names[:count]), model, image) for count in COUNTS]
    times = alternate(works, quick=quick, seconds=0)
    rounds = zip(*times, strict=True)
    ratio = statistics.median((most - more) / (more - few) for few, more, most in rounds)
    middles = map(statistics.median, times)
    detail = {f"{count}_layers_s": one for count, one in zip(COUNTS, middles, strict=True)}
    return Claim("ybROAD of layers 13 to 20 / of layers 5 to 12", name, ratio, "<= 1.3", detail)
