// render_frames
