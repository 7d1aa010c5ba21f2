"""Names that a written model must keep Keras from giving to operations: a layer or an input has them already.

An operation of `keras.ops` can't be given a name; Keras calls it `add`, `add_1` … and refuses a model in which a layer
is called the same. Which it would be depends on what the process has built before.
"""

from __future__ import annotations

import functools
import inspect
import re
from typing import Any

import keras

from translator.plan.calls import OpCall, Plan

_NUMBERED = re.compile(r"(.+?)(?:_(\d+))?")


def clashes(plan: Plan) -> list[str]:
    """What to count up before anything is built: a name once for each of its numbers that is taken."""
    prefixes = {name for call in plan.calls if isinstance(call, OpCall) for name in _automatic(call.op)}
    found: dict[str, int] = {}
    for name in (*(spec.name for spec in plan.layers), *(value for _, value in plan.inputs)):
        match = _NUMBERED.fullmatch(name)
        if match is not None and match[1] in prefixes:
            found[match[1]] = max(found.get(match[1], 0), 1 + int(match[2] or 0))
    return [name for name in sorted(found) for _ in range(found[name])]


@functools.cache
def _automatic(op: str) -> frozenset[str]:
    """What Keras may call an operation: the names of the classes that its function makes, in snake case."""
    if op == "get_item":
        return frozenset({"get_item"})
    function: Any = keras.ops
    for part in op.split("."):
        function = getattr(function, part)
    names = {function.__name__}
    for name in re.findall(r"\b([A-Za-z]\w*)\(", inspect.getsource(function)):
        made = function.__globals__.get(name)
        if inspect.isclass(made) and issubclass(made, keras.Operation):
            names.add(_snake(name))
        elif inspect.isfunction(made) and made.__name__.islower() and made.__module__ == function.__module__:
            names.add(made.__name__)
    return frozenset(names)


def _snake(name: str) -> str:
    """As Keras does it."""
    text = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", text).lower()
