"""Layer-by-layer class activation maps from one forward and one backward pass."""
