"""sess(): against pytorch-grad-cam's, and what its windows do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pytorch_grad_cam import SESS, GradCAM, LayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

import camfuse
from camfuse import Contrast, Each, sess
from camfuse.targets import segmentation_mean
from oracle import relative_error

# The peer resizes and blurs with OpenCV, and adds 1e-7 to what it divides by.
TOLERANCE = 1e-5


class Small(nn.Module):
    """Takes images of any size; nothing is overwritten."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 5, stride=2, padding=2)
        self.second = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.classifier = nn.Linear(8, 5)
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        x = self.second(self.first(x).relu()).relu()
        return 4 * self.classifier(x.mean((2, 3)))


@pytest.fixture
def model() -> Small:
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def peers(model: Small, x: Tensor, targets: list[int] | None = None, **options: Any) -> Tensor:
    with SESS(model, [model.second], **options) as peer:
        chosen = None if targets is None else [ClassifierOutputTarget(one) for one in targets]
        return torch.from_numpy(peer(x, chosen))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"pool": "max"}, {"pool": "max"}),
        ({"smooth": False}, {"smooth": False}),
        ({"softmax": False}, {"use_softmax_scores": False}),
        ({"pre_filter": 0.4}, {"pre_filter_ratio": 0.4}),
        ({"threshold": 0.3}, {"theta": 0.3}),
        ({"step": 20}, {"step_size": 20}),
        ({"window": 40}, {"window_size": 40}),
        ({"method": "layercam"}, {"base_method": LayerCAM}),
    ],
    ids=lambda options: "-".join(map(str, options)) or "plain",
)
def test_it_is_the_peers(
    model: Small, x: Tensor, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    expected = peers(model, x, num_scales=4, **theirs)
    fused = sess(model, x, "second", scales=4, **ours)
    assert fused.shape == (2, 64, 64)
    assert (fused - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize("shape", [(48, 80), (80, 48)])
def test_images_need_not_be_square(model: Small, shape: tuple[int, int]) -> None:
    x = torch.randn(1, 3, *shape, generator=torch.Generator().manual_seed(2))
    expected = peers(model, x, [3], scales=[48, 63, 77])
    fused = sess(model, x, model.second, target=3, scales=[48, 63, 77])
    assert (fused - expected).abs().max() <= TOLERANCE


def test_by_default_there_are_twelve_scales(model: Small, x: Tensor) -> None:
    expected = peers(model, x[:1], [1])
    assert (sess(model, x[:1], "second", target=1) - expected).abs().max() <= TOLERANCE


def test_one_window_of_the_whole_image_is_cam(model: Small, x: Tensor) -> None:
    whole = sess(model, x, "second", scales=1, smooth=False)
    expected = camfuse.cam(model, x, "second")
    # Whose range was full before it was upsampled.
    low, high = expected.amin((1, 2), keepdim=True), expected.amax((1, 2), keepdim=True)
    assert relative_error(whole, (expected - low) / (high - low)) <= 1e-5


def test_every_sample_has_its_own_class_and_windows(model: Small, x: Tensor) -> None:
    together = sess(model, x, "second", target=[0, 3], scales=3, pre_filter=0.2)
    for i, target in enumerate([0, 3]):
        alone = sess(model, x[i : i + 1], "second", target=target, scales=3, pre_filter=0.2)
        assert relative_error(together[i], alone[0]) <= 1e-5


def test_the_class_is_that_of_the_whole_image(model: Small, x: Tensor) -> None:
    classes = model(x).argmax(1).tolist()
    found = sess(model, x, "second", scales=3)
    assert torch.equal(found, sess(model, x, "second", target=classes, scales=3))


def test_windows_go_through_the_model_in_batches(model: Small, x: Tensor) -> None:
    whole = sess(model, x, "second", target=1, scales=3)
    model.batches.clear()
    parts = sess(model, x, "second", target=1, scales=3, batch_size=5)
    # 1, 4 and 4 windows of each of the two, after the two themselves.
    assert model.batches == [2, 5, 5, 5, 3]
    assert relative_error(parts, whole) <= 1e-5


def test_filtered_windows_get_no_map(model: Small, x: Tensor) -> None:
    model.batches.clear()
    sess(model, x, "second", target=1, scales=3, pre_filter=0.5)
    assert model.batches == [2, 18, 10]


@pytest.mark.parametrize("target", [Contrast(2), lambda output: output[:, 1].exp()])
def test_other_targets_are_explained_in_every_window(model: Small, x: Tensor, target: Any) -> None:
    found = sess(model, x, "second", target=target, scales=2)
    assert found.amax((1, 2)).tolist() == [1, 1]


def test_a_functions_score_is_its_windows_weight(model: Small, x: Tensor) -> None:
    def probability(output: Tensor) -> Tensor:
        return output.softmax(1)[:, 1]

    expected = sess(model, x, "second", target=probability, scales=3, softmax=False)
    assert torch.equal(sess(model, x, "second", target=probability, scales=3), expected)


def test_windows_without_evidence_count_the_same(model: Small, x: Tensor) -> None:
    def nothing(output: Tensor) -> Tensor:
        return output[:, 1] - 1000

    def alike(output: Tensor) -> Tensor:
        return output[:, 1] - output[:, 1].detach() + 1

    expected = sess(model, x, "second", target=alike, scales=3)
    assert torch.equal(sess(model, x, "second", target=nothing, scales=3), expected)
    assert expected.max() == 1


def test_the_model_and_the_image_stay_as_they_were(model: Small, x: Tensor) -> None:
    before = x.clone()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    sess(model, x, "second", scales=2)
    assert torch.equal(x, before)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(one.grad is None and one.requires_grad for one in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_half_precision(model: Small, x: Tensor) -> None:
    found = sess(model.bfloat16(), x.bfloat16(), "second", target=1, scales=2)
    assert found.dtype == torch.float32
    expected = sess(model.float(), x.bfloat16().float(), "second", target=1, scales=2)
    assert (found - expected).abs().mean() <= 0.05


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pool": "sum"}, ValueError, "pool: expected 'mean' or 'max', got 'sum'"),
        ({"pre_filter": 1}, ValueError, r"pre_filter: expected a part in \[0, 1\), got 1"),
        ({"scales": 0}, ValueError, "scales: expected at least 1, got 0"),
        ({"scales": []}, ValueError, "scales: expected at least one, got none"),
        ({"scales": [63]}, ValueError, "scales: expected none below the window's side 64, got 63"),
        ({"scales": [64.5]}, TypeError, "scales: expected a whole number of pixels, got 64.5"),
        ({"scales": "all"}, TypeError, "scales: expected a whole number, got 'all'"),
        ({"window": 65}, ValueError, "scales: .* window"),
        ({"window": 0}, ValueError, "window: expected at least 1, got 0"),
        ({"step": 0}, ValueError, "step: expected at least 1, got 0"),
        ({"batch_size": 0}, ValueError, "batch_size: expected at least 1, got 0"),
        ({"method": "sess"}, ValueError, "method: sess has no map per layer"),
        ({"target": Each([0, 1])}, ValueError, "target: expected one target, got 2"),
        (
            {"target": segmentation_mean(0, torch.ones(64, 64))},
            ValueError,
            "target: expected none that names places",
        ),
        ({"target": 9}, ValueError, r"target: expected a class in 0\.\.4, got 9"),
    ],
)
def test_what_does_not_fit_is_named(
    model: Small, x: Tensor, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    options = {"scales": [64]} | options if "window" in options else options
    with pytest.raises(error, match=message):
        sess(model, x, "second", **options)


def test_an_image_must_be_one(model: Small, x: Tensor) -> None:
    with pytest.raises(ValueError, match=r"inputs: expected images \[B, C, H, W\], got shape"):
        sess(model, x[0], "second")
    with pytest.raises(TypeError, match="inputs: expected Tensor, got list"):
        sess(model, [x], "second")
    with pytest.raises(ValueError, match="inputs: expected more than 5 pixels"):
        sess(model, x[..., :5], "second")


def test_a_layer_without_a_map_says_why(model: Small, x: Tensor) -> None:
    with pytest.raises(ValueError, match="classifier"):
        sess(model, x, "classifier", scales=1)


def test_as_a_method_of_layers_it_says_what_to_call(model: Small, x: Tensor) -> None:
    with pytest.raises(ValueError, match=r"method: sess .*call camfuse.sess\(model"):
        camfuse.layer_cams(model, x, method="sess")


def test_the_peers_base_is_gradcam(model: Small, x: Tensor) -> None:
    default = peers(model, x, [0, 1], num_scales=2)
    assert torch.equal(default, peers(model, x, [0, 1], num_scales=2, base_method=GradCAM))
