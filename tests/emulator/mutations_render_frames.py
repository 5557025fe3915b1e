"""Faults of one line in the CUDA code of ``render_frames``: ``check_render_frames`` finds each."""

from __future__ import annotations

from mutation import Mutation
from render_frames_checks import check_render_frames

KERNEL = "render_frames_kernel.cuh"
PREPARE = "render_frames_prepare.cuh"
LAUNCHER = "render_frames.cu"
WORDS = "words.cuh"

BEFORE = ()  # edits before any fault

MUTATIONS = (
    Mutation(
        "colours that another thread has not loaded yet: frames depend on the seed",
        KERNEL,
        "  __syncthreads();\n\n  const auto frame_blocks",
        "\n  const auto frame_blocks",
        check_render_frames,
    ),
    Mutation(
        "the last group of a row reaches into the next row, and past the last frame",
        KERNEL,
        "f.width - x < kGroup ? f.width - x : kGroup",
        "kGroup",
        check_render_frames,
    ),
    Mutation(
        "U and V swapped in nv12",
        KERNEL,
        "byte_of(w[4], i) | byte_of(w[5], i) << 8",
        "byte_of(w[5], i) | byte_of(w[4], i) << 8",
        check_render_frames,
    ),
    Mutation(
        "V one byte off in i420",
        KERNEL,
        "u_out + f.height / 2 * (width / 2), v",
        "u_out + f.height / 2 * (width / 2) - 1, v",
        check_render_frames,
    ),
    Mutation(
        "the lower row of Y is stored over the upper one, and itself never written",
        KERNEL,
        "frame + (y + 1) * width + x, lower",
        "frame + y * width + x, lower",
        check_render_frames,
    ),
    Mutation(
        "a panel that is a row too high",
        KERNEL,
        "row < 0 || row >= f.panel_height",
        "row < 0 || row > f.panel_height",
        check_render_frames,
    ),
    Mutation(
        "earlier maps cover later ones",
        KERNEL,
        "for (int32_t i = cover.first; i < cover.last; ++i) {",
        "for (int32_t i = cover.last - 1; i >= cover.first; --i) {",
        check_render_frames,
    ),
    Mutation(
        "the second panel of a group shows the first one's map",
        KERNEL,
        "if (entered != i) columns.enter",
        "if (entered < 0) columns.enter",
        check_render_frames,
    ),
    Mutation(
        "the last column of a map looks into its next row, and past the last map",
        KERNEL,
        "left + 1 < w_ ? left + 1 : left",
        "left + 1",
        check_render_frames,
    ),
    Mutation(
        "the last row of a map looks into the next map, and past the last one",
        KERNEL,
        "y + 1 < h_ ? upper + w_ : upper",
        "upper + w_",
        check_render_frames,
    ),
    Mutation(
        "a panel that begins within a group is shifted",
        KERNEL,
        "if (first_ + k >= 0) column.advance();",
        "column.advance();",
        check_render_frames,
    ),
    Mutation(
        "all rows of a chunk lie between the same rows of the map",
        KERNEL,
        "if (held_ != position_.index()) hold",
        "if (held_ < 0) hold",
        check_render_frames,
    ),
    Mutation(
        "the first row of a panel is taken for the next of the panel before",
        KERNEL,
        "kNone = -2;",
        "kNone = -1;",
        check_render_frames,
    ),
    Mutation(
        "a panel that ends within a group wipes out what lies below the rest of it",
        KERNEL,
        "if (!painted) cell = still();\n        const",
        "cell = still();\n        const",
        check_render_frames,
    ),
    Mutation(
        "chroma is taken from the wrong side of a panel's border",
        KERNEL,
        "mask = byte_mask(begin / 2, end / 2);",
        "mask = byte_mask(begin, end);",
        check_render_frames,
    ),
    Mutation(
        "chroma under text takes its opacity from the wrong pixels",
        KERNEL,
        "byte_of(below, 1) + byte_of(below, 3)",
        "byte_of(below, 1) + byte_of(above, 3)",
        check_render_frames,
    ),
    Mutation(
        "a load of 16 bytes from where it is aligned to 8",
        WORDS,
        "if (is_aligned<16>(from)) return",
        "if (is_aligned<8>(from)) return",
        check_render_frames,
    ),
    Mutation(
        "a store of 8 bytes to where it is aligned to 4",
        WORDS,
        "kWords % 2 == 0 && is_aligned<8>(to)",
        "kWords % 2 == 0 && is_aligned<4>(to)",
        check_render_frames,
    ),
    Mutation(
        "the last byte of groups that are not aligned is never written",
        WORDS,
        "for (int i = 0; i < 4 * kWords; ++i) {",
        "for (int i = 0; i < 4 * kWords - 1; ++i) {",
        check_render_frames,
    ),
    Mutation(
        "the last panel of a group is left out",
        PREPARE,
        "cover.last = index + 1;",
        "cover.last = index;",
        check_render_frames,
    ),
    Mutation(
        "a panel that ends on the first row of a chunk is left out there",
        PREPARE,
        "panel.top + f.panel_height <= top",
        "panel.top + f.panel_height <= top + 1",
        check_render_frames,
    ),
    Mutation(
        "all rows of a strip of text are its first",
        PREPARE,
        "row = strip.row + (y - strip.top)",
        "row = strip.row",
        check_render_frames,
    ),
    Mutation(
        "the maps of a second launch replace those of the first",
        PREPARE,
        "const int64_t n = p.first_map + static_cast<int64_t>(i);",
        "const int64_t n = i;",
        check_render_frames,
    ),
    Mutation(
        "the panels of a first launch are forgotten by the second",
        PREPARE,
        "Cover cover = p.is_first ? Cover{INT_MAX, 0} : f.covers[i];",
        "Cover cover{INT_MAX, 0};",
        check_render_frames,
    ),
    Mutation(
        "earlier photographs cover later ones",
        PREPARE,
        "for (int32_t i = p.panel_count - 1; i >= 0; --i) {",
        "for (int32_t i = 0; i < p.panel_count; ++i) {",
        check_render_frames,
    ),
    Mutation(
        "the last chunks of every frame are never written",
        LAUNCHER,
        "divide_up(int64_t{p.frame.chunks} * p.frame.groups, kFrameThreads)",
        "int64_t{p.frame.chunks} * p.frame.groups / kFrameThreads",
        check_render_frames,
    ),
    Mutation(
        "rgb24's colours do not fit shared memory",
        LAUNCHER,
        "is_subsampled(args.layout) ? 1024 : 2048",
        "1024",
        check_render_frames,
    ),
    Mutation(
        "a workspace that is too small",
        LAUNCHER,
        "slices.take(&f.still, cells * kCellWords);",
        "slices.take(&f.still, cells * (kCellWords - 1));",
        check_render_frames,
    ),
)
