"""Functions that the exporter refuses, breaks up or rounds, and that are marked or rewritten while PyTorch runs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import translator
from tests.ops.proving import randomised
from translator.verdict import Effect, Verdict


def test_an_instance_norm_with_running_statistics_is_a_batch_norm_that_trains_otherwise() -> None:
    module = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True, track_running_stats=True)))
    done = translator.convert(module, torch.randn(2, 3, 8, 8))
    assert done.report.verdict is Verdict.EXPLAINED
    assert [type(layer).__name__ for layer in done.model.layers][1:] == ["Conv2D", "BatchNormalization"]
    (found,) = [d for d in done.report.differences if d.kind == "normalisation"]
    assert (found.torch, found.keras, found.effect) == ("instance", "batch", Effect.TRAINING)


@pytest.mark.parametrize("bounds", [(), (0.1, 0.7)])
def test_a_random_leaky_relu_has_its_middle_slope_exactly(bounds: tuple[float, ...]) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.RReLU(*bounds)).eval()
    done = translator.convert(module, torch.randn(2, 3, 8, 8))
    assert done.model.layers[-1].negative_slope == sum(bounds or (1 / 8, 1 / 3)) / 2
    assert max(row.error_f64 or 0 for row in done.report.layers) < 1e-12


def test_a_setting_that_float32_can_not_hold_stays_a_double() -> None:
    slope = 1 / 3 + 1e-10
    done = translator.convert(nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(slope)), torch.randn(2, 3))
    assert done.report.verdict is Verdict.EQUAL
    assert done.model.layers[-1].negative_slope == slope


class Padded(nn.Module):
    """Paddings that add on one side and cut on the other, down to nothing of the input but its edge."""

    def forward(self, x: torch.Tensor, dot: torch.Tensor) -> tuple[torch.Tensor, ...]:
        widths = ((1, -1, 2, 0), (-2, 3, 1, 1), (-1, -2, 0, 2), (2, 1, -1, -1))
        modes = ("constant", "reflect", "replicate", "circular")
        padded = [nn.functional.pad(x, width, mode=mode) for width in widths for mode in modes]
        return (*padded, nn.functional.pad(dot, (1, -1, 2, 0), mode="replicate"))


def test_negative_padding_crops_in_every_mode() -> None:
    done = translator.convert(Padded().eval(), (torch.randn(2, 3, 5, 7), torch.randn(2, 1, 1, 1)))
    assert done.report.verdict is Verdict.EQUAL
