"""Keras layers that do two things, which PyTorch writes as two: separable convolutions, the last step of a sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers
from torch import nn

import translator
from tests.audit.building import HARMLESS, QUICK, Build, audited, chain, telling
from translator.audit.api import AuditOptions
from translator.verdict import Report, Verdict
from translator.verify.keras_graph import graph_of
from translator.verify.keras_split import split_layers

pytestmark = pytest.mark.audit


def depthwise(rank: int = 2, **settings: Any) -> nn.Sequential:
    conv = nn.Conv2d if rank == 2 else nn.Conv1d
    return nn.Sequential(conv(3, 6, 3, groups=3, bias=False, **settings), conv(6, 5, 1), nn.ReLU())


@pytest.mark.parametrize("inside", [True, False], ids=["activation inside", "activation behind"])
def test_a_separable_convolution_is_a_depthwise_one_and_a_pointwise_one(inside: bool) -> None:
    settings: dict[str, Any] = {"depth_multiplier": 2, "activation": "relu" if inside else None}
    behind = () if inside else (layers.ReLU(),)
    build = chain(layers.SeparableConv2D(5, 3, **settings), *behind)
    assert audited(depthwise(), build, (8, 8, 3)).verdict is Verdict.EQUAL
    inputs, example = keras.Input((8, 3)), torch.randn(2, 3, 8)
    model = keras.Model(inputs, chain(layers.SeparableConv1D(5, 3, **settings), *behind)(inputs))
    assert translator.audit(depthwise(1), model, example, weights="ignore").verdict is Verdict.EQUAL


def test_the_half_of_a_separable_convolution_that_is_wrong_is_named() -> None:
    build = chain(layers.SeparableConv2D(5, 3, depth_multiplier=2, padding="same", activation="relu"))
    report = audited(depthwise(padding=2, dilation=2), build, (8, 8, 3))
    assert [(d.kind, d.layers) for d in telling(report)] == [("dilation", ("0",))]
    assert report.first_wrong == "0"


class Reader(nn.Module):
    """A recurrent layer, of which a head reads one step."""

    def __init__(self, cell: type[nn.RNNBase], read: Callable[[Any, Any], torch.Tensor], *, both: bool, depth: int = 1):
        super().__init__()
        self.rnn = cell(5, 4, depth, batch_first=True, bidirectional=both)
        self.read, self.head = read, nn.Linear(8 if both else 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps, state = self.rnn(x)
        return self.head(self.read(steps, state[0] if isinstance(state, tuple) else state))


def reading(module: nn.Module, *build: Build) -> Report:
    inputs = keras.Input((7, 5))
    model = keras.Model(inputs, chain(*build, layers.Dense(3))(inputs))
    example = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 7, 5), dtype=np.float32))
    return translator.audit(module, model, example, options=AuditOptions(weights="ignore", proof=QUICK))


def wrong(report: Report) -> list[str]:
    return [d.kind for d in report.differences if d.kind not in HARMLESS | {"rnn-biases"}]


last = lambda steps, state: steps[:, -1]
state = lambda steps, state: state[-1]
both_states = lambda steps, state: torch.cat([state[-2], state[-1]], dim=1)
RIGHT = [
    ("lstm, last step", nn.LSTM, last, 1, False, [lambda: layers.LSTM(4)]),
    ("gru, state", nn.GRU, state, 1, False, [lambda: layers.GRU(4)]),
    ("rnn, last step", nn.RNN, last, 1, False, [lambda: layers.SimpleRNN(4)]),
    ("two grus", nn.GRU, state, 2, False, [lambda: layers.GRU(4, return_sequences=True), lambda: layers.GRU(4)]),
    ("both ways", nn.LSTM, both_states, 1, True, [lambda: layers.Bidirectional(layers.LSTM(4))]),
]


@pytest.mark.parametrize(("cell", "read", "depth", "both", "build"), [c[1:] for c in RIGHT], ids=[c[0] for c in RIGHT])
def test_a_layer_that_gives_its_last_step_is_one_of_which_that_is_read(
    cell: type[nn.RNNBase], read: Any, depth: int, both: bool, build: list[Any]
) -> None:
    report = reading(Reader(cell, read, both=both, depth=depth), *(make() for make in build))
    assert wrong(report) == []
    assert report.verdict is not Verdict.DIFFERENT
    assert "rnn" in {row.torch for row in report.layers}, "the layer itself is judged, alone"


def test_another_step_than_the_one_that_keras_gives_is_found() -> None:
    first = reading(Reader(nn.GRU, lambda steps, state: steps[:, 0], both=False), layers.GRU(4))
    assert (first.verdict, first.first_wrong) == (Verdict.DIFFERENT, "head")
    # A frequent slip: the last step of both directions, where Keras gives the first of the one that goes back.
    slip = reading(Reader(nn.LSTM, last, both=True), layers.Bidirectional(layers.LSTM(4)))
    assert (slip.verdict, slip.first_wrong) == (Verdict.DIFFERENT, "head")


def test_a_split_graph_computes_what_the_layers_do(rng: np.random.Generator) -> None:
    inputs = keras.Input((8, 3))
    x = layers.SeparableConv1D(6, 3, strides=2, activation="tanh", name="conv")(inputs)
    model = keras.Model(inputs, layers.Bidirectional(layers.GRU(4), name="gru")(x))
    graph = split_layers(graph_of(model))
    assert [step.path for step in graph.steps] == ["conv (depthwise)", "conv (linear)", "conv", "gru (sequence)", "gru"]
    data = keras.ops.convert_to_tensor(rng.standard_normal((2, 8, 3)).astype("float32"))
    values = {graph.inputs[0]: data}
    for step in graph.steps:
        values.update(zip(step.outputs, step.run(values), strict=True))
        assert tuple(values[step.outputs[0]].shape)[1:] == tuple(graph.shapes[step.outputs[0]])[1:]
    np.testing.assert_allclose(values[graph.outputs[0]], model(data), rtol=1e-6, atol=1e-6)
    assert not model.get_layer("gru").return_sequences, "the layer is afterwards what it was"
    assert "call" not in vars(model.get_layer("conv"))
