// render_frames_isa
