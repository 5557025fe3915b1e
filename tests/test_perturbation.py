"""Weights by perturbation: against peers, the papers' formulas in f64, and one sample at a time."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_grad_cam
import torch
import torchcam.methods
import torchvision
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn import functional as F

import camfuse
from camfuse import perturbation
from camfuse.ablation import ablationcam
from camfuse.masking import iscam, mask_noise, scorecam, sscam
from camfuse.memory import LiveBytes
from camfuse.perturbation import Perturbation, Site, Weighted
from small_models import Head, OverwrittenInput, Residual

Method = Callable[[Perturbation, Site], Weighted]
METHODS: dict[str, Method] = {
    "scorecam": scorecam,
    "sscam": partial(sscam, samples=3),
    "iscam": partial(iscam, samples=3),
    "ablationcam": ablationcam,
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


class Small(Head):
    """A layer of the image's size, one of half its size, and a ReLU that silences channels."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__(4)
        self.wide = nn.Conv2d(3, channels, 3, padding=1)
        self.relu = nn.ReLU()
        self.deep = nn.Conv2d(channels, 4, 3, padding=1, stride=2)
        self.norm = nn.BatchNorm2d(4)

    def body(self, x: Tensor) -> Tensor:
        return torch.tanh(self.norm(self.deep(self.relu(self.wide(x)))))


def small(channels: int = 6, silent: int = 0) -> Small:
    torch.manual_seed(0)
    model = Small(channels).eval()
    with torch.no_grad():
        model.wide.bias[:silent] = -100
    return model


def image(batch: int = 2, size: int = 12, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, size, size, generator=generator).to(dtype)


def close(found: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected.to(found), rtol=1e-4, atol=atol)


@contextmanager
def passes(model: nn.Module) -> Iterator[list[int]]:
    """The batch size of every pass."""
    sizes: list[int] = []
    handle = model.register_forward_hook(lambda m, args, output: sizes.append(len(output)))
    yield sizes
    handle.remove()


def peer_weights(cam: object, model: nn.Module, layer: nn.Module, x: Tensor, c: int) -> Tensor:
    """What a CAM of pytorch-grad-cam weighs the channels of ``layer`` with, for class ``c``."""
    found = []
    original = cam.get_cam_weights
    cam.get_cam_weights = lambda *args: found.append(original(*args)) or found[-1]
    with cam:
        cam(x, [ClassifierOutputTarget(c)] * len(x))
    return torch.as_tensor(np.array(found[0]))


class TestAgainstPytorchGradCam:
    def test_scorecam_where_the_layer_has_the_size_of_the_image(self) -> None:
        # Elsewhere it upsamples with aligned corners and normalises after that.
        model, x = small(silent=1), image()
        ours = scorecam(Perturbation(model, x, 3), Site(model.relu))
        theirs = peer_weights(
            pytorch_grad_cam.ScoreCAM(model, [model.relu]), model, model.relu, x, 3
        )
        close(ours.weights[0], theirs)

    def test_ablationcam_behind_a_relu(self) -> None:
        # Elsewhere it replaces channels by very negative numbers instead of zero.
        model, x = small(silent=1), image()
        ours = ablationcam(Perturbation(model, x, 3), Site(model.relu))
        theirs = peer_weights(
            pytorch_grad_cam.AblationCAM(model, [model.relu]), model, model.relu, x, 3
        )
        close(ours.weights[0], theirs)
        assert (ours.weights[0, :, 0] == 0).all()

    def test_ablationcam_maps_of_a_residual_network(self) -> None:
        torch.manual_seed(0)
        model, x = torchvision.models.resnet18(weights=None).eval(), image(1, 64)
        ours = ablationcam(Perturbation(model, x, 3), Site(model.layer4)).maps()[0].relu()
        ours = (ours - ours.amin()) / (ours.amax() - ours.amin())
        with pytorch_grad_cam.AblationCAM(model, [model.layer4]) as cam:
            cam(x, [ClassifierOutputTarget(3)])
            theirs = cam.compute_cam_per_layer(x, [ClassifierOutputTarget(3)], False)[0]
        ours = F.interpolate(ours[None], (64, 64), mode="bilinear")[0]
        np.testing.assert_allclose(ours.numpy(), theirs[:, 0], atol=1e-3)


class TestAgainstTorchcam:
    @pytest.mark.parametrize("layer", ["relu", "deep"])
    def test_scorecam(self, layer: str) -> None:
        model, x = small(silent=1), image()
        ours = scorecam(Perturbation(model, x, 3), Site(model.get_submodule(layer)))
        with torchcam.methods.ScoreCAM(model, layer) as cam:
            model(x)
            close(ours.weights[0], cam._get_weights(3)[0])

    @pytest.mark.parametrize("layer", ["relu", "deep"])
    def test_iscam(self, layer: str) -> None:
        model, x = small(silent=1), image()
        ours = iscam(Perturbation(model, x, 3), Site(model.get_submodule(layer)))
        with torchcam.methods.ISCAM(model, layer) as cam:
            model(x)
            close(ours.weights[0], cam._get_weights(3)[0])

    @pytest.mark.parametrize("layer", ["relu", "deep"])
    def test_sscam_with_the_same_noise(self, layer: str) -> None:
        model, x = small(silent=1), image()
        ours = sscam(
            Perturbation(model, x, 3), Site(model.get_submodule(layer)), samples=3, std=0.5, seed=7
        )
        draws = iter(range(3))

        def sample(size: torch.Size) -> Tensor:
            draw = next(draws)
            noise = [mask_noise(7, draw, channel, size[2:]) for channel in range(size[1])]
            return 0.5 * torch.stack(noise).expand(size)

        with torchcam.methods.SSCAM(model, layer, num_samples=3, std=0.5) as cam:
            cam._distrib = SimpleNamespace(sample=sample)
            model(x)
            close(ours.weights[0], cam._get_weights(3)[0])


class TestAgainstTheFormulas:
    """The papers' equations, one channel at a time in f64."""

    @pytest.mark.parametrize("layer", ["wide", "deep", "norm"])
    def test_ablationcam(self, layer: str) -> None:
        model, x = small().double(), image(1, dtype=torch.float64)
        module, expected = model.get_submodule(layer), []
        with torch.no_grad():
            y = model(x)[0, 3]
            for k in range(module.weight.shape[0]):

                def ablate(m: nn.Module, args: object, A: Tensor, k: int = k) -> Tensor:
                    A[:, k] = 0
                    return A

                handle = module.register_forward_hook(ablate)
                expected.append((y - model(x)[0, 3]) / y)
                handle.remove()
        found = ablationcam(Perturbation(model, x, 3), Site(module))
        torch.testing.assert_close(found.weights[0, 0], torch.stack(expected))

    @pytest.mark.parametrize("layer", ["wide", "relu", "deep", "norm"])
    def test_scorecam(self, layer: str) -> None:
        model, x = small(silent=2).double(), image(1, dtype=torch.float64)
        kept: list[Tensor] = []
        module = model.get_submodule(layer)
        handle = module.register_forward_hook(lambda m, a, output: kept.append(output.clone()))
        scores = []
        with torch.no_grad():
            model(x)
            handle.remove()
            for plane in kept[0][0]:
                mask = torch.zeros_like(plane)
                if plane.amax() > plane.amin():
                    mask = (plane - plane.amin()) / (plane.amax() - plane.amin())
                mask = F.interpolate(mask[None, None], x.shape[2:], mode="bilinear")
                scores.append(model(x * mask)[0, 3] - model(x * 0)[0, 3])
        found = scorecam(Perturbation(model, x, 3), Site(module))
        torch.testing.assert_close(found.activations, kept[0])
        torch.testing.assert_close(found.weights[0, 0], torch.stack(scores).softmax(0))
        expected = torch.einsum("k,khw->hw", found.weights[0, 0], kept[0][0])
        torch.testing.assert_close(found.maps()[0, 0], expected)

    def test_a_score_of_zero_leaves_the_drop_undivided(self) -> None:
        model = small()
        found = ablationcam(Perturbation(model, image(1), lambda y: y[:, 0] * 0), Site(model.relu))
        assert (found.weights == 0).all()
        shifted = ablationcam(
            Perturbation(model, image(1), camfuse.Each([0, _minus_clean(model)])), Site(model.relu)
        )
        y = shifted.scores.values[0]
        close(shifted.weights[1], shifted.weights[0] * y)


def _minus_clean(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Class 0's score less what the unchanged image gets, to the last bit of that computation."""
    clean: list[Tensor] = []

    def score(output: Tensor) -> Tensor:
        # The first copy of the first chunk is the unchanged one.
        if len(output) > 1 and not clean:
            clean.append(output[0, 0].clone())
        return output[:, 0] - (clean[0] if clean else 0)

    return score


class TestWhateverTheMethod:
    @every_method
    @pytest.mark.parametrize("batch_size", [1, 3, 5])
    def test_the_batch_size_changes_nothing(self, method: Method, batch_size: int) -> None:
        model, x = small(silent=1), image()
        expected = method(Perturbation(model, x), Site(model.relu))
        with passes(model) as sizes:
            found = method(Perturbation(model, x, batch_size=batch_size), Site(model.relu))
        close(found.weights, expected.weights, 1e-6)
        assert max(sizes) <= max(batch_size, 2)  # the proofs take two copies

    @every_method
    def test_samples_of_a_batch_do_not_meet(self, method: Method) -> None:
        model, x = small(), image(3)
        together = method(Perturbation(model, x, [1, 2, 3]), Site(model.deep))
        for b, category in enumerate([1, 2, 3]):
            alone = method(Perturbation(model, x[b : b + 1], category), Site(model.deep))
            close(together.weights[:, b], alone.weights[:, 0], 1e-6)
            assert together.scores.indices[0, b] == category

    @every_method
    def test_several_targets_share_the_passes(self, method: Method) -> None:
        model, x = small(), image()
        targets = [None, 2, [0, 4], lambda output: output.softmax(1)[:, 1]]
        with passes(model) as one:
            method(Perturbation(model, x), Site(model.relu))
        with passes(model) as several:
            found = method(Perturbation(model, x, camfuse.Each(targets)), Site(model.relu))
        assert one == several
        for t, target in enumerate(targets):
            alone = method(Perturbation(model, x, target), Site(model.relu))
            close(found.weights[t], alone.weights[0], 1e-7)
        assert found.weights.shape == (4, 2, 6)
        assert found.maps().shape == (4, 2, 12, 12)

    @every_method
    def test_the_class_is_that_of_the_unchanged_sample(self, method: Method) -> None:
        model, x = small(), image()
        classes = model(x).argmax(1)
        found = method(Perturbation(model, x), Site(model.relu))
        assert torch.equal(found.scores.indices[0], classes)
        named = method(Perturbation(model, x, classes), Site(model.relu))
        assert torch.equal(found.weights, named.weights)

    @every_method
    def test_shortcuts_change_no_map(self, method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
        torch.manual_seed(0)
        model, x = (
            torchvision.models.resnet18(weights=None, width_per_group=64).eval(),
            image(1, 32),
        )
        site = Site(model.layer2[1].bn1)
        found = method(Perturbation(model, x), site)
        assert found.refusals == ()

        @contextmanager
        def plain(*args: object, **kwargs: object) -> Iterator[str]:
            yield "switched off"

        monkeypatch.setattr(perturbation, "faster", plain)
        monkeypatch.setattr("camfuse.replay.Replay._short", lambda *_: 1 / 0)
        slow = method(Perturbation(model, x), site)
        assert slow.refusals[0] == "switched off"
        scale = slow.maps().abs().amax()
        assert (found.maps() - slow.maps()).abs().amax() <= 1e-4 * scale

    @every_method
    def test_the_model_is_left_as_it_was(self, method: Method) -> None:
        model = small()
        state = {name: one.clone() for name, one in model.state_dict().items()}
        before = [{**vars(module)} for module in model.modules()]
        random = torch.get_rng_state()
        method(Perturbation(model, image()), Site(model.deep))
        assert [{**vars(module)} for module in model.modules()] == before
        assert all(torch.equal(state[name], one) for name, one in model.state_dict().items())
        assert torch.equal(torch.get_rng_state(), random)
        assert all(one.requires_grad for one in model.parameters())

    @every_method
    def test_errors_of_the_callers_target_come_out_unchanged(self, method: Method) -> None:
        model = small()
        before = [{**vars(module)} for module in model.modules()]
        mine = LookupError("mine")
        calls = 0

        def target(output: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            if calls > 2:
                raise mine
            return output[:, 0]

        with pytest.raises(LookupError) as caught:
            method(Perturbation(model, image(), target, batch_size=2), Site(model.deep))
        assert caught.value is mine
        assert [{**vars(module)} for module in model.modules()] == before

    @every_method
    def test_an_input_that_the_model_overwrites_stays(self, method: Method) -> None:
        model, x = OverwrittenInput().eval(), image()
        before = x.clone()
        method(Perturbation(model, x), Site(model.second))
        assert torch.equal(x, before)

    @every_method
    def test_inference_mode_and_gradients_outside_do_not_matter(self, method: Method) -> None:
        model, x = small(), image()
        expected = method(Perturbation(model, x), Site(model.deep)).weights
        with torch.inference_mode():
            found = method(Perturbation(model, x.clone()), Site(model.deep)).weights
        assert torch.equal(found, expected)
        assert not expected.requires_grad

    @every_method
    def test_hundreds_of_calls_leave_no_tensor_behind(self, method: Method) -> None:
        model, x = small(3), image(1, 4)

        def tensors() -> int:
            gc.collect()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return sum(isinstance(one, Tensor) for one in gc.get_objects())

        method(Perturbation(model, x), Site(model.deep))
        before = tensors()
        for _ in range(200):
            method(Perturbation(model, x), Site(model.deep))
        assert tensors() <= before

    @every_method
    def test_memory_grows_with_the_layer_but_not_with_masked_images(self, method: Method) -> None:
        def peak(channels: int) -> int:
            model, x = small(channels), image(1, 32)
            method(Perturbation(model, x, batch_size=4), Site(model.relu))
            with LiveBytes() as live:
                method(Perturbation(model, x, batch_size=4), Site(model.relu))
            return live.peak

        plane = 32 * 32 * 4
        added = peak(64) - peak(32)
        # Per channel: what up to two layers in a chunk of four hold, recorded and proven copies;
        # all masked images at once would be another three planes per channel and draw.
        assert added <= 32 * plane * 4 * 6
        assert peak(32) < 32 * plane * 4 * 8

    @every_method
    @pytest.mark.parametrize("batch_size", [0, -1, 1.5, True, "8", None])
    def test_a_batch_size_that_is_none(self, method: Method, batch_size: object) -> None:
        with pytest.raises(ValueError, match="batch_size: expected an integer of at least 1"):
            method(Perturbation(small(), image(), batch_size=batch_size), Site(nn.ReLU()))

    @every_method
    def test_a_layer_that_is_not_in_the_model(self, method: Method) -> None:
        with pytest.raises(ValueError, match="call 1 of this ReLU never comes"):
            method(Perturbation(small(), image()), Site(nn.ReLU()))

    def test_training_mode_is_refused(self) -> None:
        with pytest.raises(ValueError, match="training mode"):
            Perturbation(small().train(), image())

    def test_a_target_that_does_not_fit(self) -> None:
        model = small()
        with pytest.raises(ValueError, match=r"expected a class in 0\.\.4, got 9"):
            scorecam(Perturbation(model, image(), 9), Site(model.deep))


class TwoInputs(Small):
    """Takes a second tensor per sample, a constant for all, and a number."""

    def forward(self, x: Tensor, shift: Tensor, table: Tensor, scale: float = 1.0) -> Tensor:
        y = self.body(x + shift[:, None, None, None])
        return self.classifier(y.mean((2, 3)) * scale + table)


class Volume(nn.Module):
    """A network on images with other numbers of axes."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        conv = {1: nn.Conv1d, 3: nn.Conv3d}[axes]
        self.conv = conv(2, 4, 3, stride=2)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().flatten(2).mean(2))


class TestInputs:
    @every_method
    def test_other_inputs_are_those_of_the_sample(self, method: Method) -> None:
        torch.manual_seed(0)
        model, x = TwoInputs().eval(), image(2)
        shift, table = torch.tensor([0.3, -2.0]), torch.randn(4)
        by_name = {"x": x, "shift": shift, "table": table, "scale": 2.0}
        named = method(Perturbation(model, by_name, 1), Site(model.deep))
        listed = method(Perturbation(model, (x, shift, table, 2.0), 1), Site(model.deep))
        assert torch.equal(named.weights, listed.weights)
        for b in range(2):
            baked = partial(model.forward, shift=shift[b : b + 1], table=table, scale=2.0)
            alone = _Wrapped(model, baked).eval()
            expected = method(Perturbation(alone, x[b : b + 1], 1), Site(model.deep))
            close(named.weights[:, b], expected.weights[:, 0], 1e-6)

    @pytest.mark.parametrize("axes", [1, 3])
    @every_method
    def test_images_of_one_and_three_axes(self, method: Method, axes: int) -> None:
        model = Volume(axes).eval()
        x = torch.randn(2, 2, *[9] * axes, generator=torch.Generator().manual_seed(0))
        folded = method(
            Perturbation(model, x, 1),
            Site(model.conv, spatial=lambda A: A.reshape(*A.shape[:3], -1)),
        )
        raw = method(Perturbation(model, x, 1), Site(model.conv))
        assert torch.equal(folded.weights, raw.weights)
        assert folded.maps().shape == (1, 2, 4, 4 ** (axes - 1))
        assert folded.weights.std() > 0

    @pytest.mark.parametrize("axes", [1, 3])
    def test_masks_of_one_and_three_axes_are_interpolated_linearly(self, axes: int) -> None:
        model = Volume(axes).eval()
        x = torch.randn(1, 2, *[9] * axes, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            A = model.conv(x)[0]
            low, high = A.flatten(1).amin(1), A.flatten(1).amax(1)
            ones = [1] * axes
            masks = (A - low.view(-1, *ones)) / (high - low).view(-1, *ones)
            mode = {1: "linear", 3: "trilinear"}[axes]
            masks = F.interpolate(masks[:, None], x.shape[2:], mode=mode)
            expected = model(x * masks)[:, 1].softmax(0)
        close(scorecam(Perturbation(model, x, 1), Site(model.conv)).weights[0, 0], expected)

    def test_what_cannot_be_masked(self) -> None:
        model = small()
        with pytest.raises(ValueError, match="masks need a floating image"):
            scorecam(Perturbation(model, torch.ones(1, 3, 8, 8).long()), Site(model.deep))

    def test_token_layers_are_masked_and_ablated_through_their_fold(self) -> None:
        torch.manual_seed(0)
        model = torchvision.models.vit_b_32(weights=None, image_size=64, num_classes=5).eval()
        nn.init.normal_(model.heads.head.weight)  # all zero as it comes
        layer = model.encoder.layers[10].ln_1
        site = Site(layer, spatial=lambda A: A[:, 1:].reshape(len(A), 2, 2, -1).permute(0, 3, 1, 2))
        found = ablationcam(Perturbation(model, image(1, 64), 0), site)
        assert found.refusals == ()
        assert found.maps().shape == (1, 1, 2, 2)
        k = int(found.weights[0, 0].abs().argmax())

        def ablate(m: nn.Module, args: object, A: Tensor) -> Tensor:
            A = A.clone()
            A[:, 1:, k] = 0
            return A

        with torch.no_grad():
            y = model(image(1, 64))[0, 0]
            handle = layer.register_forward_hook(ablate)
            without = model(image(1, 64))[0, 0]
            handle.remove()
        close(found.weights[0, 0, k], (y - without) / y)

    def test_ablation_through_a_copy_is_refused(self) -> None:
        model = small()
        with pytest.raises(ValueError, match="must return a view"):
            ablationcam(Perturbation(model, image()), Site(model.deep, spatial=lambda A: A * 1))


class _Wrapped(nn.Module):
    def __init__(self, model: nn.Module, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self._call = model, call

    def forward(self, x: Tensor) -> Tensor:
        return self._call(x)


class TestSavings:
    def test_silent_channels_share_one_pass(self) -> None:
        model, x = small(12, silent=9), image(1)
        with passes(model) as sizes:
            scorecam(Perturbation(model, x), Site(model.relu))
        assert sizes[-1] == 3 + 1
        with passes(model) as sizes:
            iscam(Perturbation(model, x, batch_size=100), Site(model.relu), samples=5)
        assert sizes[-1] == 3 * 5 + 1

    def test_silent_channels_are_not_ablated(self) -> None:
        model, x = small(12, silent=9), image(1)
        with passes(model) as sizes:
            ablationcam(Perturbation(model, x), Site(model.relu))
        assert sizes[-1] == 3 + 1  # and one that stays whole

    def test_a_layer_of_constant_channels(self) -> None:
        model, x = small(5, silent=5), image(1)
        assert torch.equal(
            scorecam(Perturbation(model, x), Site(model.relu)).weights, torch.full((1, 1, 5), 0.2)
        )
        assert not ablationcam(Perturbation(model, x), Site(model.relu)).weights.any()

    def test_a_network_that_cannot_be_replayed_says_so(self) -> None:
        class Total(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.sum(0, keepdim=True)

        class Mixing(Small):
            def __init__(self) -> None:
                super().__init__()
                self.total = Total()

            def body(self, x: Tensor) -> Tensor:
                total = self.total(x)
                return super().body(x) + 0.1 * total.mean()

        model = Mixing().eval()
        found = ablationcam(Perturbation(model, image(), 0), Site(model.deep))
        assert "gives another output" in found.refusals[0]


class TestNoise:
    def test_it_depends_on_seed_draw_and_channel(self) -> None:
        one = mask_noise(0, 0, 0, (4, 4))
        assert torch.equal(one, mask_noise(0, 0, 0, (4, 4)))
        for other in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
            assert not torch.equal(one, mask_noise(*other, (4, 4)))

    def test_it_is_standard_normal(self) -> None:
        noise = torch.stack([mask_noise(0, i, 0, (20, 20)) for i in range(100)])
        assert abs(float(noise.mean())) < 0.02
        assert abs(float(noise.std()) - 1) < 0.02

    def test_without_noise_sscam_is_scorecam(self) -> None:
        model, x = small(), image()
        run, site = Perturbation(model, x), Site(model.deep)
        close(sscam(run, site, samples=2, std=0).weights, scorecam(run, site).weights, 1e-6)

    @pytest.mark.parametrize("samples", [0, -1, 2.0, True])
    def test_a_number_of_samples_that_is_none(self, samples: object) -> None:
        run, site = Perturbation(small(), image()), Site(nn.ReLU())
        for method in (sscam, iscam):
            with pytest.raises(ValueError, match="samples: expected an integer of at least 1"):
                method(run, site, samples=samples)

    @pytest.mark.parametrize("std", [-1.0, float("nan"), float("inf")])
    def test_a_spread_that_is_none(self, std: float) -> None:
        with pytest.raises(ValueError, match="std: expected a number of at least 0"):
            sscam(Perturbation(small(), image()), Site(nn.ReLU()), std=std)


@every_method
def test_residual_connections_and_in_place_layers(method: Method) -> None:
    torch.manual_seed(0)
    model, x = Residual().eval(), image()
    found = method(Perturbation(model, x, 1), Site(model.relu, call=2))
    assert found.weights.shape == (1, 2, 4)
    with torch.no_grad():
        first = model.relu(model.norm(model.stem(x)))
        close(found.activations, (model.conv(first) + first).relu())
