"""Trained weights: reading state dicts safely, and errors that can be acted on."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor, nn

_NAMED = 3  # keys that an error message names before it goes on to count
_CONNECT_SECONDS = 10.0

# torchvision renamed DenseNet's layers ("norm.1" became "norm1"), not the files it serves.
_OLD_DENSENET_KEY = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)")


class WeightsError(ValueError):
    """A weights file that cannot be read safely, or that does not fit the model."""


def weights_file(path: str | Path) -> Path:
    """The path of a file that exists.

    Raises:
        WeightsError: If there is none.
    """
    path = Path(path)
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise WeightsError(f"weights: expected a file or 'random', but {str(path)!r} {problem}")
    return path


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Parameters and buffers from a ``.safetensors`` file or one written by ``torch.save``.

    Code inside the file is never run (``weights_only=True``). Checkpoints that hold the state dict
    under ``"state_dict"`` or ``"model"`` are unwrapped, and the ``module.`` that
    DistributedDataParallel puts before each name is dropped.

    Raises:
        WeightsError: If there is no such file, or it holds no state dict.
    """
    path = weights_file(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever unpickling a damaged or foreign file may raise
        raise WeightsError(
            f"weights: {str(path)!r} cannot be read as a state dict (safetensors, or torch.save "
            f"with tensors only): {_first_sentence(error)}"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(one, Tensor) for one in found.values()):
        raise WeightsError(
            f"weights: {str(path)!r} holds {type(found).__name__}, not a state dict of tensors"
        )
    return {str(key).removeprefix("module."): tensor for key, tensor in found.items()}


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Loads a file into ``module``, strictly: every parameter and buffer must match.

    Raises:
        WeightsError: If the file cannot be read or does not fit; the first few names are given.
    """
    state = {_OLD_DENSENET_KEY.sub(r"\1\2", key): one for key, one in read_state_dict(path).items()}
    own = module.state_dict()
    # Counters are not in files older than the counters, and nothing in eval mode reads them.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    problems = [
        f"{len(keys)} {what} ({_some(keys)})"
        for what, keys in (
            ("missing", missing),
            ("unexpected", [key for key in state if key not in own]),
            (
                "of another shape",
                [
                    f"{key}: {_shape(tensor)} in the file, {_shape(own[key])} in the model"
                    for key, tensor in state.items()
                    if key in own and tensor.shape != own[key].shape
                ],
            ),
        )
        if keys
    ]
    if problems:
        raise WeightsError(
            f"weights: {str(path)!r} does not fit {type(module).__name__}: {'; '.join(problems)}"
        )
    module.load_state_dict(state, strict=False)


@contextmanager
def prompt_downloads() -> Iterator[None]:
    """Within it, downloads fail soon where there is no network, and print nothing to stdout.

    Left alone, torch.hub waits without limit for a silent server and huggingface_hub retries for
    a minute or more. Files that are already in a cache are found all the same.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_CONNECT_SECONDS)
    try:
        with _hub_offline_if_unreachable(), redirect_stdout(sys.stderr):
            yield
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def _hub_offline_if_unreachable() -> Iterator[None]:
    try:
        from huggingface_hub import constants
    except ImportError:
        yield
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable(endpoint: str) -> bool:
    if getproxies():  # a direct connection would say nothing about the way through the proxy
        return True
    parts = urlsplit(endpoint)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=_CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _first_sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].split(". ")[0]


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:_NAMED]) + (", ..." if len(keys) > _NAMED else "")


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
