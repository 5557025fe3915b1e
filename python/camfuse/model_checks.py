"""Which models maps can be made of."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from camfuse.devices import check_device
from camfuse.preserve import state_tensors

# What nearly all attributes of modules are, and all tensors: asked first, as there are thousands.
_HARMLESS = {bool, int, float, str, tuple, list, dict, set, OrderedDict, type(None)}
_PLAIN = {torch.Tensor, nn.Parameter}


def check_model(model: nn.Module, allow_training: bool) -> None:
    """Checks that maps can be made of ``model``, an unwrapped one.

    Raises:
        ValueError: If it is no module, runs no hooks, is in training mode and may not be, has no
            parameters yet, is quantised, holds inference tensors or is on a device without kernels;
            the message says what to do.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError("model: TorchScript modules run no hooks; pass the module it was made of")
    modules = tuple(model.modules())
    for module in modules:
        kinds = set(map(type, vars(module).values()))
        if not kinds <= _HARMLESS and any(issubclass(kind, torch.ScriptObject) for kind in kinds):
            raise _quantized(f"a {type(module).__module__}.{type(module).__name__}")
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
        plain = type(tensor) in _PLAIN
        if not plain and isinstance(tensor, UninitializedParameter | UninitializedBuffer):
            raise ValueError("model: a lazy layer has no parameters yet; run the model once first")
        if tensor.is_quantized or not (plain or _ordinary(tensor)):
            raise _quantized(f"parameters that are {type(tensor).__name__}, {tensor.dtype}")
        if tensor.is_inference():
            raise ValueError(
                "model: its parameters or buffers are inference tensors, for which no gradient can "
                "be computed; load the model outside torch.inference_mode()"
            )


def check_devices(model: nn.Module, device: torch.device) -> None:
    """Checks that inputs on ``device`` can be given to ``model``, an unwrapped one.

    Raises:
        ValueError: If all of the model is elsewhere and nothing fetches it.
    """
    modules = tuple(model.modules())
    homes = {tensor.device for tensor in state_tensors(modules)}
    if not homes or device in homes:
        return
    # Libraries that offload parameters fetch them before a module runs.
    if any(one.type == "meta" for one in homes) and any(map(_is_fetched, modules)):
        return
    where = ", ".join(sorted(map(str, homes)))
    raise ValueError(
        f"inputs: expected them where the model is, on {where}, got {device}; move one with .to()"
    )


def _is_fetched(module: nn.Module) -> bool:
    return bool(module._forward_pre_hooks) or hasattr(module, "_hf_hook")


def _ordinary(tensor: torch.Tensor) -> bool:
    """Whether it is a tensor of torch's own, rather than one that packs its numbers otherwise."""
    return type(tensor).__module__.partition(".")[0] == "torch"


def _quantized(what: str) -> ValueError:
    return ValueError(
        f"model: it has {what}, as quantised models do, through which no gradient can be computed; "
        "pass the model that was quantised"
    )
