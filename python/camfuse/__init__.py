"""Layer-by-layer class activation maps from one forward and one backward pass.

The public names are imported when they are first used.
"""

import sys as _sys
from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from camfuse.lazy import LazyPackage as _LazyPackage

if TYPE_CHECKING:
    from camfuse._C import build_info
    from camfuse.animate import animate
    from camfuse.animate_images import animate_images
    from camfuse.class_targets import Contrast, ReST
    from camfuse.explain import cam, layer_cams
    from camfuse.factorize import Factorization, factorize
    from camfuse.full_grad import full_grad
    from camfuse.images import Preprocessing, read_image
    from camfuse.memory import MemoryPrediction, predict_memory
    from camfuse.methods import METHODS
    from camfuse.metrics.sanity import sanity
    from camfuse.metrics.sanity_result import SanityResult
    from camfuse.metrics.ybroad import ybroad
    from camfuse.metrics.ybroad_result import YbRoad
    from camfuse.models import LoadedModel, load_model
    from camfuse.question import Question
    from camfuse.refine import refine_cam
    from camfuse.render import Frames, render
    from camfuse.render_video import Video, render_video
    from camfuse.result import AnimationResult
    from camfuse.sess import sess
    from camfuse.stack import CamStack, LayerInfo, Skipped
    from camfuse.stills import Sheet, sheet, still
    from camfuse.storage import load_stack, save_stack
    from camfuse.style import VideoStyle
    from camfuse.targets import Each, box_score, segmentation_mean
    from camfuse.thinning import key_layers
    from camfuse.video import VideoError, VideoWriter

    __version__: str

__all__ = [
    "METHODS",
    "AnimationResult",
    "CamStack",
    "Contrast",
    "Each",
    "Factorization",
    "Frames",
    "LayerInfo",
    "LoadedModel",
    "MemoryPrediction",
    "Preprocessing",
    "Question",
    "ReST",
    "SanityResult",
    "Sheet",
    "Skipped",
    "Video",
    "VideoError",
    "VideoStyle",
    "VideoWriter",
    "YbRoad",
    "animate",
    "animate_images",
    "box_score",
    "build_info",
    "cam",
    "factorize",
    "full_grad",
    "key_layers",
    "layer_cams",
    "load_model",
    "load_stack",
    "predict_memory",
    "read_image",
    "refine_cam",
    "render",
    "render_video",
    "sanity",
    "save_stack",
    "segmentation_mean",
    "sess",
    "sheet",
    "still",
    "ybroad",
]


_NAMES = {
    "_C": ["build_info"],
    "animate": ["animate"],
    "animate_images": ["animate_images"],
    "class_targets": ["Contrast", "ReST"],
    "explain": ["cam", "layer_cams"],
    "factorize": ["Factorization", "factorize"],
    "full_grad": ["full_grad"],
    "images": ["Preprocessing", "read_image"],
    "memory": ["MemoryPrediction", "predict_memory"],
    "methods": ["METHODS"],
    "metrics.sanity": ["sanity"],
    "metrics.sanity_result": ["SanityResult"],
    "metrics.ybroad": ["ybroad"],
    "metrics.ybroad_result": ["YbRoad"],
    "models": ["LoadedModel", "load_model"],
    "question": ["Question"],
    "refine": ["refine_cam"],
    "render": ["Frames", "render"],
    "render_video": ["Video", "render_video"],
    "result": ["AnimationResult"],
    "sess": ["sess"],
    "stack": ["CamStack", "LayerInfo", "Skipped"],
    "stills": ["Sheet", "sheet", "still"],
    "storage": ["load_stack", "save_stack"],
    "style": ["VideoStyle"],
    "targets": ["Each", "box_score", "segmentation_mean"],
    "thinning": ["key_layers"],
    "video": ["VideoError", "VideoWriter"],
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}


class _Package(_LazyPackage):
    def __getattr__(self, name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version

            value: object = version("camfuse")
        elif name not in _HOME and (name in _NAMES or name in ("compat", "metrics", "ops")):
            value = _import_module(f"{__name__}.{name}")
        else:
            return super().__getattr__(name)
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), "__version__"})


_sys.modules[__name__].__class__ = _Package
