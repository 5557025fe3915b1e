"""The native ``layer_cam`` against a bare ``sum`` of A and G, eager PyTorch and ``torch.compile``.

Run: ``python -m benchmarks.layer_cam [--quick]``. One claim is the worst case over shapes, batches
and memory formats; all cases are printed above.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.harness import Claim, Work, compare, report
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
    A: Tensor, G: Tensor, inductor: dict[ops.Rule, Eager | None], rounds: int
) -> dict[str, float]:
    """Every figure of one case, by claim."""

    def ours(*rules: ops.Rule) -> Work:
        return lambda: ops.layer_cam(A, G, rules)

    def theirs(form: Eager) -> Work:
        return lambda: form(A, G)

    found: dict[str, float] = {}
    seconds: dict[ops.Rule, float] = {}
    for rule in GRADIENT_RULES:
        pair = compare(lambda: A.sum() + G.sum(), ours(rule), rounds)
        seconds[rule] = pair.theirs
        found[f"{rule} / sum of A and G"] = pair.ratio
    for rule, forms in EAGER.items():
        found[f"best eager {rule} / ours"] = min(
            compare(ours(rule), theirs(form), rounds).ratio for form in forms
        )
        if (function := inductor[rule]) is not None:
            pair = compare(ours(rule), theirs(function), rounds)
            found[f"compiled {rule} / ours"] = pair.ratio
    slowest = max(GRADIENT_RULES, key=seconds.__getitem__)
    pair = compare(ours(slowest), ours(*GRADIENT_RULES), rounds)
    found["all six rules / slowest rule"] = pair.ratio
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one batch size, fewer rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch._dynamo.config.recompile_limit = 64
    rounds = 7 if options.quick else 11
    inductor = {rule: compiled(rule) for rule in EAGER}
    figures: dict[str, dict[str, float]] = {}

    for C, h, w in SHAPES:
        for batch in (1,) if options.quick else (1, 8):
            for layout in (torch.contiguous_format, torch.channels_last):
                A = torch.randn(batch, C, h, w).relu().contiguous(memory_format=layout)
                G = torch.randn(batch, C, h, w).contiguous(memory_format=layout)
                short = "nhwc" if layout == torch.channels_last else "nchw"
                case = f"{batch}x{C}x{h}x{w} {short}"
                print(case, flush=True)
                for claim, ratio in ratios(A, G, inductor, rounds).items():
                    figures.setdefault(claim, {})[case] = round(ratio, 3)

    for claim, cases in figures.items():
        print(f"\n{claim}: median {statistics.median(cases.values()):.2f}")
        for case, ratio in cases.items():
            print(f"  {case:24} {ratio:8.2f}")
    print()
    report("layer_cam", [_claim(name, cases) for name, cases in figures.items()])


def _claim(name: str, cases: dict[str, float]) -> Claim:
    """The worst case of a figure, beside the goal that belongs to it."""
    if name.endswith("sum of A and G"):
        return Claim(name, max(cases.values()), "<= 1.3", cases)
    if name.startswith("all six"):
        return Claim(name, max(cases.values()), "<= 2", cases)
    goal = ">= 1.4" if name.startswith("compiled") else ">= 1" if "gradcam" in name else ">= 2.5"
    return Claim(name, min(cases.values()), goal, cases)


if __name__ == "__main__":
    main()
