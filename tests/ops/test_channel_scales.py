"""A number for each channel times a batch of any rank, as ConvNeXt's layer scale has it; no two sizes are equal."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.ops.proving import Case, assert_proven, case, prove_cases

pytestmark = pytest.mark.op


class Scale(nn.Module):
    """x + scale · tanh(x), with the scale on axis 1, or on the last."""

    def __init__(self, channels: int, rank: int, *, last: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, *(1 for _ in range(0 if last else rank - 2))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scale * torch.tanh(x)


class After(nn.Module):
    """What comes after a scaled convolution depends on its shape: a flattening, a pooling to a size, a resize."""

    def __init__(self, then: nn.Module) -> None:
        super().__init__()
        self.conv, self.scale, self.then = nn.Conv2d(3, 4, 3, padding=1), Scale(4, 4), then

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.then(self.scale(self.conv(x)))


class TwoSizes(nn.Module):
    """One scale for images of two sizes, and for two that are equal."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.same = Scale(4, 4), Scale(4, 4)
        self.head = nn.Linear(4 * 5 * 7, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        small = nn.functional.max_pool2d(x, (1, 2))
        return self.scale(small) * self.scale(x)[..., :3], self.head(self.same(x).flatten(1) + self.same(-x).flatten(1))


class TwoRanks(nn.Module):
    """One scale for an image and for what is pooled of it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.permute(0, 2, 3, 1) * self.scale).mean((1, 2)) + x.mean((2, 3)) * self.scale


class Product(nn.Module):
    """A product of parameters, without a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(x, self.a.tanh(), self.b)


class OneRow(nn.Module):
    """A parameter of one row makes an axis of length 1, which a Linear reads."""

    def __init__(self, equation: str) -> None:
        super().__init__()
        self.equation, self.row, self.head = equation, nn.Parameter(torch.ones(1, 4)), nn.Linear(1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.einsum(self.equation, x, self.row))


class WidensOnce(nn.Module):
    """A scale of the last axis, and of a column, which it makes a matrix: one parameter (seed 324955)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.conv = Scale(3, 3, last=True), nn.Conv1d(1, 3, 3)
        self.token = nn.Parameter(torch.ones(1, 2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        row = torch.cat((x, self.token.expand(x.shape[0], -1, -1)), 1).amax(1, keepdim=True)
        return self.scale(self.conv(self.scale(row)))


class ByNumbers(nn.Module):
    """Parameters without an axis (seed 330103)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(x, self.first, self.second)


CASES: tuple[Case, ...] = (
    case("of features", lambda: Scale(4, 2), (2, 4)),
    case("of a sequence", lambda: Scale(4, 3), (2, 4, 5)),
    case("of tokens", lambda: Scale(4, 3, last=True), (2, 5, 4)),
    case("of an image", lambda: Scale(4, 4), (2, 4, 5, 7)),
    case("of an image with its channels last", lambda: Scale(4, 4, last=True), (2, 5, 7, 4)),
    case("of a video", lambda: Scale(4, 5), (2, 4, 3, 5, 7)),
    case("of windows", lambda: Scale(4, 6, last=True), (2, 3, 5, 7, 6, 4)),
    case("then flattened", lambda: After(nn.Sequential(nn.Flatten(), nn.Linear(4 * 5 * 7, 2))), (2, 3, 5, 7)),
    case("then pooled", lambda: After(nn.AdaptiveAvgPool2d((2, 3))), (2, 3, 5, 7)),
    case("then resized", lambda: After(nn.Upsample(scale_factor=2, mode="bilinear")), (2, 3, 5, 7)),
    case("one row of a product", lambda: OneRow("...i,ji->...j"), (2, 5, 4)),
    case("one row of a product in letters", lambda: OneRow("bti,ji->btj"), (2, 5, 4)),
    case("one row of a product, broadcast", lambda: OneRow("...i,...j->...ji"), (2, 1)),
    case("a product of parameters", Product, (2, 5, 4)),
    case("of two sizes", TwoSizes, (2, 4, 5, 7)),
    case("of two ranks", TwoRanks, (2, 4, 5, 7)),
    case("of a row and a column", WidensOnce, (2, 1, 3)),
    case("by numbers", ByNumbers, (2, 5, 7)),
)


@pytest.mark.parametrize("one", CASES, ids=lambda c: c.name)
def test_a_scale_is_proven(one: Case) -> None:
    assert_proven(CASES, one)


def test_a_scale_of_the_last_axis_is_a_layer_of_its_own() -> None:
    """Images lie channels last here, also those whose last axis PyTorch scales, and sequences as in PyTorch."""
    _, plan = prove_cases(CASES)
    scales = {spec.name for spec in plan.layers if spec.cls == "EinsumDense"}
    numbers = {int(name.split("_")[1]) for name in scales}
    assert {CASES[i].name for i in range(len(CASES)) if i not in numbers} == {
        "of a sequence",
        "of an image with its channels last",
        "of windows",
        "one row of a product",
        "one row of a product in letters",
        "one row of a product, broadcast",
        "a product of parameters",
        "of two ranks",
        "of a row and a column",
        "by numbers",
    }
