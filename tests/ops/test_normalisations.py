"""Normalisations: batch, layer, group, instance, RMS, local response, and what is written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.ops.proving import Case, applied, assert_proven, case

pytestmark = pytest.mark.op

IMAGE, TOKENS = (2, 6, 5, 7), (2, 5, 6)


class Permuted(nn.Module):
    """LayerNorm over the channels of an image, as ConvNeXt has it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


CASES: tuple[Case, ...] = (
    case("BatchNorm1d of features", lambda: nn.BatchNorm1d(6), (4, 6)),
    case("BatchNorm1d of a sequence", lambda: nn.BatchNorm1d(6), (2, 6, 5)),
    case("BatchNorm2d", lambda: nn.BatchNorm2d(6, eps=1e-3, momentum=0.05), IMAGE),
    case("BatchNorm2d without weights", lambda: nn.BatchNorm2d(6, affine=False), IMAGE),
    case("BatchNorm2d without statistics", lambda: nn.BatchNorm2d(6, track_running_stats=False), IMAGE),
    case("BatchNorm3d", lambda: nn.BatchNorm3d(4), (2, 4, 3, 4, 5)),
    case("LayerNorm", lambda: nn.LayerNorm(6), TOKENS),
    case("LayerNorm with another epsilon", lambda: nn.LayerNorm(6, eps=1e-6), TOKENS),
    case("LayerNorm without weights", lambda: nn.LayerNorm(6, elementwise_affine=False), TOKENS),
    case("LayerNorm without bias", lambda: nn.LayerNorm(6, bias=False), TOKENS),
    case("LayerNorm over two axes", lambda: nn.LayerNorm((5, 6)), TOKENS),
    case("LayerNorm of a whole image", lambda: nn.LayerNorm((6, 5, 7)), IMAGE),
    case("LayerNorm of channels first", Permuted, IMAGE),
    case("GroupNorm", lambda: nn.GroupNorm(3, 6), IMAGE),
    case("GroupNorm with one group", lambda: nn.GroupNorm(1, 6), IMAGE),
    case("GroupNorm of a sequence", lambda: nn.GroupNorm(2, 6), (2, 6, 5)),
    case("GroupNorm without weights", lambda: nn.GroupNorm(3, 6, affine=False), IMAGE),
    case("InstanceNorm2d", lambda: nn.InstanceNorm2d(6), IMAGE),
    case("InstanceNorm2d with weights", lambda: nn.InstanceNorm2d(6, affine=True), IMAGE),
    case("InstanceNorm1d", lambda: nn.InstanceNorm1d(6, affine=True), (2, 6, 5)),
    case("RMSNorm", lambda: nn.RMSNorm(6, eps=1e-6), TOKENS),
    case("RMSNorm with the epsilon of its numbers", lambda: nn.RMSNorm(6), TOKENS),
    case("RMSNorm without weights", lambda: nn.RMSNorm(6, eps=1e-6, elementwise_affine=False), TOKENS),
    case("LocalResponseNorm", lambda: nn.LocalResponseNorm(3, alpha=0.5, beta=0.75, k=2.0), IMAGE),
    applied("normalize", lambda x: F.normalize(x, dim=1), TOKENS),
    applied("normalize by the sum", lambda x: F.normalize(x, p=1.0, dim=-1), TOKENS),
    applied("normalize by the third root", lambda x: F.normalize(x, p=3.0, dim=1), TOKENS),
    applied("normalize by a broken order", lambda x: F.normalize(x, p=1.5, dim=-1), TOKENS),
    applied("batch_norm of numbers", lambda x: F.batch_norm(x, torch.zeros(6), torch.ones(6)), IMAGE),
    applied(
        "batch_norm of other numbers for each channel",
        lambda x: F.batch_norm(x, torch.arange(6.0) / 7, torch.arange(6.0) + 0.3, torch.arange(6.0) - 1),
        IMAGE,
    ),
    applied(
        "standardised by hand", lambda x: (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + 0.25).sqrt(), IMAGE
    ),
)


@pytest.mark.parametrize("one", CASES, ids=lambda c: c.name)
def test_normalisations_are_proven(one: Case) -> None:
    assert_proven(CASES, one)
