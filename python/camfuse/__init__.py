"""Layer-by-layer class activation maps from one forward and one backward pass."""

from camfuse.explain import cam, layer_cams
from camfuse.methods import METHODS
from camfuse.stack import CamStack, LayerInfo, Skipped
from camfuse.storage import load_stack, save_stack
from camfuse.targets import Each

__all__ = [
    "METHODS",
    "CamStack",
    "Each",
    "LayerInfo",
    "Skipped",
    "cam",
    "layer_cams",
    "load_stack",
    "save_stack",
]
