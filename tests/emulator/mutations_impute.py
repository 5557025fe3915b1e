"""Faults of impute's CUDA code, each with the check that must find it."""

from __future__ import annotations

from impute_checks import (
    check_blocks,
    check_bounds,
    check_not_finite,
    check_range,
    check_rows,
    check_solution,
    check_steps,
    check_strides,
)
from mutation import Mutation

# Edits before any fault: mutants are built for f64 alone, which takes half of the time.
BEFORE = [
    (
        "impute.cu",
        "p.dtype == Dtype::kF64 ? impute_all<double> : impute_all<float>",
        "impute_all<double>",
    )
]

LAUNCH, KERNEL = "impute.cu", "impute_kernel.cuh"
GRIDS, SUMS = "impute_grids.cuh", "impute_sums.cuh"

MUTATIONS = (
    # ---- barriers
    Mutation(
        "cells are swept before they are corrected",
        GRIDS,
        "correct(p.grids[0], p.grids[1], at);\n  __syncthreads();",
        "correct(p.grids[0], p.grids[1], at);",
        check_solution,
    ),
    Mutation(
        "a residual is restricted before it is there",
        GRIDS,
        "leave(p.grids[k], at);\n    __syncthreads();",
        "leave(p.grids[k], at);",
        check_solution,
    ),
    Mutation(
        "the direction is multiplied before it is there",
        KERNEL,
        "at.z[i] + keep * at.direction[i];\n    });\n    __syncthreads();",
        "at.z[i] + keep * at.direction[i];\n    });",
        check_solution,
    ),
    Mutation(
        "warps' sums are joined before they are there",
        SUMS,
        "sums.warps[warp] = x;\n  __syncthreads();",
        "sums.warps[warp] = x;",
        check_solution,
    ),
    # ---- where things lie
    Mutation(
        "planes have no zeros below them",
        LAUNCH,
        "end += (h + 2) * stride + 1;",
        "end += (h + 1) * stride + 1;",
        check_solution,
    ),
    Mutation(
        "blocks share their values",
        GRIDS,
        "values(p.values + block * p.plane)",
        "values(p.values)",
        check_blocks,
    ),
    Mutation(
        "rows behind those of the first warps are left out",
        GRIDS,
        "y < grid.h; y += warps",
        "y < min(grid.h, warps); y += warps",
        check_rows,
    ),
    Mutation(
        "masks are read as if their rows lay together",
        KERNEL,
        "mask[y * view.row + x * view.column]",
        "mask[y * grid.w + x * view.column]",
        check_strides,
    ),
    # ---- the preconditioner
    Mutation(
        "the last cell of a row gives the border what the others give their neighbor",
        GRIDS,
        "c + 1 < length ? 2 * c + 2 : 2 * c + 1",
        "c + 1 < length ? 2 * c + 2 : 2 * c",
        check_steps,
    ),
    Mutation(
        "corrections come from the neighbor on the other side",
        GRIDS,
        "return i % 2 == 0 ? max",
        "return i % 2 != 0 ? max",
        check_steps,
    ),
    Mutation(
        "springs act side by side through all grids",
        GRIDS,
        "coarser_spring(of_children(at.residual))",
        "of_children(at.residual)",
        check_steps,
    ),
    Mutation(
        "a grid of one line is swept as any other",
        LAUNCH,
        "sweep_weight(h, w)};",
        "1.0f};",
        check_steps,
    ),
    # ---- numbers
    Mutation(
        "the residual is taken in f32",
        KERNEL,
        "filtered(at.values + i, grid.stride) - weights * at.values[i];",
        "static_cast<float>(filtered(at.values + i, grid.stride)) -\n"
        "                          static_cast<float>(weights * at.values[i]);",
        check_solution,
    ),
    Mutation(
        "what an earlier round corrected is added once more",
        KERNEL,
        "static_cast<double>(at.correction[i]);\n      at.correction[i] = 0;",
        "static_cast<double>(at.correction[i]);",
        check_solution,
    ),
    Mutation(
        "the range is that of all pixels",
        KERNEL,
        "if (is_removed(i)) return;",
        "if (is_removed(i) && i < 0) return;",
        check_not_finite,
    ),
    Mutation(
        "NaN is smaller than any number",
        SUMS,
        "return b > a || b != b ? b : a;",
        "return b > a ? b : a;",
        check_not_finite,
    ),
    Mutation(
        "values are not centered",
        KERNEL,
        "(value - middle) / size",
        "value / size",
        check_range,
    ),
    Mutation(
        "an image that is removed whole has a range",
        KERNEL,
        "const bool is_whole = removed == static_cast<double>(grid.h) * grid.w;",
        "const bool is_whole = false;",
        check_bounds,
    ),
    Mutation(
        "residuals of channels are added up",
        KERNEL,
        "atomicMax(reinterpret_cast",
        "atomicAdd(reinterpret_cast",
        check_blocks,
    ),
)
