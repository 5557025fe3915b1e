// The Python module camfuse._C: loading it registers the ops; it carries metadata and enums, never
// tensors.
#include <pybind11/native_enum.h>
#include <pybind11/pybind11.h>

#include <string>

#include "common/enums.h"
#include "cpu/isa.h"
#ifdef CAMFUSE_WITH_CUDA
#include "cuda/probe.h"
#endif

namespace py = pybind11;

namespace camfuse {
namespace {

py::dict build_info() {
  py::dict info;
  info["version"] = CAMFUSE_VERSION;
  info["compiler"] = "g++ " __VERSION__;
  info["torch_at_least"] = std::to_string(TORCH_TARGET_VERSION >> 56) + "." +
                           std::to_string(TORCH_TARGET_VERSION >> 48 & 0xff);
  info["isa"] = isa_name(active_isa());
  info["isa_supported"] = supported_isas();
#ifdef CAMFUSE_WITH_CUDA
  info["cuda"] = true;
  info["cuda_architectures"] = CAMFUSE_CUDA_ARCHITECTURES;
  info["cuda_toolkit"] = cuda::toolkit_version();
#else
  info["cuda"] = false;
  info["cuda_architectures"] = "";
  info["cuda_toolkit"] = 0;
#endif
  return info;
}

}  // namespace
}  // namespace camfuse

PYBIND11_MODULE(_C, m) {
  using namespace camfuse;
  m.doc() = "camfuse's native ops: importing this module registers torch.ops.camfuse.*";

  py::native_enum<Rule>(m, "Rule", "enum.IntEnum")
      .value("GRADCAM", Rule::kGradCam)
      .value("GRADCAM_PLUS_PLUS", Rule::kGradCamPlusPlus)
      .value("XGRADCAM", Rule::kXGradCam)
      .value("HIRESCAM", Rule::kHiResCam)
      .value("ELEMENTWISE", Rule::kElementwise)
      .value("LAYERCAM", Rule::kLayerCam)
      .value("WEIGHTED", Rule::kWeighted)
      .value("GRADCAM_MAGNITUDE", Rule::kGradCamMagnitude)
      .value("GRADCAM_PLUS_PLUS_MAGNITUDE", Rule::kGradCamPlusPlusMagnitude)
      .value("XGRADCAM_MAGNITUDE", Rule::kXGradCamMagnitude)
      .value("HIRESCAM_MAGNITUDE", Rule::kHiResCamMagnitude)
      .value("WEIGHTED_MAGNITUDE", Rule::kWeightedMagnitude)
      .finalize();
  py::native_enum<Terms>(m, "Terms", "enum.IntEnum")
      .value("ACTIVATION", Terms::kActivation)
      .value("PRODUCT", Terms::kProduct)
      .value("POSITIVE_PRODUCT", Terms::kPositiveProduct)
      .value("POSITIVE_GRADIENT", Terms::kPositiveGradient)
      .value("GRADIENT_MAGNITUDE", Terms::kGradientMagnitude)
      .value("WEIGHTED", Terms::kWeighted)
      .finalize();
  py::native_enum<Panel>(m, "Panel", "enum.IntEnum")
      .value("SOURCE", Panel::kSource)
      .value("LAYER", Panel::kLayer)
      .value("GLOBAL", Panel::kGlobal)
      .finalize();
  py::native_enum<PixelLayout>(m, "PixelLayout", "enum.IntEnum")
      .value("RGB24", PixelLayout::kRgb24)
      .value("I420", PixelLayout::kI420)
      .value("NV12", PixelLayout::kNv12)
      .finalize();

  m.def("build_info", &build_info, "What was compiled, and the instruction set in use.");
#ifdef CAMFUSE_WITH_CUDA
  m.def("cuda_probe", &cuda::probe,
        "Runs one small kernel on the current device and returns its answer.");
#endif
}
