"""Poolings: padding, ceil_mode, what counts in an average, adaptive sizes, one to three dimensions."""

from __future__ import annotations

import pytest
from torch import nn

from tests.ops.proving import Case, assert_proven, case

pytestmark = pytest.mark.op

X1, X2, X3 = (2, 3, 11), (2, 3, 9, 10), (2, 3, 5, 6, 7)

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
    case("AdaptiveAvgPool1d(4)", lambda: nn.AdaptiveAvgPool1d(4), X1),
    case("AdaptiveAvgPool3d((2, 3, 4))", lambda: nn.AdaptiveAvgPool3d((2, 3, 4)), X3),
)  # fmt: skip


@pytest.mark.parametrize("one", CASES, ids=lambda c: c.name)
def test_pools_are_proven(one: Case) -> None:
    assert_proven(CASES, one)
