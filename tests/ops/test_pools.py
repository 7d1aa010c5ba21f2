"""Poolings: padding, ceil_mode, what counts in an average, adaptive sizes, one to three dimensions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import translator
from tests.ops.proving import Case, assert_proven, case
from translator.verdict import Verdict

pytestmark = pytest.mark.op

X1, X2, X3 = (2, 3, 11), (2, 3, 9, 10), (2, 3, 5, 6, 7)


class Unpooled(nn.Module):
    """Maxima put back where they stood, in a tensor of the size that they came from."""

    def __init__(self, pool: nn.Module, back: nn.Module) -> None:
        super().__init__()
        self.pool, self.back = pool, back

    def forward(self, x: Tensor) -> Tensor:
        values, places = self.pool(x)
        put_back: Tensor = self.back(values * 2, places, output_size=x.shape)
        return put_back


class PooledToItsSize(nn.Module):
    """A pooling that gives what it gets, beside what it got: one Keras value is both (fuzzing, seed 343813)."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.attention = nn.AdaptiveMaxPool1d(6), nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pool(x) + x
        attended: Tensor = self.attention(y, y, y, need_weights=False)[0]
        return attended - x


CASES: tuple[Case, ...] = (
    case("MaxPool2d(2)", lambda: nn.MaxPool2d(2), X2),
    case("MaxPool2d(3, 2, 1)", lambda: nn.MaxPool2d(3, 2, 1), X2),
    case("MaxPool2d(3, 1, 1)", lambda: nn.MaxPool2d(3, 1, 1), X2),
    case("MaxPool2d(2, 1, 1)", lambda: nn.MaxPool2d(2, 1, 1), X2),
    case("MaxPool2d(3, 2, ceil_mode)", lambda: nn.MaxPool2d(3, 2, ceil_mode=True), X2),
    case("MaxPool2d(3, 2, 1, ceil_mode)", lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True), X2),
    case("MaxPool2d((3, 1), (2, 1))", lambda: nn.MaxPool2d((3, 1), (2, 1)), X2),
    case("MaxPool1d(3, 2, 1)", lambda: nn.MaxPool1d(3, 2, 1), X1),
    case("MaxPool3d(2)", lambda: nn.MaxPool3d(2), X3),
    case("MaxPool3d(3, 2, 1)", lambda: nn.MaxPool3d(3, 2, 1), X3),
    case("AvgPool2d(2)", lambda: nn.AvgPool2d(2), X2),
    case("AvgPool2d(3, 2, 1)", lambda: nn.AvgPool2d(3, 2, 1), X2),
    case("AvgPool2d(3, 1, 1)", lambda: nn.AvgPool2d(3, 1, 1), X2),
    case("AvgPool2d(3, 1, 1) of what is there", lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False), X2),
    case("AvgPool2d(3, 2, 1) of what is there", lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), X2),
    case("MaxPool2d(2, ceil_mode) of odd sizes", lambda: nn.MaxPool2d(2, ceil_mode=True), (2, 3, 5, 7)),
    case("MaxPool2d((2, 1), ceil_mode) of an odd size", lambda: nn.MaxPool2d((2, 1), ceil_mode=True), (2, 3, 5, 7)),
    case("MaxPool1d(2, ceil_mode) of one", lambda: nn.MaxPool1d(2, ceil_mode=True), (2, 3, 1)),
    case("AvgPool2d(2, ceil_mode) of odd sizes", lambda: nn.AvgPool2d(2, ceil_mode=True), (2, 3, 5, 7)),
    case("AvgPool2d(2, ceil_mode) of what is there",
         lambda: nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False), (2, 3, 7, 4)),
    case("AvgPool3d(2, ceil_mode) of odd sizes", lambda: nn.AvgPool3d(2, ceil_mode=True), (2, 3, 3, 5, 7)),
    case("AvgPool2d(2, 2, 1, ceil_mode)", lambda: nn.AvgPool2d(2, 2, 1, ceil_mode=True), (2, 3, 5, 7)),
    case("AvgPool2d(3, ceil_mode)", lambda: nn.AvgPool2d(3, ceil_mode=True), (2, 3, 5, 7)),
    case("AvgPool2d(3, 2, ceil_mode)", lambda: nn.AvgPool2d(3, 2, ceil_mode=True), X2),
    case("AvgPool2d(3, 2, 1, ceil_mode)", lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True), X2),
    case("AvgPool2d(5, 3, 2, ceil_mode) of what is there",
         lambda: nn.AvgPool2d(5, 3, 2, ceil_mode=True, count_include_pad=False), X2),
    case("AvgPool1d(3, 2, 1)", lambda: nn.AvgPool1d(3, 2, 1), X1),
    case("AvgPool3d(2)", lambda: nn.AvgPool3d(2), X3),
    case("AdaptiveAvgPool2d(1)", lambda: nn.AdaptiveAvgPool2d(1), X2),
    case("AdaptiveAvgPool2d((3, 5))", lambda: nn.AdaptiveAvgPool2d((3, 5)), X2),
    case("AdaptiveAvgPool2d((4, 3))", lambda: nn.AdaptiveAvgPool2d((4, 3)), X2),
    case("AdaptiveAvgPool2d to a larger size", lambda: nn.AdaptiveAvgPool2d((12, 13)), X2),
    case("AdaptiveAvgPool2d((None, 2))", lambda: nn.AdaptiveAvgPool2d((None, 2)), X2),
    case("AdaptiveMaxPool2d((4, 3))", lambda: nn.AdaptiveMaxPool2d((4, 3)), X2),
    case("AdaptiveAvgPool2d of sizes that JAX rounds", lambda: nn.AdaptiveAvgPool2d(7), (2, 4, 2, 3)),
    case("AdaptiveMaxPool1d from a length of 1", lambda: nn.AdaptiveMaxPool1d(3), (2, 4, 1)),
    case("AdaptiveMaxPool2d to a width of 1", lambda: nn.AdaptiveMaxPool2d((3, 1)), (2, 4, 8, 5)),
    case("AdaptiveMaxPool2d from a width of 1", lambda: nn.AdaptiveMaxPool2d(3), (2, 4, 8, 1)),
    case("AdaptiveMaxPool3d to a width of 1", lambda: nn.AdaptiveMaxPool3d((2, 3, 1)), X3),
    case("AdaptiveMaxPool3d from a width of 1", lambda: nn.AdaptiveMaxPool3d((2, 3, 4)), (2, 4, 5, 7, 1)),
    case("AdaptiveMaxPool3d of a width of 1", lambda: nn.AdaptiveMaxPool3d((2, 1, 1)), (2, 4, 5, 7, 1)),
    case("AdaptiveAvgPool1d(4)", lambda: nn.AdaptiveAvgPool1d(4), X1),
    case("AdaptiveAvgPool3d((2, 3, 4))", lambda: nn.AdaptiveAvgPool3d((2, 3, 4)), X3),
    case("MaxPool1d and its places", lambda: nn.MaxPool1d(3, 2, 1, return_indices=True), X1),
    case("MaxPool2d and its places", lambda: nn.MaxPool2d((3, 2), (1, 2), (1, 0), return_indices=True), X2),
    case("MaxPool3d and its places", lambda: nn.MaxPool3d(2, return_indices=True), X3),
    case("MaxUnpool1d", lambda: Unpooled(nn.MaxPool1d(3, return_indices=True), nn.MaxUnpool1d(3)), X1),
    case("MaxUnpool2d", lambda: Unpooled(nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)), X2),
    case("MaxUnpool2d of a padded pooling",
         lambda: Unpooled(nn.MaxPool2d(3, padding=1, return_indices=True), nn.MaxUnpool2d(3, padding=1)), X2),
    case("MaxUnpool3d",
         lambda: Unpooled(nn.MaxPool3d((1, 2, 3), return_indices=True), nn.MaxUnpool3d((1, 2, 3))), X3),
    case("AdaptiveMaxPool2d of three axes", lambda: nn.AdaptiveMaxPool2d((2, 5)), (2, 7, 9)),
    case("AdaptiveAvgPool1d of two axes", lambda: nn.AdaptiveAvgPool1d(4), (2, 11)),
    case("AdaptiveMaxPool3d of four axes", lambda: nn.AdaptiveMaxPool3d(2), (2, 5, 6, 7)),
    case("AdaptiveAvgPool2d of three axes, one as it is", lambda: nn.AdaptiveAvgPool2d((2, None)), (2, 7, 9)),
    case("AdaptiveMaxPool1d to the size that is there", PooledToItsSize, (2, 5, 6)),
)  # fmt: skip


@pytest.mark.parametrize("one", CASES, ids=lambda c: c.name)
def test_pools_are_proven(one: Case) -> None:
    assert_proven(CASES, one)


def test_a_segnet_has_no_transpose() -> None:
    """Places of maxima are found and used channels last, so the whole network stays so."""
    body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    module = nn.Sequential(body, Unpooled(nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)), nn.Conv2d(4, 2, 1))
    done = translator.convert(module.eval(), torch.randn(2, 3, 8, 10))
    assert done.report.verdict is Verdict.EQUAL
    assert not any(getattr(call, "op", "") == "transpose" for call in done.plan.calls)
