"""How a user trains the Keras model: their loss, their optimizer, and the batches that they feed it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

Prepare = Callable[[np.ndarray, np.ndarray], tuple[Any, Any]]
"""A user's own data pipeline: PyTorch's images and labels as arrays → what their Keras loop is fed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KerasRecipe:
    """How a user trains the Keras model. None: the part isn't theirs, and the mapped one stands in.

    prepare: None where they take the batches as parity lays them out.
    """

    loss: Any = None
    optimizer: keras.optimizers.Optimizer | None = None
    prepare: Prepare | None = None


def compiled_recipe(model: keras.Model, prepare: Prepare | None = None) -> KerasRecipe | None:
    """The loss and the optimizer that a Keras model was compiled with, and the user's pipeline.

    None where there is neither; a model with several losses counts as not compiled.
    """
    loss = getattr(model, "loss", None) if getattr(model, "compiled", False) else None
    if isinstance(loss, Mapping):
        loss = list(loss.values())
    if isinstance(loss, (list, tuple)):
        loss = loss[0] if len(loss) == 1 else None
    if loss is not None:
        return KerasRecipe(loss=as_loss(loss), optimizer=model.optimizer, prepare=prepare)
    return KerasRecipe(prepare=prepare) if prepare is not None else None


def as_loss(loss: Any) -> keras.losses.Loss:
    """What `compile` makes of a loss: an object, from a name, a function or an object."""
    if isinstance(loss, str) and loss.lower() in ("crossentropy", "ce"):  # chosen by the labels: integers here
        loss = "sparse_categorical_crossentropy"
    found = keras.losses.get(loss)
    if isinstance(found, keras.losses.Loss):
        return found
    for cls in _CLASSES:
        made = cls()
        if made.fn is found:
            return made
    return _Mean(found)


def name_of(thing: Any) -> str:
    """What a reader calls a loss or an optimizer: its class, or the function that it stands for."""
    return str(getattr(thing, "__name__", type(thing).__name__))


_CLASSES: tuple[Callable[[], Any], ...] = (
    keras.losses.SparseCategoricalCrossentropy,
    keras.losses.CategoricalCrossentropy,
    keras.losses.BinaryCrossentropy,
    keras.losses.MeanSquaredError,
    keras.losses.MeanAbsoluteError,
    keras.losses.Huber,
)
"""Losses that checks know by their class; Keras' function of the same name stands for the class' defaults."""


class _Mean(keras.losses.Loss):  # type: ignore[misc]
    """The mean over the examples of what a function gives for each."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self.__name__ = str(getattr(function, "__name__", type(function).__name__))
        super().__init__(name=re.sub(r"\W", "", self.__name__))
        self.function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The user's function."""
        return self.function(y_true, y_pred)
