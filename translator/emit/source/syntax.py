"""Python source text of values and of conditions.

Code is kept as text in which a name that belongs to the enclosing function or class stands between « and »: the
functional style writes it as it is, the subclass style as an attribute of `self` where a method reads it.
"""

from __future__ import annotations

import math
import re
import types
from dataclasses import dataclass
from typing import Any

import numpy as np

from translator.errors import InternalError

_FEW = 8
_MARKED = re.compile(r"«(\w+)»")


def own(name: str) -> str:
    """A parameter of the enclosing function, as code."""
    return f"«{name}»"


def plain(code: str) -> str:
    """The code as a function reads it."""
    return _MARKED.sub(r"\1", code)


def on_self(code: str) -> str:
    """The code as a method reads it, after `__init__` has stored the parameters."""
    return _MARKED.sub(r"self.\1", code)


def names_in(code: str) -> list[str]:
    """The parameters that the code reads, in order, without repeats."""
    return list(dict.fromkeys(_MARKED.findall(code)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A value that is an expression: a layer in another's settings."""

    text: str


def literal(value: Any) -> str:
    """A constant as Python source; equal values of one type give equal text, values of different types never do."""
    match value:
        case str():
            return _string(value)
        case bool() | None:
            return repr(value)
        case types.EllipsisType():
            return "..."
        case int():
            return repr(int(value))
        case float():
            return _float(float(value))
        case slice():
            return f"slice({literal(value.start)}, {literal(value.stop)}, {literal(value.step)})"
        case tuple():
            inner = ", ".join(literal(v) for v in value)
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        case list():
            return "[" + ", ".join(literal(v) for v in value) + "]"
        case dict():
            return "{" + ", ".join(f"{literal(k)}: {literal(v)}" for k, v in value.items()) + "}"
        case Code():
            return value.text
        case np.ndarray():
            return _array(value)
        case np.generic():
            return literal(value.item())
    raise InternalError(f"a {type(value).__name__} can't be written as source: {value!r}")


def _string(value: str) -> str:
    quoted = repr(value)
    return f'"{quoted[1:-1]}"' if quoted[0] == "'" and '"' not in quoted else quoted


def _float(value: float) -> str:
    if math.isnan(value) or math.isinf(value):
        return f'float("{value}")'
    return re.sub(r"e([+-])0*(\d)", lambda m: f"e{'-' if m[1] == '-' else ''}{m[2]}", repr(value))


def _array(array: np.ndarray) -> str:
    """An array of many equal numbers by the number, any other by all of them."""
    dtype, first = f'dtype="{array.dtype.name}"', array.reshape(-1)[:1]
    if array.size < _FEW or array.tobytes() != first.tobytes() * array.size:
        return f"np.array({_nested(array)}, {dtype})"
    shape = literal(array.shape)
    if not any(first.tobytes()):
        return f"np.zeros({shape}, {dtype})"
    return f"np.full({shape}, {_nested(first[0])}, {dtype})"


def _nested(array: np.ndarray) -> str:
    if array.ndim:
        return "[" + ", ".join(_nested(row) for row in array) + "]"
    value = array[()]
    if array.dtype.kind == "f":
        return str(value) if np.isfinite(value) else f"{'-' if value < 0 else ''}np.{abs(value)!s}"
    return repr(value.item())
