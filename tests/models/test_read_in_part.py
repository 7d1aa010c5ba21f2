"""Parameters of which a network reads only a part, and parameters that are computed with before the input comes in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import translator
from translator.verdict import Verdict

pytestmark = pytest.mark.model

WORDS, IMAGE = (2, 5, 8), (2, 3, 8, 8)


class Positions(nn.Module):
    """The positional encoding of PyTorch's tutorial: a table for longer texts than come."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        table = torch.sin(torch.arange(40.0)[:, None] / 10 ** (torch.arange(8) / 4))[None]
        if kind == "parameter":
            self.table = nn.Parameter(table)
        else:
            self.register_buffer("table", table)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table[:, : x.size(1)]


@pytest.mark.parametrize("kind", ["parameter", "buffer"])
def test_a_table_of_positions_is_kept_whole(kind: str) -> None:
    module = nn.Sequential(nn.Embedding(20, 8), Positions(kind), nn.Linear(8, 3))
    done = translator.convert(module, torch.randint(0, 20, (2, 12)))
    assert done.report.verdict is (Verdict.EQUAL if kind == "parameter" else Verdict.EXPLAINED)
    assert done.report.balance.keras_total == sum(t.numel() for t in module.state_dict().values())
    assert np.array_equal(done.state_dict()["1.table"], module[1].table.detach().numpy())


class Parts(nn.Module):
    def __init__(self, function: Callable[[Parts, Tensor], Tensor]) -> None:
        super().__init__()
        self.matrix, self.bias = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(8))
        self.kernel, self.scale = nn.Parameter(torch.randn(6, 3, 3, 3)), nn.Parameter(torch.rand(6) + 0.5)
        self.tokens, self.image = nn.Parameter(torch.randn(1, 3, 8)), nn.Parameter(torch.randn(1, 4, 6, 6))
        self.register_buffer("mean", torch.randn(6))
        self.register_buffer("variance", torch.rand(6) + 0.5)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def norm(m: Parts, x: Tensor) -> Tensor:
    return F.batch_norm(x, m.mean[:3], m.variance[:3], m.scale[:3], m.bias[:3])


def tokens(m: Parts, x: Tensor) -> Tensor:
    return torch.cat([m.tokens[:, 1:].expand(x.shape[0], -1, -1), x], 1)


IN_PART: dict[str, tuple[Callable[[Parts, Tensor], Tensor], tuple[int, ...]]] = {
    "linear": (lambda m, x: F.linear(x, m.matrix[:4], m.bias[:4]), WORDS),
    "linear maps that overlap": (lambda m, x: F.linear(x, m.matrix[:2]) * F.linear(x, m.matrix[1:3]), WORDS),
    "convolution": (lambda m, x: F.conv2d(x, m.kernel[:4], m.scale[2:]), IMAGE),
    "BatchNorm": (norm, IMAGE),
    "table": (lambda m, x: F.embedding((x[:, 0, 0, 0] > 0).long(), m.matrix[:3]), IMAGE),
    "tokens for each sample": (tokens, WORDS),
    "scale of channels": (lambda m, x: x * m.scale[:3].view(1, -1, 1, 1), IMAGE),
}


def frequencies(m: Parts, x: Tensor) -> Tensor:
    """A NeRF's encoding: the place with all frequencies, the direction with the first few."""
    return torch.cat([torch.sin(x[..., None] * m.bias), torch.sin(x[..., None] * m.bias[:3])], -1)


def token(m: Parts, x: Tensor) -> Tensor:
    return torch.cat([m.tokens[:, :1].expand(x.shape[0], -1, -1), x], 1) * m.tokens[0, 0]


def joined_and_alone(m: Parts, x: Tensor) -> Tensor:
    return F.linear(x, torch.cat([m.matrix, m.matrix])) * F.linear(x, m.matrix).sum(-1, keepdim=True)


def either_way(m: Parts, x: Tensor) -> Tensor:
    weights = (m.matrix, m.matrix[:2].flip(1))
    return F.linear(x, torch.cat(weights)) - F.linear(x, torch.cat(weights[::-1]))


READ_TWICE: dict[str, tuple[Callable[[Parts, Tensor], Tensor], tuple[int, ...]]] = {
    "frequencies, whole and in part": (frequencies, WORDS),
    "a matrix and some of its rows": (lambda m, x: F.linear(x, m.matrix).sum() * F.linear(x, m.matrix[:2]), WORDS),
    "regions that overlap, a third that doesn't": (
        lambda m, x: x[..., :4] * m.bias[:4] + x[..., :4] * m.bias[2:6] + m.bias[4:], WORDS
    ),
    "joined to itself and alone": (joined_and_alone, WORDS),
    "joined in two orders": (either_way, WORDS),
    "a token for each sample, and as a scale": (token, WORDS),
    "a kernel and some of its filters": (
        lambda m, x: F.conv2d(x, m.kernel)[:, :2] - F.conv2d(x, m.kernel[:2], m.kernel[:2, 0, 0, 0]), IMAGE
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_PART | READ_TWICE)
def test_the_books_hold_each_number_once_read_or_not(name: str) -> None:
    function, shape = (IN_PART | READ_TWICE)[name]
    module = Parts(function)
    done = translator.convert(module, torch.randn(shape))
    assert done.report.verdict is Verdict.EXPLAINED
    assert done.report.balance.unexplained == 0
    back = done.state_dict()
    for tensor, numbers in module.state_dict().items():
        assert tensor not in back or np.array_equal(back[tensor], numbers.numpy()), tensor


class Tied(nn.Module):
    """A table that is looked up, and read otherwise, too."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.words, self.function = nn.Embedding(9, 6), function

    def forward(self, x: Tensor) -> Tensor:
        return self.words(x) * self.function(self.words.weight)


@pytest.mark.parametrize("first", [True, False], ids=["table first", "function first"])
@pytest.mark.parametrize(
    "function",
    [lambda w: w.norm(), lambda w: w[:3].sum(0), lambda w: w.t()[:, 4], lambda w: w.flatten()[12:18]],
    ids=["norm", "rows", "turned", "flat"],
)
def test_a_table_that_is_read_otherwise_stays_an_embedding(function: Callable[[Tensor], Tensor], first: bool) -> None:
    module = Tied(function)
    if not first:
        module.forward = lambda x: function(module.words.weight) * module.words(x)  # type: ignore[method-assign]
    done = translator.convert(module, torch.randint(0, 9, (2, 5)))
    assert done.report.verdict is Verdict.EQUAL
    assert [tuple(w.shape) for w in done.model.weights] == [(9, 6)]


RESIZES: dict[str, dict[str, object]] = {
    "bicubic": {"size": (9, 7), "mode": "bicubic"},
    "bilinear": {"size": (9, 7), "mode": "bilinear"},
    "bilinear from corner to corner": {"size": (9, 7), "mode": "bilinear", "align_corners": True},
    "nearest": {"size": (9, 7)},
}


@pytest.mark.parametrize("name", RESIZES)
def test_a_parameter_is_resized_along_its_own_axes(name: str) -> None:
    module = Parts(lambda m, x: x.sum((1, 2, 3))[:, None, None, None] + F.interpolate(m.image, **RESIZES[name]))  # type: ignore[arg-type]
    assert translator.convert(module, torch.randn(IMAGE)).report.verdict is Verdict.EXPLAINED
