"""Where ops run, what is said where they do not, and how values come back to the host."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import camfuse
from camfuse import ops
from camfuse.devices import check_device, current_stream, on_stream, runs_on, to_host, upload
from small_models import Residual

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
# Tensors that say they are on a GPU, whether there is one or not.
with FakeTensorMode():
    ON_CUDA = torch.empty(2, 3, 12, 10, device=CUDA)
without_cuda = pytest.mark.skipif(
    bool(camfuse.build_info()["cuda"]), reason="this build has CUDA kernels"
)
ADVICE = r"CAMFUSE_CUDA=on in the environment, or move .* to the CPU; got cuda:0"


def test_every_op_runs_on_the_cpu_and_some_where_the_build_has_kernels():
    for op in ("layer_cam", "fused_cam", "render_frames"):
        assert runs_on(op, CPU)
        assert not runs_on(op, torch.device("meta"))
        assert not runs_on(op, torch.device("xpu"))
    assert runs_on("layer_cam", CUDA) == camfuse.build_info()["cuda"]


@without_cuda
def test_cuda_inputs_are_refused_before_the_model_runs():
    calls = []
    model = Residual().eval()
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    for ask in (camfuse.layer_cams, camfuse.predict_memory):
        with pytest.raises(ValueError, match=rf"inputs: this camfuse was built without .*{ADVICE}"):
            ask(model, ON_CUDA)
    with pytest.raises(ValueError, match=f"inputs: .*{ADVICE}"):
        camfuse.cam(model, ON_CUDA, "conv")
    assert not calls


@without_cuda
def test_a_model_on_a_cuda_device_is_refused_before_it_runs():
    with FakeTensorMode():
        model = nn.Conv2d(3, 4, 1, device=CUDA).eval()
    with pytest.raises(ValueError, match=f"model: this camfuse was built without CUDA; .*{ADVICE}"):
        camfuse.layer_cams(model, torch.zeros(1, 3, 4, 4))


@without_cuda
def test_a_cuda_device_is_refused_before_a_model_is_loaded(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(camfuse.models.ModelSpecError, match=f"device: this camfuse .*{ADVICE}"):
        camfuse.load_model("torchvision:no_such_model", device=CUDA)


@without_cuda
def test_an_op_without_kernels_for_a_tensor_says_what_to_do():
    def unknown_to_the_dispatcher(*_):
        raise NotImplementedError("a page about the dispatcher")

    unknown_to_the_dispatcher.name = lambda: "camfuse::layer_cam"
    with pytest.raises(ValueError, match=f"tensors: this camfuse was built without .*{ADVICE}"):
        ops._call(unknown_to_the_dispatcher, ON_CUDA, None)
    with pytest.raises(NotImplementedError, match="a page"):
        ops._call(unknown_to_the_dispatcher, torch.zeros(1), None)


def test_a_build_with_some_kernels_names_the_one_it_lacks(monkeypatch):
    monkeypatch.setattr("camfuse._C.build_info", lambda: {"cuda": True})
    monkeypatch.setattr("camfuse.devices.runs_on", lambda op, device: op != "render_frames")
    check_device("tensors", CUDA)
    with pytest.raises(ValueError, match="tensors: this camfuse has no CUDA kernel of render_fr"):
        check_device("tensors", CUDA, "render_frames")


def test_what_is_on_the_cpu_stays_where_it_is():
    x = torch.randn(3, requires_grad=True)
    (there,) = to_host([x])
    assert there.data_ptr() == x.data_ptr()
    assert not there.requires_grad
    assert upload(x, CPU) is x
    assert current_stream(CPU) is None
    with on_stream(None):
        pass


VALUES = [
    torch.randn(2, 3, dtype=torch.bfloat16),
    torch.tensor([2**53 + 1, -1]),
    torch.tensor(float("nan"), dtype=torch.float64),
    torch.empty(0, 4),
    torch.randn(4, 5, dtype=torch.float64).T,
    torch.tensor([True, False, True]),
]


@pytest.mark.cuda
def test_values_of_every_kind_come_to_the_host_in_one_copy():
    on_device = [one.cuda() for one in VALUES]
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning, match="called a synchronizing CUDA operation") as caught:
            host = to_host([*on_device, VALUES[0]])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(caught) == 1
    for got, expected in zip(host, [*VALUES, VALUES[0]], strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)
    assert len({one.untyped_storage().data_ptr() for one in host if one.numel()}) == 6


@pytest.mark.cuda
def test_an_upload_waits_for_nothing_and_arrives():
    x = torch.randn(1000)
    torch.cuda.set_sync_debug_mode("error")
    try:
        there = upload(x, CUDA)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(there.cpu(), x)
