"""Keras models for images of any size, and what an audit makes of them."""

from __future__ import annotations

from typing import Any

import keras
import pytest
import torch
from keras import layers
from torch import nn

import translator
from translator.verdict import Verdict

pytestmark = pytest.mark.audit


def test_a_model_for_images_of_any_size_with_activations_inside_is_aligned() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Tanh())
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    model = keras.Model(inputs, layers.Conv2D(2, 1, activation="tanh")(x))
    report = translator.audit(module, model, torch.zeros(2, 3, 8, 9), weights="ignore")
    assert report.verdict in (Verdict.EQUAL, Verdict.EXPLAINED)
    assert report.balance.unexplained == 0


class Grid(layers.Layer):
    """A convolution of tokens, laid out as an image for it: its code asks for the size of the batch."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side, self.conv = side, layers.Conv2D(4, 3, padding="same")

    def call(self, x: Any) -> Any:
        batch, count, channels = keras.ops.shape(x)
        image = keras.ops.reshape(x, (batch, self.side, self.side, channels))
        return keras.ops.reshape(self.conv(image), (batch, count, 4))


class TorchGrid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(5, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, _, channels = x.shape
        image = self.conv(x.transpose(1, 2).reshape(batch, channels, 4, 4))
        return self.head(image.flatten(2).transpose(1, 2))


@pytest.mark.parametrize("rows", [2, 3])
def test_layers_that_compute_with_the_batch_are_judged_with_the_examples(rows: int) -> None:
    inputs = keras.Input((16, 5))
    model = keras.Model(inputs, layers.Dense(3)(Grid(4)(inputs)))
    report = translator.audit(TorchGrid(), model, torch.randn(rows, 16, 5), weights="ignore")
    assert report.verdict in (Verdict.EQUAL, Verdict.EXPLAINED)
    assert {"conv", "head"} <= {row.torch for row in report.layers}
    assert any(f"a batch of {rows}" in note for note in report.notes)
