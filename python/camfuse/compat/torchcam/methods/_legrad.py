"""What the attention of vision transformers' blocks contributes to a class."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from camfuse.compat.torchcam.methods._economy import is_transformed
from camfuse.compat.torchcam.methods._targets import ClassIdx, Targets
from camfuse.compat.torchcam.methods._watch import WeakHook
from camfuse.compat.torchcam.methods.core import _CAM
from camfuse.inputs import Inputs
from camfuse.methods.attention import Attentions
from camfuse.preserve import evaluating
from camfuse.structures import tensors_in

Projection = Callable[[Tensor], Tensor]


class LeGrad(_CAM):
    """LeGrad (Bousselham et al., 2024, arXiv 2404.03214) of vision transformers.

    A block's score is the class's logit that the model's head makes of the block's tokens. Its
    gradient in the block's attention probabilities is rectified and averaged over heads and
    queries; the result is the mean of all blocks. Each block is run once more when maps are asked
    for, in eval mode, so that the caller's pass needs no gradients and is left alone.

    Args:
        model: Any module.
        target_layer: Blocks that take and return tokens ``[B, N, C]`` and contain one
            self-attention, or their names.
        score_projection: From a block's tokens to logits ``[B, classes]``; by default
            torchvision's norm and heads, of the mean token.
        prefix_tokens: How many tokens come before those of the patches.
        grid_shape: Rows and columns of patches; by default as many of both.
        enable_hooks: Whether passes are watched from the beginning.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If one does not fit.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: nn.Module | str | list[nn.Module | str],
        *,
        score_projection: Projection | None = None,
        prefix_tokens: int = 1,
        grid_shape: tuple[int, int] | None = None,
        enable_hooks: bool = True,
    ) -> None:
        if target_layer is None or target_layer == []:
            raise ValueError(f"target_layer: expected at least one block, got {target_layer!r}")
        _check(score_projection, prefix_tokens, grid_shape)
        self._score_projection = score_projection or _projection_of(model)
        self.prefix_tokens, self.grid_shape = prefix_tokens, grid_shape
        super().__init__(model, target_layer, enable_hooks=enable_hooks)
        self.hook_handles += [
            self.submodule_dict[name].register_forward_pre_hook(
                WeakHook(self._on_block, idx=i), with_kwargs=True
            )
            for i, name in enumerate(self.target_names)
        ]

    def reset_hooks(self) -> None:
        """Forgets the last pass."""
        super().reset_hooks()
        self._given: list[Inputs | None] = [None] * len(self.target_names)

    def _on_block(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], idx: int
    ) -> None:
        """Keeps what a block is called with: copies, as it may be overwritten."""
        if not self._hooks_enabled or is_transformed():
            return
        bound = inspect.signature(module.forward).bind(*args, **kwargs).arguments if kwargs else {}
        self._given[idx] = tree_map_only(
            Tensor, lambda one: one.detach().clone(), bound if kwargs else args
        )

    def _get_weights(
        self, class_idx: Any, scores: Any = None, retain_graph: bool = False, **kwargs: Any
    ) -> list[Tensor]:
        """What each block's attention contributes at each token behind the prefix ``[B, N]``."""
        with self._hooks_off(), evaluating(tuple(self.model.modules())):
            return [
                self._relevance(name, given, class_idx)
                for name, given in zip(self.target_names, self._given, strict=True)
            ]

    def _relevance(self, name: str, given: Inputs | None, class_idx: ClassIdx) -> Tensor:
        block = self.submodule_dict[name]
        if given is None:
            raise AssertionError(f"expected a forward pass through {name!r}, saw none")
        batch = len(next(one for one in tensors_in(given) if one.ndim))
        classes = [class_idx] * batch if isinstance(class_idx, int) else class_idx
        attentions = Attentions(
            block, given, {(block, 1)}, self._score_projection, torch.tensor(classes)
        )
        attentions.run()
        count = attentions.counts[block, 1]
        if count != 1:
            raise ValueError(f"target_layer: expected one attention in {name!r}, found {count}")
        if (block, 1) not in attentions.found:
            raise ValueError(
                f"target_layer: expected {name!r} to return tokens [B, N, C], as many as its "
                "attention attends to"
            )
        ((maps, _),) = attentions.found[block, 1]
        return maps[:, self.prefix_tokens :]

    def compute_cams(
        self,
        class_idx: int | list[int] | None = None,
        scores: Any = None,
        normalized: bool = True,
        retain_graph: bool = False,
        *,
        targets: Targets | None = None,
        **kwargs: Any,
    ) -> list[Tensor]:
        """One map ``[B, rows, columns]``, the mean of all blocks; ``scores`` are not needed.

        Raises:
            ValueError: If an argument does not fit, or a block has no such map.
        """
        if targets is not None:
            raise ValueError("targets: LeGrad explains classes only")
        relevances = self._get_weights(class_idx, scores, **kwargs)
        maps = [one.view(-1, *self._grid(one.shape[1])) for one in relevances]
        cam = torch.stack(maps).mean(0)
        return [(self._normalize(cam) if normalized else cam).to(self.hook_a[0].dtype)]

    def _grid(self, patches: int) -> tuple[int, int]:
        side = math.isqrt(max(patches, 0))
        rows, columns = self.grid_shape or (side, side)
        if not patches or rows * columns != patches:
            raise ValueError(
                f"grid_shape: expected rows and columns of {patches} patches, got "
                f"{self.grid_shape}, with {self.prefix_tokens} prefix_tokens"
            )
        return rows, columns


def _projection_of(model: nn.Module) -> Projection:
    norm = getattr(getattr(model, "encoder", None), "ln", None)
    heads = getattr(model, "heads", None)
    if not isinstance(norm, nn.Module) or not isinstance(heads, nn.Module):
        raise ValueError(
            f"score_projection: expected one for {type(model).__name__}, which is no "
            "VisionTransformer of torchvision, got None"
        )
    return lambda tokens: heads(norm(tokens.mean(1)))


def _check(projection: object, prefix: object, grid: object) -> None:
    if projection is not None and not callable(projection):
        raise TypeError(f"score_projection: expected a function, got {projection!r}")
    if not isinstance(prefix, int):
        raise TypeError(f"prefix_tokens: expected an integer, got {prefix!r}")
    if prefix < 0:
        raise ValueError(f"prefix_tokens: expected at least 0, got {prefix}")
    if grid is None:
        return
    if not isinstance(grid, tuple) or [type(one) for one in grid] != [int, int]:
        raise TypeError(f"grid_shape: expected two integers, got {grid!r}")
    if min(grid) < 1:
        raise ValueError(f"grid_shape: expected at least 1, got {grid}")
