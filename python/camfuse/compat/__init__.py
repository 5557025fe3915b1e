"""Drop-in faces of other CAM libraries: the same imports, calls and maps, made by camfuse."""
