"""The face of captum 0.9's Grad-CAM, on camfuse's capture and kernels."""
