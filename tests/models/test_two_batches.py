"""Two batches that go through one network as one, and are taken apart again: Siamese networks, optical flow."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import translator
from translator.errors import UnsupportedError
from translator.verdict import Verdict

pytestmark = pytest.mark.model

Parts = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


class Siamese(nn.Module):
    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head, self.parts = nn.Linear(4, 2), parts

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        x, y = self.parts(self.encoder(torch.cat([a, b])), a)
        return self.head((x - y).abs())


PARTS: dict[str, Parts] = {
    "chunk": lambda both, a: torch.chunk(both, 2),
    "split": lambda both, a: torch.split(both, a.shape[0]),
    "slices": lambda both, a: (both[: a.shape[0]], both[a.shape[0] :]),
    "view": lambda both, a: tuple(both.view(2, a.shape[0], 4)),
}


@pytest.mark.parametrize("name", PARTS)
def test_two_batches_in_one_are_taken_apart(name: str) -> None:
    done = translator.convert(Siamese(PARTS[name]), (torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)))
    assert done.report.verdict is Verdict.EQUAL
    assert done.model.output_shape == (None, 2)


def test_a_part_that_is_no_equal_one_is_refused_by_name() -> None:
    class Uneven(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[: x.shape[0] // 2 + 1] * 2

    with pytest.raises(UnsupportedError, match="slice from 0 to"):
        translator.convert(Uneven(), torch.randn(4, 3))


COUNTS: dict[str, Callable[[Tensor], Tensor]] = {
    "root of a size": lambda x: x / torch.sqrt(torch.tensor(x.shape[1])),
    "quotient": lambda x: x * (torch.arange(5) / 3),
    "product": lambda x: x * (torch.arange(5) * 0.1),
    "count": lambda x: x * torch.rsqrt((x > 0).sum(1, keepdim=True) + 1),
}


@pytest.mark.parametrize("name", COUNTS)
def test_whole_numbers_become_floats_of_the_precision_that_is_judged(name: str) -> None:
    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return COUNTS[name](x)

    assert translator.convert(Counting(), torch.randn(2, 5)).report.verdict is Verdict.EQUAL
