"""The face of torchcam shows what torchcam does, on every kind of network."""

from __future__ import annotations

import pytest
import torch
import torchcam.methods as theirs
from parity import SUBJECTS, subject
from torch.testing import assert_close
from torchcam_models import call, images, net

import camfuse.compat.torchcam.methods as ours

METHODS = {
    "GradCAM": {},
    "XGradCAM": {},
    "LayerCAM": {},
    "FinerCAM": {},
    "FinerCAM of LayerCAM": {"gamma": 0.3, "num_references": 20},
    "ScoreCAM": {"batch_size": 7},
    "SSCAM": {"num_samples": 2, "std": 0.4},
    "ISCAM": {"num_samples": 3},
}
# Two layers of the same fold each.
EARLIER = {
    "ResNet": "layer2",
    "VGG": "features.5",
    "DenseNet": "features.denseblock1",
    "ConvNeXt": "features.1",
    "MobileNetV3": "features.3",
    "ViT": "encoder.layers.encoder_layer_0.ln_2",
    "Swin": "features.1.1.mlp",
}
QUICK = [("ResNet", 3, 2), ("VGG", 1, 1), ("ViT", 3, 1), ("Swin", 1, 2)]
FULL = [(name, batch, count) for name in SUBJECTS for batch in (1, 3) for count in (1, 2)]


def is_quick(case, method):
    """Those that take passes for every channel do so on one small network."""
    return case in QUICK and (method[:2] not in ("Sc", "SS", "IS") or case[0] == "VGG")


GRID = [
    pytest.param(*case, method, marks=() if is_quick(case, method) else pytest.mark.slow)
    for case in FULL
    for method in METHODS
]


def both(name, layers, x, classes, method):
    model, _ = subject(name, "small")
    name_of, _, base = method.partition(" of ")
    options = {**METHODS[method], "reshape_transform": SUBJECTS[name].fold}
    found = []
    for side in (ours, theirs):
        if base:
            options["base_method"] = getattr(side, base)
        found.append(call(getattr(side, name_of), model, layers, x, classes, **options))
    return found


@pytest.mark.parametrize(("name", "batch", "count", "method"), GRID)
def test_maps_and_what_is_hooked_equal_the_peers(name, batch, count, method):
    layers = [SUBJECTS[name].layer, EARLIER[name]][:count]
    x = images(batch, 64)
    classes = [3 * i % 10 for i in range(batch)]
    mine, other = both(name, layers, x, classes, method)
    for one, two in zip(mine[1], other[1], strict=True):
        assert_close(one, two, rtol=1e-6, atol=1e-6)
    for one, two in zip(mine[2], other[2], strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            assert_close(one, two, rtol=1e-6, atol=1e-6 * float(two.abs().max()))
    for one, two in zip(mine[0], other[0], strict=True):
        # behind a LayerNorm, sums of activations cancel
        tolerance = 1e-3 if (method, name) == ("XGradCAM", "Swin") else 1e-4
        assert_close(one, two, rtol=0, atol=tolerance)


@pytest.mark.parametrize("method", ["CAM", "GradCAM", "LayerCAM", "XGradCAM", "ScoreCAM"])
@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("classes", [3, [3, 0]])
def test_one_class_and_several_of_raw_and_of_normalized_maps(method, normalized, classes):
    model, x = net(), images()
    mine, other = (
        call(getattr(side, method), model, "last", x, classes, normalized=normalized)[0]
        for side in (ours, theirs)
    )
    assert_close(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["GradCAM", "LayerCAM", "ScoreCAM"])
@pytest.mark.parametrize("several", [False, True])
def test_functions_of_the_output_are_explained(method, several):
    model, x = net(), images()

    def first(output):
        return output[0] - output[1]

    def square(output):
        return output[2:4].square().sum()

    targets = [first, square] if several else square
    found = []
    for side in (ours, theirs):
        with getattr(side, method)(model, ["last", "second"]) as extractor:
            found.append(extractor(scores=model(x), targets=targets))
    assert_close(*found, rtol=1e-5, atol=1e-5)


def test_a_list_of_outputs_is_explained_sample_by_sample():
    class Detector(type(net())):
        def forward(self, x):
            return [{"score": row} for row in super().forward(x)]

    torch.manual_seed(0)
    model, x = Detector().eval(), images()
    found = []
    for side in (ours, theirs):
        with side.GradCAM(model, "last") as extractor:
            found.append(extractor(scores=model(x), targets=lambda one: one["score"][2]))
    assert_close(*found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 24), (3, 6, 8, 8)])
@pytest.mark.parametrize("method", ["GradCAM", "LayerCAM", "XGradCAM"])
def test_sequences_and_volumes_have_maps(method, shape):
    conv = nn_of(len(shape) - 1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(conv(3, 6, 3), torch.nn.ReLU(), conv(6, 5, 3)).eval()
    x = torch.randn(2, *shape)

    class Pooled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = model

        def forward(self, x):
            return self.body(x).flatten(2).mean(-1)

    pooled = Pooled().eval()
    mine, other = (
        call(getattr(side, method), pooled, ["body.0", "body.2"], x, 1)[0]
        for side in (ours, theirs)
    )
    assert_close(mine, other, rtol=1e-5, atol=1e-5)


def nn_of(axes):
    return (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)[axes - 1]


def test_maps_of_sequences_are_enlarged_to_the_nearest():
    maps = [torch.rand(2, 4), torch.rand(2, 8)]
    fused = ours.GradCAM.fuse_cams(maps)
    assert_close(fused, torch.maximum(maps[0].repeat_interleave(2, 1), maps[1]))


def test_the_noise_of_sscam_moves_the_generator_on_as_the_peers_does():
    model, x = net(), images(1)
    states = []
    for side in (ours, theirs):
        call(side.SSCAM, model, "last", x, 1, num_samples=2)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


@pytest.mark.parametrize("method", ["GradCAM", "LayerCAM"])
def test_a_refined_map_equals_the_peers(method):
    model, x = net(), images()
    found = []
    for side in (ours, theirs):
        base = getattr(side, method)
        with side.RefineCAM(model, ["second", "last", "first"], base_method=base) as extractor:
            found.append(extractor([1, 2], model(x)) + extractor.base_cam.hook_a)
    assert_close(*found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "comparison", [None, 3, [0, 4], [[0, 4], [3, 0]]], ids=["closest", "one", "shared", "each"]
)
def test_references_of_finercam_are_chosen_as_the_peer_chooses_them(comparison):
    model, x = net(), images()
    found = []
    for side in (ours, theirs):
        with side.FinerCAM(model, "last") as extractor:
            found.append(extractor([1, 2], model(x), comparison, normalized=False))
    assert_close(*found, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("side", [(4, 4), (9, 7)])
@pytest.mark.parametrize("kind", ["GradCAM", "LayerCAM", "ScoreCAM"])
def test_fused_maps_are_the_peers_bit_for_bit(kind, side):
    torch.manual_seed(0)
    maps = [torch.rand(2, 4, 4), torch.rand(2, 9, 3), torch.rand(2, 2, 8)]
    shapes = [None, side]
    for shape in shapes:
        assert torch.equal(
            getattr(ours, kind).fuse_cams(maps, shape), getattr(theirs, kind).fuse_cams(maps, shape)
        )
    assert ours.GradCAM.fuse_cams(maps[:1], side) is maps[0]


def test_refined_fusion_is_the_peers():
    torch.manual_seed(0)
    maps = [torch.rand(2, 4, 4), torch.rand(2, 9, 3)]
    before = [one.clone() for one in maps]
    for options in [(), ((5, 6),), (None, False)]:
        assert_close(
            ours.RefineCAM.fuse_cams(maps, *options), theirs.RefineCAM.fuse_cams(maps, *options)
        )
    assert all(map(torch.equal, maps, before))


def test_vit_blocks_have_the_peers_legrad():
    model, _ = subject("ViT", "small")
    x = images(3, 64)
    blocks = list(model.encoder.layers)
    found = []
    for side in (ours, theirs):
        with side.LeGrad(model, blocks) as extractor:
            found.append(extractor([1, 4, 7], model(x)))
    assert_close(*found, rtol=1e-4, atol=1e-5)


def test_legrad_takes_a_head_of_the_users_own_and_a_grid():
    model, _ = subject("ViT", "small")
    x = images(2, 64)
    options = {
        "score_projection": lambda tokens: tokens[:, 0, :10].tanh(),
        "prefix_tokens": 1,
        "grid_shape": (4, 16),
    }
    found = []
    for side in (ours, theirs):
        with side.LeGrad(model, "encoder.layers.encoder_layer_1", **options) as extractor:
            model(x)
            found.append(extractor(4, normalized=False))
    assert found[0][0].shape == (2, 4, 16)
    assert_close(*found, rtol=1e-4, atol=1e-7)


def test_legrad_needs_no_gradients_of_the_callers_pass():
    model, _ = subject("ViT", "small")
    x = images(2, 64)
    with ours.LeGrad(model, list(model.encoder.layers)) as extractor:
        expected = extractor(4, model(x))
        with torch.inference_mode():
            model(x)
        assert_close(extractor(4), expected)


class Scaled(type(net())):
    """Is told by how much each image is scaled, and overwrites the images."""

    def forward(self, x, scale=None, *, shift):
        return super().forward(x.mul_(scale[:, None, None, None]) + shift["by"])


@pytest.mark.parametrize("method", ["ScoreCAM", "SSCAM", "ISCAM", "SmoothGradCAMpp"])
def test_other_arguments_of_the_model_are_passed_on(method):
    torch.manual_seed(0)
    model, x = Scaled().eval(), images()
    options = {} if method == "ScoreCAM" else {"num_samples": 2}
    (expected,) = call(getattr(ours, method), net(), "last", x, 1, **options)[0]
    torch.manual_seed(7)
    with getattr(ours, method)(model, "last", **options) as extractor:
        model(x.clone(), torch.ones(2), shift={"by": 0})
        assert_close(extractor(1), [expected])


def test_masks_of_a_list_of_images_are_refused():
    class Detector(type(net())):
        def forward(self, xs):
            return super().forward(torch.stack(xs))

    torch.manual_seed(0)
    model = Detector().eval()
    with ours.ScoreCAM(model, "last") as extractor:
        model(list(images()))
        with pytest.raises(ValueError, match="a batch of images"):
            extractor(1)


@pytest.mark.parametrize("compiled_first", [True, False])
@pytest.mark.parametrize("in_place", [pytest.param(True, marks=pytest.mark.slow), False])
def test_compiled_models_have_the_same_maps(compiled_first, in_place):
    torch.compiler.reset()
    model, x, layer = net(), images(), "last"
    if in_place:
        model.compile(backend="eager")
    else:
        model, layer = torch.compile(model, backend="eager"), "_orig_mod.last"
    if compiled_first:
        model(x)
    with ours.GradCAM(model, layer) as extractor:
        found = extractor(1, model(x))
    assert_close(found, call(ours.GradCAM, net(), "last", x, 1)[0])
    assert all(one.requires_grad for one in model.parameters())
