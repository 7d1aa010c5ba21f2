"""Sums whose second operand TensorFlow's `add` would take for a bias on another axis: the sizes to mix up."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.ops.proving import Case, applied, assert_proven, case
from translator.plan.adding import misread

pytestmark = pytest.mark.op


class Shift(nn.Module):
    """x plus a parameter of some shape."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.shift


CASES: tuple[Case, ...] = (
    case("a channel's shift where length and channels are equal", lambda: Shift(1, 4, 1), (2, 4, 4)),
    case("a row's shift in a cube", lambda: Shift(1, 1, 4, 1), (2, 4, 4, 4)),
    case("a column's shift in a cube", lambda: Shift(4), (2, 4, 4, 4)),
    case("a vector that makes the axis longer", lambda: Shift(4), (2, 4, 1)),
    applied("two vectors on different axes", lambda a: a[:, :, :1] + a[:, :1], (2, 4, 4)),
    applied("one number for each sample", lambda a, b: a + b, (2, 2, 2), (2, 1, 1)),
    applied("samples and a vector", lambda a, b: a + b, (2, 3, 3), (2, 3, 1)),
    applied("a class token for each sample", lambda a: a.mean(1, keepdim=True).expand(-1, 2, -1) + a[:, :1], (2, 2, 2)),
    case("statistics of the batch itself", lambda: nn.BatchNorm1d(4, track_running_stats=False), (3, 4, 4)),
)


@pytest.mark.parametrize("one", CASES, ids=lambda c: c.name)
def test_a_sum_is_proven(one: Case) -> None:
    assert_proven(CASES, one)


def test_only_a_bias_on_its_own_axis_is_safe() -> None:
    assert not misread((4,), (2, 3, 4))
    assert not misread((1, 4, 1), (2, 4, 3))
    assert not misread((2, 4, 1), (2, 4, 4))
    assert misread((1, 4, 1), (2, 4, 4))
    assert misread((1, 1, 4, 1), (2, 4, 4, 5))
    assert misread((4,), (2, 4, 1))
    assert misread((None, 1, 1), (None, 3, 5))
    assert misread((None, 4, 1), (None, 4, 4)), "a batch of 1 makes it a bias"
