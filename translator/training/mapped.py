"""What a mapping gives: the Keras object, and everything a reader must know about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from translator.errors import UnsupportedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """A Keras loss, optimizer or schedule that computes what the PyTorch one computes.

    keras: the object. native: all of it is Keras' own, the schedule inside too; else some of it is from
    `translator.training.registered`, and `why` says what Keras' own would do instead. notes: the corners where even
    this one differs, each a sentence; empty where none does.
    """

    keras: Any
    native: bool
    why: str = ""
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def name(self) -> str:
        """The class as a reader writes it: `keras.losses.Huber`, `translator.training.registered.SmoothL1`."""
        cls = type(self.keras)
        if not cls.__module__.startswith("keras."):
            return f"translator.training.registered.{cls.__name__}"
        kind = {"losses": "losses", "optimizers": "optimizers"}[cls.__module__.split(".")[2]]
        return f"keras.{kind}.{'schedules.' if 'schedules' in cls.__module__ else ''}{cls.__name__}"


def exact_in_float64(optimizer: Any) -> Any:
    """The same optimizer, new, with numbers that stay float64 on TensorFlow.

    `ops.cast(0.9, "float64")`, by which Keras reads its hyperparameters, rounds a Python float to float32 first there
    (0.9 becomes 0.899999976), but not numpy's float64. In float32, where models train, there is no difference.
    A learning rate that was kept as a float32 variable becomes the short decimal number that it was made from.
    """
    config = optimizer.get_config()
    rate = config.get("learning_rate")
    if isinstance(rate, float) and float(np.float32(rate)) == rate:
        config["learning_rate"] = float(str(np.float32(rate)))
    return type(optimizer).from_config(_wide(config))


def _wide(value: Any) -> Any:
    if isinstance(value, float):
        return np.float64(value)
    if isinstance(value, dict):
        return {key: _wide(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_wide(item) for item in value]
    return value


def refusal(what: str, fix: str) -> UnsupportedError:
    """A setting that no Keras object can take over, by name, and what to do about it."""
    return UnsupportedError(what, reason="training-op", fix=fix)
