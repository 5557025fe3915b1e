// layer_cam_isa
