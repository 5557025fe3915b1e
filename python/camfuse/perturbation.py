"""What perturbation methods share: samples one by one, several copies at a time, scored per target.

A method changes something (the image, or a layer's output) channel by channel and asks what the
target's score becomes. Everything here is about one sample, of which the model sees up to
``batch_size`` changed copies at once; samples never meet in a batch, and memory does not grow with
the number of channels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from camfuse import ops
from camfuse.captured import Reshape
from camfuse.faster import faster
from camfuse.inputs import Inputs, first_image
from camfuse.layers import unwrap
from camfuse.model_checks import check_model
from camfuse.preserve import (
    borrowed_buffers,
    eager,
    kept_attributes,
    one_at_a_time,
    plain_attention,
    random_state,
    state_tensors,
)
from camfuse.replay import Arguments, copied
from camfuse.targets import (
    Scores,
    Target,
    fixed,
    on_host,
    part_of_target,
    resolve_targets,
)


@dataclass(frozen=True, eq=False)
class Site:
    """The layer that is explained.

    Attributes:
        module: The layer.
        call: Which of its calls in a pass, from 1.
        spatial: From its output to ``[B, C, h, w]``. Ablation needs a view.
    """

    module: nn.Module
    call: int = 1
    spatial: Reshape = field(default=lambda output: output)


@dataclass(frozen=True)
class Weighted:
    """A layer's channels and what each of them weighs.

    Attributes:
        activations: ``[B, C, h, w]``, of passes over single samples.
        weights: ``[T, B, C]``, in the dtype of the activations.
        scores: The resolved targets of the unchanged samples.
        refusals: Why something did not take a shorter way, if so; maps are the same.
    """

    activations: Tensor
    weights: Tensor
    scores: Scores
    refusals: tuple[str, ...]

    def maps(self) -> Tensor:
        """Signed maps ``[T, B, h, w]``."""
        return torch.cat(
            [
                ops.layer_cam(self.activations, None, ["weighted"], weights=weights)[0]
                for weights in self.weights
            ]
        )


@contextlib.contextmanager
def passes(
    model: nn.Module,
    image: Tensor,
    arguments: Arguments,
    *,
    unlike: nn.Module | None = None,
    shorter: bool = True,
) -> Iterator[tuple[str, ...]]:
    """Many forward passes of a model, which is as before afterwards; faster ones where proven.

    Gradients are off, but it is no inference mode: that hides who overwrites what, would leave
    inference tensors in what models cache, and is not faster.

    Args:
        model: In eval mode.
        image: What it is given, for the device.
        arguments: The sample that the proof of faster passes is made with.
        unlike: A layer that must return what it always does.
        shorter: Whether passes become faster at all: the proof takes three passes.

    Yields:
        Why passes are not faster than plain ones.
    """
    modules = tuple(model.modules())
    devices = {one.device for one in (image, *state_tensors(modules))}
    with contextlib.ExitStack() as stack:
        stack.enter_context(one_at_a_time)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(plain_attention(modules))
        stack.enter_context(random_state(devices))
        stack.enter_context(eager(modules))
        stack.enter_context(kept_attributes(modules))
        stack.enter_context(borrowed_buffers(modules))
        refusal = None
        if shorter:
            refusal = stack.enter_context(faster(model, arguments, unlike=unlike))
        yield () if refusal is None else (refusal,)


class Perturbation:
    """Samples, targets, and how many changed copies the model may see at once.

    Args:
        model: In eval mode; it is left as it was found, also after an exception.
        inputs: A tensor ``[B, ...]``, a sequence of positional or a mapping of keyword arguments.
            The first image among them is what gets masked; tensors whose first axis is the batch
            are repeated for every copy, all else is passed on.
        target: Which scores; see :mod:`camfuse.targets`. Classes are resolved on the unchanged
            samples. A function is called with the output for several copies of one sample.
        batch_size: The most copies in one pass.

    Raises:
        ValueError: If an argument does not fit.
    """

    def __init__(
        self, model: nn.Module, inputs: Inputs, target: Target = None, *, batch_size: int = 32
    ) -> None:
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
            raise ValueError(f"batch_size: expected an integer of at least 1, got {batch_size!r}")
        self.model = unwrap(model)
        check_model(self.model, allow_training=False)
        self.image = first_image(inputs)
        self.batch = len(self.image)
        self.batch_size = batch_size
        self._inputs = inputs
        self._target = on_host(target)

    @contextlib.contextmanager
    def session(self, site: Site) -> Iterator[tuple[str, ...]]:
        """Passes through the model belong inside.

        Yields:
            Why they are not faster than plain ones.
        """
        with passes(
            self.model, self.image, self._sample(0).arguments, unlike=site.module
        ) as refusals:
            yield refusals

    def chunks(self, count: int) -> Iterator[slice]:
        """Slices that ``count`` copies are run in."""
        for start in range(0, count, self.batch_size):
            yield slice(start, min(start + self.batch_size, count))

    def samples(self) -> Iterator[Sample]:
        """The samples, one after another."""
        return (self._sample(index) for index in range(self.batch))

    def _sample(self, index: int) -> Sample:
        part = slice(index, index + 1)
        target = part_of_target(self._target, self.batch, part)
        image = self.image[part].detach().clone()
        repeated: list[Tensor] = []

        def take(value: Any) -> Any:
            if value is self.image:
                return image
            if not isinstance(value, Tensor):
                return value
            if not value.ndim or len(value) != self.batch:
                return value.detach().clone()
            repeated.append(value[part].detach().clone())
            return repeated[-1]

        inputs = image if isinstance(self._inputs, Tensor) else tree_map(take, self._inputs)
        return Sample(self, inputs, image, repeated, target)


class Sample:
    """One sample: what the model is called with for copies of it, and what these score.

    Attributes:
        image: ``[1, ...]``, what is masked.
    """

    def __init__(
        self,
        owner: Perturbation,
        inputs: Inputs,
        image: Tensor,
        repeated: list[Tensor],
        target: Target,
    ) -> None:
        self.image = image
        self._owner, self._inputs, self._repeated = owner, inputs, {id(one) for one in repeated}
        self._target = target
        self._settled = target

    def arguments(self, copies: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments for so many copies of the sample, as views."""
        return self._with(self.image.expand(copies, *self.image.shape[1:]))

    def resolve(self, output: Any) -> Scores:
        """Settles the targets by the output for the unchanged sample."""
        scores = resolve_targets(self._target, output, 1)
        self._settled = fixed(self._target, scores.indices)
        return scores

    def score(self, output: Any, copies: int) -> Tensor:
        """Scores ``[T, copies]`` of an output for copies, f64."""
        scores = resolve_targets(self._settled, output, copies).values
        return torch.stack([one.double() for one in scores])

    def score_images(self, count: int, images: Callable[[slice], Tensor]) -> Tensor:
        """Scores ``[T, count]`` of copies with other images, f64.

        Args:
            count: How many.
            images: Makes those of one chunk, ``[n, ...]``.
        """
        scores = []
        for chunk in self._owner.chunks(count):
            args, kwargs = copied(self._with(images(chunk)))
            scores.append(self.score(self._owner.model(*args, **kwargs), chunk.stop - chunk.start))
        return torch.cat(scores, 1)

    def _with(self, images: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        def given(value: Any) -> Any:
            if value is self.image:
                return images
            if id(value) in self._repeated:
                return value.expand(len(images), *value.shape[1:])
            return value

        if isinstance(self._inputs, Tensor):
            return (images,), {}
        inputs = tree_map(given, self._inputs)
        return ((), dict(inputs)) if isinstance(inputs, Mapping) else (tuple(inputs), {})


def weighted(
    activations: list[Tensor], weights: list[Tensor], scores: list[Scores], refusals: Sequence[str]
) -> Weighted:
    """Joins what was found sample by sample: activations ``[1, C, h, w]``, weights ``[T, C]``."""
    A = torch.cat(activations)
    return Weighted(
        activations=A,
        weights=torch.stack(weights, 1).to(A.dtype),
        scores=Scores(
            values=tuple(torch.cat(of) for of in zip(*(s.values for s in scores), strict=True)),
            indices=torch.cat([one.indices for one in scores], 1),
            probabilities=torch.cat([one.probabilities for one in scores], 1),
        ),
        refusals=tuple(refusals),
    )
