"""Reshapes and layer search, as the peer does them."""

import pytest
import pytorch_grad_cam.utils.find_layers as peer_layers
import pytorch_grad_cam.utils.reshape_transforms as peer
import torch
from torch import nn

from camfuse.compat.pytorch_grad_cam import utils
from camfuse.compat.pytorch_grad_cam.utils import find_layers
from camfuse.compat.pytorch_grad_cam.utils import reshape_transforms as face


def net():
    block = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())
    )
    return nn.Sequential(block, nn.ReLU6(), nn.Linear(4, 2))


def test_utils_exports_what_the_peers_does():
    import pytorch_grad_cam.utils as peer_utils

    names = {name for name in vars(peer_utils) if not name.startswith("_")}
    modules = {"image", "svd_on_activations", "find_layers"}
    assert names - modules <= set(utils.__all__)


@pytest.mark.parametrize("size", [{}, {"height": 3, "width": 5}])
def test_vit_tokens_become_images(size):
    h, w = size.get("height", 14), size.get("width", 14)
    tokens = torch.randn(2, 1 + h * w, 6)

    assert torch.equal(
        face.vit_reshape_transform(tokens, **size), peer.vit_reshape_transform(tokens, **size)
    )


@pytest.mark.parametrize("size", [{}, {"height": 3, "width": 5}])
def test_swin_tokens_become_images(size):
    h, w = size.get("height", 7), size.get("width", 7)
    tokens = torch.randn(2, h * w, 6)

    found = face.swinT_reshape_transform(tokens, **size)

    assert torch.equal(found, peer.swinT_reshape_transform(tokens, **size))
    grid = tokens.view(2, h, w, 6)
    assert torch.equal(face.swinT_reshape_transform(grid, **size), found)


def test_a_reshape_is_a_view():
    tokens = torch.randn(1, 197, 4)

    assert face.vit_reshape_transform(tokens).data_ptr() == tokens[:, 1:].data_ptr()


@pytest.mark.parametrize(
    ("transform", "tokens"),
    [
        (face.vit_reshape_transform, torch.zeros(1, 201, 4)),
        (face.vit_reshape_transform, torch.zeros(1, 4, 14, 14)),
        (face.swinT_reshape_transform, torch.zeros(1, 50, 4)),
        (face.swinT_reshape_transform, torch.zeros(1, 14, 14, 4)),
    ],
)
def test_tokens_of_another_grid_are_refused(transform, tokens):
    with pytest.raises(ValueError, match=r"^tensor: expected \(B, "):
        transform(tokens)


def test_a_pyramid_becomes_one_image():
    pyramid = {
        "0": torch.randn(2, 3, 16, 20),
        "1": torch.randn(2, 3, 8, 10),
        "pool": torch.randn(2, 3, 4, 5),
    }

    found = face.fasterrcnn_reshape_transform(pyramid)

    assert torch.equal(found, peer.fasterrcnn_reshape_transform(pyramid))


def test_layers_of_exact_types_are_found_in_order():
    model = net()

    for types in ([nn.ReLU], [nn.Conv2d, nn.BatchNorm2d, nn.ReLU], [nn.Dropout]):
        found = find_layers.find_layer_types_recursive(model, types)
        assert found == peer_layers.find_layer_types_recursive(model, types)


def test_layers_are_found_by_a_predicate():
    model = net()

    def small(layer):
        return len(list(layer.parameters())) < 2

    found = find_layers.find_layer_predicate_recursive(model, small)
    assert found == peer_layers.find_layer_predicate_recursive(model, small)


def test_a_layer_that_is_used_twice_is_found_once_and_a_missing_one_never():
    relu = nn.ReLU()
    model = nn.Sequential(relu, nn.Sequential(relu))
    model.register_module("absent", None)

    assert find_layers.find_layer_types_recursive(model, [nn.ReLU]) == [relu]


def test_a_layer_is_replaced():
    model, new = net(), nn.Identity()
    old = model[0][2][0]

    assert find_layers.replace_layer_recursive(model, old, new)
    assert model[0][2][0] is new
    assert not find_layers.replace_layer_recursive(model, old, new)


def test_a_layer_is_replaced_behind_a_missing_one():
    model = nn.Module()
    model.register_module("absent", None)
    model.body = nn.ReLU()
    new = nn.Identity()

    assert find_layers.replace_layer_recursive(model, model.body, new)
    assert model.body is new


def test_all_layers_of_a_type_are_replaced():
    model, new = net(), nn.Identity()

    find_layers.replace_all_layer_type_recursive(model, (nn.ReLU, nn.BatchNorm2d), new)

    assert model[0][1] is model[0][2][0] is model[0][2][1] is new
    assert isinstance(model[1], nn.ReLU6)


def test_what_is_inside_replaced_and_new_layers_stays():
    inner = nn.Sequential(nn.ReLU())
    new = nn.Sequential(nn.Sequential(nn.ReLU()))
    model = nn.ModuleList([inner])

    find_layers.replace_all_layer_type_recursive(model, nn.Sequential, new)

    assert model[0] is new
    assert isinstance(new[0], nn.Sequential)
    assert isinstance(new[0][0], nn.ReLU)
