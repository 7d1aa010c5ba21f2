"""Kernels that the forward computes from parameters: standardised, normalised, scaled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from tests.ops.proving import Case, assert_proven, case, prove_cases

pytestmark = pytest.mark.op

Kernel = Callable[["Computed"], torch.Tensor]
IMAGE = (2, 4, 9, 10)


class Computed(nn.Module):
    """A convolution, of any rank, by what `kernel` makes of its parameters; `gain` (O, 1, …) and `other` are spare."""

    def __init__(self, conv: nn.Module, kernel: Kernel) -> None:
        super().__init__()
        self.conv, self.kernel = conv, kernel
        self.weight = conv.weight
        self.gain = nn.Parameter(torch.ones(len(self.weight), *(1 for _ in self.weight.shape[1:])))
        self.other = nn.Parameter(torch.ones_like(self.weight))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv._conv_forward(x, self.kernel(self), self.conv.bias)


def rows(weight: torch.Tensor) -> torch.Tensor:
    return weight.reshape(1, len(weight), -1)


def standardised(conv: Computed, **settings: Any) -> torch.Tensor:
    """As BiT has it; with a gain, as NFNet."""
    flat = F.batch_norm(rows(conv.weight), None, None, training=True, momentum=0.0, eps=1e-6, **settings)
    return flat.reshape_as(conv.weight)


def by_given(conv: Computed, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    return F.batch_norm(rows(conv.weight), mean.detach(), variance.detach(), training=False, eps=1e-3).reshape_as(
        conv.weight
    )


def by_hand(conv: Computed, *, unbiased: bool) -> torch.Tensor:
    axes = list(range(1, conv.weight.ndim))
    variance, mean = torch.var_mean(conv.weight, dim=axes, keepdim=True, unbiased=unbiased)
    return (conv.weight - mean) / torch.sqrt(variance + 1e-6)


def of_scaled(conv: Computed) -> torch.Tensor:
    flat = (conv.weight * 0.5 + conv.other).view(1, len(conv.weight), -1)
    return F.batch_norm(flat, None, None, training=True).view(conv.weight.shape)


def conv2d(**settings: Any) -> nn.Module:
    return nn.Conv2d(4, 6, (3, 2), **settings)


def computed(name: str, kernel: Kernel, conv: Callable[[], nn.Module] = conv2d, x: tuple[int, ...] = IMAGE) -> Case:
    return case(name, lambda: Computed(conv(), kernel), x)


CASES: tuple[Case, ...] = (
    computed("standardised", standardised),
    computed("with a gain", lambda c: standardised(c, weight=(c.gain * 0.3).view(-1))),
    computed("with a gain and a shift", lambda c: standardised(c, weight=c.gain.flatten(), bias=c.other[:, 0, 0, 0])),
    computed("with constants", lambda c: standardised(c, weight=torch.full((6,), 2.0), bias=torch.arange(6.0))),
    computed("standardised by hand", lambda c: by_hand(c, unbiased=False)),
    computed("by hand, of a sample", lambda c: by_hand(c, unbiased=True)),
    computed("a scaled sum", of_scaled),
    computed(
        "by the mean and variance that it has",
        lambda c: by_given(c, rows(c.weight).mean((0, 2)), rows(c.weight).var((0, 2), unbiased=False)),
    ),
    computed(
        "by a sample's variance",
        lambda c: by_given(c, rows(c.weight).mean((0, 2)), rows(c.weight).var((0, 2))),
    ),
    computed(
        "by another's statistics",
        lambda c: by_given(c, rows(c.other).mean((0, 2)), rows(c.other).var((0, 2), unbiased=False)),
    ),
    computed("by its mean and another's variance",
             lambda c: by_given(c, rows(c.weight).mean((0, 2)), rows(c.other).var((0, 2), unbiased=False))),
    computed("standardised, in groups", standardised, lambda: conv2d(groups=2)),
    computed("standardised, depthwise", standardised, lambda: nn.Conv2d(4, 4, 3, groups=4, padding=1)),
    computed("standardised, one channel", standardised, lambda: nn.Conv2d(4, 1, 3)),
    computed("standardised, square", standardised, lambda: nn.Conv2d(3, 3, 3), (2, 3, 3, 3)),
    computed("standardised, 1-D", standardised, lambda: nn.Conv1d(4, 6, 3), (2, 4, 9)),
    computed("standardised, 3-D", standardised, lambda: nn.Conv3d(4, 6, (1, 2, 3)), (2, 4, 5, 6, 7)),
    computed("3-D without a bias", standardised, lambda: nn.Conv3d(4, 6, 3, groups=2, bias=False), (2, 4, 5, 6, 7)),
    computed("scaled by output", lambda c: c.weight * c.gain),
    computed("two parameters", lambda c: torch.tanh(c.weight) * torch.sigmoid(c.other)),
    computed("the largest of each row", lambda c: c.weight / c.weight.amax((1, 2, 3), keepdim=True)),
    computed("the largest of each row, put back", lambda c: c.weight / c.weight.amax((1, 2, 3))[:, None, None, None]),
    computed("centred by input", lambda c: c.weight - c.weight.mean((0, 2, 3), keepdim=True)),
    case("weight norm", lambda: parametrizations.weight_norm(nn.Conv2d(4, 6, 3)), IMAGE),
    case("weight norm by input", lambda: parametrizations.weight_norm(nn.Conv2d(4, 6, 3), dim=1), IMAGE),
    case("weight norm, 1-D", lambda: parametrizations.weight_norm(nn.Conv1d(4, 6, 3)), (2, 4, 9)),
)  # fmt: skip


@pytest.mark.parametrize("one", CASES, ids=lambda c: c.name)
def test_kernels_are_proven(one: Case) -> None:
    assert_proven(CASES, one)


def test_kernels_lie_as_keras_wants_them_from_the_start() -> None:
    """Not where their rows are flattened for other statistics than a BatchNorm's, or turned round in the forward."""
    _, plan = prove_cases(CASES)
    images = {value for _, value in plan.inputs}
    moves = [call for call in plan.calls if getattr(call, "op", "") == "transpose" and call.args[0].value not in images]
    transposed = [call.origin.module for call in moves]
    assert {CASES[int(path.split(".")[1])].name for path in transposed} == {
        "by hand, of a sample",
        "by a sample's variance",
        "by another's statistics",
        "by its mean and another's variance",
        "weight norm by input",
    }


def test_a_standardised_kernel_is_one_mean_and_one_variance() -> None:
    """As a person writes it: mean, var, add, sqrt, subtract, divide; no reshape but that of the free parameter."""
    _, plan = prove_cases(CASES)
    ops = [getattr(call, "op", "") for call in plan.calls if call.origin.module.startswith("cases.0")]
    assert ops == ["", "reshape", "mean", "var", "add", "sqrt", "subtract", "divide", "conv", "", "reshape", "add"]
