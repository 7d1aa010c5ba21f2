"""Recurrent layers: LSTM, GRU and RNN, in one and two directions, over several layers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import translator
from tests.ops.proving import Case, assert_proven, case
from translator.errors import UnsupportedError
from translator.verdict import Verdict

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


class Cells(nn.Module):
    """An LSTM cell from state to state, the first of which are one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = c = x.new_zeros(x.shape[0], 3)
        for step in x.unbind(1):
            h, c = self.cell(step, (h, c))
        return h


class Named(nn.Module):
    """Arguments by PyTorch's names."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 3, batch_first=True)

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return self.gru(input=x, hx=state)[0]


@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (Cells, ((2, 5, 4),)),
        (Named, ((2, 5, 4), (1, 2, 3))),
        (lambda: nn.LSTM(4, 3, batch_first=True), ((2, 5, 4),)),
        (lambda: nn.GRU(4, 3), ((5, 2, 4), (1, 2, 3))),
    ],
    ids=["cells", "arguments by name", "an LSTM by itself", "a GRU by itself, with a state"],
)
def test_recurrent_models_are_proven(module: Callable[[], nn.Module], inputs: tuple[tuple[int, ...], ...]) -> None:
    done = translator.convert(module(), tuple(torch.randn(shape) for shape in inputs))
    assert done.report.verdict in (Verdict.EQUAL, Verdict.EXPLAINED)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_a_projection_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match="LSTMWithProjection") as caught:
        translator.convert(nn.Sequential(nn.LSTM(4, 3, proj_size=2, batch_first=True)), torch.randn(2, 5, 4))
    assert caught.value.where.module == "0"
