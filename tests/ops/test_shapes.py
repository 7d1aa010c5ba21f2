"""Ops that reshape, pick, join, reduce, pad and resize: under both layouts, with a batch that stays dynamic."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import translator
from tests.ops.proving import Case, applied, assert_proven, case
from translator.verdict import Verdict

pytestmark = pytest.mark.op

X = (2, 6, 8, 10)
TABLE = torch.arange(12).reshape(3, 4) % 5


class ClassToken(nn.Module):
    """A token put before the patches, and an embedding of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 6))
        self.positions = nn.Parameter(torch.zeros(1, 81, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = x.flatten(2).transpose(1, 2)
        return torch.cat((self.token.expand(x.shape[0], -1, -1), patches), dim=1) + self.positions


class BiasTable(nn.Module):
    """Rows of a table picked by constant indices, as relative position biases are."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(5, 6))
        self.register_buffer("index", TABLE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :3, :4] + self.table[self.index].sum(-1)


class CrossStage(nn.Module):
    """Half of the channels goes through a convolution, the other past it, and both are read again."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(6, 8, 1), nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        past, through = self.wide(x).chunk(2, 1)
        return torch.cat((past, self.narrow(through) + through), 1)


class Halved(nn.Module):
    """The first part of a split is read by a module alone, whose layers sum it; the second goes past."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.block = nn.Conv2d(6, 8, 1), nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 1)), Residual())
        self.last = nn.Conv2d(8, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.wide(x).split(4, dim=1)
        return self.last(torch.cat((self.block(first), second), 1))


class Residual(nn.Module):
    """A convolution and what it read."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = x.reshape(x.shape[0], 2, 2, *x.shape[2:])[:, 0]
        return self.conv(half) + x


class JoinedBias(nn.Module):
    """A bias of two parameters and a buffer between them, as some attention has it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(9, 5))
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
        self.register_buffer("k_bias", torch.zeros(3), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight, torch.cat((self.q_bias, self.k_bias, self.v_bias)))


class RepeatedByTheBatch(nn.Module):
    """Keys of a table, a parameter, a buffer, a mean and numbers of the forward, once for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.table = nn.Linear(6, 6), nn.Parameter(torch.rand(4, 5, 6))
        self.token = nn.Parameter(torch.rand(1, 3, 6))
        self.register_buffer("numbers", torch.arange(12.0).view(4, 1, 3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        batch = x.shape[0]
        keys = self.linear(self.table).repeat(batch, 1, 1)
        scores = x.repeat_interleave(4, 0) @ keys.mT
        token = self.token.repeat(batch, 1, 1) + x[:, :3]
        mean = x.mean(0, keepdim=True).repeat(batch, 1, 1)
        return scores, token, mean, (self.numbers * 2).repeat(batch, 1, 1), torch.tensor([[1.0, 2.0]]).repeat(batch, 1)


class Twice(nn.Module):
    """One parameter in two layouts."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(6, 8, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(x * self.weight, 2).flatten(1).sum(1) + (x.flatten(1) * self.weight.flatten()).sum(1)


MOVES: tuple[Case, ...] = (
    applied("flatten", lambda x: x.flatten(1), X),
    case("a chunk read inside a module and outside", CrossStage, X),
    case("a split whose first part a module reads", Halved, X),
    case("a bias joined of parameters and a buffer", JoinedBias, (2, 5)),
    applied("rows by sample", lambda x: x[torch.arange(x.shape[0])[:, None], torch.tensor([2, -1, 0])], (2, 5, 3)),
    applied("flatten space", lambda x: x.flatten(2), X),
    applied("view as patches", lambda x: x.reshape(-1, 6, 4, 2, 5, 2).permute(0, 2, 4, 1, 3, 5).flatten(3), X),
    applied("windows", lambda x: x.movedim(1, 3).reshape(-1, 2, 4, 2, 5, 6).transpose(2, 3).reshape(-1, 20, 6), X),
    applied("channel shuffle", lambda x: F.channel_shuffle(F.max_pool2d(x, 2), 3), X),
    applied("pixel shuffle", lambda x: F.pixel_shuffle(x[:, :4], 2), X),
    applied("pixel unshuffle", lambda x: F.pixel_unshuffle(x, 2), X),
    applied("squeeze and unsqueeze", lambda x: x.mean(2, keepdim=True).squeeze(2).unsqueeze(1) * 2, X),
    applied("transpose", lambda x: x.transpose(1, 3) + 1, X),
    applied("roll", lambda x: torch.roll(x, (1, -3), (2, 3)), X),
    applied("flip", lambda x: x.flip(3), X),
    applied("expand", lambda x: x.mean((2, 3), keepdim=True).expand_as(x) + 0, X),
    applied("repeat", lambda x: x[:, :2].repeat(1, 3, 1, 2), X),
    case("repeat by the batch", RepeatedByTheBatch, (2, 5, 6)),
    applied("repeat interleave", lambda x: x.repeat_interleave(2, dim=1), X),
    applied("cat", lambda x: torch.cat((x, x * 2, x[:, :2]), 1), X),
    applied("stack", lambda x: torch.stack((x, x + 1), 2), X),
    applied("split", lambda x: torch.cat(x.split((1, 2, 3), 1)[::-1], 1), X),
    applied("chunk", lambda x: sum(x.chunk(3, 1)), X),
    applied("unbind", lambda x: sum(x.unbind(1)), X),
    applied("slice", lambda x: x[:, 1:5:2, ::3, -4:], X),
    applied("slices one after another", lambda x: x[:, :, 1::2][:, :, :, ::2], X),
    applied("select", lambda x: x[:, 2] + x[:, -1], X),
    applied("index by a list", lambda x: x[:, [0, 3, 1]], X),
    applied("index by two lists", lambda x: x[:, :, [0, 1, 2], [3, 2, 1]], X),
    applied("gather", lambda x: x.gather(3, (x > 0).long()), X),
    applied("class token", lambda x: x[:, :, 0, 0].unsqueeze(1) * 2, X),
    case("class token and positions", ClassToken, X),
    case("bias table", BiasTable, (2, 3, 4)),
    case("one parameter in two layouts", Twice, X),
    applied("tril of a score", lambda x: torch.tril(x[:, 0, :, :8]), X),
    applied("meshgrid of constants", lambda x: x[:, 0] + torch.arange(8.0)[:, None] * 0.25 + torch.arange(10.0), X),
)  # fmt: skip

REDUCTIONS: tuple[Case, ...] = (
    applied("mean over space", lambda x: x.mean((2, 3)), X),
    applied("mean over channels", lambda x: x.mean(1, keepdim=True), X),
    applied("sum", lambda x: x.sum((1, 3)), X),
    applied("max over space", lambda x: x.amax((2, 3), keepdim=True), X),
    applied("min", lambda x: x.amin(1), X),
    applied("max with its place", lambda x: x.max(dim=1).values, X),
    applied("prod", lambda x: x.prod(1), X),
    applied("norm", lambda x: x.norm(dim=1), X),
    applied("norm of order 1", lambda x: x.norm(p=1, dim=(2, 3)), X),
    applied("var", lambda x: x.var((2, 3), unbiased=False), X),
    applied("std with Bessel's correction", lambda x: x.std(1), X),
    applied("logsumexp", lambda x: torch.logsumexp(x, 1), X),
    applied("cumsum", lambda x: x.cumsum(2), X),
    applied("argmax", lambda x: x.argmax(1), X),
    applied("top k", lambda x: x.topk(3, dim=1).values, X),
    applied("any", lambda x: (x > 1).any(1).float() * x[:, 0], X),
    applied("all", lambda x: (x < 1).all(2).float() * x[:, :, 0], X),
)  # fmt: skip

RESIZED: tuple[Case, ...] = (
    applied("constant pad", lambda x: F.pad(x, (1, 2, 3, 0), value=0.7), X),
    applied("pad the channels", lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)), X),
    applied("crop by negative padding", lambda x: F.pad(x, (-1, 2, 0, -3)), X),
    applied("reflect", lambda x: F.pad(x, (1, 2, 3, 1), mode="reflect"), X),
    case("reflect, three axes", lambda: nn.ReflectionPad3d((1, 2, 0, 1, 2, 1)), (2, 3, 4, 5, 6)),
    applied("reflect, an outer axis alone", lambda x: F.pad(x, (0, 0, 0, 0, 2, 3), mode="reflect"), (2, 3, 4, 5, 6)),
    applied("replicate", lambda x: F.pad(x, (1, 2, 3, 1), mode="replicate"), X),
    applied("circular", lambda x: F.pad(x, (1, 2, 3, 1), mode="circular"), X),
    applied("nearest, twice", lambda x: F.interpolate(x, scale_factor=2), X),
    applied("nearest, to an odd size", lambda x: F.interpolate(x, size=(11, 7)), X),
    applied("nearest-exact", lambda x: F.interpolate(x, size=(11, 7), mode="nearest-exact"), X),
    applied("bilinear, twice", lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), X),
    applied("bilinear, to an odd size", lambda x: F.interpolate(x, size=(13, 7), mode="bilinear"), X),
    applied("bilinear, corners aligned", lambda x: F.interpolate(x, (13, 7), mode="bilinear", align_corners=True), X),
    applied("bicubic", lambda x: F.interpolate(x, size=(12, 15), mode="bicubic"), X),
    applied("bicubic, corners aligned", lambda x: F.interpolate(x, (11, 7), mode="bicubic", align_corners=True), X),
    applied("area", lambda x: F.interpolate(x, size=(4, 5), mode="area"), X),
    applied("linear in one dimension", lambda x: F.interpolate(x[:, :, 0], size=7, mode="linear"), X),
    applied("nearest in one dimension", lambda x: F.interpolate(x[:, :, 0], scale_factor=3), X),
    applied("trilinear", lambda x: F.interpolate(x[:, :2, None], size=(3, 5, 6), mode="trilinear"), X),
    applied("the same size", lambda x: F.interpolate(x, size=(8, 10), mode="bilinear") + 1, X),
)  # fmt: skip


@pytest.mark.parametrize("one", MOVES, ids=lambda c: c.name)
def test_moved_elements_are_proven(one: Case) -> None:
    assert_proven(MOVES, one)


@pytest.mark.parametrize("one", REDUCTIONS, ids=lambda c: c.name)
def test_reductions_are_proven(one: Case) -> None:
    assert_proven(REDUCTIONS, one)


@pytest.mark.parametrize("one", RESIZED, ids=lambda c: c.name)
def test_padded_and_resized_images_are_proven(one: Case) -> None:
    assert_proven(RESIZED, one)


class Selective(nn.Module):
    """Two branches weighed by a softmax over them. The weights are of one pixel, and only its two axes change places.

    turned: the weights differ over the height, too, and do move.
    """

    def __init__(self, *, turned: bool) -> None:
        super().__init__()
        self.turned = turned
        self.one, self.two = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.attend = nn.Linear(4, 8 * (6 if turned else 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = torch.stack([self.one(x), self.two(x)], dim=1)
        weights = self.attend(branches.sum(1).mean((2, 3))).view(x.shape[0], 2, 4, -1, 1)
        return (branches * weights.softmax(dim=1)).sum(dim=1)


@pytest.mark.parametrize(("turned", "transposes"), [(False, 0), (True, 1)], ids=["one pixel", "a column"])
def test_axes_of_size_one_change_places_without_a_transpose(turned: bool, transposes: int) -> None:
    done = translator.convert(Selective(turned=turned).eval(), torch.randn(2, 4, 6, 5))
    assert done.report.verdict is Verdict.EQUAL
    assert sum(getattr(call, "op", "") == "transpose" for call in done.plan.calls) == transposes


class NoTokens(nn.Module):
    """Register tokens, of which there are none."""

    def __init__(self) -> None:
        super().__init__()
        self.registers, self.head = nn.Parameter(torch.empty(1, 0, 6)), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(torch.cat([x[:, :1], self.registers.expand(x.shape[0], -1, -1), x], 1))
        return y


def test_a_part_without_elements_adds_nothing() -> None:
    done = translator.convert(NoTokens(), torch.randn(2, 5, 6))
    assert done.report.verdict in (Verdict.EQUAL, Verdict.EXPLAINED)
    assert done.report.balance.unexplained == 0
