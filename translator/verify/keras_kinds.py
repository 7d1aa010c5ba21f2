"""How Keras operations are told apart: by the names of Keras' own classes along the class's MRO.

So no framework is imported, and a layer of the user's own that merely bears such a name is not taken for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from translator.verify.facts import Facts, Ints, Presence

Describe = Callable[[Any, Ints | None], Facts | None]
TABLE: dict[str, Describe] = {}


def describes(*names: str) -> Callable[[Describe], Describe]:
    """Register a description for the Keras classes of these names and for what derives from them."""

    def register(function: Describe) -> Describe:
        TABLE.update(dict.fromkeys(names, function))
        return function

    return register


def keras_classes(operation: Any) -> Sequence[str]:
    """Names of the operation's classes that are Keras' own, the nearest first."""
    return [c.__name__ for c in type(operation).__mro__ if c.__module__.split(".")[0] in ("keras", "tf_keras")]


def keras_class(operation: Any) -> str:
    """Name of the operation's nearest Keras class."""
    return next(iter(keras_classes(operation)), type(operation).__name__)


def call_argument(operation: Any, name: str, position: int, default: Any = None) -> Any:
    """An argument of the operation's first call: by name, or by position; else its attribute of that name."""
    nodes = getattr(operation, "_inbound_nodes", ())
    if nodes:
        arguments = nodes[0].arguments
        if name in arguments.kwargs:
            return arguments.kwargs[name]
        if position < len(arguments.args):
            return arguments.args[position]
    return getattr(operation, name, default)


def presence(variable: Any, neutral: float) -> Presence:
    """Whether a weight is there, and whether it has an effect."""
    if variable is None:
        return Presence.NONE
    return Presence.NEUTRAL if bool(np.all(variable.numpy() == neutral)) else Presence.IN_USE


def size_of(variable: Any) -> int:
    """Number of elements of a weight, 0 where there is none."""
    return int(np.prod(variable.shape)) if variable is not None else 0
