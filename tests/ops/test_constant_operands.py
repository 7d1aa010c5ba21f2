"""Products and convolutions with numbers that are no parameters: modules in a plain list, tensors as attributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.ops.proving import Case, assert_proven, case

pytestmark = pytest.mark.op


class Unregistered(nn.Module):
    """A function of x and tensors that PyTorch doesn't know as this module's."""

    def __init__(self, function: Callable[..., Any], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        generator = torch.Generator().manual_seed(0)
        self.tensors = [torch.randn(shape, generator=generator) for shape in shapes]

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *self.tensors)


def held(name: str, function: Callable[..., Any], x: tuple[int, ...], *shapes: tuple[int, ...]) -> Case:
    return case(name, lambda: Unregistered(function, *shapes), x)


class Listed(nn.Module):
    """Layers that were put into a list, not a ModuleList."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(6, 6), nn.Linear(6, 4)]

    def forward(self, x: Tensor) -> Any:
        return self.layers[1](self.layers[0](x).relu())


CASES: tuple[Case, ...] = (
    case("layers in a list", Listed, (2, 6)),
    held("linear", F.linear, (2, 6), (4, 6)),
    held("linear with a bias", F.linear, (2, 6), (4, 6), (4,)),
    held("linear of a sequence", F.linear, (2, 3, 6), (4, 6), (4,)),
    held("linear, large", F.linear, (2, 46), (44, 46)),
    held("linear from one number to one", F.linear, (2, 1), (1, 1), (1,)),
    held("linear to one number", F.linear, (2, 6), (1, 6)),
    held("linear from one number", F.linear, (2, 1), (6, 1)),
    held("product", torch.matmul, (2, 6), (6, 4)),
    held("product of one number", torch.matmul, (2, 3, 1), (1, 1)),
    held("product from the left", lambda x, w: w @ x, (2, 6, 3), (4, 6)),
    held("scaled sum of a product", lambda x, w, b: torch.addmm(b, x, w, alpha=0.5, beta=2), (2, 6), (6, 4), (4,)),
    held("convolution", F.conv2d, (2, 3, 8, 9), (4, 3, 3, 3), (4,)),
    held("convolution of one channel by one number", F.conv2d, (2, 1, 4, 5), (1, 1, 1, 1), (1,)),
    held("convolution by groups", lambda x, w: F.conv2d(x, w, groups=2), (2, 4, 8, 9), (4, 2, 3, 3)),
    held("transposed convolution", lambda x, w: F.conv_transpose2d(x, w, stride=2), (2, 3, 4, 5), (3, 4, 3, 3)),
    held("transposed convolution by one number", F.conv_transpose2d, (2, 1, 4, 5), (1, 1, 1, 1)),
)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_products_with_constants_are_proven(case: Case) -> None:
    assert_proven(CASES, case)
