"""Passes that the caller runs: what is recorded, what is left alone, and what outlives what."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint
from torchcam_models import Net, call, images, net

import camfuse
from camfuse.compat.torchcam.methods import (
    CAM,
    SSCAM,
    GradCAM,
    LayerCAM,
    RefineCAM,
    ScoreCAM,
    SmoothGradCAMpp,
)


def trainable(model):
    return [one.requires_grad for one in model.parameters()]


def hooks(model):
    return [
        hook
        for module in model.modules()
        for group in (module._forward_hooks, module._forward_pre_hooks)
        for hook in group.values()
    ]


def state(model):
    tensors = {name: one.clone() for name, one in model.state_dict().items()}
    return tensors, [one.training for one in model.modules()], trainable(model)


def nodes(tensor):
    """All nodes of a graph."""
    found, left = set(), [tensor.grad_fn]
    while left:
        if (node := left.pop()) is not None and node not in found:
            found.add(node)
            left += [one for one, _ in node.next_functions]
    return found


@pytest.mark.parametrize("layer", ["first", "last"])
def test_nothing_is_recorded_before_the_layer_of_a_model_in_eval_mode(layer):
    model, x = net(), images()
    seen = {}

    def note(name):
        return lambda module, args, output: seen.update({name: output.requires_grad})

    handles = [
        getattr(model, name).register_forward_hook(note(name)) for name in ("norm", "second", "fc")
    ]
    with GradCAM(model, layer) as extractor:
        extractor(1, model(x))
    for handle in handles:
        handle.remove()
    assert seen == {"norm": layer == "first", "second": layer == "first", "fc": True}
    assert all(trainable(model))
    assert all(one.grad is None for one in model.parameters())


def test_the_graph_holds_no_parameter():
    model = net()
    with GradCAM(model, "last"):
        scores = model(images())
    leaves = [node.variable for node in nodes(scores) if hasattr(node, "variable")]
    assert not {id(one) for one in leaves} & {id(one) for one in model.parameters()}


def test_a_backward_pass_beyond_the_layer_says_what_to_do():
    model = net()
    with GradCAM(model, "last") as extractor:
        scores = model(images())
        with pytest.raises(RuntimeError, match=r"before 'last'.*disable_hooks\(\)"):
            scores.sum().backward()
        extractor.disable_hooks()
        model(images()).sum().backward()
    assert all(one.grad is not None for one in model.parameters())


@pytest.mark.parametrize("names", [["first", "last"], ["last", "first"]])
def test_it_says_so_whichever_extractor_comes_first(names):
    model = net()
    extractors = [GradCAM(model, name) for name in names]
    scores = model(images())
    assert all(trainable(model))
    expected = [call(GradCAM, net(), name, images(), 1)[0] for name in names]
    assert_close([one(1, scores, retain_graph=True) for one in extractors], expected)
    with pytest.raises(RuntimeError, match="before 'first'"):
        scores.sum().backward()


def test_the_callers_own_gradients_in_training_mode_are_unaffected():
    x = images()
    model, other = net().train(), net().train()
    other.load_state_dict(model.state_dict())
    torch.manual_seed(3)
    other(x).square().sum().backward()
    with GradCAM(model, ["first", "last"]) as extractor:
        torch.manual_seed(3)
        scores = model(x)
        extractor(1, scores, retain_graph=True)
        scores.square().sum().backward()
    assert_close([p.grad for p in model.parameters()], [p.grad for p in other.parameters()])


def test_a_trainable_head_behind_a_frozen_layer_is_trained_in_training_mode():
    model = net().train()
    model.requires_grad_(False)
    model.fc.requires_grad_(True)
    with GradCAM(model, "last") as extractor:
        scores = model(images())
        extractor(1, scores, retain_graph=True)
        scores.sum().backward()
    assert model.fc.weight.grad is not None


def test_gradients_of_the_input_flow_if_it_requires_them():
    model, x = net(), images().requires_grad_()
    with GradCAM(model, "last") as extractor:
        scores = model(x)
        extractor(1, scores, retain_graph=True)
        scores.sum().backward()
    assert float(x.grad.abs().max()) > 0


def test_a_part_in_training_mode_is_not_frozen():
    model = net()
    model.norm.train()
    with GradCAM(model, "last"):
        model(images()).sum().backward()
    assert model.first.weight.grad is not None


def test_frozen_models_have_the_same_maps_and_stay_frozen():
    x = images()
    model = net().requires_grad_(False)
    found = call(GradCAM, model, ["second", "last"], x, 1)
    assert_close(found, call(GradCAM, net(), ["second", "last"], x, 1))
    assert not any(trainable(model))


def test_a_model_whose_weight_is_a_result_is_not_frozen():
    model = net()
    free = nn.Parameter(model.fc.weight.detach().clone())
    del model.fc.weight
    model.fc.weight = 2 * free
    with GradCAM(model, "last"):
        model(images()).sum().backward()
    assert free.grad is not None
    assert model.first.weight.grad is not None


def test_a_model_that_is_called_with_other_parameters_is_not_frozen():
    model = net()
    free = {"fc.weight": model.fc.weight.detach().clone().requires_grad_()}
    with GradCAM(model, "last"):
        doubled = {name: 2 * one for name, one in free.items()}
        torch.func.functional_call(model, doubled, (images(),)).sum().backward()
    assert free["fc.weight"].grad is not None
    assert model.first.weight.grad is not None


def test_a_pass_that_raises_gives_everything_back():
    model = net()
    enabled = torch.backends.mha.get_fastpath_enabled()
    with GradCAM(model, "last"):
        with pytest.raises(RuntimeError):
            model(torch.zeros(1, 7, 4, 4))
        assert all(trainable(model))
        assert torch.backends.mha.get_fastpath_enabled() == enabled


@pytest.mark.parametrize("way", ["next pass", "remove_hooks", "del"])
def test_what_an_interrupted_pass_held_is_given_back(way):
    model = net()
    extractor = GradCAM(model, "last")

    def interrupt(module, args):
        raise KeyboardInterrupt

    handle = model.second.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        model(images())
    handle.remove()
    if way == "next pass":
        model(images())
    elif way == "remove_hooks":
        extractor.remove_hooks()
    else:
        del extractor
    assert all(trainable(model))


def test_hooks_removed_within_a_pass_leave_nothing_frozen():
    model = net()
    extractor = GradCAM(model, "last")
    model.second.register_forward_hook(lambda *_: extractor.remove_hooks())
    model(images())
    assert all(trainable(model))


def test_threads_that_use_a_model_at_once_leave_nothing_frozen():
    model = net()
    extractors = [GradCAM(model, "first"), GradCAM(model, "last")]

    def run():
        for _ in range(30):
            model(images())

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(trainable(model))
    assert len(extractors) == 2


@pytest.mark.parametrize("kind", [GradCAM, LayerCAM, CAM, ScoreCAM, SmoothGradCAMpp, RefineCAM])
def test_an_extractor_that_is_deleted_takes_its_hooks_with_it(kind):
    model = net()
    extractor = kind(model, ["second", "last"] if kind is RefineCAM else "last")
    scores = model(images())
    extractor(1, scores)
    assert hooks(model)
    gc.disable()
    try:
        alive = weakref.ref(extractor)
        del extractor
        assert alive() is None
        assert not hooks(model)
    finally:
        gc.enable()


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("extracted", [True, False])
def test_the_graph_dies_with_the_scores_or_the_extractor(mode, extracted):
    model = net().train(mode == "train")
    inner = []
    handle = model.fc.register_forward_hook(
        lambda m, args, output: inner.append(weakref.ref(args[0]))
    )
    extractor = GradCAM(model, "last")
    scores = model(images())
    handle.remove()
    gc.disable()
    try:
        if extracted:
            extractor(1, scores)
            del scores
        else:
            del scores, extractor
        assert inner[0]() is None
    finally:
        gc.enable()


def test_nothing_before_the_layer_is_held_after_extraction_in_training_mode():
    model = net().train()
    early = []
    handle = model.second.register_forward_hook(
        lambda m, args, output: early.append(weakref.ref(args[0]))
    )
    extractor = GradCAM(model, "last")
    scores = model(images())
    handle.remove()
    extractor(1, scores)
    del scores
    gc.collect()
    assert early[0]() is None


def test_copies_of_a_hooked_model_are_watched_by_nobody():
    model = net()
    with GradCAM(model, "last") as extractor:
        extractor(1, model(images()))
        before = extractor.hook_a[0]
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            other(images()).sum().backward()
            assert other.first.weight.grad is not None
        assert extractor.hook_a[0] is before


def test_no_grad_is_told_from_other_mistakes():
    model = net()
    with GradCAM(model, "last") as extractor:
        with torch.no_grad():
            scores = model(images())
        with pytest.raises(RuntimeError, match=r"as under torch\.no_grad"):
            extractor(1, scores)
        scores = model(images())
        with pytest.raises(RuntimeError, match="depend on none"):
            extractor(1, torch.randn(2, 5, requires_grad=True).exp())
        scores = model(images())
        extractor(1, scores)
        with pytest.raises(RuntimeError, match="retain_graph=True"):
            extractor(1, scores)


def test_a_layer_that_the_scores_do_not_depend_on_is_named():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.dead = nn.Conv2d(3, 5, 1), nn.Conv2d(3, 5, 1)

        def forward(self, x):
            self.dead(x)
            return self.used(x).mean((2, 3))

    model = Two().eval()
    with GradCAM(model, ["used", "dead"]) as extractor:
        scores = model(images())
        with pytest.raises(RuntimeError, match="depend on 'dead'"):
            extractor(1, scores)


def test_scores_may_be_explained_several_times_and_under_no_grad():
    model = net()
    expected = [call(GradCAM, net(), "last", images(), one)[0] for one in (1, 2)]
    with GradCAM(model, "last") as extractor:
        scores = model(images())
        with torch.no_grad():
            found = [extractor(1, scores, retain_graph=True), extractor(2, scores)]
    assert_close(found, expected)
    assert not found[0][0].requires_grad


def test_a_part_of_a_model_may_be_run_alone_after_a_whole_pass():
    model = net().requires_grad_(False)
    model.fc.requires_grad_(True)
    with GradCAM(model, "last") as extractor:
        model(images())
        scores = model.fc(model.last(torch.rand(2, 8, 4, 4)).mean((2, 3)))
        (found,) = extractor(1, scores, retain_graph=True)
        assert found.shape == (2, 4, 4)
        scores.sum().backward()
    assert model.fc.weight.grad is not None


def test_a_layer_given_twice_has_two_maps():
    with GradCAM(model := net(), ["last", model.last]) as extractor:
        first, second = extractor(1, model(images()))
    assert_close(first, second)


def test_disabled_hooks_leave_a_pass_alone():
    model = net()
    with GradCAM(model, "last", enable_hooks=False) as extractor:
        model(images()).sum().backward()
        assert extractor.hook_a == [None]
        extractor.enable_hooks()
        extractor(1, model(images()))
    assert not hooks(model)


def test_gradient_free_extractors_leave_the_callers_graph_alone():
    model = net()
    with CAM(model, "last") as extractor:
        scores = model(images())
        extractor(1)
        scores.sum().backward()
    assert model.first.weight.grad is not None


def test_a_layer_that_a_pass_skips_is_not_remembered_from_another():
    class Either(Net):
        skip = False

        def forward(self, x):
            return x.mean((2, 3)) if self.skip else super().forward(x)

    model = Either().eval()
    with CAM(model, "last", "fc") as extractor:
        model(images())
        model.skip = True
        model(images())
        with pytest.raises(AssertionError, match="'last'"):
            extractor(1)


def test_a_caller_s_own_tensor_does_not_join_the_graph():
    model = nn.Sequential(nn.Identity(), nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = images()
    with GradCAM(model.eval(), "0") as extractor:
        (found,) = extractor(1, model(x))
    assert not x.requires_grad
    assert float(found.max()) > 0


@pytest.mark.parametrize("layer", ["first", "second"])
def test_checkpointed_segments_have_the_same_maps(layer):
    class Saving(Net):
        def forward(self, x):
            x = checkpoint(lambda y: self.norm(self.first(y)), x, use_reentrant=False)
            x = checkpoint(lambda y: self.second(self.relu(y)), x, use_reentrant=False)
            return self.fc(self.last(self.relu(x)).mean((2, 3)))

    torch.manual_seed(0)
    saving = Saving().eval()
    found = call(GradCAM, saving, layer, images(), [1, 2])
    assert_close(found, call(GradCAM, net(), layer, images(), [1, 2]))


def test_attention_keeps_its_plain_path_while_nothing_requires_grad():
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(block, 2), nn.Flatten(), nn.Linear(40, 3)).eval()
    with GradCAM(model, "0.layers.1.norm1") as extractor:
        (found,) = extractor(1, model(torch.randn(2, 5, 8)))
    assert found.shape == (2, 8)


TRANSFORMS = {
    "grad": lambda model, x: torch.func.grad(
        lambda p: torch.func.functional_call(model, p, (x,)).square().sum()
    )({name: one.detach() for name, one in model.named_parameters()}),
    "vmap": lambda model, x: torch.func.vmap(lambda one: model(one[None]))(x),
    "jacrev": lambda model, x: torch.func.jacrev(model)(x),
    "jvp": lambda model, x: torch.func.jvp(model, (x,), (x,)),
    "trace": lambda model, x: torch.jit.trace(model, x)(x),
    "export": lambda model, x: torch.export.export(model, (x,)).module()(x),
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_passes_over_stand_ins_are_left_alone(name):
    model, x = net(), images()
    expected = TRANSFORMS[name](net(), x)
    with GradCAM(model, "last"):
        found = TRANSFORMS[name](model, x)
    assert_close(found, expected)
    assert all(trainable(model))


def test_camfuses_own_maps_of_a_watched_model_are_the_same():
    expected = camfuse.layer_cams(net(), images(), layers="conv", target=1)
    with GradCAM(model := net(), "norm"):
        found = camfuse.layer_cams(model, images(), layers="conv", target=1)
    assert found.names == expected.names
    for name in found.names:
        assert_close(found[name], expected[name])


OWN_PASSES = {
    "ScoreCAM": lambda model: ScoreCAM(model, "last"),
    "SSCAM": lambda model: SSCAM(model, "last", num_samples=2),
    "SmoothGradCAMpp": lambda model: SmoothGradCAMpp(model, "last"),
    "automatic layer": lambda model: GradCAM(model, input_shape=(3, 16, 16)),
}


class Counting(Net):
    """Changes itself in every pass, and draws at random."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.seen = []

    def forward(self, x):
        self.calls += 1
        self.seen.append(x.shape)
        return super().forward(x + 1e-3 * torch.rand(()))


@pytest.mark.parametrize("name", OWN_PASSES)
@pytest.mark.parametrize("mode", ["eval", "train", "frozen"])
def test_passes_of_the_extractors_own_leave_no_trace(name, mode):
    torch.manual_seed(0)
    model = Counting().train(mode == "train")
    model.requires_grad_(mode != "frozen")
    model.first.eval()
    before, seen = state(model), list(model.seen)
    extractor = OWN_PASSES[name](model)
    if name != "automatic layer":
        with torch.no_grad():
            model(images())
        before, seen = state(model), list(model.seen)
        extractor(1, None)
    after = state(model)
    assert_close(after[0], before[0], rtol=0, atol=0)
    assert after[1:] == before[1:]
    assert model.seen == seen
    assert all(one.grad is None for one in model.parameters())


def test_the_layer_is_found_as_the_peer_finds_it():
    from torchcam.methods._utils import locate_candidate_layer as theirs

    from camfuse.compat.torchcam.methods._utils import locate_candidate_layer as ours

    model = net()
    assert ours(model, (3, 16, 16)) == theirs(model, (3, 16, 16))
    assert ours(model.double(), (3, 16, 16)) is not None
    assert ours(nn.Flatten(), (3, 4, 4)) is None


def test_a_found_layer_is_told(caplog):
    with GradCAM(net(), input_shape=(3, 16, 16)) as extractor:
        assert extractor.target_names[0] in caplog.text
