"""Methods that ask what the score becomes without a channel, or with nothing but a channel."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from camfuse import ops
from camfuse.ablation import ablationcam
from camfuse.masking import iscam, scorecam, sscam
from camfuse.methods.base import LayerMaps, PassMethod, Scene
from camfuse.perturbation import Perturbation, Site, Weighted
from camfuse.reshapes import CheckedReshape

_Weigh = Callable[[Perturbation, Site, int], Weighted]


def _runner(weigh: _Weigh) -> Callable[[Scene], Iterator[LayerMaps]]:
    """How maps are made of the weights that ``weigh`` finds for a layer, given a seed."""

    def run(scene: Scene) -> Iterator[LayerMaps]:
        perturbation = Perturbation(
            scene.model, scene.inputs, scene.target, batch_size=scene.batch_size
        )
        for layer in scene.layers:
            folding = layer.spatial
            spatial = folding.unchecked if isinstance(folding, CheckedReshape) else folding
            site = Site(layer.module, layer.call, spatial)
            found = weigh(perturbation, site, scene.seed)
            for t, weights in enumerate(found.weights):
                maps, ranges = ops.layer_cam(
                    found.activations, None, ["weighted", "|weighted|"], weights=weights
                )
                yield LayerMaps(layer, t, maps[0], ranges[1, :, 1])

    return run


PERTURBATION_METHODS = (
    PassMethod(
        name="scorecam",
        title="Score-CAM",
        run=_runner(lambda run, site, seed: scorecam(run, site)),
        formula="sum_k w_k A_k, w = softmax_k of the score of the image times A_k as a mask",
        source="Wang et al., Score-CAM, CVPRW 2020, arXiv 1910.01279",
        cost="C forward passes a layer",
    ),
    PassMethod(
        name="sscam",
        title="SS-CAM",
        run=_runner(lambda run, site, seed: sscam(run, site, seed=seed)),
        formula="as Score-CAM, the score a mean over 35 masks with noise",
        source="Wang et al., SS-CAM, 2020, arXiv 2006.14255",
        cost="35 C forward passes a layer",
    ),
    PassMethod(
        name="iscam",
        title="IS-CAM",
        run=_runner(lambda run, site, seed: iscam(run, site)),
        formula="as Score-CAM, the score a mean over 10 steps from a dark image to a bright one",
        source="Naidu et al., IS-CAM, 2020, arXiv 2010.03023",
        cost="10 C forward passes a layer",
    ),
    PassMethod(
        name="ablationcam",
        title="Ablation-CAM",
        run=_runner(lambda run, site, seed: ablationcam(run, site)),
        formula="sum_k w_k A_k, w_k = (y - y_k) / y, y_k the score y without channel k",
        source="Desai and Ramaswamy, Ablation-CAM, WACV 2020, eq. 5",
        cost="C passes a layer, of what follows it where that is proven equal",
    ),
)
