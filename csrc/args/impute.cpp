#include "args/impute.h"

#include "args/layer_view.h"
#include "args/validate.h"

namespace camfuse {

ImputeArgs impute_args(const Tensor& image, const Tensor& masks, double tolerance) {
  const auto shape = image.sizes();
  check(shape.size() == 3, "image must have 3 dimensions [C, H, W], got ", shape_text(shape));
  check(shape[0] > 0 && shape[1] > 0 && shape[2] > 0, "image must have channels and pixels, got ",
        shape_text(shape));
  check_dtype("image", image, {ScalarType::Double, ScalarType::Float});
  check(masks.dim() == 3, "masks must have 3 dimensions [N, H, W], got ",
        shape_text(masks.sizes()));
  check_shape("masks", masks, {masks.size(0), shape[1], shape[2]}, "image, one per mask");
  check_dtype("masks", masks, {ScalarType::Bool});
  check_device("masks", masks, image, "image");
  check(tolerance > 0 && tolerance < 1, "tolerance must be in (0, 1), got ", tolerance);

  ImputeArgs p{};
  p.dtype = input_dtype(image);
  p.N = masks.size(0), p.C = shape[0], p.H = shape[1], p.W = shape[2];
  checked_product("masks", p.N, p.C, p.H, p.W);
  checked_product("image", p.H + 2, p.W + 32, int64_t{8});
  const auto strides = image.strides(), mask_strides = masks.strides();
  p.image = {image.const_data_ptr(), 0, strides[0], strides[1], strides[2]};
  p.masks = {masks.const_data_ptr(), mask_strides[0], 0, mask_strides[1], mask_strides[2]};
  p.tolerance = tolerance;
  return p;
}

}  // namespace camfuse
