"""Extractors that need no gradients: the classifier's weights, and scores of masked images."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from camfuse.compat.torchcam.methods._given import Given
from camfuse.compat.torchcam.methods._maps import resized
from camfuse.compat.torchcam.methods._noise import Noise, callers_noise
from camfuse.compat.torchcam.methods._targets import (
    ClassIdx,
    Targets,
    class_scores,
    per_sample,
    target_scores,
)
from camfuse.compat.torchcam.methods.core import _CAM, TargetLayer
from camfuse.methods.base import wide
from camfuse.perturbation import passes
from camfuse.preserve import evaluating

__all__ = ["CAM", "ISCAM", "SSCAM", "ScoreCAM"]

_logger = logging.getLogger(__name__)
_Score = Callable[[Tensor, Tensor], Tensor]
_MANY = 8  # passes that are worth the three which prove that faster ones are equal


class CAM(_CAM):
    """Zhou et al., CVPR 2016: channels by their weight in the linear layer behind a global pooling.

    Args:
        model: Any module.
        target_layer: The layer that is pooled, or its name.
        fc_layer: The linear layer (or 1 x 1 convolution) or its name; by default the only linear
            one that there is.
        input_shape: As for the base class.
        kwargs: ``enable_hooks`` and ``reshape_transform``, as for the base class.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If there are several target layers, or it is not clear which linear layer.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: TargetLayer = None,
        fc_layer: nn.Module | str | None = None,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **kwargs: Any,
    ) -> None:
        if isinstance(target_layer, list) and len(target_layer) > 1:
            raise ValueError(f"target_layer: expected one layer, got {len(target_layer)}")
        if not isinstance(fc_layer, nn.Module | str | None):
            raise TypeError(f"fc_layer: expected a module or name, got {type(fc_layer).__name__}")
        super().__init__(model, target_layer, input_shape, **kwargs)
        if fc_layer is None:
            linear = [n for n, one in self.submodule_dict.items() if isinstance(one, nn.Linear)]
            if len(linear) != 1:
                self.remove_hooks()
                raise ValueError(
                    f"fc_layer: expected a layer, as the model has {len(linear)} linear ones, "
                    "got None"
                )
            _logger.warning("fc_layer: none was given, took %r", linear[0])
            fc_layer = linear[0]
        self._fc_name = self._resolve_layer_name(fc_layer, "fc_layer")

    @property
    def _fc_weights(self) -> Tensor:
        """``[classes, C]``."""
        weight = self.submodule_dict[self._fc_name].weight
        assert isinstance(weight, Tensor)
        return weight.detach().flatten(1)

    def _get_weights(self, class_idx: Any, *args: Any) -> list[Tensor]:
        chosen = self._fc_weights[class_idx]
        return [chosen[None] if isinstance(class_idx, int) else chosen]


class ScoreCAM(_CAM):
    """Wang et al., CVPRW 2020: a channel weighs what the image scores where the channel is active.

    A mask is a channel, by its own range at the layer's resolution, enlarged to the image. The
    model runs in eval mode and is left as it was.

    Args:
        model: Any module.
        target_layer: As for the base class.
        batch_size: How many masked images go through the model at once.
        input_shape: As for the base class.
        kwargs: ``enable_hooks`` and ``reshape_transform``, as for the base class.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: TargetLayer = None,
        batch_size: int = 32,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **kwargs: Any,
    ) -> None:
        super().__init__(model, target_layer, input_shape, **kwargs)
        self.bs = batch_size
        self._relu = True
        self._targets_supported = True
        self._given: Given | None = None
        self._draws = 1  # masked images for each channel

    def _keep(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._given = Given(args, kwargs)

    def _get_weights(
        self, class_idx: Any, *args: Any, targets: Targets | None = None
    ) -> list[Tensor]:
        given = self._given
        if given is None:
            raise ValueError("expected a forward pass of the model itself, saw one of its layers")
        image = given.image
        masks = [self._normalize(wide(A).clone(), A.ndim - 2) for A in self.hook_a]
        draws = self._draws * sum(one.shape[0] * one.shape[1] for one in masks)

        def copies(count: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
            samples = torch.zeros(count, dtype=torch.long)
            return given.with_image(image[samples.to(image.device)], samples)

        def score(images: Tensor, samples: Tensor) -> Tensor:
            args, kwargs = given.with_image(images, samples)
            return _scores(self.model(*args, **kwargs), samples, class_idx, targets)

        with (
            callers_noise() as noise,
            self._hooks_off(),
            evaluating(tuple(self.model.modules())),
            passes(self.model, image, copies, shorter=draws > _MANY * self.bs),
        ):
            return [
                self._channel_scores(one, image, score, noise).softmax(-1).to(A.dtype)
                for one, A in zip(masks, self.hook_a, strict=True)
            ]

    def _channel_scores(self, masks: Tensor, image: Tensor, score: _Score, noise: Noise) -> Tensor:
        """What each channel scores ``[B, C]``.

        Args:
            masks: ``[B, C, *grid]`` in [0, 1].
            image: ``[B, ...]``.
            score: From masked images, and the sample that each was made of, to their scores.
            noise: Draws it.
        """
        return self._scaled_scores(masks, image, score, [1.0])

    def _scaled_scores(
        self, masks: Tensor, image: Tensor, score: _Score, factors: list[float]
    ) -> Tensor:
        """Mean scores over several factors of the masks; those that are 0 are run once a sample."""
        alive = masks.flatten(2).any(2)
        of_alive = alive.nonzero().repeat_interleave(len(factors), 0)
        blank = (~alive).int().argmax(1)
        of_dead = torch.stack([torch.arange(len(blank)).to(blank), blank], 1)[~alive.all(1)]
        sample, channel = torch.cat([of_alive, of_dead]).unbind(1)
        factor = masks.new_tensor(factors).repeat(len(sample) // len(factors) + 1)
        scores = []
        for chunk in self._chunks(len(sample)):
            mask = self._enlarged(masks[sample[chunk], channel[chunk]], image)
            scale = factor[chunk][: len(mask)].view(-1, *[1] * (mask.ndim - 1))
            masked = image[sample[chunk]] * (scale * mask).to(image.dtype)
            scores.append(score(masked, sample[chunk]))
        found = torch.cat(scores)
        means = found.new_zeros(masks.shape[:2])
        means[alive] = found[: len(of_alive)].view(-1, len(factors)).mean(1)
        dead = found.new_zeros(len(masks))
        dead[of_dead[:, 0]] = found[len(of_alive) :]
        return torch.where(alive, means, dead[:, None])

    def _chunks(self, count: int) -> list[slice]:
        return [slice(i, min(i + self.bs, count)) for i in range(0, count, self.bs)]

    @staticmethod
    def _enlarged(masks: Tensor, image: Tensor) -> Tensor:
        """Masks ``[N, *grid]`` as ``[N, 1, ...]``, of the image's size."""
        size = image.shape[2:]
        return (masks if masks.shape[1:] == size else resized(masks, size))[:, None]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_size={self.bs})"


class SSCAM(ScoreCAM):
    """Wang et al., 2020, arXiv 2006.14255: mean scores over masks with Gaussian noise.

    The noise is added to the enlarged masks, and drawn from torch's generator of the CPU.

    Args:
        model: Any module.
        target_layer: As for the base class.
        batch_size: How many masked images go through the model at once.
        num_samples: How many draws are averaged.
        std: Standard deviation of the noise.
        input_shape: As for the base class.
        kwargs: ``enable_hooks`` and ``reshape_transform``, as for the base class.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: TargetLayer = None,
        batch_size: int = 32,
        num_samples: int = 35,
        std: float = 2.0,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **kwargs: Any,
    ) -> None:
        super().__init__(model, target_layer, batch_size, input_shape, **kwargs)
        self.num_samples = self._draws = num_samples
        self.std = std

    def _channel_scores(self, masks: Tensor, image: Tensor, score: _Score, noise: Noise) -> Tensor:
        batch, channels = masks.shape[:2]
        sample = torch.arange(batch, device=masks.device).repeat_interleave(channels)
        total = None
        for _ in range(self.num_samples):
            drawn = noise((batch * channels, *image.shape[2:]))
            scores = []
            for chunk in self._chunks(batch * channels):
                mask = self._enlarged(masks.flatten(0, 1)[chunk], image)
                noisy = (mask + self.std * drawn[chunk, None].to(mask)).to(image.dtype)
                scores.append(score(image[sample[chunk]] * noisy, sample[chunk]))
            found = torch.cat(scores)
            total = found if total is None else total + found
        assert total is not None
        return (total / self.num_samples).view(batch, channels)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(batch_size={self.bs}, num_samples={self.num_samples}, "
            f"std={self.std})"
        )


class ISCAM(ScoreCAM):
    """Naidu et al., 2020, arXiv 2010.03023: mean scores from a dark image to a bright one.

    Step i of N multiplies the masked image by 1/N + 2/N + ... + i/N.

    Args:
        model: Any module.
        target_layer: As for the base class.
        batch_size: How many masked images go through the model at once.
        num_samples: N.
        input_shape: As for the base class.
        kwargs: ``enable_hooks`` and ``reshape_transform``, as for the base class.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: TargetLayer = None,
        batch_size: int = 32,
        num_samples: int = 10,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **kwargs: Any,
    ) -> None:
        super().__init__(model, target_layer, batch_size, input_shape, **kwargs)
        self.num_samples = self._draws = num_samples

    def _channel_scores(self, masks: Tensor, image: Tensor, score: _Score, noise: Noise) -> Tensor:
        n = self.num_samples
        factors = [i * (i + 1) / (2 * n) for i in range(1, n + 1)]
        return self._scaled_scores(masks, image, score, factors)


def _scores(
    output: Any, samples: Tensor, class_idx: ClassIdx | None, targets: Targets | None
) -> Tensor:
    """The scores of copies, by the targets of the sample that each is a copy of, wide."""
    if targets is None:
        assert class_idx is not None
        own = class_idx
        if not isinstance(class_idx, int):
            own = [class_idx[i] for i in samples.tolist()]
        return wide(class_scores(output, own))
    chosen = targets
    if not callable(targets):
        chosen = [targets[i] for i in samples.tolist()]
    return wide(target_scores(output, per_sample(chosen, len(samples))))
