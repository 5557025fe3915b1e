"""Small networks, each with one habit that makes capturing hard."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """Base: a body that makes an image, and a classifier over its mean."""

    def __init__(self, channels: int, classes: int = 5) -> None:
        super().__init__()
        self.classifier = nn.Linear(channels, classes)

    def body(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.body(x).mean((2, 3)))


class Branches(Head):
    """Two branches that share nothing: with one root, one of them would get no gradient."""

    def __init__(self) -> None:
        super().__init__(8)
        self.left = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.right = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh())

    def body(self, x: Tensor) -> Tensor:
        return torch.cat([self.left(x), self.right(x)], 1)


class SkipOverIdentity(Head):
    """A skip connection holds the very tensor that a pass-through module returns."""

    def __init__(self, through: nn.Module | None = None) -> None:
        super().__init__(4)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.through = through or nn.Identity()
        self.second = nn.Conv2d(4, 4, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.through(x)
        return x + self.second(y)


class OverwrittenIdentity(SkipOverIdentity):
    """As above, but what the pass-through module returned is then overwritten in place."""

    def body(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.through(x)
        y.mul_(2)
        return self.second(y) + y


class Residual(Head):
    """What torchvision's residual blocks do: in-place ReLU, in-place addition."""

    def __init__(self) -> None:
        super().__init__(4)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        y = self.conv(x)
        y += x
        return self.relu(y)


class Slice(nn.Module):
    """Returns a view of what it computed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)[:, 2:6]


class OverwrittenView(Head):
    """A successor overwrites a view in place."""

    def __init__(self) -> None:
        super().__init__(4)
        self.slice = Slice()
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        return self.conv(self.relu(self.slice(x)))


class Moody(Head):
    """Overwrites its first output in place only when told to."""

    def __init__(self) -> None:
        super().__init__(4)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.in_place = False

    def body(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second(x.relu_() if self.in_place else x.relu())


class DeadEnd(Head):
    """One layer does not reach the output, one is never called, one has no spatial extent."""

    def __init__(self) -> None:
        super().__init__(4)
        self.used = nn.Conv2d(3, 4, 3, padding=1)
        self.dead = nn.Conv2d(4, 4, 3, padding=1)
        self.never = nn.Conv2d(4, 4, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def body(self, x: Tensor) -> Tensor:
        x = self.used(x)
        self.dead(x)
        return x * self.pool(x)
