"""The face of torchcam 0.5: extractors that hook the model, on camfuse's kernels."""
