"""factorize(): against scikit-learn, and concepts that were planted."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_grad_cam.feature_factorization.deep_feature_factorization import dff
from sklearn.decomposition import NMF
from torch import Tensor, nn

import camfuse
from camfuse import factorize


class Backbone(nn.Module):
    """A few convolutions and a classifier over the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 5, stride=2, padding=2)
        self.relu = nn.ReLU()
        self.late = nn.Conv2d(16, 24, 3, stride=2, padding=1)
        self.classifier = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.late(self.relu(self.conv(x))).mean((2, 3)))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices are so small that threads spend their time on waiting for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def model() -> Backbone:
    torch.manual_seed(0)
    return Backbone().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


class Planted(nn.Module):
    """A layer that returns a given activation."""

    def __init__(self, activation: Tensor) -> None:
        super().__init__()
        self.activation = activation
        channels = activation.shape[1]
        self.layer = nn.Conv2d(channels, channels, 1, bias=False)
        self.layer.weight.data = torch.eye(channels)[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.activation[: len(x)]).mean((2, 3))


CONCEPTS = torch.tensor([[1.0, 0, 2, 0, 0, 1], [0, 3, 0, 0, 1, 1], [0, 0, 1, 4, 0, 2]])


def planted() -> tuple[Planted, Tensor]:
    """Three concepts, each alone somewhere, and their maps ``[2, 3, 12, 10]``."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 3, 12, 10, generator=generator)
    for k in range(3):
        others = [other for other in range(3) if other != k]
        maps[:, others, :, 2 * k : 2 * k + 2] = 0
    maps[1, 2] = 0  # not in the second image
    return Planted(torch.einsum("bkhw,kc->bchw", maps, CONCEPTS)).eval(), maps


def best_match(ours: Tensor, theirs: Tensor) -> float:
    """The lowest correlation of maps ``[K, n]`` with those of others, in the best order."""
    count = len(ours)
    table = np.corrcoef(ours.numpy(), theirs.numpy())[:count, count:]
    return max(
        min(table[k, other] for k, other in enumerate(order))
        for order in permutations(range(count))
    )


def activation(model: Backbone, name: str, x: Tensor) -> Tensor:
    found: list[Tensor] = []
    handle = getattr(model, name).register_forward_hook(lambda *args: found.append(args[2]))
    model(x)
    handle.remove()
    return found[0].detach()


def reconstruction(found: camfuse.Factorization) -> Tensor:
    return torch.einsum("bkhw,kc->bchw", found.maps, found.concepts) + found.offset[:, None, None]


def test_planted_concepts_are_found() -> None:
    model, maps = planted()
    found = factorize(model, torch.zeros(2, 3, 8, 8), "layer", concepts=3, iterations=500)
    assert found.layer == "layer"
    assert found.error < 0.01
    matches = best_match(found.maps.transpose(0, 1).flatten(1), maps.transpose(0, 1).flatten(1))
    assert matches > 0.99
    similar = nn.functional.cosine_similarity(found.concepts[:, None], CONCEPTS[None], dim=-1)
    assert similar.amax(1).min() > 0.99
    assert found.maps[1].amax((1, 2)).min() < 0.05


def test_maps_are_scikit_learns() -> None:
    model, _ = planted()
    found = factorize(model, torch.zeros(2, 3, 8, 8), "layer", concepts=3, iterations=500)
    _, peers = dff(model.activation.numpy().copy(), n_components=3)
    ours = found.maps.transpose(0, 1).flatten(1)
    assert best_match(ours, torch.from_numpy(peers).transpose(0, 1).flatten(1)) > 0.98


@pytest.mark.parametrize("concepts", [1, 3, 8])
def test_what_is_left_over_is_as_little_as_scikit_learn_leaves(
    model: Backbone, x: Tensor, concepts: int
) -> None:
    matrix = activation(model, "relu", x).movedim(1, -1).reshape(-1, 16).numpy()
    peer = NMF(concepts, init="random", random_state=0, max_iter=500)
    left = peer.fit_transform(matrix)
    expected = np.linalg.norm(matrix - left @ peer.components_) / np.linalg.norm(matrix)
    found = factorize(model, x, model.relu, concepts=concepts, iterations=500)
    assert found.error == pytest.approx(expected, rel=0.03)
    A = activation(model, "relu", x)
    assert found.error == pytest.approx(float((A - reconstruction(found)).norm() / A.norm()))


def test_negative_activations_are_shifted_up(model: Backbone, x: Tensor) -> None:
    A = activation(model, "conv", x)
    lowest = A.amin((0, 2, 3))
    assert lowest.max() < 0
    found = factorize(model, x, "conv", concepts=6)
    assert torch.equal(found.offset, lowest)
    shifted = A - lowest[:, None, None]
    left_over = float((A - reconstruction(found)).norm() / shifted.norm())
    assert found.error == pytest.approx(left_over, rel=1e-4)
    assert torch.equal(factorize(model, x, "relu").offset, torch.zeros(16))


def test_maps_are_at_most_one_and_concepts_in_order(model: Backbone, x: Tensor) -> None:
    found = factorize(model, x, "relu", concepts=4)
    assert found.maps.shape == (2, 4, 32, 32)
    assert found.concepts.shape == (4, 16)
    assert found.maps.min() >= 0
    assert found.concepts.min() >= 0
    assert found.maps.amax((0, 2, 3)).tolist() == [1, 1, 1, 1]
    shares = (found.maps.sum((0, 2, 3)) * found.concepts.sum(1)).tolist()
    assert shares == sorted(shares, reverse=True)


def test_a_classifier_is_asked_about_each_concept(model: Backbone, x: Tensor) -> None:
    found = factorize(model, x, "late", concepts=3, classifier=model.classifier)
    assert found.scores is not None
    assert torch.equal(found.scores, model.classifier(found.concepts + found.offset).detach())
    assert not found.scores.requires_grad
    assert factorize(model, x, "late", concepts=3).scores is None


def test_a_seed_gives_the_same_and_another_does_not(model: Backbone, x: Tensor) -> None:
    state = torch.get_rng_state()
    first, again, other = (factorize(model, x, "relu", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.maps, again.maps)
    assert not torch.equal(first.maps, other.maps)


def test_iterations_are_bounded_and_end_early(model: Backbone, x: Tensor) -> None:
    assert factorize(model, x, "relu", iterations=7).iterations == 7
    loose = factorize(model, x, "relu", tolerance=0.5)
    strict = factorize(model, x, "relu", tolerance=0, iterations=50)
    assert loose.iterations == 20
    assert strict.iterations == 50
    assert strict.error < loose.error


def test_no_class_is_asked_for(x: Tensor) -> None:
    class Boxes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
            return [{"boxes": one} for one in self.conv(x)]

    assert factorize(Boxes().eval(), x, "conv", concepts=2).maps.shape == (2, 2, 62, 62)


def test_precision_is_that_of_the_activations_or_f32(model: Backbone, x: Tensor) -> None:
    assert factorize(model.double(), x.double(), "relu").maps.dtype == torch.float64
    half = factorize(model.bfloat16(), x.bfloat16(), "late", classifier=model.classifier)
    assert half.maps.dtype == torch.float32
    assert half.scores is not None


def test_a_layer_of_zeros_has_empty_concepts() -> None:
    model = Planted(torch.zeros(1, 4, 3, 3)).eval()
    found = factorize(model, torch.zeros(1, 3, 8, 8), "layer")
    assert found.error == 0
    assert not found.maps.any()
    assert not found.concepts.any()


def test_the_model_stays_as_it_was(model: Backbone, x: Tensor) -> None:
    x.requires_grad_()
    found = factorize(model, x, "late", classifier=model.classifier)
    assert not found.maps.requires_grad
    assert x.grad is None
    assert all(one.grad is None and one.requires_grad for one in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"concepts": 0}, ValueError, "concepts: expected at least 1, got 0"),
        ({"concepts": 2.5}, TypeError, "concepts: expected a whole number, got 2.5"),
        ({"iterations": 0}, ValueError, "iterations: expected at least 1, got 0"),
        ({"tolerance": float("nan")}, ValueError, "tolerance: expected at least 0, got nan"),
        (
            {"classifier": lambda vectors: vectors.sum()},
            ValueError,
            r"classifier: expected it to return \[5, classes\] for \[5, 16\], got \(\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(
    model: Backbone, x: Tensor, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        factorize(model, x, "relu", **options)


def test_what_is_not_finite_is_named(model: Backbone, x: Tensor) -> None:
    x[0, 0, 0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="relu: its activation is not finite"):
        factorize(model, x, "relu")


def test_as_a_method_of_layers_it_says_what_to_call(model: Backbone, x: Tensor) -> None:
    with pytest.raises(ValueError, match=r"method: dff .*call camfuse.factorize\(model"):
        camfuse.layer_cams(model, x, method="dff")
