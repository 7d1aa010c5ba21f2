"""Products and convolutions with numbers that are no parameters: modules in a plain list, tensors as attributes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import translator
from tests.ops.proving import Case, assert_proven, case
from translator.errors import UnsupportedError
from translator.verdict import Verdict

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


class OfConstant(nn.Module):
    """A layer of a tensor that nobody registered, beside x."""

    def __init__(self, layer: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layer, self.numbers = layer, torch.linspace(-1, 1, math.prod(shape)).reshape(shape)

    def forward(self, x: Tensor) -> Tensor:
        found = self.layer(self.numbers)
        return x.sum(1, keepdim=True) + (found[0] if isinstance(found, tuple) else found).reshape(1, -1)


class OfOnes(nn.Module):
    """The same with one number everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.layer(torch.ones(1, 4)).chunk(2, -1)
        return x * scale + shift


class ConstantQuery(nn.Module):
    """Attention whose query nothing but a table decides."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        return self.attention(torch.ones(2, 3, 4), x, x)[0]


def made(layer: Callable[[], nn.Module], *shape: int) -> Case:
    return case(f"{layer()} of a constant", lambda: OfConstant(layer(), shape), (2, 3))


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
    made(lambda: nn.Linear(4, 5), 1, 4),
    made(lambda: nn.Linear(4, 5), 4),
    made(lambda: nn.Linear(1, 5), 1),
    made(lambda: nn.Sequential(nn.Linear(1, 8), nn.GELU(), nn.Linear(8, 2)), 7, 1),
    made(lambda: nn.Conv2d(3, 4, 3), 1, 3, 5, 5),
    made(lambda: nn.ConvTranspose2d(3, 4, 3), 1, 3, 5, 5),
    made(lambda: nn.BatchNorm1d(4), 2, 4),
    made(lambda: nn.LayerNorm((3, 4)), 2, 3, 4),
    made(lambda: nn.RMSNorm(4), 2, 4),
    made(lambda: nn.GroupNorm(2, 4), 2, 4, 5),
    made(lambda: nn.PReLU(3), 2, 3),
    made(lambda: nn.LSTM(4, 5), 3, 4),
    made(lambda: nn.LSTMCell(4, 5), 1, 4),
    case("a linear of ones", OfOnes, (2, 3)),
    case("a constant query", ConstantQuery, (2, 3, 4)),
)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_products_with_constants_are_proven(case: Case) -> None:
    assert_proven(CASES, case)


def test_a_layer_that_would_read_nothing_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("translator.plan.context.OF_WEIGHTS", frozenset())
    with pytest.raises(UnsupportedError, match="layer doesn't depend on the model's input") as refused:
        translator.convert(OfOnes().eval(), torch.randn(2, 3))
    assert refused.value.reason == "constant"
    assert refused.value.where is not None
    assert refused.value.where.module == "layer"


def test_layers_without_a_batch() -> None:
    """Cells begin with zeros that no input decides."""
    for cell in (nn.LSTMCell(4, 5), nn.GRUCell(4, 5)):
        assert translator.convert(cell.eval(), torch.randn(4)).report.verdict is Verdict.EQUAL
    with pytest.raises(UnsupportedError, match="blocks without a batch"):
        translator.convert(nn.Fold((4, 5), 2), torch.randn(12, 12))
