"""Predicted memory: counted by hand, against real tensors, and with nothing left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache

import pytest
import torch
from torch import Tensor, nn

import camfuse
from camfuse.capture import capture
from camfuse.collect import MapCollector
from camfuse.memory import LiveBytes, predict_memory, rehearse, with_holes
from camfuse.methods import find_methods
from small_models import (
    Branches,
    DeadEnd,
    Head,
    Moody,
    OverwrittenInput,
    OverwrittenSigmoid,
    OverwrittenView,
    Residual,
    SkipOverIdentity,
)

PLANE = 4 * 64 * 64 * 4  # bytes of one activation [1, 4, 64, 64]
IMAGE = 3 * 64 * 64 * 4
MAPS = 2 * 64 * 64 * 4  # a map, and what its noise is measured by
SMALL_CHANGE = 512  # scores, ranges, and what hangs on them


def chain(*modules: nn.Module) -> nn.Module:
    """A convolution, where the graph begins, and what follows."""
    return nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), *modules).eval()


def image(batch: int = 1, size: int = 64) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def peaks(model: nn.Module, x: Tensor, *, targets: int = 1, layers: object = "leaf") -> list[int]:
    found, _ = rehearse(model, x, len(x), find_methods("gradcam"), layers, targets, None)
    return found


def assert_bytes(got: int, counted: int) -> None:
    assert 0 <= got - counted < SMALL_CHANGE, f"{got - counted} bytes more than counted"


def score(output: Tensor) -> Tensor:
    return output.flatten(1)[:, 0]


class TestLiveBytes:
    def test_counts_what_is_alive_and_the_most_there_was(self) -> None:
        with LiveBytes() as live:
            a = torch.zeros(100)
            b = a + 1
            assert live.now == 800
            del a
            assert (live.now, live.peak) == (400, 800)
        del b
        assert (live.now, live.peak) == (0, 800)

    def test_views_and_in_place_operations_add_nothing(self) -> None:
        given = torch.zeros(10, 10)
        with LiveBytes() as live:
            given.add_(1).view(100)[10:].mul_(2).unsqueeze(0).detach()
            assert live.peak == 0
            given.clone().t().reshape(-1)  # the clone, and a copy in another order
            assert live.peak == 800

    def test_sees_what_autograd_keeps(self) -> None:
        x = torch.zeros(100, requires_grad=True)
        with LiveBytes() as live:
            y = x.exp().exp().sum()
            assert live.now == 2 * 400 + 4
            y.backward()
            del y
            assert live.now == 400  # the gradient


class TestPeaks:
    def test_all_activations_are_there_when_the_gradients_begin(self) -> None:
        first, later = peaks(chain(nn.Tanh(), nn.Tanh(), nn.Tanh()), image())
        # The convolution's output and its root, three outputs that tanh saves, two gradients; and
        # in a first pass, a copy of each output but the last, whose gradient has come.
        assert_bytes(later, IMAGE + (2 + 3 + 2) * PLANE + MAPS)
        assert_bytes(first, IMAGE + (2 + 3 + 2 + 2) * PLANE + MAPS)

    def test_later_passes_copy_what_the_model_overwrites(self) -> None:
        model = chain(nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True), nn.Tanh())
        later = peaks(model, image())[1]
        # The second convolution's output, overwritten by ReLU, a copy of it, and that of tanh.
        assert_bytes(later, IMAGE + (2 + 3 + 2) * PLANE + MAPS)

    def test_nothing_is_kept_before_the_first_selected_layer(self) -> None:
        model = chain(nn.Tanh(), nn.Tanh(), nn.Tanh(), nn.Tanh())
        # Output and root of the last layer, its input on the way there, and one gradient.
        assert_bytes(peaks(model, image(), layers="4")[1], IMAGE + 3 * PLANE + MAPS)

    def test_several_targets_keep_the_graph(self) -> None:
        model = chain(nn.Tanh(), nn.Tanh(), nn.Tanh())
        first, _ = peaks(model, image(), targets=2)
        # What the first target used stays for the second: when the last gradient of the first is
        # made, three layers have their maps.
        assert_bytes(first, IMAGE + (2 + 3 + 3 + 2) * PLANE + 3 * MAPS)

    @pytest.mark.parametrize(
        "kind", [Branches, SkipOverIdentity, Residual, OverwrittenView, Moody, DeadEnd]
    )
    @pytest.mark.parametrize("batch", [1, 3])
    def test_fake_passes_occupy_what_real_ones_do(self, kind: type[nn.Module], batch: int) -> None:
        torch.manual_seed(0)
        model, x = kind().eval(), image(batch)
        expected = peaks(model, x)
        assert expected == peaks(model, x)  # nothing was learned about the model
        for peak in expected:
            with LiveBytes() as live:
                capture(model, x, MapCollector(find_methods("gradcam"), 0), target=score)
            assert abs(peak - live.peak) < SMALL_CHANGE


def unusual(kind: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model, x = Residual().eval(), image(2)
    if kind == "training":
        return model.train(), x
    if kind == "compiled":
        return torch.compile(model, backend="eager"), x
    if kind == "wrapped":
        return nn.DataParallel(model), x
    if kind == "channels_last":
        channels_last = torch.channels_last
        return model.to(memory_format=channels_last), x.to(memory_format=channels_last)
    return model.bfloat16(), x.bfloat16()


class TestPrediction:
    @pytest.mark.parametrize("kind", ["training", "compiled", "wrapped", "channels_last", "bf16"])
    def test_unusual_models_are_predicted(self, kind: str) -> None:
        model, x = unusual(kind)
        predicted = predict_memory(model, x)
        for expected in (predicted.first, predicted.later):
            with LiveBytes() as live:
                camfuse.layer_cams(model, x, allow_training=True)
            assert expected == pytest.approx(with_holes(live.peak), rel=0.03)

    def test_predicting_under_autocast_leaves_its_cache_of_weights_alone(self) -> None:
        model, x = Residual().eval(), image()
        with torch.autocast("cpu", torch.bfloat16):
            predicted = predict_memory(model, x)
            stack = camfuse.layer_cams(model, x)
        assert predicted.later < predict_memory(model, x).later
        assert bool(stack.flat.isfinite().all())

    def test_activations_of_half_the_size_need_half(self) -> None:
        whole = predict_memory(Residual().eval(), image(2))
        half = predict_memory(Residual().bfloat16().eval(), image(2).bfloat16())
        assert half.model < whole.model
        assert half.later / whole.later == pytest.approx(0.5, abs=0.1)  # maps stay f32

    def test_state_is_counted_once_where_it_is_shared(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)).eval()
        assert predict_memory(model, image()).model == 2 * (9 + 3) * 4
        model[1].weight = model[0].weight
        assert predict_memory(model, image()).model == (9 + 3 + 3) * 4

    @pytest.mark.parametrize("batch", [1, 4])
    def test_it_grows_with_the_batch_by_what_a_sample_needs(self, batch: int) -> None:
        model = chain(nn.Tanh(), nn.Tanh())
        predicted = predict_memory(model, image(batch))
        for count in (1, 2, 3, 9):
            direct = predict_memory(model, image(count))
            assert predicted.needed(count, first=True) == pytest.approx(direct.first, rel=1e-3)
            assert predicted.needed(count, first=False) == pytest.approx(direct.later, rel=1e-3)
        assert_bytes(predicted.maps_per_sample, 3 * MAPS)

    def test_a_model_made_for_one_size_of_batch_is_predicted_for_it(self) -> None:
        class Fixed(Head):
            def __init__(self) -> None:
                super().__init__(4)
                self.conv = nn.Conv2d(3, 4, 1)

            def body(self, x: Tensor) -> Tensor:
                return self.conv(x).view(3, 4, 32, 128)

        predicted = predict_memory(Fixed().eval(), image(3))
        assert predicted.first_per_sample == pytest.approx(predicted.first / 3, rel=1e-3)

    def test_inputs_larger_than_any_machine_cost_nothing(self) -> None:
        huge = torch.zeros(1).expand(10**6, 3, 1024, 1024)
        assert predict_memory(chain(nn.Tanh()), huge).first > 50e12

    def test_more_methods_and_targets_need_more(self) -> None:
        model = Residual().eval()
        plain = predict_memory(model, image())
        several = predict_memory(model, image(), method=list(camfuse.METHODS))
        assert several.first > plain.first
        assert several.maps_per_sample > 3 * plain.maps_per_sample
        assert predict_memory(model, image(), targets=2).later > plain.later

    def test_a_layer_without_a_known_layout_counts_where_it_is_reshaped(self) -> None:
        class Sorted(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.sort(-1).values

        model = nn.Sequential(nn.Conv2d(3, 4, 1), Sorted(), nn.Tanh()).eval()

        def reshape(x: Tensor) -> Tensor:
            return x.view(-1, 4, 64, 64)

        plain, reshaped = (predict_memory(model, image(), reshape=r) for r in (None, reshape))
        assert reshaped.maps_per_sample > plain.maps_per_sample

    def test_what_needs_values_is_refused_with_the_reason(self) -> None:
        class Choosy(Residual):
            def body(self, x: Tensor) -> Tensor:
                return super().body(x if x.sum() > 0 else -x)

        with pytest.raises(ValueError, match=r"model: its memory cannot be predicted.*: "):
            predict_memory(Choosy().eval(), image())

    def test_bad_arguments_are_named(self) -> None:
        model = Residual().eval()
        with pytest.raises(ValueError, match=r"layers: no layer .* matches 'stme'"):
            predict_memory(model, image(), layers="stme")
        with pytest.raises(ValueError, match="targets: expected a number of targets, got 0"):
            predict_memory(model, image(), targets=0)
        with pytest.raises(ValueError, match=r"model: expected a torch\.nn.Module"):
            predict_memory("resnet50", image())
        with pytest.raises(ValueError, match="method: expected one of"):
            predict_memory(model, image(), method="gradcma")


class Caching(Residual):
    """Keeps what it computed: in an attribute, a list and a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.scale: Tensor | None = None
        self.seen: list[Tensor] = []
        self.by_size: dict[int, Tensor] = {}

    def body(self, x: Tensor) -> Tensor:
        if self.scale is None:
            self.scale = torch.ones(3, 1, 1)
        self.seen.append(x)
        ones = self.by_size.setdefault(x.shape[-1], torch.ones(x.shape[-1]))
        return super().body(x * self.scale * ones * ramp(x.shape[-1]))


@lru_cache
def ramp(size: int) -> Tensor:
    """What a library may remember outside the model."""
    return torch.linspace(0, 1, size)


def break_down(x: Tensor) -> Tensor:
    raise RuntimeError("broken")


@pytest.mark.parametrize("kind", [Residual, Caching, OverwrittenInput, OverwrittenSigmoid])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("broken", [False, True])
def test_the_model_is_left_as_it_was(
    kind: type[nn.Module], training: bool, broken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = kind().train(training)
    if broken:
        monkeypatch.setattr(model.classifier, "forward", break_down)

    def state() -> list[object]:
        tensors = [*model.parameters(), *model.buffers()]
        hooks = [len(module._forward_hooks) for module in model.modules()]
        marks = [(id(one), one._version, one.requires_grad, one.grad is None) for one in tensors]
        kept = [
            getattr(model, name, None) and len(getattr(model, name)) for name in ("seen", "by_size")
        ]
        attributes = {name: id(value) for name, value in vars(model).items()}
        modes = torch.is_grad_enabled(), torch.utils._python_dispatch._len_torch_dispatch_stack()
        values = [one.detach().clone().tolist() for one in tensors]
        return [hooks, marks, kept, attributes, modes, values, torch.get_rng_state().tolist()]

    before = state()
    with torch.no_grad():
        if broken:
            with pytest.raises(ValueError, match=r"cannot be predicted.*broken"):
                predict_memory(model, image())
        else:
            predict_memory(model, image())
    assert state() == before
    monkeypatch.undo()
    camfuse.layer_cams(model, image(), allow_training=True)  # no fake tensor lies in wait


def test_predictions_need_no_memory_and_agree_with_the_process() -> None:
    """Loosely: a process has more in it than tensors."""
    code = """
import json, torch
from pathlib import Path
from torch import nn
import camfuse

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))

def peak(work):
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    result = work()
    return result, status("VmHWM") - before

layers = [layer for _ in range(8) for layer in (nn.Conv2d(16, 16, 3, padding=1), nn.Tanh())]
model = nn.Sequential(nn.Conv2d(3, 16, 3), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
small, x = torch.randn(1, 3, 32, 32), torch.randn(2, 3, 256, 256)
camfuse.layer_cams(model, small)  # what libraries allocate once
camfuse.predict_memory(model, small)
predicted, took = peak(lambda: camfuse.predict_memory(model, x))
_, measured = peak(lambda: camfuse.layer_cams(model, x))
print(json.dumps([predicted.later, took, measured]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    predicted, took, measured = json.loads(done.stdout)
    assert predicted > 1.5e8
    assert 0.6 < predicted / measured < 1.6
    assert took < predicted / 4
