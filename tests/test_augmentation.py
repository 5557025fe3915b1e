"""aug_smooth: the mean of six passes, against explicit ones and against pytorch-grad-cam's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import ttach
from pytorch_grad_cam import GradCAM, base_cam
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

import camfuse
from camfuse import Contrast, Each, box_score, segmentation_mean
from oracle import relative_error


class Lopsided(nn.Module):
    """Whose maps of a mirrored image are not mirrored maps, and two sizes of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.third = nn.Conv2d(6, 6, 3, padding=1)
        self.classifier = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).tanh()
        x = self.second(x).relu()
        return self.classifier(self.third(x).sigmoid().mean((2, 3)))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Lopsided().double().eval()


@pytest.fixture
def x() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 20, 28, dtype=torch.float64, generator=generator)


def variants(x: Tensor) -> list[tuple[Tensor, bool]]:
    """The six images, and whether they are mirrored."""
    return [(y * f, flip) for y, flip in ((x, False), (x.flip(-1), True)) for f in (0.9, 1, 1.1)]


def expected_mean(model: nn.Module, x: Tensor, target: Any, **options: Any) -> dict[str, Tensor]:
    """Means of six explicit calls, by layer."""
    found: dict[str, list[Tensor]] = {}
    for image, flip in variants(x):
        stack = camfuse.layer_cams(model, image, target=target, **options)
        for name in stack.names:
            maps = stack.maps(name)
            found.setdefault(name, []).append(maps.flip(-1) if flip else maps)
    return {name: torch.stack(maps).mean(0) for name, maps in found.items()}


def assert_mean(stack: camfuse.CamStack, expected: dict[str, Tensor]) -> None:
    for name in stack.names:
        assert relative_error(stack.maps(name), expected[name]) <= 1e-12, name


def test_maps_are_the_mean_of_six_passes(model: nn.Module, x: Tensor) -> None:
    classes = model(x).argmax(1)
    stack = camfuse.layer_cams(model, x, aug_smooth=True)
    assert_mean(stack, expected_mean(model, x, classes))
    plain = camfuse.layer_cams(model, x)
    assert stack.names == plain.names
    assert relative_error(stack.flat, plain.flat) > 0.01
    assert torch.equal(stack.scores, plain.scores)
    assert torch.equal(stack.targets, plain.targets)
    assert torch.equal(stack.probabilities, plain.probabilities)


def test_the_six_images_are_ttachs(model: nn.Module, x: Tensor) -> None:
    transforms = ttach.Compose([ttach.HorizontalFlip(), ttach.Multiply(factors=[0.9, 1, 1.1])])
    maps = []
    for transform in transforms:
        stack = camfuse.layer_cams(model, transform.augment_image(x), target=2)
        maps.append(transform.deaugment_mask(stack.maps("second")[0, 0][:, None])[:, 0])
    stack = camfuse.layer_cams(model, x, target=2, aug_smooth=True)
    assert len(maps) == 6
    assert relative_error(stack["second"], torch.stack(maps).mean(0)) <= 1e-12


def test_raw_maps_are_those_that_pytorch_grad_cam_averages(
    model: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_resized(cam: np.ndarray, target_size: object = None) -> np.ndarray:
        return cam

    # The peer normalises each of the six before it averages; what it does besides is this.
    monkeypatch.setattr(base_cam, "scale_cam_image", only_resized)
    monkeypatch.setattr(base_cam.np, "maximum", lambda cam, zero: cam)
    with GradCAM(model, [model.second]) as peer:
        found = peer(x, [ClassifierOutputTarget(c) for c in (1, 3)], aug_smooth=True)
    monkeypatch.undo()
    stack = camfuse.layer_cams(model, x, target=[1, 3], aug_smooth=True)
    assert relative_error(stack["second"], torch.from_numpy(found)) <= 1e-6


def test_ranges_are_those_of_the_mean(model: nn.Module, x: Tensor) -> None:
    stack = camfuse.layer_cams(model, x, method=["gradcam", "hirescam"], aug_smooth=True)
    for i in range(len(stack)):
        planes = stack.maps(i).flatten(3)
        assert torch.equal(stack.ranges[i, ..., 0], planes.amin(-1))
        assert torch.equal(stack.ranges[i, ..., 1], planes.amax(-1))
    assert torch.equal(stack.global_ranges[..., 0], stack.ranges[..., 0].amin(0))
    assert torch.equal(stack.global_ranges[..., 1], stack.ranges[..., 1].amax(0))


def test_several_methods_and_targets(model: nn.Module, x: Tensor) -> None:
    methods = ["gradcam", "finercam", "randomcam"]
    targets = [None, [0, 3], Contrast(1), lambda output: output[:, 1] - output[:, 2]]
    together = camfuse.layer_cams(
        model, x, method=methods[:1], target=Each(targets), aug_smooth=True
    )
    for t, target in enumerate(targets):
        held = model(x).argmax(1) if target is None else target
        expected = expected_mean(model, x, held)
        assert_mean(together.select(target=t), expected)
    several = camfuse.layer_cams(model, x, method=methods, target=Each([None, 2]), aug_smooth=True)
    for t, target in enumerate([model(x).argmax(1), 2]):
        for method in methods:
            expected = expected_mean(model, x, target, method=method)
            assert_mean(several.select(method=method, target=t), expected)


def test_a_batch_in_parts_has_the_same_maps(model: nn.Module, x: Tensor) -> None:
    whole = camfuse.layer_cams(model, x, target=[0, 3], aug_smooth=True)
    passes: list[int] = []
    model.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    parts = camfuse.layer_cams(model, x, target=[0, 3], aug_smooth=True, max_memory="200KB")
    assert passes.count(1) >= 12
    assert relative_error(parts.flat, whole.flat) <= 1e-12


@pytest.mark.parametrize("thinning", ["stage-ends", "every:2"])
def test_layers_are_thinned_out_afterwards(model: nn.Module, x: Tensor, thinning: str) -> None:
    layers = ["conv", thinning]
    stack = camfuse.layer_cams(model, x, target=2, layers=layers, aug_smooth=True)
    assert stack.names == camfuse.layer_cams(model, x, target=2, layers=layers).names
    assert_mean(stack, expected_mean(model, x, 2))
    every = camfuse.layer_cams(model, x, target=2, layers="conv", aug_smooth=True)
    assert torch.equal(stack.global_ranges, every.global_ranges)


def test_only_the_image_is_varied(x: Tensor) -> None:
    class Gated(Lopsided):
        def forward(self, x: Tensor, gate: Tensor, flag: bool) -> Tensor:
            assert flag
            return super().forward(x * gate[:, :, None, None])

    torch.manual_seed(0)
    model = Gated().double().eval()
    gate = torch.rand(2, 3, dtype=torch.float64) + 1
    stack = camfuse.layer_cams(model, [x, gate, True], target=1, aug_smooth=True)
    plain = Lopsided().double().eval()
    plain.load_state_dict(model.state_dict())
    assert_mean(stack, expected_mean(plain, x * gate[:, :, None, None], 1))
    by_name = {"x": x, "gate": gate, "flag": True}
    again = camfuse.layer_cams(model, by_name, target=1, aug_smooth=True)
    assert torch.equal(again.flat, stack.flat)


def test_cam_is_smoothed_too(model: nn.Module, x: Tensor) -> None:
    finished = camfuse.cam(model, x, "second", target=2, aug_smooth=True)
    stack = camfuse.layer_cams(model, x, target=2, aug_smooth=True)
    assert torch.equal(finished, stack.normalized("second", size=(20, 28))[0, 0])
    assert relative_error(finished, camfuse.cam(model, x, "second", target=2)) > 0.01


class TestPlaces:
    """Targets that name places of the image are mirrored with it."""

    class Segmenter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.head = nn.Conv2d(4, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv(x).tanh())

    class Detector(Segmenter):
        """Two boxes, the left and the right half, scored by what is in them."""

        def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
            height, width = x.shape[-2:]
            half = width // 2
            boxes = torch.tensor([[0, 0, half, height], [half, 0, width, height]]).to(x)
            labels = torch.ones(2, dtype=torch.long)
            return [
                {
                    "boxes": boxes,
                    "labels": labels,
                    "scores": torch.stack([plane[:, :half].mean(), plane[:, half:].mean()]),
                }
                for plane in super().forward(x)[:, 0]
            ]

    def check(self, model: nn.Module, x: Tensor, target: Any, mirrored: Any) -> None:
        stack = camfuse.layer_cams(model, x, target=target, method="hirescam", aug_smooth=True)
        total: Any = 0
        for image, flip in variants(x):
            one = camfuse.layer_cams(
                model, image, target=mirrored if flip else target, method="hirescam"
            )
            total = total + (one["conv"].flip(-1) if flip else one["conv"])
        assert relative_error(stack["conv"], total / 6) <= 1e-12
        unmirrored = sum(
            camfuse.layer_cams(model, image, target=target, method="hirescam")["conv"].flip(
                [-1] if flip else []
            )
            for image, flip in variants(x)
        )
        assert relative_error(stack["conv"], unmirrored / 6) > 0.01

    def test_masks(self, x: Tensor) -> None:
        torch.manual_seed(0)
        mask = torch.zeros(20, 28)
        mask[4:9, :5] = 1
        model = self.Segmenter().double().eval()
        for one in (mask, torch.stack([mask, mask.flip(0)])):
            self.check(model, x, segmentation_mean(1, one), segmentation_mean(1, one.flip(-1)))

    def test_boxes(self, x: Tensor) -> None:
        torch.manual_seed(0)
        model = self.Detector().double().eval()
        left, right = box_score(1, (0, 0, 14, 20)), box_score(1, (14, 0, 28, 20))
        self.check(model, x, left, right)

    def test_functions_that_say_how(self, x: Tensor) -> None:
        class Half:
            def __init__(self, side: str) -> None:
                self.side = side

            def __call__(self, output: Tensor) -> Tensor:
                half = output[..., :14] if self.side == "left" else output[..., 14:]
                return half.mean((1, 2, 3))

            def mirrored(self, width: int) -> Half:
                assert width == 28
                return Half("right" if self.side == "left" else "left")

        torch.manual_seed(0)
        model = self.Segmenter().double().eval()
        self.check(model, x, Half("left"), Half("right"))


class Fragile(Lopsided):
    """One layer, which no other depends on, is infinite in a mirrored image."""

    class Conv(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (1 if float(x[0, 0, 0, 0]) > 0 else torch.inf)

    def __init__(self) -> None:
        super().__init__()
        self.fragile = self.Conv(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        aside = self.fragile(x).nan_to_num(0, 0, 0).mean((1, 2, 3))
        return super().forward(x) + aside[:, None]


class TestNonfinite:
    @pytest.fixture
    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return Fragile().double().eval()

    @pytest.fixture
    def x(self, x: Tensor) -> Tensor:
        x[:, 0, 0, 0], x[:, 0, 0, -1] = 1, -1
        return x

    def test_the_layer_is_named(self, model: nn.Module, x: Tensor) -> None:
        camfuse.layer_cams(model, x, target=0)
        with pytest.raises(FloatingPointError, match="fragile: the map of sample 0 is not finite"):
            camfuse.layer_cams(model, x, target=0, aug_smooth=True)

    def test_a_layer_that_fails_in_one_variation_is_left_out(
        self, model: nn.Module, x: Tensor
    ) -> None:
        options = {"target": 0, "on_nonfinite": "skip"}
        stack = camfuse.layer_cams(model, x, aug_smooth=True, **options)
        assert "fragile" not in stack.names
        (skipped,) = [one for one in stack.skipped if one.name == "fragile"]
        assert skipped.reason == "the map of sample 0 is not finite"
        assert_mean(stack, expected_mean(model, x, **options))
        mirrored = camfuse.layer_cams(model, x.flip(-1), aug_smooth=True, **options)
        assert mirrored.names == stack.names
        assert [one.name for one in mirrored.skipped].count("fragile") == 1

    def test_where_nothing_is_left_that_is_said(self, model: nn.Module, x: Tensor) -> None:
        with pytest.raises(FloatingPointError, match="no map of the selected layers is finite"):
            camfuse.layer_cams(
                model, x, layers="fragile", target=0, on_nonfinite="skip", aug_smooth=True
            )


class Branching(Lopsided):
    """Calls a layer so often for a dim image, and so often for a bright one."""

    def __init__(self, calls: tuple[int, int], limit: float) -> None:
        super().__init__()
        self.calls, self.limit = calls, limit
        self.extra = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.calls[bool(x.amax() > self.limit)]):
            x = self.extra(x)
        return super().forward(x)


@pytest.mark.parametrize("calls", [(1, 0), (0, 1)])
def test_a_layer_that_is_not_always_called_is_left_out(x: Tensor, calls: tuple[int, int]) -> None:
    model = Branching(calls, float(x.amax())).double().eval()
    stack = camfuse.layer_cams(model, x, aug_smooth=True)
    assert stack.names == ("first", "second", "third")
    assert [one.name for one in stack.skipped].count("extra") == 1


def test_a_layer_that_is_called_more_often_is_refused(x: Tensor) -> None:
    model = Branching((1, 2), float(x.amax())).double().eval()
    with pytest.raises(RuntimeError, match="aug_smooth: the model runs other layers"):
        camfuse.layer_cams(model, x, aug_smooth=True)


def test_an_exception_in_the_middle_leaves_the_model_as_it_was(model: nn.Module, x: Tensor) -> None:
    calls: list[int] = []

    def fail(*_: object) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyError("in the middle")

    handle = model.third.register_forward_hook(fail)
    before = x.clone()
    with pytest.raises(KeyError, match="in the middle"):
        camfuse.layer_cams(model, x, aug_smooth=True)
    handle.remove()
    assert torch.equal(x, before)
    assert all(one.grad is None and one.requires_grad for one in model.parameters())
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())


def test_what_does_not_fit_is_named(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(ValueError, match="aug_smooth: expected False with create_graph=True"):
        camfuse.layer_cams(model, x, aug_smooth=True, create_graph=True)
    with pytest.raises(ValueError, match=r"aug_smooth: expected an image .* got torch.int64"):
        camfuse.layer_cams(model, x.long(), aug_smooth=True)
    with pytest.raises(ValueError, match=r"aug_smooth: .*got torch.float64 \(3, 20, 28\)"):
        camfuse.layer_cams(model, x[0], aug_smooth=True)
    with pytest.raises(ValueError, match="method: expected one of"):
        camfuse.layer_cams(model, x, method="nothing", aug_smooth=True)
