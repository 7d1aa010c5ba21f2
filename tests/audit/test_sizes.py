"""Keras models for images of any size, and what an audit makes of them."""

from __future__ import annotations

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
