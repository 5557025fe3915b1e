"""What a model says of perturbed copies of images: many at once, whichever images they come from.

Metrics of faithfulness change an image where a map points and ask what the target's score becomes.
They all need the same passes, which this module makes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from camfuse.checks import expect, expect_whole
from camfuse.devices import check_device, upload
from camfuse.layers import unwrap
from camfuse.model_checks import check_devices, check_model
from camfuse.perturbation import passes
from camfuse.structures import tensors_in
from camfuse.targets import (
    Each,
    Scores,
    Target,
    fixed,
    on_host,
    part_of_target,
    resolve_targets,
)

Output = Literal["probability", "logit"]

_COMPARED = 8  # perturbed images whose scores are also computed in full precision
_SUM_TOLERANCE = 1e-3  # of probabilities, which may be those of a model in half precision


class Scorer:
    """Scores of the targets of some images, for perturbed copies of these images.

    The targets are resolved once, on the images as they are, so ``target=None`` stays the class
    that was found there whatever a perturbation does.

    Args:
        model: In eval mode; it is left as it was found, also after an exception.
        images: The unperturbed images ``[B, C, H, W]``, floating.
        target: Which scores, T of them; see :mod:`camfuse.targets`.
        output: ``"probability"``, the softmax probability of the target's class in [0, 1], or
            ``"logit"``, what the target is by itself: a logit, or what a function returns.
        batch_size: The most images in one pass.
        precision: What perturbed images are computed in (autocast), such as ``torch.bfloat16``;
            :attr:`deviation` tells what that changes. None leaves the model's own precision.

    Attributes:
        targets: Class indices ``[T, B]``, int64, on the CPU; -1 for functions.
        unperturbed: Scores of the unperturbed images ``[T, B]``, f64, on the images' device.
        deviation: The largest difference of a score in ``precision`` from that in the model's own
            precision, over the unperturbed images and the first few perturbed ones; 0 without
            ``precision``.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument does not fit: a model in training mode, a target that is no class
            of the output, no probability where one is wanted.
        FloatingPointError: If a score of an unperturbed image is not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        target: Target = None,
        *,
        output: Output = "probability",
        batch_size: int = 32,
        precision: torch.dtype | None = None,
    ) -> None:
        self.model = unwrap(model)
        check_model(self.model, allow_training=False)
        self.images = checked_images(images)
        check_devices(self.model, self.images.device)
        if output not in get_args(Output):
            raise ValueError(f"output: expected 'probability' or 'logit', got {output!r}")
        expect_whole("batch_size", batch_size, at_least=1)
        if precision not in (None, torch.bfloat16, torch.float16):
            raise ValueError(
                f"precision: expected torch.bfloat16, torch.float16 or None, got {precision!r}"
            )
        self.output, self.batch_size, self.precision = output, batch_size, precision
        self._target = on_host(target)
        # A function may depend on places of its own for every sample: it sees copies of one alone.
        self._mixes = not _has_function(self._target)
        if not self._mixes and output == "probability":
            raise ValueError(
                "target: a function of the output has no probability; pass output='logit' to "
                "score what it returns"
            )
        self._layout = torch.preserve_format
        self.deviation = 0.0
        self._compared = precision is None
        with passes(self.model, self.images, self._arguments, shorter=False):
            self.targets, self.unperturbed = self._resolved()
            if precision is not None:
                everyone = torch.arange(len(self.images))
                scores = self._scores(self.images, everyone, precision)
                _expect_finite(scores, everyone)
                self._note_deviation(scores, self.unperturbed)
        _expect_finite(self.unperturbed, torch.arange(len(self.images)))

    @contextlib.contextmanager
    def session(self) -> Iterator[tuple[str, ...]]:
        """Calls belong inside: passes are faster there where that is proven to be the same.

        Yields:
            Why passes are not faster than plain ones.
        """
        with passes(self.model, self.images, self._arguments) as refusals:
            # Faster passes begin with that layout: copied so, images need no second copy.
            self._layout = torch.preserve_format if refusals else torch.channels_last
            try:
                yield refusals
            finally:
                self._layout = torch.preserve_format

    def __call__(self, images: Tensor, samples: Tensor) -> Tensor:
        """Scores of perturbed images.

        Args:
            images: ``[N, C, H, W]``, like the unperturbed ones.
            samples: Which of the samples each is a copy of ``[N]``, int64.

        Returns:
            ``[T, N]``, f64, on the images' device: the scores of each sample's own targets.

        Raises:
            ValueError: If an argument does not fit.
            FloatingPointError: If a score is not finite.
        """
        samples = samples.cpu()
        if images.shape[1:] != self.images.shape[1:] or samples.shape != images.shape[:1]:
            raise ValueError(
                f"images: expected (N, {', '.join(map(str, self.images.shape[1:]))}) and N "
                f"samples, got {tuple(images.shape)} and {tuple(samples.shape)}"
            )
        scores = self._scores(images, samples, self.precision)
        if not self._compared:
            self._compared = True
            few = slice(0, _COMPARED)
            self._note_deviation(scores[:, few], self._scores(images[few], samples[few], None))
        _expect_finite(scores, samples)
        return scores

    def _resolved(self) -> tuple[Tensor, Tensor]:
        """Classes and scores ``[T, B]`` of the images as they are."""
        count, step = len(self.images), self.batch_size if self._mixes else 1
        found = []
        for start in range(0, count, step):
            part = slice(start, min(start + step, count))
            output = self.model(self.images[part].clone())
            target = part_of_target(self._target, count, part)
            scores = resolve_targets(target, output, part.stop - start)
            if self.output == "probability":
                _expect_logits(output)
            found.append((scores.indices.cpu(), self._values(scores)))
        indices, values = zip(*found, strict=True)
        return torch.cat(indices, 1), torch.cat(values, 1)

    def _scores(self, images: Tensor, samples: Tensor, precision: torch.dtype | None) -> Tensor:
        scores = self.unperturbed.new_empty(len(self.targets), len(images))
        kind = self.images.device.type
        for chunk in self._chunks(samples):
            target = self._settled(samples[chunk])
            place = upload(chunk, images.device)
            # A slice where there is one, and a copy, which the model may overwrite.
            some = images[int(chunk[0]) : int(chunk[-1]) + 1] if self._mixes else images[place]
            given = some.to(self.images).clone(memory_format=self._layout)
            with torch.autocast(kind, precision, enabled=precision is not None):
                output = self.model(given)
            scores[:, place] = self._values(resolve_targets(target, output, len(chunk)))
        return scores

    def _chunks(self, samples: Tensor) -> Iterator[Tensor]:
        """Positions of the images that go through the model together."""
        groups = [torch.arange(len(samples))]
        if not self._mixes:
            groups = [(samples == one).nonzero()[:, 0] for one in range(len(self.images))]
        for group in groups:
            for start in range(0, len(group), self.batch_size):
                yield group[start : start + self.batch_size]

    def _settled(self, samples: Tensor) -> Target:
        """The targets of copies of these samples."""
        if self._mixes:
            return fixed(self._target, self.targets[:, samples])
        one = int(samples[0])
        part = part_of_target(self._target, len(self.images), slice(one, one + 1))
        return fixed(part, self.targets[:, one : one + 1])

    def _values(self, scores: Scores) -> Tensor:
        if self.output == "probability":
            return scores.probabilities.double()
        return torch.stack([one.double() for one in scores.values])

    def _note_deviation(self, scores: Tensor, expected: Tensor) -> None:
        self.deviation = max(self.deviation, float((scores - expected).abs().max()))

    def _arguments(self, copies: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the model is called with for copies of the first sample, as a view."""
        return (self.images[:1].expand(copies, *self.images.shape[1:]),), {}


def checked_images(images: Tensor) -> Tensor:
    """Images ``[B, C, H, W]`` apart from any graph.

    Raises:
        TypeError: If it is no tensor.
        ValueError: If it is not of that shape, empty, not floating, or not finite.
    """
    expect("images", images, Tensor)
    if images.ndim != 4 or not images.numel() or not images.is_floating_point():
        raise ValueError(
            f"images: expected floating images (B, C, H, W), got {images.dtype} "
            f"{tuple(images.shape)}"
        )
    check_device("images", images.device)
    finite = images.detach().isfinite().flatten(1).all(1)
    if not bool(finite.all()):
        raise ValueError(f"images: sample {int(finite.int().argmin())} is not finite")
    return images.detach()


def _has_function(target: Target) -> bool:
    if isinstance(target, Each):
        return any(map(_has_function, target.targets))
    return callable(target)


def _expect_logits(output: Any) -> None:
    """Checks that the softmax of what a model returned is a probability that says something."""
    logits = next(one for one in tensors_in(output) if one.is_floating_point() and one.ndim == 2)
    if logits.shape[1] == 1:
        raise ValueError(
            "output: the model returns one number per image, whose softmax is always 1; pass "
            "output='logit' to score it as it is, or with it a function of the output, such as "
            "lambda y: y[:, 0].sigmoid()"
        )
    sums = logits.sum(1).double()
    if bool((logits >= 0).all()) and bool(((sums - 1).abs() < _SUM_TOLERANCE).all()):
        raise ValueError(
            "output: the model returns probabilities already (each row is at least 0 and adds up "
            "to 1); pass output='logit' to score them as they are"
        )


def _expect_finite(scores: Tensor, samples: Tensor) -> None:
    bad = ~scores.isfinite().all(0)
    if bool(bad.any()):
        sample = int(samples[int(bad.int().argmax())])
        raise FloatingPointError(f"output: a score of sample {sample} is not finite")
