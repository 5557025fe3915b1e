"""Attention with frozen weights, as fast as with trainable ones.

``nn.MultiheadAttention`` with ``batch_first`` projects a transposed view of its inputs. Where the
weight requires grad, torch copies the view and multiplies once; where it does not, torch multiplies
once per token, with as few rows as the batch has, which takes several times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import multi_head_attention_forward
from torch.overrides import TorchFunctionMode


def rows_together(modules: Sequence[nn.Module]) -> AbstractContextManager[object]:
    """Attention among ``modules`` gets contiguous inputs inside, in this thread."""
    attends = any(isinstance(one, nn.MultiheadAttention) and one.batch_first for one in modules)
    return _RowsTogether() if attends else nullcontext()


class _RowsTogether(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is multi_head_attention_forward:
            # Query, key and value that are one tensor stay one: they are projected together.
            copies: dict[int, Tensor] = {}
            rows = [copies.setdefault(id(one), one.contiguous()) for one in args[:3]]
            args = (*rows, *args[3:])
        return func(*args, **(kwargs or {}))
