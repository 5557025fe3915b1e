"""Which models maps can be made of."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from camfuse.devices import check_device
from camfuse.preserve import state_tensors


def check_model(model: nn.Module, allow_training: bool) -> None:
    """Checks that maps can be made of ``model``, an unwrapped one.

    Raises:
        ValueError: If it is no module, runs no hooks, is in training mode and may not be, has no
            parameters yet, holds inference tensors or is on a device without kernels; the message
            says what to do.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError("model: TorchScript modules run no hooks; pass the module it was made of")
    modules = tuple(model.modules())
    if not allow_training and any(module.training for module in modules):
        name = next(name for name, module in model.named_modules() if module.training)
        where = f"its layer {name!r}" if name else "the model"
        raise ValueError(
            f"model: {where} is in training mode, which makes maps depend on the batch and on "
            "chance; call model.eval(), or pass allow_training=True"
        )
    tensors = state_tensors(modules)
    for device in {tensor.device for tensor in tensors}:
        if device.type != "meta":  # where offloaded parameters wait to be fetched
            check_device("model", device)
    for tensor in tensors:
        if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
            raise ValueError("model: a lazy layer has no parameters yet; run the model once first")
        if tensor.is_inference():
            raise ValueError(
                "model: its parameters or buffers are inference tensors, for which no gradient can "
                "be computed; load the model outside torch.inference_mode()"
            )
