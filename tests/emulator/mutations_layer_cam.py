"""Faults of layer_cam's and fused_cam's CUDA code, each with the check that must find it."""

from __future__ import annotations

from layer_cam_checks import (
    check_arrival,
    check_fused,
    check_numbers,
    check_order,
    check_planes,
    check_rows,
    check_small,
)
from mutation import Mutation

# Edits before any fault: mutants are built for f32 alone, which takes a third of the time.
BEFORE = [
    (
        "layer_cam.cu",
        f"case Dtype::{dtype}: launch_path<{name}>(plan, p, on); break;",
        f"case Dtype::{dtype}: break;",
    )
    for dtype, name in (("kF64", "double"), ("kBF16", "BFloat16"), ("kF16", "Half"))
] + [
    (
        "fused_cam.cu",
        "p.dtype == Dtype::kF64 ? launch_show<double>(display, p, on) : "
        "launch_show<float>(display, p, on);",
        "launch_show<float>(display, p, on);",
    )
]

SMALL, PLANES, ROWS, FINISH = (
    "layer_cam_small.cuh",
    "layer_cam_planes.cuh",
    "layer_cam_rows.cuh",
    "layer_cam_finish.cuh",
)

MUTATIONS = (
    # ---- barriers
    Mutation(
        "planes are read before they are staged",
        SMALL,
        "      __syncthreads();\n      if (p.weighs) {",
        "      if (p.weighs) {",
        check_small,
    ),
    Mutation(
        "a stage is overwritten while others read it",
        SMALL,
        "      __syncthreads();  // the last use of the stage is over\n",
        "",
        check_small,
    ),
    Mutation(
        "weights are read before they are there",
        SMALL,
        "weigh(p, b, c, count, a, g, weights);\n        __syncthreads();",
        "weigh(p, b, c, count, a, g, weights);",
        check_small,
    ),
    Mutation(
        "groups of threads are added up before all are done",
        SMALL,
        "    __syncthreads();\n    for (int r = first; r < end; ++r) {\n      A* const out =\n",
        "    for (int r = first; r < end; ++r) {\n      A* const out =\n",
        check_small,
    ),
    Mutation(
        "sums of a plane are joined before all warps are done",
        PLANES,
        "scratch[threadIdx.x / kWarp] = sum;\n  __syncthreads();",
        "scratch[threadIdx.x / kWarp] = sum;",
        check_planes,
    ),
    Mutation(
        "one sum of a plane overwrites the last one",
        PLANES,
        "  __syncthreads();  // the last use of `scratch` is over\n",
        "",
        check_planes,
    ),
    Mutation(
        "the total of A is read before it is there",
        PLANES,
        "memory->total = sums.a.value();\n    __syncthreads();",
        "memory->total = sums.a.value();",
        check_planes,
    ),
    Mutation(
        "a tree of sums goes on before its threads are done",
        ROWS,
        "      __syncthreads();\n      if (threadIdx.x < half)",
        "      if (threadIdx.x < half)",
        check_rows,
    ),
    Mutation(
        "extremes are joined before all warps are done",
        FINISH,
        "scratch[threadIdx.x / kWarp] = found;\n  __syncthreads();",
        "scratch[threadIdx.x / kWarp] = found;",
        check_small,
    ),
    Mutation(
        "a block arrives before its threads have written",
        "device.cuh",
        "  __threadfence();\n  __syncthreads();\n  if (threadIdx.x == 0) {",
        "  if (threadIdx.x == 0) {",
        check_arrival,
    ),
    # ---- bounds
    Mutation(
        "the last slab reads channels that are not there",
        SMALL,
        "c_end = min(c_begin + p.slab, p.channels);",
        "c_end = c_begin + p.slab;",
        check_small,
    ),
    Mutation(
        "the last element of a stage is not copied",
        SMALL,
        "rest = total - body;",
        "rest = total - body - 1;",
        check_small,
    ),
    Mutation(
        "a wide load reads past the planes",
        SMALL,
        "const int packs = total > head ? (total - head) / V : 0;",
        "const int packs = total > head ? (total - head + V - 1) / V : 0;",
        check_small,
    ),
    Mutation(
        "the last group of threads is left out",
        SMALL,
        "other < groups; ++other",
        "other < groups - 1; ++other",
        check_small,
    ),
    Mutation(
        "a thread reads one position past the plane",
        PLANES,
        "const bool inside = i < size; ",
        "const bool inside = i <= size; ",
        check_planes,
    ),
    Mutation(
        "the last channel of a slab is left out",
        PLANES,
        "for (; c < c_end; ++c) add_channels",
        "for (; c < c_end - 1; ++c) add_channels",
        check_planes,
    ),
    Mutation(
        "the end of a plane is not summed",
        PLANES,
        "for (; i < size; i += step) {",
        "for (; i < size - step; i += step) {",
        check_planes,
    ),
    Mutation(
        "the last slab of positions reads the next sample",
        ROWS,
        "end = min(begin + p.row_slab, p.plane);",
        "end = begin + p.row_slab;",
        check_rows,
    ),
    Mutation(
        "channels past the last are summed",
        ROWS,
        "const bool inside = c < p.channels;",
        "const bool inside = true;",
        check_rows,
    ),
    Mutation(
        "half of the lanes are not added up",
        ROWS,
        "for (int distance = p.lanes / 2; distance > 0;",
        "for (int distance = p.lanes / 4; distance > 0;",
        check_rows,
    ),
    Mutation(
        "the extremes of the last tile are left out",
        FINISH,
        "tile < p.tiles; tile += kThreads",
        "tile < p.tiles - 1; tile += kThreads",
        check_planes,
    ),
    # ---- what is not written, or not zero
    Mutation(
        "the last position of a tile is not written",
        ROWS,
        "if (lane != 0 || i >= end) continue;",
        "if (lane != 0 || i >= end - 1) continue;",
        check_rows,
    ),
    Mutation(
        "sums in shared memory do not begin at 0",
        PLANES,
        "sums[(r - first) * kThreads + threadIdx.x] = {};",
        "(void)r;",
        check_planes,
    ),
    Mutation(
        "counters are not zeroed",
        "layer_cam.cu",
        "cudaMemsetAsync(workspace, 0, static_cast<size_t>(zeroed), on)",
        "cudaMemsetAsync(workspace, 0, 0, on)",
        check_small,
    ),
    Mutation(
        "the last block but one finishes",
        SMALL,
        "static_cast<unsigned>(p.slabs), flag)",
        "static_cast<unsigned>(p.slabs) - 1, flag)",
        check_small,
    ),
    Mutation(
        "partial maps of several rules share memory",
        "layer_cam.cu",
        "p.B * p.slabs * p.R * p.h * p.w * acc : 0",
        "p.B * p.slabs * p.h * p.w * acc : 0",
        check_small,
    ),
    Mutation(
        "rules take more shared memory than there is",
        "layer_cam.cu",
        "std::max(current_device().shared_bytes / 2, kUsualSharedBytes)",
        "int64_t{227} << 10",
        check_small,
    ),
    Mutation(
        "partial maps are added up in the order of their arrival",
        SMALL,
        """  A* const parts =
      p.slabs > 1 ? static_cast<A*>(p.parts) + (b * p.slabs + slab)""",
        """  if (threadIdx.x == 0) *flag = atomicAdd(p.sample_counters + b, 1u);
  __syncthreads();
  const int64_t arrived = *flag;
  __syncthreads();
  A* const parts =
      p.slabs > 1 ? static_cast<A*>(p.parts) + (b * p.slabs + arrived)""",
        check_order,
    ),
    # ---- arithmetic
    Mutation(
        "rounding errors of sums are lost",
        "sums.cuh",
        "high = two_sum(high, x, &error);\n    low += error;",
        "high = two_sum(high, x, &error);",
        check_numbers,
    ),
    Mutation(
        "squares of large gradients overflow",
        "sums.cuh",
        "const bool large = g > 1;",
        "const bool large = false;",
        check_numbers,
    ),
    Mutation(
        "NaN does not reach the range",
        "sums.cuh",
        "if (other.low < low || other.low != other.low) low",
        "if (other.low < low) low",
        check_numbers,
    ),
    Mutation(
        "a misaligned tensor is read with wide loads",
        "layer_cam.cu",
        "return reinterpret_cast<uintptr_t>(view.data) % 16 == 0 && length % pack == 0",
        "return length % pack == 0",
        check_planes,
    ),
    Mutation(
        "pictures are shifted by half a pixel",
        "fused_cam_kernel.cuh",
        "(2 * i + 1) * size",
        "2 * i * size",
        check_fused,
    ),
    Mutation(
        "a picture's last pixels are not painted",
        "fused_cam.cu",
        'launch("show_maps", show_maps<A>, p.B * parts,',
        'launch("show_maps", show_maps<A>, p.B * parts - 1,',
        check_fused,
    ),
)
