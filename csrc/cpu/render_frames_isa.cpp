// The kernels of render_frames for one instruction set, CAMFUSE_ISA.
#include "cpu/render_frames_kernel.h"

CAMFUSE_DECLARE_RENDER_KERNELS(CAMFUSE_ISA)

namespace camfuse::CAMFUSE_ISA {

void convert_source(const SourceParams& params, int64_t row_begin, int64_t row_end) {
  convert_source_rows(params, row_begin, row_end);
}

void render_rows_f32(const RenderParams& params, const RenderScratch& scratch, int64_t frame,
                     int64_t row_begin, int64_t row_end) {
  render_rows<float>(params, scratch, frame, row_begin, row_end);
}

void render_rows_f64(const RenderParams& params, const RenderScratch& scratch, int64_t frame,
                     int64_t row_begin, int64_t row_end) {
  render_rows<double>(params, scratch, frame, row_begin, row_end);
}

}  // namespace camfuse::CAMFUSE_ISA
