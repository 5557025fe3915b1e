"""Scores of perturbed images: the targets of their samples, in passes that mix them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

import camfuse
from camfuse.metrics.scoring import Scorer


class Small(nn.Module):
    """A convolution and a batch norm, so that passes can be made faster; counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 5)
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes = [*self.sizes, len(x)]
        return self.head(self.norm(self.conv(x)).relu_().mean((2, 3)))


@pytest.fixture
def model() -> Small:
    return Small().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


SAMPLES = torch.tensor([2, 0, 1, 1, 0, 2, 2])


def perturbed(images: Tensor) -> Tensor:
    noise = torch.randn(len(SAMPLES), *images.shape[1:], generator=torch.Generator().manual_seed(2))
    return images[SAMPLES] + noise


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_each_image_is_scored_for_the_targets_of_its_sample(
    model: Small, images: Tensor, batch_size: int
) -> None:
    targets = torch.stack([model(images).argmax(1), torch.tensor([0, 3, 1])])
    scorer = Scorer(model, images, camfuse.Each([None, [0, 3, 1]]), batch_size=batch_size)
    with scorer.session():
        scores = scorer(perturbed(images), SAMPLES)
    probabilities = model(perturbed(images)).softmax(1)
    expected = torch.stack([probabilities.gather(1, t[SAMPLES, None])[:, 0] for t in targets])
    assert torch.equal(scorer.targets, targets)
    torch.testing.assert_close(scores.float(), expected, atol=1e-6, rtol=0)
    clean = model(images).softmax(1).gather(1, targets.T).T
    torch.testing.assert_close(scorer.unperturbed.float(), clean, atol=1e-6, rtol=0)


def test_functions_see_copies_of_one_sample_and_are_scored_by_what_they_return(
    model: Small, images: Tensor
) -> None:
    seen = Counter[int]()

    def second(output: Tensor) -> Tensor:
        seen[len(output)] += 1
        return output[:, 2]

    with pytest.raises(ValueError, match="target: a function of the output has no probability"):
        Scorer(model, images, second)
    scorer = Scorer(model, images, camfuse.Each([second, camfuse.Contrast()]), output="logit")
    with scorer.session():
        scores = scorer(perturbed(images), SAMPLES)
    assert seen == {1: 3, 2: 2, 3: 1}
    torch.testing.assert_close(scores[0].float(), model(perturbed(images))[:, 2])


def test_passes_count_what_they_must_and_leave_the_model_alone(
    model: Small, images: Tensor
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    given = perturbed(images)
    kept = given.clone()
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    scorer = Scorer(model, images, batch_size=4)
    assert sizes == [3]
    with scorer.session() as refusals:
        assert refusals == ()
        sizes.clear()
        scorer(given, SAMPLES)
    assert sizes == [4, 3]
    assert model.sizes == []
    assert torch.equal(given, kept)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert "forward" not in vars(model.conv)
    assert all(one.requires_grad for one in model.parameters())


def test_a_model_may_overwrite_what_it_is_given(images: Tensor) -> None:
    class Overwriting(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mul_(2))

    given, before = perturbed(images), images.clone()
    kept = given.clone()
    scorer = Scorer(Overwriting().eval(), images, [1, 2, 3])
    with scorer.session():
        scores = scorer(given, SAMPLES)
    assert torch.equal(given, kept)
    assert torch.equal(images, before)
    doubled = Scorer(Small().eval(), 2 * images, [1, 2, 3])
    with doubled.session():
        torch.testing.assert_close(scores, doubled(2 * given, SAMPLES))


def test_another_precision_says_how_far_it_is_off(model: Small, images: Tensor) -> None:
    exact, coarse = (Scorer(model, images, precision=one) for one in (None, torch.bfloat16))
    found = []
    for scorer in (exact, coarse):
        with scorer.session():
            found.append(scorer(perturbed(images), SAMPLES))
    assert exact.deviation == 0
    assert 0 < float((found[0] - found[1]).abs().max()) <= coarse.deviation + 1e-6 < 1e-2


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (nn.Softmax(1), "output: the model returns probabilities already"),
        (nn.Linear(5, 1), "output: the model returns one number per image"),
    ],
)
def test_what_is_no_logit_is_said(
    model: Small, images: Tensor, head: nn.Module, message: str
) -> None:
    other = nn.Sequential(model, head).eval()
    with pytest.raises(ValueError, match=message):
        Scorer(other, images)
    assert Scorer(other, images, output="logit").unperturbed.shape == (1, 3)


def test_bad_input_is_named(model: Small, images: Tensor) -> None:
    with pytest.raises(ValueError, match="training mode"):
        Scorer(Small(), images)
    with pytest.raises(ValueError, match=r"images: expected floating images \(B, C, H, W\)"):
        Scorer(model, images[0])
    with pytest.raises(ValueError, match="output: expected 'probability' or 'logit'"):
        Scorer(model, images, output="odds")
    with pytest.raises(ValueError, match="images: sample 1 is not finite"):
        Scorer(model, torch.where(torch.arange(3)[:, None, None, None] == 1, torch.nan, images))
    scorer = Scorer(model, images)
    with pytest.raises(ValueError, match=r"images: expected \(N, 3, 8, 8\) and N samples"):
        scorer(images, SAMPLES)
    with torch.no_grad():
        model.head.bias.fill_(torch.inf)
    with pytest.raises(FloatingPointError, match="a score of sample 0 is not finite"):
        Scorer(model, images)
