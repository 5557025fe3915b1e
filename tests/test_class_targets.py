"""Contrast and ReST as targets, and finercam: against the peers, and beside other methods."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pytorch_grad_cam import FinerCAM as PeerFinerCAM
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputReST, FinerWeightedTarget
from torch import Tensor, nn
from torchcam.methods import FinerCAM as TorchcamFinerCAM

import camfuse
from camfuse import Contrast, Each, ReST
from camfuse.class_names import check_target, resolve_names
from camfuse.targets import count_targets, fixed, on_host, part_of_target, resolve_targets
from oracle import autograd_pairs, relative_error
from small_models import Head

OUTPUT = torch.tensor([[0.0, 5.0, 4.5, 1.0, 9.0], [3.0, 2.0, 2.0, -4.0, 3.5]])


class Plain(Head):
    """Nothing is overwritten, for peers that keep what a layer returned."""

    def __init__(self) -> None:
        super().__init__(6)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.conv = nn.Conv2d(4, 6, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        return self.conv(self.stem(x).relu()).relu()


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Plain().double().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 3, 9, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def scores_of(target: object, output: Tensor = OUTPUT) -> list[list[float]]:
    return torch.stack(resolve_targets(target, output, len(output)).values).tolist()


def test_a_contrast_takes_off_the_mean_of_the_nearest_others() -> None:
    # Nearest to 5 are 4.5 and, before 9 as far away, 1; to 2 the other 2 and 3.
    assert scores_of(Contrast(1, others=2)) == [[5 - (4.5 + 1) / 2, 2 - (2 + 3) / 2]]
    assert scores_of(Contrast(None, others=1)) == [[9 - 5, 3.5 - 3]]
    assert scores_of(Contrast([2, 0], others=1, alpha=0.5)) == [[4.5 - 2.5, 3 - 1.75]]


def test_a_contrast_with_classes_takes_off_their_mean() -> None:
    assert scores_of(Contrast(1, others=[0, 3])) == [[5 - 0.5, 2 + 0.5]]
    assert scores_of(Contrast(1, others=torch.tensor([0, 3]))) == [[5 - 0.5, 2 + 0.5]]


def test_the_target_is_never_among_the_others() -> None:
    assert scores_of(Contrast([0, 4], others=[0, 4])) == [[0 - 9, 3.5 - 3]]
    assert scores_of(Contrast([4, 4], others=99))[0][0] == 9 - (0 + 5 + 4.5 + 1) / 4
    # of equal logits, too
    assert scores_of(Contrast(1, others=1), torch.ones(1, 3)) == [[0]]
    # and where nothing else was given, the class is explained alone
    assert scores_of(Contrast(None, others=[4])) == [[9, 3.5]]


def test_rest_is_the_logit_plus_the_logarithm_of_the_probability() -> None:
    (scores,) = scores_of(ReST([1, 3]))
    probabilities = OUTPUT.double().softmax(1)
    expected = [5 + probabilities[0, 1].log(), -4 + probabilities[1, 3].log()]
    assert scores == pytest.approx([float(one) for one in expected])
    peer = [float(ClassifierOutputReST(c)(row)) for c, row in zip([1, 3], OUTPUT, strict=True)]
    assert scores == pytest.approx(peer)


@pytest.mark.parametrize("make", [Contrast, ReST])
def test_class_and_probability_are_those_of_the_class_itself(make: Any) -> None:
    found = resolve_targets(Each([make(None), make([1, 2]), 0]), OUTPUT, 2)
    plain = resolve_targets(Each([None, [1, 2], 0]), OUTPUT, 2)
    assert torch.equal(found.indices, plain.indices)
    assert torch.equal(found.probabilities, plain.probabilities)
    assert found.values[0].shape == (2,)


@pytest.mark.parametrize("make", [Contrast, ReST])
def test_of_several_classes_it_is_several_targets(make: Any) -> None:
    several = make(Each([None, Each([2]), torch.tensor([[0, 1], [2, 3]])]))
    assert count_targets(several) == 4
    spelled = Each([make(None), make(2), make([0, 1]), make([2, 3])])
    assert scores_of(several) == scores_of(spelled)


def test_arg_max_stays_what_it_was_found_to_be() -> None:
    target = Each([Contrast(None, others=[0]), ReST(None), None, lambda out: out[:, 0]])
    found = resolve_targets(target, OUTPUT, 2)
    held = fixed(target, found.indices)
    other = OUTPUT.flip(1)
    assert scores_of(held, other)[:3] == scores_of(
        Each([Contrast([4, 4], others=[0]), ReST([4, 4]), [4, 4]]), other
    )


def test_parts_of_a_batch_have_their_own_classes() -> None:
    target = on_host(Each([Contrast(torch.tensor([1, 3]), others=2), ReST([0, 2])]))
    part = part_of_target(target, 2, slice(1, 2))
    assert scores_of(part, OUTPUT[1:]) == [one[1:] for one in scores_of(target)]


def test_names_of_classes_stand_for_their_indices() -> None:
    classes = ["cat", "dog", "newt", "owl", "fox"]
    target = Each([Contrast("Dog", others=["cat", 3]), ReST("newt")])
    check_target(target)
    assert scores_of(resolve_names(target, classes)) == scores_of(
        Each([Contrast(1, others=[0, 3]), ReST(2)])
    )
    with pytest.raises(ValueError, match="no class is called 'dgo'; close: dog"):
        resolve_names(Contrast(1, others=["dgo"]), classes)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Contrast(lambda out: out), ValueError, "target: Contrast needs a class, got a"),
        (lambda: ReST(Contrast(1)), ValueError, "target: ReST needs a class, got a Contrast"),
        (lambda: Contrast(others=0), ValueError, "others: expected at least 1, got 0"),
        (lambda: Contrast(others=[]), ValueError, "others: expected a class other than the target"),
        (lambda: Contrast(1, others=[1]), ValueError, "others: expected a class other than the"),
        (lambda: Contrast(others=[1, 1]), ValueError, "others: expected each class once"),
        (lambda: Contrast(others=1.5), TypeError, "others: expected a number or a sequence"),
        (lambda: Contrast(others="cat"), TypeError, "others: expected a number or a sequence"),
        (lambda: Contrast(others=[1.5]), TypeError, "others: expected classes, got 1.5"),
        (lambda: Contrast(alpha=-1), ValueError, "alpha: expected a finite number of at least 0"),
        (lambda: Contrast(alpha=float("nan")), ValueError, "alpha: expected a finite number"),
        (lambda: Contrast(alpha="1"), TypeError, "alpha: expected a number, got '1'"),
        (lambda: scores_of(Contrast(others=[5])), ValueError, r"others: .* 0\.\.4, got 5"),
        (lambda: scores_of(Contrast(others=[-1])), ValueError, r"others: .* 0\.\.4, got -1"),
        (lambda: scores_of(Contrast(others=["cat"])), ValueError, r"others: .* got 'cat'"),
        (lambda: scores_of(Contrast(7)), ValueError, r"target: expected a class in 0\.\.4, got 7"),
        (lambda: scores_of(Contrast(), torch.ones(2, 1)), ValueError, "model has only one"),
    ],
)
def test_what_does_not_fit_is_named(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_function_cannot_be_contrasted_and_nothing_is_run(model: nn.Module, x: Tensor) -> None:
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    for target in (lambda out: out[:, 0], Each([None, lambda out: out[:, 0]])):
        with pytest.raises(ValueError, match="target: Contrast needs a class, got a function"):
            camfuse.layer_cams(model, x, method=["gradcam", "finercam"], target=target)


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "layercam"])
def test_any_method_explains_a_contrast(model: nn.Module, x: Tensor, method: str) -> None:
    def score(output: Tensor) -> Tensor:
        return output[:, 2] - 0.6 * (output[:, 0] + output[:, 4]) / 2

    contrast = Contrast(2, others=[0, 4], alpha=0.6)
    stack = camfuse.layer_cams(model, x, method=method, target=contrast)
    expected = camfuse.layer_cams(model, x, method=method, target=score)
    assert stack.targets.tolist() == [[2, 2, 2]]
    for name in expected.names:
        assert relative_error(stack[name], expected[name]) <= 1e-12


class TestFinerCAM:
    @pytest.mark.parametrize("target", [None, 1, [0, 3, 2]])
    def test_it_is_torchcams(self, model: nn.Module, x: Tensor, target: Any) -> None:
        output = model(x)
        classes = output.argmax(1).tolist() if target is None else [target] * 3
        if isinstance(target, list):
            classes = target
        with TorchcamFinerCAM(model, ["stem", "conv"], gamma=1.0) as peer:
            expected = peer(classes, model(x), normalized=False)
        stack = camfuse.layer_cams(model, x, method="finercam", target=target)
        for name, maps in zip(["stem", "conv"], expected, strict=True):
            assert relative_error(stack[name].clamp(min=0), maps) <= 1e-6
            assert maps.max() > 0

    def test_it_is_pytorch_grad_cams_where_one_class_is_compared(
        self, model: nn.Module, x: Tensor
    ) -> None:
        with PeerFinerCAM(model, [model.conv]) as peer:
            expected = torch.from_numpy(peer(x, comparison_categories=[1]))
        target = Contrast(others=1)
        ours = camfuse.layer_cams(model, x, target=target).normalized("conv", size=(9, 14))[0, 0]
        assert relative_error(ours, expected) <= 1e-6

    def test_all_comparisons_count_the_same_unlike_pytorch_grad_cams(
        self, model: nn.Module, x: Tensor
    ) -> None:
        # The paper averages over the comparisons. The peer weighs them by their probabilities.
        with torch.no_grad():
            model.classifier.weight.mul_(40)
        classes = model(x).argsort(1, descending=True)[:, :4]
        weighted = [FinerWeightedTarget(int(c), d, 1.0) for c, *d in classes.tolist()]
        output = model(x).detach().requires_grad_()
        (ours,) = torch.autograd.grad(
            resolve_targets(Contrast(), output, 3).values[0].sum(), output
        )
        loss = sum(one(row) for one, row in zip(weighted, output, strict=True))
        (peers,) = torch.autograd.grad(loss, output)
        for gradient, chosen in zip(ours, classes, strict=True):
            assert torch.allclose(gradient[chosen[1:]], gradient.new_tensor(-1 / 3))
        assert (ours - peers).abs().max() > 0.1

    def test_it_is_gradcam_of_a_contrast(self, model: nn.Module, x: Tensor) -> None:
        finer = camfuse.layer_cams(model, x, method="finercam")
        plain = camfuse.layer_cams(model, x, target=Contrast())
        assert torch.equal(finer.flat, plain.flat)
        once = camfuse.layer_cams(model, x, method="finercam", target=Contrast(others=[1]))
        assert torch.equal(
            once.flat, camfuse.layer_cams(model, x, target=Contrast(others=[1])).flat
        )

    @pytest.mark.parametrize(
        "methods",
        [["gradcam", "finercam"], ["finercam", "gradcam"], ["layercam", "finercam", "randomcam"]],
    )
    def test_beside_other_methods_and_targets_maps_stay_the_same(
        self, model: nn.Module, x: Tensor, methods: list[str]
    ) -> None:
        targets = [None, 2, [0, 1, 4]]
        mixed = camfuse.layer_cams(model, x, method=methods, target=Each(targets))
        assert mixed.axes == (len(methods), 3, 3)
        for method in methods:
            for t, target in enumerate(targets):
                single = camfuse.layer_cams(model, x, method=method, target=target)
                chosen = mixed.select(method=method, target=t)
                assert torch.equal(chosen.flat, single.flat), (method, target)
                assert torch.equal(chosen.ranges, single.ranges)
                assert torch.equal(chosen.targets, single.targets)
                if method != "finercam":
                    assert torch.equal(chosen.scores, single.scores)

    def test_a_batch_in_parts_has_the_same_maps(self, model: nn.Module, x: Tensor) -> None:
        request = {"method": ["gradcam", "finercam"], "target": Each([None, [0, 1, 4]])}
        whole = camfuse.layer_cams(model, x, **request)
        passes: list[int] = []
        model.register_forward_pre_hook(lambda *_: passes.append(1))
        split = camfuse.layer_cams(model, x, **request, max_memory="200KB")
        assert len(passes) >= 2
        assert torch.equal(split.targets, whole.targets)
        assert relative_error(split.flat, whole.flat) <= 1e-12

    def test_it_takes_one_forward_pass(self, model: nn.Module, x: Tensor) -> None:
        camfuse.layer_cams(model, x, method=["gradcam", "finercam"])
        passes: list[int] = []
        model.register_forward_pre_hook(lambda *_: passes.append(1))
        camfuse.layer_cams(model, x, method=["gradcam", "finercam"], target=Each([None, 2]))
        assert len(passes) == 1

    def test_cam_finishes_its_map(self, model: nn.Module, x: Tensor) -> None:
        finished = camfuse.cam(model, x, "conv", method="finercam")
        stack = camfuse.layer_cams(model, x, method="finercam")
        assert torch.equal(finished, stack.normalized("conv", size=(9, 14))[0, 0])
        assert relative_error(finished, camfuse.cam(model, x, "conv", target=Contrast())) <= 1e-6

    def test_a_map_can_stand_in_a_loss(self, model: nn.Module, x: Tensor) -> None:
        stack = camfuse.layer_cams(model, x, method="finercam", layers="conv", create_graph=True)
        stack["conv"].sum().backward()
        assert model.stem.weight.grad.abs().max() > 0


def test_contrast_reaches_the_gradient_of_every_class(model: nn.Module, x: Tensor) -> None:
    activation, gradient = autograd_pairs(model, x, lambda out: out[:, 1] - out[:, 3])["conv"]
    stack = camfuse.layer_cams(model, x, method="hirescam", target=Contrast(1, others=[3]))
    assert relative_error(stack["conv"], (activation * gradient).sum(1)) <= 1e-9


def test_cam_of_rest_is_the_peers(model: nn.Module, x: Tensor) -> None:
    with GradCAM(model, [model.conv]) as peer:
        expected = torch.from_numpy(peer(x, [ClassifierOutputReST(c) for c in (0, 1, 2)]))
    ours = camfuse.cam(model, x, model.conv, target=ReST([0, 1, 2]))
    assert relative_error(ours, expected) <= 1e-6
