"""Batches within a limit: the same maps from several passes, or a clear refusal."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

import camfuse
from camfuse import split
from camfuse.memory import LiveBytes, predict_memory, with_holes
from oracle import relative_error
from small_models import Branches, DeadEnd, Head

BATCH = 7


class Wide(Head):
    """A residual block whose maps are small beside its activations."""

    def __init__(self) -> None:
        super().__init__(48)
        self.stem = nn.Conv2d(3, 48, 3, padding=1)
        self.norm = nn.BatchNorm2d(48)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(48, 48, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        y = self.conv(x)
        y += x
        return self.relu(y)


def make(kind: type[nn.Module] = Wide) -> nn.Module:
    torch.manual_seed(0)
    return kind().double().eval()


def image(batch: int = BATCH) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, 12, 16, dtype=torch.float64, generator=generator)


def limit_for(model: nn.Module, inputs: object, samples: int, **options: object) -> int:
    """Enough for passes over ``samples``, not for one sample more."""
    predicted = predict_memory(model, inputs, **options)
    kept = predicted.maps_per_sample * (predicted.batch - samples)
    return predicted.needed(samples, first=True) + kept + predicted.first_per_sample // 2


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that real passes get, over all models."""
    seen: list[int] = []
    answer = split.Request.answer

    def spy(request: split.Request, part: slice | None = None) -> object:
        found = answer(request, part)
        seen.append(found[1].batch)
        return found

    monkeypatch.setattr(split.Request, "answer", spy)
    return seen


def assert_same(split_up: camfuse.CamStack, whole: camfuse.CamStack) -> None:
    for one in dataclasses.fields(camfuse.CamStack):
        got, expected = getattr(split_up, one.name), getattr(whole, one.name)
        if not isinstance(expected, Tensor):
            assert got == expected, one.name
        elif expected.is_floating_point():
            assert got.dtype == expected.dtype
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12, equal_nan=True)
        else:
            assert torch.equal(got, expected), one.name


PER_SAMPLE = [0, 1, 2, 3, 4, 0, 1]
TARGETS = {
    "arg-max": None,
    "one class": 3,
    "a list": PER_SAMPLE,
    "a tensor": torch.tensor(PER_SAMPLE),
    "several per sample": torch.tensor([PER_SAMPLE, PER_SAMPLE[::-1]]),
    "each": camfuse.Each([None, 2, PER_SAMPLE, lambda output: output.square().sum(1)]),
    "a function": lambda output: output[:, 1] - output[:, 0],
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
@pytest.mark.parametrize("samples", [2, 5])
def test_parts_give_what_one_pass_gives(batches: list[int], target: object, samples: int) -> None:
    model, x = make(), image()
    options = {"method": ["gradcam", "randomcam"], "target": target, "layers": "all"}
    whole = camfuse.layer_cams(model, x, **options)
    assert batches == [BATCH]
    targets = {"targets": len(whole.targets), "layers": "all", "method": options["method"]}
    limit = limit_for(model, x, samples, **targets)
    assert_same(camfuse.layer_cams(make(), x, **options, max_memory=limit), whole)
    assert batches[1] == samples
    assert sum(batches[1:]) == BATCH


@pytest.mark.parametrize("kind", [Branches, DeadEnd])
def test_skipped_layers_and_warnings_are_listed_once(kind: type[nn.Module]) -> None:
    model, x = make(kind), image()
    whole = camfuse.layer_cams(model, x, layers="all")
    limit = limit_for(model, x, BATCH - 1, layers="all")
    assert_same(camfuse.layer_cams(model, x, layers="all", max_memory=limit), whole)
    assert whole.skipped


def test_passes_stay_below_the_limit_and_later_ones_take_more_samples(batches: list[int]) -> None:
    class Deep(Head):
        def __init__(self) -> None:
            super().__init__(48)
            tanhs = [nn.Tanh() for _ in range(8)]
            self.layers = nn.Sequential(nn.Conv2d(3, 48, 1), *tanhs)

        def body(self, x: Tensor) -> Tensor:
            return self.layers(x)

    model, x = make(Deep), image(40)
    limit = limit_for(model, x, 8)
    camfuse.layer_cams(model, x, max_memory=limit)
    assert batches[0] == 8
    assert batches[1] > 10
    with LiveBytes() as live:
        camfuse.layer_cams(model, x, max_memory=limit)
    assert limit / 2 < live.peak <= limit
    with LiveBytes() as live:
        camfuse.layer_cams(model, x)
    assert live.peak > limit


def test_maps_that_outweigh_a_pass_stay_below_the_limit_too() -> None:
    model, x = make(DeadEnd), image(400)
    methods = ["hirescam", "elementwise", "layercam"]
    predicted = predict_memory(model, x, method=methods)
    limit = 3 * 400 * predicted.maps_per_sample
    assert predicted.later > 1.2 * limit
    camfuse.layer_cams(model, x, method=methods, max_memory=limit)
    with LiveBytes() as live:
        camfuse.layer_cams(model, x, method=methods, max_memory=limit)
    assert live.peak <= limit


def test_a_batch_that_fits_is_one_pass(batches: list[int]) -> None:
    model, x = make(), image()
    assert_same(camfuse.layer_cams(model, x, max_memory="1GB"), camfuse.layer_cams(model, x))
    assert batches == [BATCH, BATCH]


class Scaled(Wide):
    """Takes more than images."""

    def forward(self, x: Tensor, scale: Tensor, table: Tensor, *, power: float) -> Tensor:
        return super().forward((x * scale[:, None, None, None]) ** power + table.mean())


@pytest.mark.parametrize("mapping", [False, True])
def test_tensors_with_the_batch_axis_are_split_and_others_passed_whole(
    batches: list[int], mapping: bool
) -> None:
    class Positional(Scaled):
        def forward(self, x: Tensor, scale: Tensor, table: Tensor) -> Tensor:
            assert table.shape == (5, 2)
            assert len(scale) == len(x)
            return super().forward(x, scale, table, power=2)

    model = make(Scaled if mapping else Positional)
    values = [image(), torch.rand(BATCH).double(), torch.rand(5, 2).double()]
    names = ("x", "scale", "table")
    inputs = dict(zip(names, values, strict=True)) | {"power": 2} if mapping else values
    whole = camfuse.layer_cams(model, inputs)
    limit = limit_for(model, inputs, 2)
    assert_same(camfuse.layer_cams(model, inputs, max_memory=limit), whole)
    assert len(batches) > 2


def test_the_mask_of_a_segmentation_target_is_split_with_its_images() -> None:
    class Segments(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.Tanh())
            self.head = nn.Conv2d(48, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x))

    model, x = make(Segments), image()
    limit = limit_for(model, x, 2)
    generator = torch.Generator().manual_seed(0)
    for shape in ((12, 16), (1, 12, 16), (BATCH, 12, 16)):
        mask = torch.rand(shape, generator=generator) > 0.5
        target = camfuse.segmentation_mean(1, mask)
        whole = camfuse.layer_cams(model, x, target=target)
        assert_same(camfuse.layer_cams(model, x, target=target, max_memory=limit), whole)
    target = camfuse.segmentation_mean(1, torch.ones(2, 12, 16))
    with pytest.raises(ValueError, match=rf"mask: expected \[H, W\] or \[{BATCH}, H, W\]"):
        camfuse.layer_cams(model, x, target=target, max_memory=limit)


class PoisonedLast(Wide):
    """Gradients below the last layer are NaN for images of nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(48, 48, 1)

    def body(self, x: Tensor) -> Tensor:
        dark = (x == 0).all(-1).all(-1).all(-1)[:, None, None, None]
        x = super().body(x)
        zero = torch.where(dark, x - x, 1).sqrt()  # infinity minus infinity on its way back
        return self.last(torch.where(dark, x * zero, x))


def test_samples_of_maps_that_are_not_finite_are_counted_over_the_whole_batch() -> None:
    model, x = make(PoisonedLast), image()
    x[5] = 0
    limit = limit_for(model, x, 2)
    with pytest.raises(FloatingPointError, match="stem: the map of sample 5 is not finite"):
        camfuse.layer_cams(model, x, max_memory=limit)
    whole = camfuse.layer_cams(model, x, on_nonfinite="skip")
    assert whole.names == ("last",)
    assert_same(camfuse.layer_cams(model, x, on_nonfinite="skip", max_memory=limit), whole)


class Fickle(Wide):
    """Shrinks dark images before its layers see them."""

    def body(self, x: Tensor) -> Tensor:
        return super().body(x[..., ::2] if x.mean() < 0 else x)


def test_samples_that_take_different_ways_are_not_joined() -> None:
    model, x = make(Fickle), image().abs()
    x[3:] *= -1
    with pytest.raises(RuntimeError, match=r"the model runs other layers, or otherwise, for other"):
        camfuse.layer_cams(model, x, max_memory=limit_for(make(), x, 2))


class TestRefusals:
    def test_one_sample_that_does_not_fit_is_refused_before_any_work(
        self, batches: list[int]
    ) -> None:
        model, x = make(), image()
        message = (
            r"^max_memory: one sample at a time needs [\d.]+ kB besides the model and its inputs, "
            "but 20.0 kB are allowed; fewer layers, a later first layer or smaller inputs need less"
        )
        for given in (x, x[:1]):
            with pytest.raises(MemoryError, match=message):
                camfuse.layer_cams(model, given, max_memory="20kB")
        assert batches == []
        needed = predict_memory(model, x[:1], layers="conv").needed(1, first=True)
        camfuse.layer_cams(model, x[:1], layers="conv", max_memory=needed)
        assert batches == [1]

    def test_many_maps_that_do_not_fit_together_are_refused(self, batches: list[int]) -> None:
        model, x = make(), image(1).expand(10_000, -1, -1, -1)
        limit = 2 * predict_memory(model, x[:1]).first
        message = r"max_memory: the maps of all samples \(10000\), and a pass over one, need"
        with pytest.raises(MemoryError, match=message):
            camfuse.layer_cams(model, x, max_memory=limit)
        assert batches == []

    @pytest.mark.parametrize("max_memory", ["2 gigabytes", 1.5, "", True])
    def test_an_amount_that_is_none_is_refused(self, max_memory: object) -> None:
        with pytest.raises(ValueError, match="max_memory: expected bytes, or text like '2GB'"):
            camfuse.layer_cams(make(), image(), max_memory=max_memory)

    def test_a_graph_to_keep_is_not_split(self) -> None:
        with pytest.raises(ValueError, match="max_memory: expected None with create_graph=True"):
            camfuse.layer_cams(make(), image(), max_memory="1GB", create_graph=True)

    def test_classes_that_are_not_one_per_sample_are_refused_for_the_whole_batch(
        self, batches: list[int]
    ) -> None:
        model, x = make(), image()
        limit = limit_for(model, x, 2)
        for target in ([0, 1], torch.tensor([[0, 1]]), camfuse.Each([1, [0, 1]])):
            message = rf"target: expected one class or one per sample \({BATCH}\), got shape"
            with pytest.raises(ValueError, match=message):
                camfuse.layer_cams(model, x, target=target, max_memory=limit)
        assert batches == []

    def test_samples_that_depend_on_each_other_are_not_parted(self, batches: list[int]) -> None:
        model, x = make(), image()
        limit = limit_for(model, x, 2)
        model.norm.train()
        with pytest.raises(MemoryError, match=r"max_memory: .*cannot be split, for in training"):
            camfuse.layer_cams(model, x, allow_training=True, max_memory=limit)
        with pytest.raises(ValueError, match="layer 'norm' is in training mode"):
            camfuse.layer_cams(model, x, max_memory=limit)
        assert batches == []
        camfuse.layer_cams(model, x, allow_training=True, max_memory="1GB")
        assert batches == [BATCH]


class Choosy(Wide):
    """Looks at values, so that it cannot be rehearsed."""

    def body(self, x: Tensor) -> Tensor:
        return super().body(x if bool((x == x).all()) else -x)


class TestUnpredictable:
    def test_the_first_sample_is_measured(self, batches: list[int]) -> None:
        model, x = make(Choosy), image()
        whole = camfuse.layer_cams(model, x)
        with LiveBytes() as live:
            camfuse.layer_cams(make(Choosy), x[:1])
        del batches[:]
        limit = 3 * with_holes(live.peak)
        model = make(Choosy)
        assert_same(camfuse.layer_cams(model, x, max_memory=limit), whole)
        assert batches[0] == 1
        assert 1 < max(batches) <= 3
        assert sum(batches) == BATCH
        del batches[:]
        camfuse.layer_cams(model, x, max_memory=limit)  # now it is known
        assert batches[0] > 1

    @pytest.mark.parametrize("batch", [1, BATCH])
    def test_a_first_sample_that_did_not_fit_is_the_last(
        self, batches: list[int], batch: int
    ) -> None:
        with pytest.raises(MemoryError, match="max_memory: one sample at a time needs"):
            camfuse.layer_cams(make(Choosy), image(batch), max_memory="20kB")
        assert batches == [1]


class TestWithoutALimit:
    @pytest.fixture(autouse=True)
    def nothing_is_negligible(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(split, "_NEGLIGIBLE", 0)

    @staticmethod
    def leave(monkeypatch: pytest.MonkeyPatch, left: int | None) -> None:
        monkeypatch.setattr(split, "available_memory", lambda device: left)

    def test_a_pass_that_needs_more_than_is_left_is_refused(
        self, batches: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, x = make(), image()
        self.leave(monkeypatch, 50_000)
        message = (
            r"^inputs: maps of 7 samples need [\d.]+ MB besides the model and its inputs, but "
            r"50.0 kB are left; max_memory= runs a batch in parts, and smaller inputs"
        )
        with pytest.raises(MemoryError, match=message):
            camfuse.layer_cams(model, x)
        with pytest.raises(MemoryError, match="inputs: maps of 1 sample need"):
            camfuse.cam(model, x[:1].expand(1, -1, -1, -1).repeat(1, 1, 9, 9), "conv")
        assert batches == []

    def test_a_pass_that_was_seen_to_fit_is_never_refused(
        self, batches: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, x = make(), image()
        camfuse.layer_cams(model, x)
        camfuse.cam(model, x, "conv")
        self.leave(monkeypatch, 50_000)
        camfuse.layer_cams(model, x)
        camfuse.layer_cams(model, x[:5])
        camfuse.cam(model, x, "conv")
        assert len(batches) == 3
        with pytest.raises(MemoryError):
            camfuse.layer_cams(model, x, layers="all")
        with pytest.raises(MemoryError):
            camfuse.layer_cams(model, torch.cat([x, x]))

    @pytest.mark.parametrize("left", [None, 10**9])
    def test_nothing_is_rehearsed_where_it_could_not_matter(
        self, left: int | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.leave(monkeypatch, left)
        monkeypatch.setattr(split, "rehearse", pytest.fail)
        camfuse.layer_cams(make(), image())

    def test_the_machine_is_not_asked_about_small_passes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(split, "_NEGLIGIBLE", 2**28)
        monkeypatch.setattr(split, "available_memory", pytest.fail)
        camfuse.layer_cams(make(), image())

    def test_a_model_that_cannot_be_predicted_is_tried(
        self, batches: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.leave(monkeypatch, 50_000)
        camfuse.layer_cams(make(Choosy), image())
        assert batches == [BATCH]

    def test_bad_arguments_are_named_as_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.leave(monkeypatch, 50_000)
        with pytest.raises(ValueError, match=r"layers: no layer .* matches 'stme'"):
            camfuse.layer_cams(make(), image(), layers="stme")
        with pytest.raises(ValueError, match=r"model: expected a torch\.nn.Module"):
            camfuse.layer_cams("resnet50", image())


@pytest.mark.parametrize("limited", [False, True])
def test_more_than_the_machine_has_fails_at_once_and_allocates_nothing(limited: bool) -> None:
    code = f"""
import resource, torch, camfuse
from torch import nn
model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
camfuse.predict_memory(model, torch.zeros(1, 3, 8, 8))
images = torch.zeros(1).expand({1000 if limited else 10**6}, 3, 224, 224)
if {limited}:
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, resource.RLIM_INFINITY))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    camfuse.layer_cams(model, images)
except MemoryError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    message, grown = done.stdout.splitlines()
    assert "max_memory= runs a batch in parts" in message
    assert "are left" in message
    assert int(grown) < 2**16  # KiB


@pytest.mark.slow
def test_the_process_stays_near_the_limit_over_many_parts() -> None:
    """Loosely: a process has more in it than tensors."""
    pytest.importorskip("torchvision")
    code = """
import torch, torchvision
from pathlib import Path
import camfuse

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))

torch.manual_seed(0)
model = torchvision.models.resnet50(weights=None).eval()
x = torch.randn(12, 3, 160, 160)
with torch.no_grad():
    model(x[:1])  # what libraries allocate once
camfuse.predict_memory(model, x)
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
camfuse.layer_cams(model, x, max_memory="250MB")
print((status("VmHWM") - before) / 250e6)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.15


def test_maps_of_parts_agree_with_single_samples() -> None:
    model, x = make(), image()
    parts = camfuse.layer_cams(model, x, max_memory=limit_for(model, x, 3))
    for sample in range(BATCH):
        alone = camfuse.layer_cams(model, x[sample : sample + 1])
        for name in alone.names:
            assert relative_error(parts[name][sample : sample + 1], alone[name]) <= 1e-9, name
