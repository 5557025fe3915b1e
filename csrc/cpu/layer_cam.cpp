// layer_cam
