"""Layer-by-layer class activation maps from one forward and one backward pass."""

from importlib.metadata import version as _version

from camfuse._C import build_info
from camfuse.animate import AnimationResult, animate
from camfuse.explain import cam, layer_cams
from camfuse.images import Preprocessing, read_image
from camfuse.methods import METHODS
from camfuse.models import LoadedModel, load_model
from camfuse.render import Frames, render
from camfuse.stack import CamStack, LayerInfo, Skipped
from camfuse.storage import load_stack, save_stack
from camfuse.targets import Each, box_score, segmentation_mean
from camfuse.video import VideoError, VideoWriter

__version__ = _version("camfuse")

__all__ = [
    "METHODS",
    "AnimationResult",
    "CamStack",
    "Each",
    "Frames",
    "LayerInfo",
    "LoadedModel",
    "Preprocessing",
    "Skipped",
    "VideoError",
    "VideoWriter",
    "animate",
    "box_score",
    "build_info",
    "cam",
    "layer_cams",
    "load_model",
    "load_stack",
    "read_image",
    "render",
    "save_stack",
    "segmentation_mean",
]
