"""Faults of one line in the CUDA code of ``render_frames``: ``check_render_frames`` finds each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """A change to a file of ``csrc/cuda``; ``old`` is there once."""

    file: str
    old: str
    new: str
    why: str  # it is found


KERNEL = "render_frames_kernel.cuh"
PREPARE = "render_frames_prepare.cuh"
LAUNCHER = "render_frames.cu"
WORDS = "words.cuh"

MUTATIONS = [
    Mutation(
        KERNEL,
        "  __syncthreads();\n\n  const auto frame_blocks",
        "\n  const auto frame_blocks",
        "colours that another thread has not loaded yet: frames depend on the seed",
    ),
    Mutation(
        KERNEL,
        "f.width - x < kGroup ? f.width - x : kGroup",
        "kGroup",
        "the last group of a row reaches into the next row, and past the last frame",
    ),
    Mutation(
        KERNEL,
        "byte_of(w[4], i) | byte_of(w[5], i) << 8",
        "byte_of(w[5], i) | byte_of(w[4], i) << 8",
        "U and V swapped in nv12",
    ),
    Mutation(
        KERNEL,
        "u_out + f.height / 2 * (width / 2), v",
        "u_out + f.height / 2 * (width / 2) - 1, v",
        "V one byte off in i420",
    ),
    Mutation(
        KERNEL,
        "frame + (y + 1) * width + x, lower",
        "frame + y * width + x, lower",
        "the lower row of Y is stored over the upper one, and itself never written",
    ),
    Mutation(
        KERNEL,
        "row < 0 || row >= f.panel_height",
        "row < 0 || row > f.panel_height",
        "a panel that is a row too high",
    ),
    Mutation(
        KERNEL,
        "for (int32_t i = cover.first; i < cover.last; ++i) {",
        "for (int32_t i = cover.last - 1; i >= cover.first; --i) {",
        "earlier maps cover later ones",
    ),
    Mutation(
        KERNEL,
        "if (entered != i) columns.enter",
        "if (entered < 0) columns.enter",
        "the second panel of a group shows the first one's map",
    ),
    Mutation(
        KERNEL,
        "left + 1 < w_ ? left + 1 : left",
        "left + 1",
        "the last column of a map looks into its next row, and past the last map",
    ),
    Mutation(
        KERNEL,
        "y + 1 < h_ ? upper + w_ : upper",
        "upper + w_",
        "the last row of a map looks into the next map, and past the last one",
    ),
    Mutation(
        KERNEL,
        "if (first_ + k >= 0) column.advance();",
        "column.advance();",
        "a panel that begins within a group is shifted",
    ),
    Mutation(
        KERNEL,
        "if (held_ != position_.index()) hold",
        "if (held_ < 0) hold",
        "all rows of a chunk lie between the same rows of the map",
    ),
    Mutation(
        KERNEL,
        "kNone = -2;",
        "kNone = -1;",
        "the first row of a panel is taken for the next of the panel before",
    ),
    Mutation(
        KERNEL,
        "if (!painted) cell = still();\n        const",
        "cell = still();\n        const",
        "a panel that ends within a group wipes out what lies below the rest of it",
    ),
    Mutation(
        KERNEL,
        "mask = byte_mask(begin / 2, end / 2);",
        "mask = byte_mask(begin, end);",
        "chroma is taken from the wrong side of a panel's border",
    ),
    Mutation(
        KERNEL,
        "byte_of(below, 1) + byte_of(below, 3)",
        "byte_of(below, 1) + byte_of(above, 3)",
        "chroma under text takes its opacity from the wrong pixels",
    ),
    Mutation(
        WORDS,
        "if (is_aligned<16>(from)) return",
        "if (is_aligned<8>(from)) return",
        "a load of 16 bytes from where it is aligned to 8",
    ),
    Mutation(
        WORDS,
        "kWords % 2 == 0 && is_aligned<8>(to)",
        "kWords % 2 == 0 && is_aligned<4>(to)",
        "a store of 8 bytes to where it is aligned to 4",
    ),
    Mutation(
        WORDS,
        "for (int i = 0; i < 4 * kWords; ++i) {",
        "for (int i = 0; i < 4 * kWords - 1; ++i) {",
        "the last byte of groups that are not aligned is never written",
    ),
    Mutation(
        PREPARE,
        "cover.last = index + 1;",
        "cover.last = index;",
        "the last panel of a group is left out",
    ),
    Mutation(
        PREPARE,
        "panel.top + f.panel_height <= top",
        "panel.top + f.panel_height <= top + 1",
        "a panel that ends on the first row of a chunk is left out there",
    ),
    Mutation(
        PREPARE,
        "row = strip.row + (y - strip.top)",
        "row = strip.row",
        "all rows of a strip of text are its first",
    ),
    Mutation(
        PREPARE,
        "const int64_t n = p.first_map + static_cast<int64_t>(i);",
        "const int64_t n = i;",
        "the maps of a second launch replace those of the first",
    ),
    Mutation(
        PREPARE,
        "Cover cover = p.is_first ? Cover{INT_MAX, 0} : f.covers[i];",
        "Cover cover{INT_MAX, 0};",
        "the panels of a first launch are forgotten by the second",
    ),
    Mutation(
        PREPARE,
        "for (int32_t i = p.panel_count - 1; i >= 0; --i) {",
        "for (int32_t i = 0; i < p.panel_count; ++i) {",
        "earlier photographs cover later ones",
    ),
    Mutation(
        LAUNCHER,
        "divide_up(int64_t{p.frame.chunks} * p.frame.groups, kFrameThreads)",
        "int64_t{p.frame.chunks} * p.frame.groups / kFrameThreads",
        "the last chunks of every frame are never written",
    ),
    Mutation(
        LAUNCHER,
        "is_subsampled(args.layout) ? 1024 : 2048",
        "1024",
        "rgb24's colours do not fit shared memory",
    ),
    Mutation(
        LAUNCHER,
        "slices.take(&f.still, cells * kCellWords);",
        "slices.take(&f.still, cells * (kCellWords - 1));",
        "a workspace that is too small",
    ),
]
