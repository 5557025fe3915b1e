// Every native op on one screen: its signature, nothing else.
// Shapes and meaning are documented once, in python/camfuse/ops.py.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(camfuse, m) {
  m.def(
      "layer_cam(Tensor activations, Tensor? gradients, int[] rules, Tensor? weights=None)"
      " -> (Tensor maps, Tensor ranges)");
  m.def(
      "fused_cam(Tensor activations, Tensor? gradients, int rule, int[] size,"
      " Tensor? weights=None, bool relu=True) -> Tensor");
  m.def(
      "principal_map(Tensor activations, Tensor? gradients, int terms, Tensor? weights=None)"
      " -> (Tensor maps, Tensor ranges, Tensor scales)");
  m.def("impute(Tensor image, Tensor masks, float tolerance) -> (Tensor images, Tensor residuals)");
  m.def(
      "render_frames(Tensor maps, int[] offsets, int[] sizes, Tensor ranges, Tensor global_ranges,"
      " Tensor source, Tensor colours, int[] panels, int[] canvas, int background, float blend,"
      " bool relu, Tensor? overlay, int[] strips, int pixel_layout) -> Tensor");
}
