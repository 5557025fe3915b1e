"""``layer_cam``, ``fused_cam`` and ``render_frames`` on a GPU, against PyTorch doing the same.

Times are of CUDA events around many calls; inputs take turns, so that none is in the L2 cache when
its turn comes. One claim is the worst case over shapes, batches, types and memory formats; all
cases are printed above. Without a GPU it says so and ends.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Claim, NothingMeasured
from camfuse import ops

Op = Callable[[Tensor, Tensor], object]

SHAPES = ((64, 224, 224), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7))
GRADIENT_RULES: tuple[ops.Rule, ...] = tuple(
    rule for rule in ops.MAGNITUDE_OF if rule != "weighted"
)
# Below so many bytes of A and G, starting kernels takes longer than they do.
LARGE_BYTES = 32 << 20
SIZE = (224, 224)


@dataclass(frozen=True)
class Case:
    """One layer."""

    batch: int
    shape: tuple[int, int, int]
    dtype: torch.dtype
    channels_last: bool

    def __str__(self) -> str:
        sides = "x".join(map(str, (self.batch, *self.shape)))
        layout = "nhwc" if self.channels_last else "nchw"
        return f"{sides} {layout} {str(self.dtype).removeprefix('torch.')}"

    @property
    def bytes(self) -> int:
        """Of A and G together."""
        C, h, w = self.shape
        return 2 * self.batch * C * h * w * self.dtype.itemsize

    def inputs(self, device: torch.device, copies: int) -> list[tuple[Tensor, Tensor]]:
        """Activations and gradients, `copies` of them."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        shape = (self.batch, *self.shape)

        def random() -> Tensor:
            x = torch.randn(shape, device=device, dtype=self.dtype)
            return x.contiguous(memory_format=layout)

        return [(random().relu(), random()) for _ in range(copies)]


def cases(quick: bool) -> Iterator[Case]:
    """Every layer that is timed."""
    for dtype in (torch.float32,) if quick else (torch.float32, torch.float16):
        for batch in (1, 32):
            for shape in SHAPES:
                for channels_last in (False, True):
                    yield Case(batch, shape, dtype, channels_last)


def copies_of(case: Case, cache_bytes: int) -> int:
    """So many inputs that a full turn is half as much again as the cache holds."""
    return min(256, 3 * cache_bytes // (2 * case.bytes) + 1)


def gradcam(A: Tensor, G: Tensor) -> Tensor:
    return (G.mean((2, 3), keepdim=True) * A).sum(1)


def layercam(A: Tensor, G: Tensor) -> Tensor:
    return (G.relu() * A).sum(1)


def finished(A: Tensor, G: Tensor) -> Tensor:
    """What ``fused_cam`` gives, in PyTorch."""
    map_ = gradcam(A, G).relu()
    low, high = map_.amin((1, 2), keepdim=True), map_.amax((1, 2), keepdim=True)
    map_ = (map_ - low) / (high - low)
    return F.interpolate(map_[:, None], SIZE, mode="bilinear", align_corners=False)[:, 0]


def sums(A: Tensor, G: Tensor) -> Tensor:
    """Reads A and G once."""
    return A.sum() + G.sum()


def native(*rules: ops.Rule) -> Op:
    return lambda A, G: ops.layer_cam(A, G, rules)


def gpu_seconds(work: Callable[[int], object], rounds: int) -> float:
    """Median seconds of a call, of rounds of about 5 ms each."""
    calls = 10
    while (seconds := _round_seconds(work, calls)) * calls < 5e-3 and calls < 5000:
        calls = min(5000, max(2 * calls, int(5e-3 / max(seconds, 1e-7))))
    return statistics.median(_round_seconds(work, calls) for _ in range(rounds))


def _round_seconds(work: Callable[[int], object], calls: int) -> float:
    begin, end = (torch.Event("cuda", enable_timing=True) for _ in range(2))
    begin.record()
    for i in range(calls):
        work(i)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3 / calls


def timed_ops(compiled: dict[str, Op]) -> dict[str, Op]:
    """What is timed on each layer."""
    timed: dict[str, Op] = {"sum of A and G": sums}
    timed |= {rule: native(rule) for rule in GRADIENT_RULES}
    timed["six rules"] = native(*GRADIENT_RULES)
    timed["fused_cam"] = lambda A, G: ops.fused_cam(A, G, "gradcam", SIZE)
    timed |= {"eager gradcam": gradcam, "eager layercam": layercam, "eager fused_cam": finished}
    return timed | {f"compiled {name}": function for name, function in compiled.items()}


def time_case(
    case: Case, cache_bytes: int, compiled: dict[str, Op], rounds: int
) -> dict[str, float]:
    """Seconds of each op on a layer."""
    inputs = case.inputs(torch.device("cuda"), copies_of(case, cache_bytes))

    def in_turn(op: Op) -> Callable[[int], object]:
        return lambda i: op(*inputs[i % len(inputs)])

    with torch.no_grad():
        timed = timed_ops(compiled)
        return {name: gpu_seconds(in_turn(op), rounds) for name, op in timed.items()}


def ratios(seconds: dict[str, float]) -> dict[str, float]:
    """The figures of one case, by claim."""
    found = {
        f"{rule} / sum of A and G": seconds[rule] / seconds["sum of A and G"]
        for rule in GRADIENT_RULES
    }
    for name in ("gradcam", "layercam", "fused_cam"):
        for peer in ("eager", "compiled"):
            if f"{peer} {name}" in seconds:
                found[f"{peer} {name} / ours"] = seconds[f"{peer} {name}"] / seconds[name]
    slowest = max(seconds[rule] for rule in GRADIENT_RULES)
    found["six rules / slowest rule"] = seconds["six rules"] / slowest
    return found


def claims(figures: dict[Case, dict[str, float]]) -> list[Claim]:
    """The worst case of each figure; what reading memory takes is asked of large layers only."""
    made: list[Claim] = []
    for name in next(iter(figures.values())):
        against_sum = name.endswith("sum of A and G")
        held = {
            str(case): round(found[name], 3)
            for case, found in figures.items()
            if not against_sum or case.bytes >= LARGE_BYTES
        }
        if against_sum or name.startswith("six"):
            goal, worst = ("<= 1.3" if against_sum else "<= 2"), max
        else:
            goal, worst = ">= 1", min
        if held:
            case = worst(held, key=held.__getitem__)
            made.append(Claim(name, case, held[case], goal, held))
    return made


def compiled_peers() -> dict[str, Op]:
    """``torch.compile`` of the plain formulas, as far as it works here."""
    found: dict[str, Op] = {}
    torch._dynamo.config.recompile_limit = 256
    example = torch.randn(1, 8, 4, 4, device="cuda")
    for name, plain in (("gradcam", gradcam), ("layercam", layercam), ("fused_cam", finished)):
        try:
            function: Op = torch.compile(plain, dynamic=False)
            function(example, example)
        except Exception as error:  # no C compiler for Triton, or an inductor failure
            print(f"torch.compile left out for {name}: {type(error).__name__}")
        else:
            found[name] = function
    return found


def frames_call(
    device: torch.device, pixel_format: ops.PixelFormat, frames: int
) -> Callable[[], Tensor]:
    """Three panels of 448 x 448: the photograph, and 56 x 56 maps by two ranges."""
    side, panel = 56, 448
    lefts = [i * (panel + 8) for i in range(3)]
    kinds: tuple[ops.PanelKind, ...] = ("source", "layer", "global")
    maps = torch.randn(frames, side, side, device=device)
    ranges = torch.stack([maps.amin((1, 2)), maps.amax((1, 2))], 1)[:, None]
    global_ranges = torch.tensor([[0.0, 5.0]], device=device)
    source = torch.randint(256, (panel, panel, 3), dtype=torch.uint8, device=device)
    colours = torch.randint(256, (256, 3), dtype=torch.uint8, device=device)
    return lambda: ops.render_frames(
        maps.flatten(),
        [n * side * side for n in range(frames)],
        [(side, side)] * frames,
        ranges,
        global_ranges,
        source,
        colours,
        [(kind, 0, 0, left) for kind, left in zip(kinds, lefts, strict=True)],
        (panel, lefts[-1] + panel),
        pixel_format=pixel_format,
    )


def frames_per_second(pixel_format: ops.PixelFormat, rounds: int, frames: int = 64) -> float:
    call = frames_call(torch.device("cuda"), pixel_format, frames)
    with torch.no_grad():
        return frames / gpu_seconds(lambda _: call(), rounds)


def run(quick: bool) -> list[Claim]:
    """The worst cases, and the rates at which frames are rendered."""
    if not torch.cuda.is_available():
        raise NothingMeasured("no CUDA device on this machine: nothing was measured")
    rounds = 5 if quick else 11
    device = torch.cuda.get_device_properties(0)
    print(f"{device.name}, torch {torch.__version__}")
    compiled = compiled_peers()

    figures = {}
    for case in cases(quick):
        seconds = time_case(case, device.L2_cache_size, compiled, rounds)
        figures[case] = ratios(seconds)
        print(f"\n{case}: {case.bytes / 1e6:.1f} MB of A and G")
        for name, value in seconds.items():
            print(f"  {name:24} {value * 1e6:10.1f} us {case.bytes / value / 1e9:8.0f} GB/s")
    rates = {name: frames_per_second(name, rounds) for name in get_args(ops.PixelFormat)}
    return claims(figures) + [
        Claim("render_frames, frames of 1360 x 448 per second", name, rate, None)
        for name, rate in rates.items()
    ]
