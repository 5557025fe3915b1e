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
    check_uneven_rows,
)

LAUNCH, KERNEL, SUMS = "principal_map.cu", "principal_map_kernel.cuh", "principal_map_sums.cuh"
TERMS = "principal_map_terms.cuh"

# Edits before any fault: mutants are built for f32 alone, which takes half the time.
BEFORE = [
    *(
        (
            LAUNCH,
            f"case Dtype::{dtype}: launch_terms<{name}>(p, stream); break;",
            f"case Dtype::{dtype}: break;",
        )
        for dtype, name in (("kF64", "double"), ("kBF16", "BFloat16"), ("kF16", "Half"))
    ),
    (LAUNCH, "p.dtype == Dtype::kF64 ? launch_for<double>(p, on) : launch", "launch"),
]

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
    Mutation(
        "planes in place are those of the first channel",
        LAUNCH,
        "p.rows ? p.a.column : p.a.channel};",
        "p.rows ? p.a.column : 0};",
        check_means,
    ),
    Mutation(
        "rows in place are those of the first position",
        LAUNCH,
        "p.rows ? p.a.column : p.a.channel};",
        "p.rows ? 0 : p.a.channel};",
        check_means,
    ),
    Mutation(
        "uneven rows are read in place",
        LAUNCH,
        "p.rows ? p.width == p.positions : is_planar",
        "p.rows ? true : is_planar",
        check_uneven_rows,
    ),
    # ---- terms
    Mutation(
        "the last lines of a sample are not made",
        LAUNCH,
        "p.B * divide_up(p.lines, kTermsLines)",
        "p.B * (p.lines / kTermsLines)",
        check_terms,
    ),
    Mutation(
        "the next sample's terms are overwritten",
        TERMS,
        "if (line >= p.lines) return;",
        "",
        check_rows,
    ),
    Mutation(
        "negative products stay",
        TERMS,
        "return p.rectifies_products && product < 0 ? 0 : product;",
        "return product;",
        check_terms,
    ),
    Mutation(
        "weights are those of the first channel",
        TERMS,
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
