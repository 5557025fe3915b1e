"""The parameter randomization test: what it compares, how it draws, and what it must not touch."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("scipy")
pytest.importorskip("skimage")

from scipy.stats import pearsonr, spearmanr
from skimage.metrics import structural_similarity

from camfuse import SanityResult, cam, layer_cams, sanity
from camfuse.metrics.comparison import Comparison, Seen
from camfuse.metrics.reinitialize import RandomCopy, redraw, units
from camfuse.metrics.similarity import SIMILARITIES, pearson, spearman, ssim, surrogates
from small_models import DeadEnd, Residual

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """The first layer hands the image on; the rest is a small trained-looking classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Identity()
        self.first, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.second, self.last = nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.image(x).relu()
        x = self.norm(self.first(x)).relu()
        return self.last(self.second(x).relu().mean((2, 3)))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    model = Net().eval()
    with torch.no_grad():
        for one in (*model.parameters(), model.norm.running_mean):
            one.add_(torch.randn(one.shape) * 0.1)
    return model


def test_correlations_are_those_of_scipy_even_with_ties():
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(5, 6, 7, generator=generator).sub(0.4).clamp(min=0)
    b = (torch.rand(5, 6, 7, generator=generator) + a).mul(4).round()
    for ours, theirs in ((spearman, spearmanr), (pearson, pearsonr)):
        expected = [theirs(x.flatten(), y.flatten())[0] for x, y in zip(a, b, strict=True)]
        np.testing.assert_allclose(ours(a, b), expected, rtol=1e-6)


@pytest.mark.parametrize("grid", [(12, 9), (7, 7), (5, 6), (3, 4), (20,), (6, 7, 8)])
def test_structural_similarity_is_that_of_scikit_image(grid):
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 3, *grid, generator=generator, dtype=torch.float64)
    window = min(7, min(grid) - (min(grid) + 1) % 2)

    def unit(map):
        return ((map - map.min()) / (map.max() - map.min())).numpy()

    expected = [
        structural_similarity(unit(x), unit(y), win_size=window, data_range=1)
        for x, y in zip(a, b + a, strict=True)
    ]
    np.testing.assert_allclose(ssim(a, b + a), expected, rtol=1e-9)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_a_map_is_like_itself_and_a_constant_map_like_nothing(name):
    maps = torch.rand(2, 8, 8)
    torch.testing.assert_close(SIMILARITIES[name](maps, maps * 3 + 1), torch.ones(2).double())
    for other in (torch.zeros(2, 8, 8), torch.full((2, 8, 8), torch.nan)):
        assert SIMILARITIES[name](maps, other).isnan().all()
        assert SIMILARITIES[name](other, maps).isnan().all()


def test_random_maps_have_the_spectrum_of_their_model_and_nothing_else():
    maps = torch.rand(2, 9, 8, dtype=torch.float64)
    made = surrogates(maps, torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.fft.fft2(made).abs(), torch.fft.fft2(maps).abs())
    torch.testing.assert_close(made.mean((1, 2)), maps.mean((1, 2)))
    assert not torch.allclose(made, maps)


def test_modules_are_drawn_from_the_last_to_the_first(net):
    assert units(net, IMAGES) == [["first"], ["norm"], ["second"], ["last"]]
    stages = sanity(net, IMAGES, stages=3).stages
    assert stages == (("last",), ("second",), ("norm", "first"))


def test_what_its_parent_uses_goes_with_the_parent():
    # Attention never calls its own projection.
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    held = ["self_attn", "self_attn.out_proj"]
    assert units(model, torch.rand(1, 4, 8))[:2] == [held, ["norm1"]]


def test_a_stage_is_the_similarity_with_the_maps_of_a_model_drawn_so_far(net):
    found = sanity(net, IMAGES, layers=["first", "second"], similarity=["pearson"], seed=3)
    before = layer_cams(net, IMAGES, layers=["first", "second"])
    drawn = RandomCopy(net, seed=3)
    for stage, names in enumerate(found.stages):
        drawn.redraw(names)
        classes = before.targets[0]
        after = layer_cams(drawn.model, IMAGES, layers=["first", "second"], target=classes)
        for i, name in enumerate(found.layers):
            expected = pearson(before[name].clamp(min=0), after[name].clamp(min=0))
            got = found.similarity["pearson"][stage, i, 0, 0]
            torch.testing.assert_close(got, expected, equal_nan=True)
    assert torch.equal(
        found.final["pearson"].nan_to_num(), found.similarity["pearson"][-1].nan_to_num()
    )


def test_independent_stages_leave_the_others_as_they_were(net):
    found = sanity(net, IMAGES, layers="second", mode="independent", relu=False)
    drawn = RandomCopy(net, seed=0)
    drawn.redraw(["norm"])
    before = layer_cams(net, IMAGES, layers="second")
    after = layer_cams(drawn.model, IMAGES, layers="second", target=before.targets[0])
    got = found.similarity["spearman"][found.stages.index(("norm",)), 0, 0, 0]
    torch.testing.assert_close(got, spearman(before["second"], after["second"]))
    cascading = sanity(net, IMAGES, layers="second", relu=False)
    torch.testing.assert_close(found.final, cascading.final)
    torch.testing.assert_close(found.between, cascading.between)


def test_the_same_modules_are_drawn_alike_however_they_are_grouped(net):
    one, many = sanity(net, IMAGES, stages=1), sanity(net, IMAGES)
    torch.testing.assert_close(one.final, many.final, equal_nan=True)
    other = sanity(net, IMAGES, stages=1, seed=1)
    assert not torch.equal(one.final["ssim"].nan_to_num(), other.final["ssim"].nan_to_num())


def test_maps_of_the_image_alone_stay_and_the_others_fall(net):
    found = sanity(net, IMAGES, method=["eigencam", "gradcam"], layers=["image", "second"])
    assert found.methods == ("eigencam", "gradcam")
    # Principal components of the image know nothing of the model.
    grades = {(one.method, one.layer): one for one in found.verdicts()}
    assert grades["eigencam", "image"].grade == "stays"
    assert grades["eigencam", "image"].kept == pytest.approx(1)
    assert found.between["ssim"][0, 0].eq(1).all()
    assert "eigencam: of 2 layers" in found.summary()
    assert "show the image or the architecture" in found.summary()
    assert grades["gradcam", "second"].final < 0.6
    assert found.between["ssim"][1, 1].lt(0.9).all()


def test_why_a_similarity_is_not_defined(net):
    found = sanity(net, IMAGES[:, :, :2], layers=["first"], stages=1)
    assert found.similarity["ssim"].isnan().all()
    (undefined,) = found.undefined
    assert (undefined.stage, undefined.layer) == (0, "first")
    assert "2 x 16" in undefined.reason or undefined.reason == "a map is constant"
    flat = sanity(net, torch.zeros_like(IMAGES), layers=["image"], method="eigencam", stages=1)
    assert {one.reason for one in flat.undefined} <= {
        "a map is constant",
        "a map is only rounding noise",
    }
    assert flat.verdicts()[0].grade == "undefined"
    assert "nothing is known" in flat.summary()
    json.dumps(flat.to_dict(), allow_nan=False)


def test_rounding_noise_is_like_nothing_and_a_missing_map_says_why(net):
    stack = layer_cams(net, IMAGES, layers=["first", "second"], method=["gradcam", "layercam"])
    compare, seen = Comparison(stack, ["pearson"], relu=False), Seen.of(stack)
    assert compare(seen, seen)[1] == {}
    noisy = replace(seen, noise={"second": ("layercam",)})
    values, why = compare(seen, noisy)
    assert why == {"second": "a map is only rounding noise"}
    assert values["pearson"][1].isnan().flatten(1).all(1).tolist() == [False, True]
    partial = Seen({"first": seen.maps["first"]}, missing={"second": "it is not finite"})
    assert compare(partial, seen)[1] == {"second": "it is not finite"}
    assert compare(seen, Seen(failed="none"))[1] == {"first": "none", "second": "none"}


def test_a_map_turned_over_stays():
    one = torch.ones(1, 1, 1, 1, 1).double()
    found = SanityResult(
        methods=("gradcam",),
        layers=("first",),
        stages=(("first",),),
        mode="cascading",
        seed=0,
        targets=torch.zeros(1, 1, dtype=torch.long),
        similarity={"pearson": -one},
        final={"pearson": -one[0]},
        between={"pearson": one[0]},
        unrelated={"pearson": one[0] * 0.2},
    )
    (verdict,) = found.verdicts()
    assert (verdict.grade, verdict.kept) == ("stays", 1)


def test_a_random_model_without_finite_maps_says_so(net):
    class Overflowing(nn.Linear):
        def reset_parameters(self) -> None:
            nn.init.constant_(self.weight, torch.inf)

    net.last = Overflowing(6, 4)
    with torch.no_grad():
        net.last.weight.fill_(0.1)
        net.last.bias.fill_(0.1)
    found = sanity(net.eval(), IMAGES, layers=["second"], stages=1)
    assert found.final["spearman"].isnan().all()
    assert "finite" in found.undefined[0].reason


def test_the_model_is_untouched_even_by_a_failing_test(net):
    net.requires_grad_(False)
    state = copy.deepcopy(net.state_dict())
    generator = torch.get_rng_state()
    sanity(net, IMAGES, stages=2, mode="independent")

    def fail(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sanity(net, IMAGES, stages=2, progress=fail)
    assert all(torch.equal(one, state[name]) for name, one in net.state_dict().items())
    assert not any(one.requires_grad or one.grad is not None for one in net.parameters())
    assert not net.training
    assert not any(one._forward_pre_hooks or one._forward_hooks for one in net.modules())
    assert torch.equal(torch.get_rng_state(), generator)


def test_the_caller_s_modes_do_not_matter(net):
    plain = sanity(net, IMAGES, stages=2)
    with torch.inference_mode():
        found = sanity(net, IMAGES, stages=2)
    torch.testing.assert_close(found.final, plain.final, equal_nan=True)
    net.second = torch.compile(net.second)
    compiled = sanity(net, IMAGES)
    assert compiled.stages == (("last",), ("second._orig_mod",), ("norm",), ("first",))
    assert compiled.layers == plain.layers


def test_progress_counts_every_pass(net):
    told: list[tuple[str, int, int]] = []
    sanity(net, IMAGES, stages=2, mode="independent", progress=lambda *one: told.append(one))
    assert told == [("passes", i, 4) for i in (1, 2, 3, 4)]


def test_modules_start_anew_by_their_own_means_or_keep_their_spread():
    norm = nn.BatchNorm2d(3)
    norm.running_mean.fill_(5)
    norm.weight.data.fill_(7)
    redraw(norm, 0)
    assert norm.running_mean.eq(0).all()
    assert norm.weight.eq(1).all()

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.randn(20_000) * 3 + 5)

    scale = Scale()
    before = scale.scale.detach().clone()
    redraw(scale, 0)
    assert scale.scale.mean().item() == pytest.approx(5, abs=0.1)
    assert scale.scale.std().item() == pytest.approx(3, abs=0.1)
    assert spearman(before[None], scale.scale.detach()[None]).abs() < 0.05

    class Half(nn.Linear):
        def reset_parameters(self) -> None:  # forgets the bias
            nn.init.zeros_(self.weight)

    half = Half(4, 50).to(torch.bfloat16)
    bias = half.bias.data.normal_().clone()
    redraw(half, 0)
    assert half.weight.eq(0).all()
    assert half.weight.dtype == torch.bfloat16
    assert half.bias.isfinite().all()
    assert not torch.equal(half.bias, bias)


@pytest.mark.parametrize("model", [Residual, DeadEnd])
def test_awkward_models_are_tested_too(model):
    found = sanity(model().eval(), IMAGES, stages=2, method=["gradcam", "hirescam"])
    r, t, b = 2, 1, 2
    assert found.similarity["ssim"].shape == (2, len(found.layers), r, t, b)
    assert found.table("ssim", "hirescam").shape == (2, len(found.layers))
    report = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert len(report["verdicts"]) == r * len(found.layers)


def test_layers_may_be_modules_and_the_class_may_be_given(net):
    found = sanity(net, IMAGES, layers=net.second, target=[2, 0], stages=1)
    assert found.layers == ("second",)
    assert found.targets.tolist() == [[2, 0]]
    assert cam(net, IMAGES, net.second).shape == (2, 16, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "both"}, "mode: expected 'cascading' or 'independent', got 'both'"),
        ({"stages": 0}, "stages: expected at least 1, got 0"),
        ({"similarity": ["mse"]}, r"similarity: expected some of .*, got \['mse'\]"),
        ({"similarity": []}, "similarity: expected some of"),
        ({"layers": [nn.ReLU()]}, "layers: expected modules of the model, got ReLU"),
        ({"model": nn.Sequential(nn.ReLU()).eval()}, "expected one with parameters|target"),
    ],
)
def test_what_does_not_fit_is_refused(net, arguments, message):
    with pytest.raises(ValueError, match=message):
        sanity(**{"model": net, "images": IMAGES} | arguments)


def test_a_model_that_cannot_be_copied_is_refused(net):
    net.kept = net.first.weight * 2  # not a leaf
    with pytest.raises(ValueError, match=r"model: expected one that copy.deepcopy\(\) can copy"):
        sanity(net, IMAGES)


def test_similarities_and_methods_are_called_by_name(net):
    found = sanity(net, IMAGES, layers="second", stages=1)
    with pytest.raises(ValueError, match="similarity: expected one of spearman, ssim, got 'mse'"):
        found.table("mse")
    with pytest.raises(ValueError, match="method: expected one of gradcam, got 'cam'"):
        found.table(method="cam")
