"""The native ``layer_cam`` against a bare ``sum`` of A and G, eager PyTorch and ``torch.compile``.

Over shapes of layers, batches and memory formats. Each eager and compiled form is first seen to
give the same map.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.harness import Claim, Pair, Work, alternate
from benchmarks.models import BATCHES
from camfuse import ops

SHAPES = ((64, 112, 112), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7))
GRADIENT_RULES: tuple[ops.Rule, ...] = tuple(
    rule for rule in ops.MAGNITUDE_OF if rule != "weighted"
)

Eager = Callable[[Tensor, Tensor], Tensor]


def gradcam_einsum(A: Tensor, G: Tensor) -> Tensor:
    return torch.einsum("bc,bchw->bhw", G.mean((2, 3)), A)


def gradcam_matmul(A: Tensor, G: Tensor) -> Tensor:
    return torch.bmm(G.mean((2, 3))[:, None], A.flatten(2)).view(A.shape[0], *A.shape[2:])


def gradcam_product(A: Tensor, G: Tensor) -> Tensor:
    return (G.mean((2, 3), keepdim=True) * A).sum(1)


def layercam(A: Tensor, G: Tensor) -> Tensor:
    return (G.relu() * A).sum(1)


def layercam_einsum(A: Tensor, G: Tensor) -> Tensor:
    return torch.einsum("bchw,bchw->bhw", G.relu(), A)


EAGER: dict[ops.Rule, tuple[Eager, ...]] = {
    "gradcam": (gradcam_einsum, gradcam_matmul, gradcam_product),
    "layercam": (layercam, layercam_einsum),
}


def compiled(rule: ops.Rule) -> Eager | None:
    """``torch.compile`` of the plain formula, or ``None`` where it cannot compile here."""
    plain = gradcam_product if rule == "gradcam" else layercam
    try:
        function: Eager = torch.compile(plain, dynamic=False)
        function(torch.randn(1, 8, 4, 4), torch.randn(1, 8, 4, 4))
    except Exception as error:  # no C++ compiler, or an inductor failure: no comparison to make
        print(f"torch.compile left out: {type(error).__name__}")
        return None
    return function


def ratios(
    A: Tensor, G: Tensor, inductor: dict[ops.Rule, Eager | None], quick: bool
) -> dict[str, float]:
    """Every figure of one case, by claim."""
    works: dict[str, Work] = {"sum": lambda: A.sum() + G.sum()}
    works |= {rule: native(A, G, rule) for rule in GRADIENT_RULES}
    works["all"] = native(A, G, *GRADIENT_RULES)
    for rule, forms in EAGER.items():
        works |= {f"{rule} {form.__name__}": partial(form, A, G) for form in forms}
        if (function := inductor[rule]) is not None:
            works[f"compiled {rule}"] = partial(function, A, G)
        check_same(A, G, rule, [*forms, *filter(None, [inductor[rule]])])
    times = dict(zip(works, alternate(list(works.values()), quick=quick), strict=True))

    found: dict[str, float] = {}
    for rule in GRADIENT_RULES:
        found[f"{rule} / sum of A and G"] = Pair.of(times["sum"], times[rule]).ratio
    for rule, forms in EAGER.items():
        found[f"best eager {rule} / ours"] = min(
            Pair.of(times[rule], times[f"{rule} {form.__name__}"]).ratio for form in forms
        )
        if inductor[rule] is not None:
            pair = Pair.of(times[rule], times[f"compiled {rule}"])
            found[f"compiled {rule} / ours"] = pair.ratio
    slowest = max(GRADIENT_RULES, key=lambda rule: statistics.median(times[rule]))
    found["all six rules / slowest rule"] = Pair.of(times[slowest], times["all"]).ratio
    return found


def native(A: Tensor, G: Tensor, *rules: ops.Rule) -> Work:
    """Our side."""
    return lambda: ops.layer_cam(A, G, rules)


def check_same(A: Tensor, G: Tensor, rule: ops.Rule, forms: list[Eager]) -> None:
    """Raises unless every form gives the map that ours does."""
    ours = ops.layer_cam(A, G, [rule])[0][0]
    for form in forms:
        torch.testing.assert_close(form(A, G), ours, rtol=0, atol=1e-4 * float(ours.abs().max()))


def run(quick: bool) -> list[Claim]:
    """For each figure a claim per shape, batch and memory format."""
    torch._dynamo.config.recompile_limit = 64
    inductor = {rule: compiled(rule) for rule in EAGER}
    claims = []
    for C, h, w in SHAPES:
        for batch in BATCHES[:1] if quick else BATCHES:
            for layout in (torch.contiguous_format, torch.channels_last):
                A = torch.randn(batch, C, h, w).relu().contiguous(memory_format=layout)
                G = torch.randn(batch, C, h, w).contiguous(memory_format=layout)
                short = "nhwc" if layout == torch.channels_last else "nchw"
                case = f"{batch}x{C}x{h}x{w} {short}"
                print(case, flush=True)
                found = ratios(A, G, inductor, quick)
                claims += [Claim(name, case, ratio, goal(name)) for name, ratio in found.items()]
    return claims


def goal(name: str) -> str:
    """What belongs to a figure."""
    if name.endswith("sum of A and G"):
        return "<= 1.3"
    if name.startswith("all six"):
        return "<= 2"
    return ">= 1.4" if name.startswith("compiled") else ">= 1" if "gradcam" in name else ">= 2.5"
