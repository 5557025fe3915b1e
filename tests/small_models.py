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


class OverwrittenTwin(SkipOverIdentity):
    """The skip connection reads the tensor after it was overwritten through its other name."""

    def body(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.through(x)
        y.mul_(2)
        return x + self.second(y)


class StashedTwin(SkipOverIdentity):
    """A module returns a tensor that somebody else stashed."""

    class Stash(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kept: list[Tensor] = []

        def forward(self, x: Tensor) -> Tensor:
            return self.kept[0]

    def __init__(self) -> None:
        super().__init__(self.Stash())

    def body(self, x: Tensor) -> Tensor:
        x = self.first(x)
        self.through.kept[:] = [x]
        y = self.through(x.sum())
        self.through.kept.clear()
        return x + self.second(y)


class ListTwin(SkipOverIdentity):
    """A module returns one of the tensors in a list."""

    class Pick(nn.Module):
        def forward(self, xs: list[Tensor]) -> Tensor:
            return xs[-1]

    def __init__(self) -> None:
        super().__init__(self.Pick())

    def body(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return x + self.second(self.through([x * 2, x]))


class SharedView(Head):
    """A view of a module's input is overwritten, and the input read afterwards."""

    class View(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, 1:3]

    def __init__(self) -> None:
        super().__init__(4)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.view = self.View()
        self.second = nn.Conv2d(4, 4, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        x = self.first(x)
        self.view(x).mul_(3)
        return self.second(x)


class OverwrittenSigmoid(Head):
    """Overwrites what autograd saved: it runs, but could not be trained."""

    def __init__(self) -> None:
        super().__init__(4)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.sigmoid = nn.Sigmoid()
        self.second = nn.Conv2d(4, 4, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        return self.second(self.sigmoid(self.first(x)).mul_(2))


class TrainableBuffer(Head):
    """Something that requires grad is no parameter."""

    def __init__(self) -> None:
        super().__init__(4)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.register_buffer("scale", torch.ones(4, 1, 1))

    def body(self, x: Tensor) -> Tensor:
        return self.second(self.first(x) * self.scale)


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
        self.stem = nn.Conv2d(3, 3, 1)  # the root, which nobody can overwrite
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.in_place = False

    def body(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x))
        return self.second(x.relu_() if self.in_place else x.relu())


class OverwrittenInput(Moody):
    """Normalises its input in place, and overwrites an activation so that a pass is repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def body(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.in_place = self.calls > 2
        return super().body(x.sub_(0.5))


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
