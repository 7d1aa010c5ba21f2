"""Recurrent layers: LSTM, GRU and RNN, in one and two directions, over several layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.ops.proving import Case, assert_proven, case

pytestmark = pytest.mark.op


class Encoder(nn.Module):
    """An LSTM whose last states are what counts."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, (h, _) = self.lstm(x)
        return self.head(torch.cat((h[-2], h[-1]), dim=1))


class Decoder(nn.Module):
    """A GRU that starts from a state it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 5, batch_first=True)

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        y, last = self.gru(x, state.unsqueeze(0))
        return y + last.transpose(0, 1)


CASES: tuple[Case, ...] = (
    case("LSTM", lambda: nn.LSTM(4, 5, batch_first=True), (2, 7, 4)),
    case("LSTM without bias", lambda: nn.LSTM(4, 5, batch_first=True, bias=False), (2, 7, 4)),
    case(
        "LSTM, two layers, both directions", lambda: nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True), (2, 7, 4)
    ),
    case("GRU", lambda: nn.GRU(4, 5, batch_first=True), (2, 7, 4)),
    case("GRU, both directions", lambda: nn.GRU(4, 5, batch_first=True, bidirectional=True), (2, 6, 4)),
    case("GRU without bias, three layers", lambda: nn.GRU(4, 5, 3, batch_first=True, bias=False), (2, 6, 4)),
    case("RNN", lambda: nn.RNN(4, 5, batch_first=True), (2, 7, 4)),
    case(
        "RNN with ReLU, both directions",
        lambda: nn.RNN(4, 5, batch_first=True, bidirectional=True, nonlinearity="relu"),
        (2, 7, 4),
    ),
    case("LSTM's last states", Encoder, (2, 7, 4)),
    case("GRU from a given state", Decoder, (2, 7, 4), (2, 5)),
)


@pytest.mark.parametrize("one", CASES, ids=lambda c: c.name)
def test_recurrent_layers_are_proven(one: Case) -> None:
    assert_proven(CASES, one)
