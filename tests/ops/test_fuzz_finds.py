"""Networks that random drawing found, made small: each was wrong, or refused, once."""

from __future__ import annotations

import torch
from torch import nn

import translator
from translator.verdict import Verdict


class PaddedBesideLinear(nn.Module):
    """The padding runs channels first, for the Linear's sake, and the convolution behind it channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 6)
        self.linear = nn.Linear(6, 7, bias=False)
        self.conv = nn.Conv1d(1, 2, 5, padding=2, bias=False, padding_mode="reflect")

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.table(tokens)
        return self.linear(x), self.conv(x)


def test_a_padding_in_another_layout_than_its_convolution_is_no_difference() -> None:
    done = translator.convert(PaddedBesideLinear().eval(), torch.randint(0, 30, (2, 1)))
    assert done.report.verdict is Verdict.EQUAL
