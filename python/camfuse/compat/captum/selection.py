"""captum's targets: indices into a model's output."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from camfuse.devices import upload

Selected = (
    int
    | tuple[int | slice, ...]
    | Sequence[int]
    | Sequence[tuple[int | slice, ...]]
    | Tensor
    | None
)
"""One index or tuple of indices for all samples, or one per sample: a list, or a tensor."""


def selected(output: object, target: Selected) -> Tensor:
    """The scores at ``target``: one number for each sample, or however many the output has.

    Args:
        output: What was returned: ``[N, ...]``, or one number.
        target: Which of it; tensors on the CPU.

    Raises:
        ValueError: If the target does not fit the output, or leaves several numbers per sample.
    """
    if not isinstance(output, Tensor):
        raise ValueError(f"forward_func: expected it to return a tensor, got {_kind(output)}")
    try:
        scores = _at(output, target)
    except IndexError as error:
        raise ValueError(f"target: {error}, of an output {tuple(output.shape)}") from None
    if scores.ndim and scores[0].numel() != 1:
        raise ValueError(
            "target: expected it to leave one number per sample of an output "
            f"{tuple(output.shape)}, got {target!r}, which leaves {tuple(scores.shape)}"
        )
    return scores


def _at(output: Tensor, target: Selected) -> Tensor:
    if target is None:
        return output
    if isinstance(target, Tensor) and target.numel() == 1 and not target.is_floating_point():
        target = int(target)
    if isinstance(target, Integral | tuple):
        indices = target if isinstance(target, tuple) else (int(target),)
        return output[(slice(None), *indices)]
    if isinstance(target, list) and target and all(isinstance(one, tuple) for one in target):
        _check_count(len(target), output)
        return torch.stack([sample[one] for sample, one in zip(output, target, strict=True)])
    return _gathered(output, target)


def _gathered(output: Tensor, target: object) -> Tensor:
    try:
        indices = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError):
        raise _no_target(target) from None
    if indices.ndim != 1 or indices.is_floating_point() or not isinstance(target, list | Tensor):
        raise _no_target(target)
    _check_count(len(indices), output)
    if output.ndim != 2:
        raise ValueError(
            "target: expected a tuple of indices per sample for an output "
            f"{tuple(output.shape)}, got one index per sample"
        )
    classes = output.shape[1]
    if not bool(((indices >= 0) & (indices < classes)).all()):
        raise ValueError(f"target: expected indices in 0..{classes - 1}, got {indices.tolist()}")
    return output.gather(1, upload(indices.long(), output.device)[:, None])[:, 0]


def _check_count(count: int, output: Tensor) -> None:
    if count != len(output):
        raise ValueError(f"target: expected one per sample ({len(output)}), got {count}")


def _no_target(target: object) -> ValueError:
    what = tuple(target.shape) if isinstance(target, Tensor) else repr(target)
    return ValueError(
        "target: expected None, an index, a tuple of indices, or a list or tensor of one per "
        f"sample, got {_kind(target)} {what}"
    )


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"
