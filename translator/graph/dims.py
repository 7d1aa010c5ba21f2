"""Dimensions as integers or symbolic expressions, parsed from the names the exporter gives them ("s77", "2*s77")."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import onnx_ir as ir
import sympy

from translator.types import Shape

SymDim = Any
"""An `int` or a `sympy.Expr` over positive integer symbols."""

SymShape = tuple[SymDim, ...]


@lru_cache(maxsize=4096)
def parse(text: str) -> SymDim:
    """The expression a dimension's name stands for; a name that isn't an expression becomes one symbol."""
    names = set(re.findall(r"[A-Za-z_]\w*", text)) - {"Max", "Min", "floor", "ceiling"}
    symbols = {n: sympy.Symbol(n, integer=True, positive=True) for n in names}
    try:
        expression = sympy.sympify(text, locals=symbols)
    except (sympy.SympifyError, TypeError, SyntaxError):
        return sympy.Symbol(text, integer=True, positive=True)
    return int(expression) if expression.is_Integer else expression


def symbolic_shape(shape: ir.Shape) -> SymShape:
    """The shape of an onnx_ir value."""
    return tuple(d if isinstance(d, int) else parse(str(d.value)) for d in shape)


def public(shape: Sequence[SymDim]) -> Shape:
    """The shape with None for every dimension that isn't a number."""
    return tuple(d if isinstance(d, int) else None for d in shape)


def ratio(numerator: SymDim, denominator: SymDim) -> SymDim | None:
    """The exact quotient where it is an integer or a polynomial expression, else None."""
    if isinstance(numerator, int) and isinstance(denominator, int):
        return numerator // denominator if denominator and numerator % denominator == 0 else None
    quotient = sympy.cancel(sympy.sympify(numerator) / sympy.sympify(denominator))
    if quotient.as_numer_denom()[1] != 1:
        return None
    return int(quotient) if quotient.is_Integer else quotient
