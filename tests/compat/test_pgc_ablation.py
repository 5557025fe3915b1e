"""Ablation layers, which people write themselves, and Ablation-CAM with them."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_grad_cam as peer
import torch
from pgc_cases import LIBRARIES, Case, quiet
from torch import nn

import camfuse.compat.pytorch_grad_cam as ours

CASE = Case("VGG", batch=2)


class Net(nn.Module):
    """A ReLU, a layer with negative values, and a classifier."""

    def __init__(self, last=5):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.signed = nn.Conv2d(8, 12, 3, padding=1)
        self.head = nn.Linear(12, last)

    def forward(self, x):
        return self.head(self.signed(self.body(x)).tanh().mean((2, 3)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def x():
    return torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def targets(library, *wanted):
    made = library.utils.model_targets.ClassifierOutputTarget
    return [made(one) for one in wanted]


def run(library, model, layers, x, **options):
    cam = library.AblationCAM(model, layers, **options)
    with quiet():
        return cam(x, targets(library, *range(len(x))))


@pytest.mark.parametrize("name", ["body", "signed"])
@pytest.mark.parametrize("batch_size", [5, 32])
def test_channels_of_layers_with_negative_values_become_very_negative(model, x, name, batch_size):
    """Further and further so with each copy of a chunk, as the peer's do."""
    layers = [model.get_submodule(name)]
    expected, found = (
        run(one, model, layers, x, batch_size=batch_size) for one in LIBRARIES.values()
    )
    np.testing.assert_allclose(found, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
def test_the_layer_takes_away_a_channel_of_each_copy(library):
    layer = library.AblationLayer()
    layer.activations_to_be_ablated(np.ones((4, 2, 2), np.float32))
    for A, values in ((torch.rand(2, 4, 2, 2), [0, 0, 0]), (torch.rand(2, 4, 2, 2) + 1, None)):
        A[0] -= A.min()
        layer.indices = np.int32([2, 0, 3])
        layer.set_next_batch(input_batch_index=1, activations=A, num_channels_to_ablate=3)
        found = layer(None)
        low = A[1].min()
        values = [low - 1e7, low - 2e7, low - 3e7] if low else values
        for i, channel in enumerate([2, 0, 3]):
            expected = A[1].clone()
            expected[channel] = values[i]
            torch.testing.assert_close(found[i], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("AblationLayer", (2, 6, 4, 4)),
        ("AblationLayerVit", (2, 5, 6)),
        ("AblationLayerVit", (2, 4, 4, 6)),
    ],
)
@pytest.mark.parametrize("offset", [0.0, -0.5, 0.5])
def test_layers_return_what_the_peers_return(name, shape, offset):
    A = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    A = A - A.min() if offset == 0 else A + offset
    made = []
    for library in LIBRARIES.values():
        layer = getattr(library, name)()
        layer.indices = np.int32([3, 1, 5])
        layer.set_next_batch(0, A[:1], 3)
        made.append(layer(None))
    torch.testing.assert_close(made[1], made[0])


@pytest.mark.parametrize("ratio", [1.0, 0.5, 0.25, 0.1])
def test_layers_choose_the_peers_channels(ratio):
    A = np.random.default_rng(0).normal(size=(20, 7, 6)).astype(np.float32)
    expected, found = (
        one.AblationLayer().activations_to_be_ablated(A, ratio) for one in LIBRARIES.values()
    )
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_layers_see_the_peers_objects():
    A = np.random.default_rng(0).normal(size=(20, 7, 6)).astype(np.float32)
    expected, found = (
        one.AblationLayer().objectiveness_mask_from_svd(A, 0.3) for one in LIBRARIES.values()
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5])
def test_some_channels_may_be_ablated_alone(ratio):
    made = []
    for library in LIBRARIES.values():
        cam = CASE.cam(library, "AblationCAM", ratio_channels_to_ablate=ratio)
        made.append(CASE.call(library, cam))
    np.testing.assert_allclose(made[1], made[0], atol=1e-3, rtol=0)


def test_channels_that_both_ends_name_count_once():
    """The peer's loses the scores of all that follow."""
    cam = CASE.cam(ours, "AblationCAM", ratio_channels_to_ablate=0.9)
    whole = CASE.call(ours, CASE.cam(ours, "AblationCAM"))
    # All channels are named by one end or the other.
    np.testing.assert_allclose(CASE.call(ours, cam), whole, atol=1e-4, rtol=0)


def test_scores_of_channels_that_were_not_ablated_are_the_original():
    for library in LIBRARIES.values():
        cam = CASE.cam(library, "AblationCAM")
        found = cam.assemble_ablation_scores([0.1, 0.2], 0.5, np.int32([3, 0]), 5)
        np.testing.assert_allclose(found, [0.2, 0.5, 0.5, 0.1, 0.5])


def test_a_score_of_zero_is_not_divided_by(model, x):
    """Its peer's maps are NaN."""

    class Zeroed:
        def __init__(self, zero):
            self.zero = zero

        def __call__(self, output):
            return output[0] - self.zero

    with torch.no_grad():
        zero = model(x[:1])[0, 0]
    layers = [model.body]
    cam = ours.AblationCAM(model, layers)
    found = cam(x[:1], [Zeroed(zero)])
    assert np.isfinite(found).all()
    assert found.max() > 0.9


def negative_layer(library):
    class Own(library.AblationLayer):
        """Negates channels, and looks at what goes into the target layer."""

        def __call__(self, x):
            output = self.activations
            for i in range(len(output)):
                output[i, self.indices[i]] *= -1 + 0 * x.mean()
            return output

    return Own()


def own_batches(library):
    class Own(library.AblationLayer):
        def set_next_batch(self, input_batch_index, activations, num_channels_to_ablate):
            super().set_next_batch(input_batch_index, activations, num_channels_to_ablate)
            self.activations *= 0.5

    return Own()


def own_choice(library):
    class Own(library.AblationLayer):
        def activations_to_be_ablated(self, activations, ratio_channels_to_ablate=1.0):
            self.indices = np.int32([0, 2, 5])
            return self.indices

    return Own()


@pytest.mark.parametrize("make", [negative_layer, own_batches, own_choice])
@pytest.mark.parametrize("name", ["body", "body.1"])
def test_layers_of_the_users_do_as_with_the_peer(model, x, make, name):
    layers = [model.get_submodule(name)]
    expected, found = (
        run(one, model, layers, x, ablation_layer=make(one), batch_size=3)
        for one in LIBRARIES.values()
    )
    np.testing.assert_allclose(found, expected, atol=1e-3, rtol=0)


def own_scores(library):
    class Own(library.AblationCAM):
        def assemble_ablation_scores(self, new_scores, original, channels, count):
            found = super().assemble_ablation_scores(new_scores, original, channels, count)
            return np.float32(found) ** 2

    return Own


def own_weights(library):
    class Own(library.AblationCAM):
        def get_cam_weights(self, *args):
            return np.abs(super().get_cam_weights(*args))

    return Own


@pytest.mark.parametrize("make", [own_scores, own_weights])
def test_subclasses_of_the_method_do_as_with_the_peer(model, x, make):
    made = []
    for library in LIBRARIES.values():
        cam = make(library)(model, [model.body])
        with quiet():
            made.append(cam(x, targets(library, 0, 1)))
    np.testing.assert_allclose(made[1], made[0], atol=1e-3, rtol=0)


class RefusalError(Exception):
    pass


@pytest.mark.parametrize("own", [False, True], ids=["plain layer", "own layer"])
@pytest.mark.parametrize("after", [1, 3])
def test_the_model_is_left_as_it_was_after_an_error(model, x, own, after):
    model.train()
    modules = list(model.modules())
    calls = []

    def refuse(output):
        calls.append(None)
        if len(calls) > after:
            raise RefusalError
        return output[0]

    layer = negative_layer(ours) if own else None
    cam = ours.AblationCAM(model, [model.body], ablation_layer=layer)
    with pytest.raises(RefusalError):
        cam(x, [refuse, refuse])
    assert list(model.modules()) == modules
    assert all(one.training for one in modules)
    assert not any(one._forward_hooks or "forward" in vars(one) for one in modules)


def test_a_layer_that_is_called_twice_is_ablated_once():
    class Twice(Net):
        def forward(self, x):
            y = self.body(x)
            return self.head(self.signed(y).tanh().mean((2, 3))) + 0 * self.body(x * 2).mean()

    torch.manual_seed(0)
    model = Twice().eval()
    found = ours.AblationCAM(model, [model.body])(torch.randn(1, 3, 9, 9), targets(ours, 0))
    assert np.isfinite(found).all()


def test_channels_that_come_last_need_a_layer_for_them():
    case = Case("Swin", batch=1, layers=1)
    cam = case.cam(ours, "AblationCAM", ablation_layer=ours.AblationLayer())
    with pytest.raises(ValueError, match="AblationLayerVit is for channels that come last"):
        case.call(ours, cam)


def test_a_target_layer_outside_the_model_is_refused(model, x):
    with pytest.raises(ValueError, match="target_layers"):
        run(ours, model, [nn.ReLU()], x)


def test_only_what_follows_the_layer_is_computed(model, x):
    """Each channel would else take a pass through everything."""
    seen = {"before": 0, "after": 0}

    def count(name):
        def hook(module, args, output):
            seen[name] += len(output)

        return hook

    handles = [
        model.body[0].register_forward_hook(count("before")),
        model.signed.register_forward_hook(count("after")),
    ]
    try:
        run(ours, model, [model.body], x, batch_size=2)
    finally:
        for handle in handles:
            handle.remove()
    assert seen["before"] < seen["after"] / 2


def test_targets_are_needed_for_each_image(model, x):
    cam = ours.AblationCAM(model, [model.body])
    with pytest.raises(ValueError, match="targets: expected one per image, 2, got 1"):
        cam(x, targets(ours, 0))


def test_chunks_hold_at_least_one_copy(model, x):
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        run(ours, model, [model.body], x, batch_size=0)


def test_ablation_layers_are_public_in_both():
    for name in ("AblationLayer", "AblationLayerVit", "AblationLayerFasterRCNN"):
        own = {one for one in vars(getattr(peer, name)) if not one.startswith("__")}
        assert own <= set(dir(getattr(ours, name)))
        assert issubclass(getattr(ours, name), nn.Module)


def test_plain_calls_leave_nothing_in_the_shared_layer():
    cam = CASE.cam(ours, "AblationCAM")
    CASE.call(ours, cam)
    assert cam.activations is None
    assert cam.ablation_layer.activations is None
