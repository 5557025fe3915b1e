"""The native ``principal_map`` against the full SVD of pytorch-grad-cam and eager Gram + ``eigh``.

pytorch-grad-cam asks for all singular vectors, positions x positions of them: gigabytes and minutes
at 112 x 112, where one round is taken of a layer cut to few channels. Eager PyTorch takes the
eigenvector of the smaller Gram matrix of the centred rows. All are first seen to give the same map,
up to its sign.
"""

from __future__ import annotations

import time
from functools import partial

import torch
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection
from torch import Tensor

from benchmarks.harness import Claim, Pair, against_one, compare
from camfuse import ops

SHAPES = ((64, 112, 112), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7))
LARGEST_SVD = 4096  # the longer side of what is decomposed in full more than once
MOST_CHANNELS = 64  # of what is larger


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


def run(quick: bool) -> list[Claim]:
    """A claim per shape against the full SVD; per shape and memory format against eager PyTorch."""
    claims = []
    for C, h, w in SHAPES:
        for layout in (torch.contiguous_format, torch.channels_last):
            A = layer((1, C, h, w)).contiguous(memory_format=layout)
            nhwc = layout == torch.channels_last
            case = f"{C}x{h}x{w} {'nhwc' if nhwc else 'nchw'}"
            check_same(ops.principal_map(A)[0], gram(A))
            pair = compare(partial(ops.principal_map, A), partial(gram, A), quick=quick)
            claims.append(
                Claim(
                    "eager Gram and eigh / principal_map", case, pair.ratio, ">= 1", pair.detail()
                )
            )
            print(f"{case}: Gram / ours {pair.ratio:.1f}", flush=True)
            if not nhwc and not (quick and h * w > LARGEST_SVD):
                pair, case = full_svd(A[:, :MOST_CHANNELS] if h * w > LARGEST_SVD else A, quick)
                claims.append(
                    Claim("full SVD / principal_map", case, pair.ratio, ">= 100", pair.detail())
                )
                print(f"{case}: full SVD / ours {pair.ratio:.0f}", flush=True)
    return claims


def full_svd(A: Tensor, quick: bool) -> tuple[Pair, str]:
    """Ours against the full SVD of pytorch-grad-cam, and the case in words."""
    _, C, h, w = A.shape
    ours, theirs = partial(ops.principal_map, A), partial(get_2d_projection, A.numpy())
    if max(C, h * w) <= LARGEST_SVD:
        check_same(ours()[0], torch.from_numpy(theirs()))
        return compare(ours, theirs, quick=quick, seconds=0), f"{C}x{h}x{w}"

    def checked() -> float:
        start = time.perf_counter()
        maps = theirs()
        seconds = time.perf_counter() - start
        check_same(ours()[0], torch.from_numpy(maps))
        return seconds

    return against_one(ours, checked, quick=quick), f"{C}x{h}x{w}, one round of theirs"


def check_same(ours: Tensor, theirs: Tensor) -> None:
    """Raises unless both are the same maps ``[B, h, w]`` up to sign."""
    signs = (ours * theirs).sum((1, 2), keepdim=True).sign()
    scale = float(ours.abs().max())
    torch.testing.assert_close(theirs * signs, ours, rtol=0, atol=1e-2 * scale)
