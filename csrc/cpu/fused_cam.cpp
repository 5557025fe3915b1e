// fused_cam
