"""A Keras model without chance: every dropout switched off while a block runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

_SETTINGS = ("rate", "stddev", "_dropout", "dropout", "recurrent_dropout")


@contextmanager
def silent(model: keras.Model) -> Iterator[list[str]]:
    """Switch off every dropout and noise layer; yields the names of those that were on."""
    changed: list[tuple[Any, str, float]] = []
    try:
        for layer in model._flatten_layers(include_self=False, recursive=True):
            for setting in _SETTINGS if _is_random(layer) else ():
                value = getattr(layer, setting, None)
                if isinstance(value, float) and value > 0:
                    changed.append((layer, setting, value))
                    setattr(layer, setting, 0.0)
        yield list(dict.fromkeys(layer.name for layer, _, _ in changed))
    finally:
        for layer, setting, value in changed:
            setattr(layer, setting, value)


def _is_random(layer: keras.layers.Layer) -> bool:
    own = type(layer).__module__.split(".")[:3] == ["keras", "src", "layers"]
    return own and any(isinstance(layer, cls) for cls in _RANDOM)


_RANDOM = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.AlphaDropout,
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.RNN,
    keras.layers.LSTMCell,
    keras.layers.GRUCell,
    keras.layers.SimpleRNNCell,
)
