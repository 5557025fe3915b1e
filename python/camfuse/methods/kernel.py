"""Kernel PCA of a layer's positions: what stands out where, also beyond linear combinations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from camfuse.devices import upload
from camfuse.methods.base import MapMethod, Pair, UndefinedError, wide

_MOST_POSITIONS = 20_000  # their kernel holds 1.6 GB in f32
_STEPS = 64  # of Lanczos' iteration; the gap it needs is below 1 percent of the spectrum
_SQUARINGS = 40

_OFFSET = 1.0  # added to the scaled product inside the hyperbolic tangent


def kernel_principal_map(pair: Pair) -> tuple[Tensor, Tensor]:
    """Projection of the positions to the first component of a centred sigmoid kernel.

    With rows x_p of A, one per position and less their mean, the kernel is
    ``tanh(<x_p, x_q> / C + 1)``; it is centred, and a map is its first eigenvector times the root
    of its eigenvalue. Its sign makes the inner product with the energy sum_k A_k^2 positive.

    Memory grows with the square of the positions. The component is found by at most 64 steps of
    Lanczos' iteration, and nothing waits for a GPU.

    Raises:
        UndefinedError: If there are more than 20,000 positions.
    """
    A = wide(pair.activations.detach()).flatten(2).transpose(1, 2)  # [B, P, C]
    positions = A.shape[1]
    if positions > _MOST_POSITIONS:
        raise UndefinedError(
            f"its kernel of {positions} x {positions} positions would not fit into memory; at most "
            f"{_MOST_POSITIONS} positions are allowed"
        )
    maps = torch.stack([_first_component(rows) for rows in A])
    energies = A.square().sum(2)
    flipped = (maps * energies).sum(1, keepdim=True) < 0
    maps = torch.where(flipped, -maps, maps)
    # What the kernel measures a position by, before the mean is taken away.
    scales = less_offset(energies / A.shape[2]).amax(1).sqrt()
    return maps.view(-1, *pair.activations.shape[2:]), scales


def _first_component(rows: Tensor) -> Tensor:
    """Of rows ``[P, C]``, the map ``[P]`` with any sign."""
    rows = rows - rows.mean(0)
    kernel = (rows @ rows.T).div_(rows.shape[1])
    for part in torch.split(kernel, 1024):  # so that there is room for one matrix only
        less_offset(part)
    kernel -= kernel.mean(0)
    kernel -= kernel.mean(1, keepdim=True)
    value, vector = largest_eigenpair(kernel)
    return vector * value.clamp(min=0).sqrt()


def less_offset(products: Tensor) -> Tensor:
    """``tanh(products + 1) - tanh(1)``, in place: centring takes the constant away anyway.

    By the addition theorem, so that small products lose no digits.
    """
    constant = math.tanh(_OFFSET)
    tangent = products.tanh_()
    return tangent.mul_(1 - constant**2).div_(1 + constant / (1 - constant**2) * tangent)


def largest_eigenpair(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The algebraically largest eigenvalue of a symmetric matrix, and its unit vector ``[n]``.

    Lanczos' iteration, each vector made orthogonal to all earlier ones twice: in floating point
    they would come back without.
    """
    n = len(matrix)
    steps = min(n, _STEPS)
    start = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vector = upload(start.to(matrix.dtype), matrix.device)
    basis = matrix.new_zeros(steps, n)
    upper = matrix.new_zeros(steps, steps, dtype=torch.float64)
    for j in range(steps):
        for _ in range(2):
            vector = vector - basis[:j].T @ (basis[:j] @ vector)
        basis[j] = _unit(vector)
        vector = matrix @ basis[j]
        upper[: j + 1, j] = basis[: j + 1] @ vector
    value, inner = _largest_of_small(upper + upper.triu(1).T)
    return value.to(matrix.dtype), _unit(basis.T @ inner.to(matrix.dtype))


def _largest_of_small(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The same, of a small one: shifted until no eigenvalue is negative, then squared repeatedly.

    Each squaring doubles how often a vector has been multiplied by the matrix. The host would wait
    for a GPU in ``torch.linalg.eigh``.
    """
    power = matrix + matrix.abs().sum(1).amax().expand(len(matrix)).diag()
    for _ in range(_SQUARINGS):
        power = power / power.abs().amax().clamp(min=_tiny(power))
        power = power @ power
    # Every column is a multiple of the vector now; the longest one has the most digits.
    vector = _unit(power.index_select(1, power.diagonal().argmax()[None])[:, 0])
    return vector @ (matrix @ vector), vector


def _unit(vector: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vector)
    return vector / length.clamp(min=_tiny(vector))


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny


KERNEL_METHODS = (
    MapMethod(
        name="kpcacam",
        title="KPCA-CAM",
        make=kernel_principal_map,
        formula="first kernel principal component of A_k, over the positions: kernel "
        "tanh(<x, y> / C + 1); sign by activation energy",
        source="Karmani et al., KPCA-CAM, 2024, arXiv 2410.00267",
        gradients=False,
        native="",
        differentiable=False,
    ),
)
