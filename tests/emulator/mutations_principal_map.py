"""Faults of principal_map's CUDA code, each with the check that must find it."""

from __future__ import annotations

from mutation import Mutation
from principal_map_checks import (
    check_means,
    check_not_finite,
    check_planes,
    check_rows,
    check_size,
    check_spectrum,
    check_terms,
)

# Edits before any fault: mutants are built for f32 alone, which takes a third of the time.
BEFORE = [
    (
        "principal_map.cu",
        f"case Dtype::{dtype}: launch_for<{name}>(p, on); break;",
        f"case Dtype::{dtype}: break;",
    )
    for dtype, name in (("kF64", "double"), ("kBF16", "BFloat16"), ("kF16", "Half"))
]

LAUNCH, KERNEL, SUMS = "principal_map.cu", "principal_map_kernel.cuh", "principal_map_sums.cuh"

MUTATIONS = (
    # ---- barriers
    Mutation(
        "a sum overwrites another that is still read",
        SUMS,
        "  __syncthreads();  // so that the next sum may begin\n",
        "",
        check_planes,
    ),
    Mutation(
        "groups' sums are joined before they are there",
        SUMS,
        "sum_from(group, groups, i);\n  __syncthreads();",
        "sum_from(group, groups, i);",
        check_planes,
    ),
    Mutation(
        "coefficients are read before they are there",
        KERNEL,
        "coefficients[line] = sum * factor; });\n    __syncthreads();",
        "coefficients[line] = sum * factor; });",
        check_rows,
    ),
    Mutation(
        "dots are read before they are there",
        KERNEL,
        "state.dots[k] = sum; });\n    __syncthreads();",
        "state.dots[k] = sum; });",
        check_planes,
    ),
    # ---- where things lie
    Mutation(
        "the workspace has a vector too few",
        LAUNCH,
        "(p.most_steps + 2) * p.length",
        "(p.most_steps + 1) * p.length",
        check_planes,
    ),
    Mutation(
        "uneven rows are joined where gradients lie evenly",
        LAUNCH,
        "if (!is_even(p, p.a) || !is_even(p, p.g)) return;",
        "if (!is_even(p, p.a) && !is_even(p, p.g)) return;",
        check_planes,
    ),
    Mutation(
        "the last of an odd number of lines is left out",
        SUMS,
        "    if (line < lines) sums[0] += value(line, i);\n",
        "",
        check_rows,
    ),
    # ---- terms
    Mutation(
        "negative products stay",
        KERNEL,
        "return p.rectifies_products && product < 0 ? 0 : product;",
        "return product;",
        check_terms,
    ),
    Mutation(
        "weights are those of the first channel",
        KERNEL,
        "weights[c * p.weights.channel]",
        "weights[0 * p.weights.channel]",
        check_terms,
    ),
    # ---- numbers
    Mutation(
        "terms are not centred",
        KERNEL,
        "return value(line, i) - means[rows ? i : line];",
        "return value(line, i);",
        check_means,
    ),
    Mutation(
        "what is left of the means stays",
        KERNEL,
        "product -= offsets[i] * sum;",
        "product -= 0 * offsets[i] * sum;",
        check_means,
    ),
    Mutation(
        "terms are not scaled before they are squared",
        KERNEL,
        "const int exponent = largest > 0 ? ilogb(largest) : 0;",
        "const int exponent = 0;",
        check_size,
    ),
    Mutation(
        "the basis is not made orthogonal",
        KERNEL,
        "const A x = newest[i] + combined(count, i);",
        "const A x = newest[i];",
        check_spectrum,
    ),
    Mutation(
        "the iteration stops early",
        LAUNCH,
        "p.tolerance = principal_tolerance(p.dtype);",
        "p.tolerance = 0.03;",
        check_spectrum,
    ),
    Mutation(
        "the map has the other sign",
        KERNEL,
        "block_total(state, products) < 0 ? A{-1} : A{1};",
        "block_total(state, products) < 0 ? A{1} : A{-1};",
        check_planes,
    ),
    Mutation(
        "NaN is smaller than any number",
        KERNEL,
        "if (size > largest || size != size) largest = size;",
        "if (size > largest) largest = size;",
        check_not_finite,
    ),
    Mutation(
        "infinities count as finite",
        KERNEL,
        "if (!block.measure()) return block.give_nan();",
        "block.measure();",
        check_not_finite,
    ),
)
