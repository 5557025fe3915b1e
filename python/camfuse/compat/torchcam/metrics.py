"""How well maps explain: what the model still scores once parts of the image are gone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from camfuse.compat.torchcam.methods._targets import (
    ClassIdx,
    OutputTarget,
    Targets,
    class_scores,
    per_sample,
    target_scores,
)
from camfuse.compat.torchcam.methods._utils import untouched
from camfuse.preserve import evaluating

__all__ = ["ClassificationMetric", "DeletionInsertionMetric"]

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}

Extract = Callable[[Any], Any]


class Extractor(Protocol):
    """What metrics need of an extractor."""

    @property
    def model(self) -> nn.Module:
        """The model."""

    def __call__(self, *args: Any, **kwargs: Any) -> list[Tensor]:
        """Maps of the last pass."""

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        """One map of several layers."""

    def _hooks_off(self) -> AbstractContextManager[None]: ...


class _Explained:
    """A batch, its maps, and the scores of the samples whose maps are not NaN.

    Attributes:
        nan_count: How many samples' maps are NaN.
        images: The others ``[B, ...]``.
        maps: Their maps, of the images' size; empty if there are none.
        scores: Their scores ``[B]``.
    """

    def __init__(
        self,
        extractor: Extractor,
        logits_fn: Extract | None,
        x: Tensor,
        class_idx: ClassIdx | None,
        targets: Targets | None,
    ) -> None:
        if targets is not None and class_idx is not None:
            raise ValueError("class_idx: expected either classes or targets, got both")
        self._extractor, self._logits_fn = extractor, logits_fn
        with untouched(extractor.model):
            output = self._run(x)
        own: list[int] | list[OutputTarget]
        if targets is not None:
            own = per_sample(targets, len(x))
            cams = extractor(scores=output, targets=own)
        else:
            own = _classes(output, class_idx)
            cams = extractor(own, output)
        maps = extractor.fuse_cams(cams).detach()
        kept = ~maps.isnan().flatten(1).any(1)
        self.nan_count = len(x) - int(kept.sum())
        self.kept, self.images = kept, x[kept]
        chosen = kept.tolist()
        self._own: list[Any] = [one for one, keep in zip(own, chosen, strict=True) if keep]
        self.scores = self._select(output, own).detach()[kept]
        self.maps = _resized(maps[kept], x.shape[2:]) if len(self.images) else maps[kept]

    def score(self, images: Tensor, samples: list[int]) -> Tensor:
        """What other images score by the target of the sample that each was made of ``[N]``."""
        with self._extractor._hooks_off(), untouched(self._extractor.model), torch.no_grad():
            return self._select(self._run(images), [self._own[i] for i in samples])

    def _run(self, x: Tensor) -> Any:
        output = self._extractor.model(x)
        return output if self._logits_fn is None else self._logits_fn(output)

    @staticmethod
    def _select(output: Any, own: list[Any]) -> Tensor:
        if own and callable(own[0]):
            return target_scores(output, own)
        return class_scores(output, own)


class ClassificationMetric:
    """Average drop and increase in confidence (Chattopadhay et al., WACV 2018).

    The image is multiplied by its map. The model runs in eval mode and is left as it was.

    Args:
        cam_extractor: Makes the maps.
        logits_fn: From what the model returns to scores, such as a softmax.
    """

    def __init__(self, cam_extractor: Extractor, logits_fn: Extract | None = None) -> None:
        self.cam_extractor = cam_extractor
        self.logits_fn = logits_fn
        self.reset()

    def update(
        self,
        input_tensor: Tensor,
        class_idx: ClassIdx | None = None,
        *,
        targets: Targets | None = None,
    ) -> None:
        """Adds a batch.

        Args:
            input_tensor: ``[B, C, *size]``.
            class_idx: The class, or one for each sample; by default those of the highest scores.
            targets: Functions instead of classes.

        Raises:
            TypeError: If an argument is of the wrong type.
            ValueError: If one does not fit.
        """
        with evaluating(tuple(self.cam_extractor.model.modules())):
            batch = _Explained(self.cam_extractor, self.logits_fn, input_tensor, class_idx, targets)
            self.nan_count += batch.nan_count
            if not len(batch.images):
                return
            masked = batch.score(batch.maps[:, None] * batch.images, [*range(len(batch.images))])
        drop = (batch.scores - masked).clamp(min=0) / (batch.scores + 1e-7)
        self.drop += float(drop.sum())
        self.increase += float((batch.scores < masked).sum())
        self.total += len(batch.images)

    def summary(self) -> dict[str, float]:
        """``avg_drop`` and ``conf_increase``, over all samples whose maps are not NaN.

        Raises:
            AssertionError: If there are none.
        """
        _check_total(self.total)
        return {"avg_drop": self.drop / self.total, "conf_increase": self.increase / self.total}

    def reset(self) -> None:
        """Begins anew."""
        self.drop = 0.0
        self.increase = 0.0
        self.total = 0
        self.nan_count = 0


class DeletionInsertionMetric:
    """Areas under the curves of deletion and insertion (Petsiuk et al., RISE, BMVC 2018).

    Positions are deleted, or inserted, from the highest of the map on, in all channels at once. The
    model runs in eval mode and is left as it was.

    Args:
        cam_extractor: Makes the maps.
        logits_fn: From what the model returns to scores, such as a softmax.
        steps: How many steps a curve has at most.
        baseline: What is seen where the image is not: a tensor that can be broadcast to the images,
            or a function from them to one; zeros by default.
        batch_size: How many images go through the model at once.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If ``steps`` or ``batch_size`` is not positive.
    """

    def __init__(
        self,
        cam_extractor: Extractor,
        logits_fn: Extract | None = None,
        *,
        steps: int = 20,
        baseline: Tensor | Callable[[Tensor], Tensor] | None = None,
        batch_size: int = 32,
    ) -> None:
        for name, value in (("steps", steps), ("batch_size", batch_size)):
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name}: expected an integer, got {value!r}")
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        if not (baseline is None or isinstance(baseline, Tensor) or callable(baseline)):
            raise TypeError(f"baseline: expected a tensor or a function, got {baseline!r}")
        self.cam_extractor = cam_extractor
        self.logits_fn = logits_fn
        self.steps = steps
        self.baseline = baseline
        self.batch_size = batch_size
        self.reset()

    def update(
        self,
        input_tensor: Tensor,
        class_idx: ClassIdx | None = None,
        *,
        targets: Targets | None = None,
    ) -> None:
        """Adds a batch; arguments and errors as for :meth:`ClassificationMetric.update`."""
        with evaluating(tuple(self.cam_extractor.model.modules())):
            batch = _Explained(self.cam_extractor, self.logits_fn, input_tensor, class_idx, targets)
            self.nan_count += batch.nan_count
            if not len(batch.images):
                return
            with torch.no_grad():
                baseline = self._get_baseline(input_tensor)[batch.kept]
            fractions, deletion, insertion = self._curves(batch, baseline)
        self.deletion += float(torch.trapezoid(deletion, fractions, dim=1).sum())
        self.insertion += float(torch.trapezoid(insertion, fractions, dim=1).sum())
        self.total += len(batch.images)

    def _get_baseline(self, input_tensor: Tensor) -> Tensor:
        """What is seen where the image is not, of the images' shape.

        Raises:
            TypeError: If a function returns no tensor.
            ValueError: If it cannot be broadcast.
        """
        baseline = self.baseline
        if baseline is None:
            return torch.zeros_like(input_tensor)
        if not isinstance(baseline, Tensor):
            baseline = baseline(input_tensor)
        if not isinstance(baseline, Tensor):
            raise TypeError(f"baseline: expected a tensor, got {type(baseline).__name__}")
        try:
            return baseline.to(input_tensor).broadcast_to(input_tensor.shape)
        except RuntimeError as error:
            raise ValueError(
                f"baseline: expected it to broadcast to {tuple(input_tensor.shape)}, got "
                f"{tuple(baseline.shape)}"
            ) from error

    def _curves(self, batch: _Explained, baseline: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fractions ``[S]``, and scores of deletion and insertion ``[B, S]``."""
        images, original = batch.images.flatten(2), baseline.flatten(2)
        order = batch.maps.flatten(1).argsort(dim=1, descending=True, stable=True)
        ranks = order.argsort(dim=1)
        positions = ranks.shape[1]
        step = -(-positions // self.steps)
        counts = [*range(0, positions, step), positions]
        # Nothing is left of the image where deletion ends and insertion begins.
        ends = [(b, 0, positions) for b in range(len(images))]
        inner = [
            (b, kind, count)
            for b in range(len(images))
            for count in counts[1:-1]
            for kind in (0, 1)
        ]
        jobs = ends + inner
        scores = []
        for start in range(0, len(jobs), self.batch_size):
            sample, kind, count = map(
                list, zip(*jobs[start : start + self.batch_size], strict=True)
            )
            first = ranks[sample] < torch.tensor(count, device=ranks.device)[:, None]
            inserted = torch.tensor(kind, device=ranks.device)[:, None] == 1
            shown = (first == inserted)[:, None]
            mixed = torch.where(shown, images[sample], original[sample])
            scores.append(batch.score(mixed.view(-1, *batch.images.shape[1:]), sample))
        found = torch.cat(scores).to(batch.scores)
        blank = found[: len(ends), None]
        between = found[len(ends) :].view(len(images), -1, 2)
        whole = batch.scores[:, None]
        fractions = torch.tensor(counts, device=found.device, dtype=torch.float32) / positions
        deletion = torch.cat([whole, between[..., 0], blank], 1)
        insertion = torch.cat([blank, between[..., 1], whole], 1)
        return fractions, deletion, insertion

    def summary(self) -> dict[str, float]:
        """``deletion_auc`` and ``insertion_auc``, means over all samples whose maps are not NaN.

        Raises:
            AssertionError: If there are none.
        """
        _check_total(self.total)
        return {
            "deletion_auc": self.deletion / self.total,
            "insertion_auc": self.insertion / self.total,
        }

    def reset(self) -> None:
        """Begins anew."""
        self.deletion = 0.0
        self.insertion = 0.0
        self.total = 0
        self.nan_count = 0


def _check_total(total: int) -> None:
    if not total:
        raise AssertionError("expected an update with a map that is not NaN before a summary")


def _classes(output: Any, class_idx: ClassIdx | None) -> list[int]:
    """The class of each sample."""
    batch, count = output.shape
    if class_idx is None:
        highest: list[int] = output.argmax(-1).tolist()
        return highest
    classes = [class_idx] * batch if isinstance(class_idx, int) else class_idx
    if not isinstance(classes, list) or not all(type(one) is int for one in classes):
        raise TypeError(f"class_idx: expected an integer or a list of them, got {class_idx!r}")
    if len(classes) != batch or not all(0 <= one < count for one in classes):
        raise ValueError(
            f"class_idx: expected {batch} classes of at least 0 and below {count}, got {class_idx}"
        )
    return classes


def _resized(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    if len(size) not in _LINEAR:
        raise ValueError(f"input_tensor: expected one to three axes of positions, got {len(size)}")
    mode = _LINEAR[len(size)]
    return F.interpolate(maps[:, None], size, mode=mode, align_corners=False)[:, 0]
