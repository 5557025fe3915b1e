"""The face of pytorch-grad-cam (grad-cam 1.5): its public API, on camfuse's kernels."""
