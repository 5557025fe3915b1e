"""What the attention of a vision transformer's block contributes to the score of that block."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from camfuse.captured import Captured
from camfuse.inputs import Inputs, call_arguments, first_image
from camfuse.methods.base import LayerMaps, PassMethod, Scene, UndefinedError, wide
from camfuse.preserve import (
    borrowed_buffers,
    eager,
    frozen,
    one_at_a_time,
    one_thread,
    plain_attention,
    random_state,
    state_tensors,
)
from camfuse.targets import Target, resolve_targets

_Call = tuple[nn.Module, int]  # a module, and which of its calls
_Maps = list[tuple[Tensor, Tensor]]  # by target: maps [B, N] and scales [B]
_Head = Callable[[Tensor], Tensor]


def attention_maps(scene: Scene) -> Iterator[LayerMaps | tuple[Captured, UndefinedError]]:
    """LeGrad of every layer that returns tokens and contains exactly one self-attention.

    The score of a layer is the target, of the logits that the model's own head makes of the mean of
    the layer's tokens. Its gradient in the attention probabilities is rectified, averaged over
    heads and queries, and laid out over the image without class and register tokens.

    Attention is computed step by step, whatever implementation the model asks for, so that its
    probabilities are there. A first pass counts attentions; in a second one each block is
    differentiated as soon as it has run, so that no more than one block's graph is held.
    """
    head = _head_of(scene.model)
    if head is None:
        reason = "only vision transformers of torchvision and timm, whose head is known, have it"
        for layer in scene.layers:
            yield layer, UndefinedError(reason)
        return
    wanted = {(layer.module, layer.call) for layer in scene.layers}
    counter = Attentions(scene.model, scene.inputs, wanted)
    counter.run()
    single = {call for call in wanted if counter.counts[call] == 1}
    differentiator = Attentions(scene.model, scene.inputs, single, head, scene.target)
    if single:
        differentiator.run()
    for layer in scene.layers:
        call = (layer.module, layer.call)
        found = differentiator.found.get(call)
        if found is None:
            yield layer, UndefinedError(_reason(counter.counts[call]))
            continue
        for target, (maps, scales) in enumerate(found):
            # Folded as the layer's tokens are, which have so many channels.
            tokens = maps[:, :, None].expand(-1, -1, layer.shape[0])
            yield LayerMaps(layer, target, layer.spatial(tokens)[:, 0], scales)


def _reason(attentions: int) -> str:
    if attentions == 1:
        return "its attention is not one among the tokens that it returns"
    return f"expected one self-attention inside it, found {attentions or 'none'}"


def _head_of(model: nn.Module) -> _Head | None:
    """From tokens ``[B, N, C]`` to logits, as the model makes them of the mean of its last ones."""
    encoder, heads = getattr(model, "encoder", None), getattr(model, "heads", None)
    norm = getattr(encoder, "ln", None)
    if isinstance(norm, nn.Module) and isinstance(heads, nn.Module):  # torchvision
        return lambda tokens: heads(norm(tokens.mean(1)))
    parts = [getattr(model, name, None) for name in ("norm", "fc_norm", "head")]
    known = all(isinstance(part, nn.Module) for part in (*parts, getattr(model, "blocks", None)))
    others = [getattr(model, name, None) for name in ("head_dist", "attn_pool")]
    if known and others == [None, None]:  # timm
        head = nn.Sequential(*parts)  # type: ignore[arg-type]
        return lambda tokens: head(tokens.mean(1))
    return None


class Attentions(TorchFunctionMode):
    """Runs a model and sees its attention probabilities.

    Args:
        model: What to run.
        inputs: What to run it on.
        calls: Which calls of which modules are of interest.
        head: From the tokens that such a module returns to logits. If given, each of them contains
            one attention, and is differentiated.
        target: Which logits.

    Attributes:
        counts: How many attentions ran inside each of the calls.
        found: For those that returned what their attention attends to, by target: maps ``[B, N]``
            over all tokens, and scales ``[B]``.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs,
        calls: set[_Call],
        head: _Head | None = None,
        target: Target = None,
    ) -> None:
        super().__init__()
        self.model, self.inputs, self.calls = model, inputs, calls
        self.head, self.target = head, target
        self.counts: Counter[_Call] = Counter()
        self.found: dict[_Call, _Maps] = {}
        self._thread = threading.get_ident()
        self._times: Counter[nn.Module] = Counter()
        self._active: list[_Call] = []
        self._inside: dict[_Call, Tensor] = {}

    def run(self) -> None:
        """One forward pass; the model is left as it was found."""
        model, modules = self.model, tuple(self.model.modules())
        args, kwargs = call_arguments(model, self.inputs, create_graph=False)
        image = first_image(self.inputs)
        with one_at_a_time, contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.set_grad_enabled(self.head is not None))
            stack.enter_context(plain_attention(modules))
            stack.enter_context(one_thread())
            stack.enter_context(
                random_state({one.device for one in (image, *state_tensors(modules))})
            )
            stack.enter_context(eager(modules))
            stack.enter_context(frozen(modules))
            stack.enter_context(borrowed_buffers(modules))
            for module in {module for module, _ in self.calls}:
                stack.callback(module.register_forward_pre_hook(self._enter).remove)
                stack.callback(module.register_forward_hook(self._leave).remove)
            stack.enter_context(self)
            model(*args, **kwargs)

    def _enter(self, module: nn.Module, args: object) -> None:
        if threading.get_ident() == self._thread:
            self._times[module] += 1
            self._active.append((module, self._times[module]))

    def _leave(self, module: nn.Module, args: object, output: Any) -> Any:
        if threading.get_ident() != self._thread:
            return None
        call = self._active.pop()
        probabilities = self._inside.pop(call, None)
        if probabilities is None:
            return None
        if isinstance(output, Tensor) and output.ndim == 3:
            self._differentiate(call, output, probabilities)
        # Outside of the outermost module that contains this attention, nothing asks for its graph.
        held = any(one is probabilities for one in self._inside.values())
        return output.detach() if isinstance(output, Tensor) and not held else None

    def _differentiate(self, call: _Call, tokens: Tensor, probabilities: Tensor) -> None:
        batch, count, _ = tokens.shape
        if probabilities.shape[-1] != count or self.head is None:
            return
        scores = resolve_targets(self.target, self.head(tokens), batch).values
        maps = []
        for score in scores:
            gradient = None
            if score.requires_grad:
                (gradient,) = torch.autograd.grad(
                    score.sum(), probabilities, retain_graph=True, allow_unused=True
                )
            if gradient is None:
                gradient = torch.zeros_like(probabilities)
            each = wide(gradient.detach()).view(batch, -1, count, count)
            maps.append((each.relu().mean((1, 2)), each.abs().mean((1, 2)).amax(1)))
        self.found[call] = maps

    def _note(self, probabilities: Tensor) -> Tensor:
        """Counts an attention, and begins the graph at its probabilities if they are wanted."""
        self.counts.update(self._active)
        if self.head is None or not (active := [one for one in self._active if one in self.calls]):
            return probabilities
        probabilities = probabilities.detach().requires_grad_()
        self._inside.update(dict.fromkeys(active, probabilities))
        return probabilities

    # Attention, in the ways that models ask for it

    def __torch_function__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs ``func``, step by step if it is attention. Inside, no function comes here again."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            return self._multi_head(*args, **kwargs)
        result = func(*args, **kwargs)
        if getattr(func, "__name__", "") == "softmax" and result.ndim == 4:
            last = kwargs.get("dim", args[1] if len(args) > 1 else None) in (-1, 3)
            if last and result.shape[-1] == result.shape[-2]:
                return self._note(result)
        return result

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if enable_gqa:
            times = query.shape[-3] // key.shape[-3]
            key, value = (one.repeat_interleave(times, -3) for one in (key, value))
        scores = query @ key.transpose(-2, -1)
        scores = scores * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones_like(scores[0, 0], dtype=torch.bool).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        probabilities = scores.softmax(-1)
        if probabilities.ndim == 4 and probabilities.shape[-1] == probabilities.shape[-2]:
            probabilities = self._note(probabilities)
        return F.dropout(probabilities, dropout_p) @ value

    def _multi_head(self, *args: Any, need_weights: bool = True, **kwargs: Any) -> Any:
        """Torch's own function, with our attention inside.

        It looks for modes before it does anything, so that it would come back here; a copy of it
        does not, and finds what we put in the place of its helpers.
        """

        def attend(*args: Any, **kwargs: Any) -> Tensor:
            return self._attend(*args, **kwargs)

        def softmax(scores: Tensor, dim: int) -> Tensor:
            batch = len(first_image(self.inputs))
            probabilities = scores.softmax(dim)
            square = probabilities.shape[-1] == probabilities.shape[-2]
            fits = square and len(probabilities) % batch == 0
            return self._note(probabilities) if fits else probabilities

        original: Any = F.multi_head_attention_forward
        replaced = {
            **original.__globals__,
            "has_torch_function": lambda tensors: False,
            "scaled_dot_product_attention": attend,
            "softmax": softmax,
        }
        copy = FunctionType(original.__code__, replaced, argdefs=original.__defaults__)
        return copy(*args, need_weights=need_weights, **kwargs)


ATTENTION_METHODS = (
    PassMethod(
        name="legrad",
        title="LeGrad",
        run=attention_maps,
        formula="mean over heads and queries of max(dS/dP, 0), P the layer's attention "
        "probabilities, S the score of its mean token",
        source="Bousselham et al., LeGrad, 2024, arXiv 2404.03214",
        cost="two passes more, and a backward pass of each block",
        native="",
        only="attention blocks of vision transformers",
    ),
)
