"""Text models: inputs and results in another order, tables of positions, sums that were written in another order."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers, ops
from torch import nn

import translator
from translator.verdict import Verdict

pytestmark = pytest.mark.audit


class Embedded(nn.Module):
    """Tokens, positions and kinds, as BERT adds them up."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.kinds = nn.Embedding(3, 6)
        self.places = nn.Embedding(9, 6)
        self.norm = nn.LayerNorm(6)
        self.last = nn.Linear(6, 4)
        self.pooled = nn.Linear(6, 6)
        self.register_buffer("numbers", torch.arange(9), persistent=False)

    def forward(self, tokens: torch.Tensor, kinds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.words(tokens) + self.kinds(kinds)
        x = self.norm(x + self.places(self.numbers[: tokens.shape[1]]))
        return self.last(x), torch.tanh(self.pooled(x[:, 0]))


class Places(layers.Layer):
    """A table of positions that asks its input for nothing but its size."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.table = self.add_weight(shape=(9, 6), name="table", initializer="glorot_uniform")

    def call(self, x: Any) -> Any:
        return ops.broadcast_to(self.table[: ops.shape(x)[1]], ops.shape(x))


def in_keras() -> keras.Model:
    """The same with a dict of inputs, whose order is the alphabet's, and a dict of results."""
    kinds, tokens = keras.Input((None,), dtype="int32", name="a_kinds"), keras.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(11, 6)(tokens)
    x = layers.Add()([x, Places()(x)])
    x = layers.LayerNormalization(epsilon=1e-5)(layers.Add()([x, layers.Embedding(3, 6)(kinds)]))
    results = {"sequence": layers.Dense(4)(x), "pooled": layers.Dense(6, activation="tanh")(x[:, 0])}
    return keras.Model({"a_kinds": kinds, "ids": tokens}, results)


def test_a_text_model_takes_the_weights_and_gives_them_back() -> None:
    module, model = Embedded(), in_keras()
    with torch.no_grad():
        module.norm.weight.add_(torch.linspace(-0.5, 0.5, 6))
        module.norm.bias.add_(torch.linspace(0.5, 1, 6))
    rng = np.random.default_rng(0)
    example = tuple(torch.from_numpy(rng.integers(0, n, (2, 7))) for n in (11, 3))
    there = translator.transfer(module, model, example)
    assert (there.report.verdict, there.report.exit_status) == (Verdict.EQUAL, 0)
    assert there.report.balance.unexplained == 0
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    for tensor in module.state_dict().values():
        tensor.zero_()
    back = translator.transfer(model, module, example)
    assert back.report.exit_status == 0
    assert all(tensor.equal(before[name]) for name, tensor in module.state_dict().items())
