"""grid_sample: images read at computed places, in every mode that is supported."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import translator
from tests.ops.proving import applied, assert_proven
from translator.errors import UnsupportedError
from translator.verdict import Verdict

pytestmark = pytest.mark.op

IMAGE, VOLUME = (2, 3, 5, 7), (2, 2, 3, 4, 5)


def warped(x: Tensor, mode: str, padding: str = "zeros", corners: bool = False) -> Tensor:
    """The image read at places made of itself, partly outside."""
    grid = torch.stack([x[:, 0, :4] * 0.7, x[:, 1, :4] * 0.6], -1)
    return F.grid_sample(x, grid, mode=mode, padding_mode=padding, align_corners=corners)


def turned(x: Tensor, mode: str) -> Tensor:
    grid = torch.stack([x[:, 0] * 0.7, x[:, 1] * 0.6, x[:, 0] - x[:, 1]], -1)
    return F.grid_sample(x, grid, mode=mode, align_corners=True)


WAYS = itertools.product(("bilinear", "nearest"), ("zeros", "border", "reflection"), (False, True))
CASES = (
    *(
        applied(f"{mode}, {padding}, corners {corners}", lambda x, w=(mode, padding, corners): warped(x, *w), IMAGE)
        for mode, padding, corners in WAYS
    ),
    applied("a volume, linear", lambda x: turned(x, "bilinear"), VOLUME),
    applied("a volume, nearest", lambda x: turned(x, "nearest"), VOLUME),
    applied("a line of one pixel", lambda x: warped(x[:, :, :, :1].repeat(1, 1, 1, 4), "bilinear"), IMAGE),
)


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name)
def test_an_image_read_at_computed_places_is_proven(one: object) -> None:
    assert_proven(CASES, one)  # type: ignore[arg-type]


class SpatialTransformer(nn.Module):
    """The network of PyTorch's tutorial, smaller."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Sequential(nn.Conv2d(1, 4, 7), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 121, 6))
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        grid = F.affine_grid(self.place(x).view(-1, 2, 3), list(x.size()), align_corners=False)
        return self.conv(F.grid_sample(x, grid, align_corners=False))


def test_a_spatial_transformer_is_proven_and_read_at_any_batch() -> None:
    done = translator.convert(SpatialTransformer(), torch.randn(2, 1, 28, 28))
    assert done.report.verdict in (Verdict.EQUAL, Verdict.EXPLAINED)
    assert done.model.output_shape == (None, 26, 26, 4)


def test_cubic_is_refused_by_name() -> None:
    class Cubic(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return warped(x, "bicubic")

    with pytest.raises(UnsupportedError, match="cubic"):
        translator.convert(Cubic(), torch.randn(IMAGE))
