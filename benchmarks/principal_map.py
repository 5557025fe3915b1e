"""The native ``principal_map`` against the full SVD of pytorch-grad-cam and eager Gram + ``eigh``.

Run: ``python -m benchmarks.principal_map [--quick]``. pytorch-grad-cam asks for all singular
vectors, positions x positions of them: gigabytes and minutes at 112 x 112, where one round is
taken of a layer cut to few channels. Eager PyTorch takes the eigenvector of the smaller Gram matrix
of the centred rows.
"""

from __future__ import annotations

import argparse
import time

import torch
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection
from torch import Tensor

from benchmarks.harness import Claim, compare, report
from camfuse import ops

SHAPES = ((64, 112, 112), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7))
LARGEST_SVD = 4096  # the longer side of what is decomposed in full more than once


def layer(shape: tuple[int, ...]) -> Tensor:
    """Activations with a few blobs that channels share, over noise, rectified."""
    B, C, h, w = shape
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(B, 8, max(h // 4, 2), max(w // 4, 2), generator=generator)
    blobs = torch.nn.functional.interpolate(coarse, (h, w), mode="bilinear")
    strength = torch.linspace(1, 0.3, 8)[:, None]
    mixed = torch.einsum("kc,bkhw->bchw", strength * torch.randn(8, C, generator=generator), blobs)
    return (mixed + torch.randn(shape, generator=generator)).relu()


def gram(A: Tensor) -> Tensor:
    """The same maps, up to sign, in eager PyTorch."""
    rows = A.flatten(2).mT
    rows = rows - rows.mean(1, keepdim=True)
    positions, channels = rows.shape[1:]
    if positions > channels:
        vectors = torch.linalg.eigh(rows.mT @ rows)[1][..., -1:]
        return (rows @ vectors).view(A.shape[0], *A.shape[2:])
    values, vectors = torch.linalg.eigh(rows @ rows.mT)
    maps: Tensor = vectors[..., -1] * values[:, -1:].clamp(min=0).sqrt()
    return maps.view(A.shape[0], *A.shape[2:])


def eager_gram(A: Tensor, rounds: int) -> float:
    """How many times ours fits into eager PyTorch."""
    pair = compare(lambda: ops.principal_map(A), lambda: gram(A), max(rounds, 5))
    print(f"  Gram     {pair.theirs * 1e3:9.2f} ms, ours {pair.ours * 1e3:7.3f} ms")
    return pair.ratio


def full_svd(A: Tensor, rounds: int) -> float:
    """How many times ours fits into the full SVD of pytorch-grad-cam."""
    ours, array = lambda: ops.principal_map(A), A.numpy()
    if max(A.shape[1], A.shape[2] * A.shape[3]) <= LARGEST_SVD:
        pair = compare(ours, lambda: get_2d_projection(array), rounds, seconds=0)
        print(f"  full SVD {pair.theirs * 1e3:9.2f} ms, ours {pair.ours * 1e3:7.3f} ms")
        return pair.ratio
    start = time.perf_counter()
    get_2d_projection(array)
    theirs = time.perf_counter() - start
    mine = compare(ours, ours, rounds).ours
    print(f"  full SVD {theirs * 1e3:9.2f} ms (one round), ours {mine * 1e3:7.3f} ms")
    return theirs / mine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--channels", type=int, default=64, help="of the 112 x 112 layer given to the full SVD"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rounds = 3 if options.quick else 9
    svd: dict[str, float] = {}
    eager: dict[str, float] = {}
    for C, h, w in SHAPES:
        for layout in (torch.contiguous_format, torch.channels_last):
            A = layer((1, C, h, w)).contiguous(memory_format=layout)
            nhwc = layout == torch.channels_last
            case = f"{C}x{h}x{w} {'nhwc' if nhwc else 'nchw'}"
            print(case, flush=True)
            eager[case] = round(eager_gram(A, rounds), 2)
            if not nhwc:
                part = A[:, : options.channels] if h == 112 else A
                svd[f"{part.shape[1]}x{h}x{w}"] = round(full_svd(part, rounds), 1)
    print()
    largest = next(iter(svd))
    report(
        "principal_map",
        [
            Claim(f"full SVD / ours, {largest}", svd[largest], ">= 100", svd),
            Claim("eager Gram and eigh / ours, worst", min(eager.values()), ">= 1", eager),
        ],
    )


if __name__ == "__main__":
    main()
