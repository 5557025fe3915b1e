"""What extractors share that are built on another one."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from torch import nn

from camfuse.compat.torchcam.methods.core import _CAM


class Delegate:
    """Passes on everything about hooks to an extractor.

    Args:
        base_cam: The extractor.
    """

    def __init__(self, base_cam: _CAM) -> None:
        self.base_cam = base_cam

    @property
    def model(self) -> nn.Module:
        """The model."""
        return self.base_cam.model

    @property
    def target_names(self) -> list[str]:
        """Names of the target layers."""
        return self.base_cam.target_names

    def enable_hooks(self) -> None:
        """Passes are watched from now on."""
        self.base_cam.enable_hooks()

    def disable_hooks(self) -> None:
        """Passes are left alone from now on."""
        self.base_cam.disable_hooks()

    def reset_hooks(self) -> None:
        """Forgets the last pass."""
        self.base_cam.reset_hooks()

    def remove_hooks(self) -> None:
        """Takes all hooks off the model, for good."""
        self.base_cam.remove_hooks()

    def _hooks_off(self) -> AbstractContextManager[None]:
        return self.base_cam._hooks_off()

    def __enter__(self) -> Self:
        self.base_cam.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.base_cam.__exit__(exc_type, exc_value, traceback)
