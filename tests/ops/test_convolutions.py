"""Convolutions and transposed convolutions: padding, stride, dilation, groups, one to three dimensions."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from tests.ops.proving import Case, applied, assert_proven, case

pytestmark = pytest.mark.op

C1, C2, C3 = (2, 4, 9), (2, 4, 9, 10), (2, 4, 5, 6, 7)


def conv(*args: object, x: tuple[int, ...] = C2, **settings: object) -> Case:
    name = ", ".join([*map(str, args), *(f"{k}={v}" for k, v in settings.items())])
    return case(f"Conv2d({name})", partial(nn.Conv2d, *args, **settings), x)  # type: ignore[arg-type]


def transposed(*args: object, x: tuple[int, ...] = C2, **settings: object) -> Case:
    name = ", ".join([*map(str, args), *(f"{k}={v}" for k, v in settings.items())])
    return case(f"ConvTranspose2d({name})", partial(nn.ConvTranspose2d, *args, **settings), x)  # type: ignore[arg-type]


class Standardised(nn.Conv2d):
    """A kernel computed from the parameter: weight standardisation, as BiT and NFNet have it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(flat, None, None, training=True, momentum=0.0, eps=1e-6).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


CONVOLUTIONS: tuple[Case, ...] = (
    conv(4, 6, 1),
    conv(4, 6, 3),
    conv(4, 6, 3, padding=1),
    conv(4, 6, 3, padding=1, bias=False),
    conv(4, 6, 3, padding=1, stride=2),
    conv(4, 6, 3, padding=1, stride=2, x=(2, 4, 8, 8)),
    conv(4, 6, (3, 1), padding=(1, 0)),
    conv(4, 6, (1, 7), padding=(0, 3)),
    conv(4, 6, 2, padding=1),
    conv(4, 6, 4, padding=1, stride=2),
    conv(4, 6, 3, padding=2),
    conv(4, 6, 3, padding=2, dilation=2),
    conv(4, 6, 3, padding=3, dilation=2),
    conv(4, 6, 3, padding=2, dilation=2, stride=2),
    conv(4, 6, 3, stride=(2, 1), padding=1),
    conv(4, 6, 3, padding="same"),
    conv(4, 6, 4, padding="same"),
    conv(4, 8, 3, groups=2, padding=1),
    conv(4, 8, 3, groups=2, padding=1, stride=2),
    conv(4, 4, 3, groups=4, padding=1),
    conv(4, 12, 3, groups=4, padding=1, stride=2),
    conv(4, 4, 3, groups=4, padding=2, dilation=2),
    conv(4, 4, 3, groups=4, stride=(2, 1), padding=1),
    conv(4, 6, 3, padding=1, padding_mode="reflect"),
    conv(4, 6, 3, padding=1, padding_mode="replicate"),
    conv(4, 6, 3, padding=1, padding_mode="circular"),
    conv(4, 6, 5, padding=2, x=(2, 4, 5, 13)),
    conv(1, 1, 1, x=(2, 1, 1, 1)),
    conv(1, 4, (2, 5), stride=(1, 3), x=(2, 1, 12, 7)),
    conv(1, 4, (3, 4), stride=(1, 2), padding=(1, 0), x=(2, 1, 6, 5)),
    conv(1, 4, (2, 5), stride=(1, 3), x=(2, 1, 12, 9)),
    case("Conv1d", lambda: nn.Conv1d(4, 6, 3, padding=1), C1),
    case("Conv1d, stride and dilation apart", lambda: nn.Conv1d(4, 6, 3, padding=2, dilation=2), C1),
    case("Conv1d, stride", lambda: nn.Conv1d(4, 6, 5, stride=3, padding=2), C1),
    case("Conv1d, depthwise", lambda: nn.Conv1d(4, 4, 3, groups=4, padding=1), C1),
    case("Conv1d, groups", lambda: nn.Conv1d(4, 8, 3, groups=2), C1),
    case("Conv3d", lambda: nn.Conv3d(4, 6, 3, padding=1), C3),
    case("Conv3d, stride", lambda: nn.Conv3d(4, 6, 3, stride=(1, 2, 2), padding=(0, 1, 1)), C3),
    case("weight standardisation", lambda: Standardised(4, 6, 3, padding=1), C2),
    case("weight norm", lambda: parametrizations.weight_norm(nn.Conv2d(4, 6, 3)), C2),
)

TRANSPOSED: tuple[Case, ...] = (
    transposed(4, 6, 2, stride=2),
    transposed(4, 6, 3),
    transposed(4, 6, 3, padding=1),
    transposed(4, 6, 3, stride=2, padding=1),
    transposed(4, 6, 3, stride=2, padding=1, output_padding=1),
    transposed(4, 6, 4, stride=2, padding=1),
    transposed(4, 6, 2, stride=3),
    transposed(4, 6, 2, stride=3, output_padding=2),
    transposed(4, 6, 3, stride=(2, 1), padding=1),
    transposed(4, 6, 3, dilation=2, padding=2),
    transposed(4, 6, 3, stride=2, dilation=2, padding=1, output_padding=1),
    transposed(4, 6, 3, stride=2, padding=1, bias=False),
    transposed(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
    transposed(4, 4, 4, stride=2, padding=1, groups=4),
    transposed(4, 8, 3, padding=1, groups=4),
    transposed(4, 6, 5, stride=2, padding=2, x=(2, 4, 3, 5)),
    case("ConvTranspose1d", lambda: nn.ConvTranspose1d(4, 6, 4, stride=2, padding=1), C1),
    case("ConvTranspose1d, groups", lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2), C1),
    case(
        "ConvTranspose3d", lambda: nn.ConvTranspose3d(4, 3, 3, stride=2, padding=1, output_padding=1), (2, 4, 3, 4, 5)
    ),
)


@pytest.mark.parametrize("one", CONVOLUTIONS, ids=lambda c: c.name)
def test_convolutions_are_proven(one: Case) -> None:
    assert_proven(CONVOLUTIONS, one)


@pytest.mark.parametrize("one", TRANSPOSED, ids=lambda c: c.name)
def test_transposed_convolutions_are_proven(one: Case) -> None:
    assert_proven(TRANSPOSED, one)


class ByComputed(nn.Module):
    """A transposed convolution whose kernel and bias are computed: from parameters, or in the forward alone."""

    def __init__(self, rank: int, *, fixed: bool = False, **settings: Any) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(4, 6, *range(2, 2 + rank))), nn.Parameter(torch.rand(6))
        self.function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
        self.fixed, self.settings = fixed, settings

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = torch.arange(96.0).view(4, 6, 2, 2) / 9 if self.fixed else self.weight * self.weight.tanh()
        bias = self.bias * 2
        return self.function(x, weight, bias.repeat(self.settings.get("groups", 1)), **self.settings)


BY_COMPUTED: tuple[Case, ...] = (
    case("one axis", lambda: ByComputed(1), C1),
    case("steps", lambda: ByComputed(2, stride=(2, 3), padding=1, output_padding=(0, 1)), C2),
    case("groups", lambda: ByComputed(2, stride=2, groups=2), C2),
    case("dilated", lambda: ByComputed(2, dilation=(1, 2)), C2),
    case("three axes", lambda: ByComputed(3, stride=(1, 2, 1)), (2, 4, 3, 4, 5)),
    case("made in the forward", lambda: ByComputed(2, fixed=True, groups=2), C2),
    case("weight norm", lambda: parametrizations.weight_norm(nn.ConvTranspose1d(4, 6, 4, stride=2, padding=1)), C1),
    applied("a filter made in the forward", lambda x: F.conv2d(x, torch.arange(16.0).view(4, 1, 2, 2), groups=4), C2),
    applied(
        "spread by a filter of one channel, and what needs to know that it is one",
        lambda x: F.group_norm(F.conv_transpose1d(x, torch.arange(8.0).view(4, 1, 2), stride=2), 1),
        C1,
    ),
    applied("a filter of all channels", lambda x: F.conv1d(x, torch.ones(2, 4, 3) / 7, torch.ones(2)), C1),
)


@pytest.mark.parametrize("one", BY_COMPUTED, ids=lambda c: c.name)
def test_convolutions_by_computed_kernels_are_proven(one: Case) -> None:
    assert_proven(BY_COMPUTED, one)
