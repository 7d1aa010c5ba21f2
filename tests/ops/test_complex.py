"""Complex numbers inside a network: moved about, turned, and handed from module to module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import translator
from tests.ops.proving import Case, assert_proven, case
from translator.errors import UnsupportedError
from translator.verdict import Verdict

pytestmark = pytest.mark.op


class Within(nn.Module):
    """A function of complex numbers z and a constant f, between pairs of real numbers."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.f = torch.randn(5, 4, dtype=torch.cfloat, generator=torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> Tensor:
        found = self.function(torch.view_as_complex(x), self.f)
        return torch.view_as_real(found) if found.is_complex() else found


def within(name: str, function: Callable[[Tensor, Tensor], Tensor]) -> Case:
    return case(name, lambda: Within(function), (2, 5, 4, 2))


CASES: tuple[Case, ...] = (
    within("a new axis", lambda z, f: z[:, None] * f[None, None]),
    within("a new axis at the end", lambda z, f: z[..., None] * f[None, :, :, None]),
    within("unsqueeze", lambda z, f: z.unsqueeze(-1) + torch.unsqueeze(f, 2)),
    within("squeeze", lambda z, f: z.unsqueeze(0).squeeze(0)),
    within("one of them", lambda z, f: z[:, 1] * z.select(-1, 0)[:, :4]),
    within("some of them", lambda z, f: z[:, [0, 2]] - z.index_select(1, torch.tensor([3, 1]))),
    within("expand", lambda z, f: z[:, None].expand(-1, 3, -1, -1)),
    within("repeat", lambda z, f: z.repeat(1, 2, 1)),
    within("each repeated", lambda z, f: z.repeat_interleave(2, 1)),
    within("chunk", lambda z, f: z.chunk(2, -1)[1]),
    within("split", lambda z, f: z.split([1, 3], 2)[1]),
    within("unbind", lambda z, f: z.unbind(1)[3]),
    within("roll", lambda z, f: z.roll(1, 1)),
    within("exp", lambda z, f: z.exp()),
    within("angle", lambda z, f: z.angle()),
    within("a phase", lambda z, f: z * torch.exp(1j * z.real)),
    within("detach", lambda z, f: z.detach() / f),
)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_functions_of_complex_numbers_are_proven(case: Case) -> None:
    assert_proven(CASES, case)


def test_what_is_not_known_of_complex_numbers_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match="tanh"):
        translator.convert(Within(lambda z, f: z.tanh()), torch.randn(2, 5, 4, 2))


class Turned(nn.Module):
    """Queries turned by complex positions that are given from outside, as in Llama's own code."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor, turns: Tensor, mask: Tensor) -> Any:
        q = torch.view_as_complex(self.query(x).reshape(*x.shape[:-1], -1, 2))
        q = torch.view_as_real(q * turns[None, : x.shape[1]]).flatten(2)
        return (q @ q.transpose(1, 2) + mask).softmax(-1) @ q


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.turned = nn.Embedding(11, 8), Turned()
        turns = torch.outer(torch.arange(32.0), 10 ** (-torch.arange(4) / 4))
        self.register_buffer("turns", torch.polar(torch.ones_like(turns), turns), persistent=False)

    def forward(self, words: Tensor) -> Any:
        mask = torch.full((words.shape[1],) * 2, float("-inf")).triu(1)
        return self.turned(self.table(words), self.turns, mask)


def test_complex_tensors_go_from_module_to_module() -> None:
    report = translator.convert(Decoder(), torch.randint(0, 11, (2, 6))).report
    assert report.verdict is Verdict.EXPLAINED
    assert {row.torch for row in report.layers} >= {"table", "turned", "turned.query"}
