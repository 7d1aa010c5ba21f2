"""The coarse words and signatures by which units of the two frameworks are told to be of one kind."""

from __future__ import annotations

from typing import Any

from translator.verify.facts import (
    Activation,
    Attention,
    Conv,
    Dense,
    Dropout,
    Embedding,
    Facts,
    Norm,
    Padding,
    Pool,
    Preprocessing,
    Recurrent,
    Resize,
    Shaping,
)

JOINS = frozenset({"add", "sub", "mul", "div", "max", "min", "concat", "matmul"})
"""Kinds of units that bring several values together; "join" is one that is not known further."""

ORDERED = frozenset({"sub", "div", "concat", "matmul", "attend"})
"""Joins whose arguments may not change places."""


def kind_and_signature(facts: Facts) -> tuple[str, tuple[Any, ...]] | None:
    """A coarse word, and the sizes that two layers with the same weights share; None for what only moves elements."""
    match facts:
        case Conv(transposed=transposed, channels=channels, filters=filters, groups=groups, windows=windows):
            kernel = windows.kernel if any(k != 1 for k in windows.kernel) else ()
            return ("transposed" if transposed else "linear"), (filters, channels // groups, kernel)
        case Dense(channels=channels, units=units):
            return "linear", (units, channels, ())
        case Norm(normalised=size):
            return "norm", (size,)
        case Embedding(rows=rows, width=width):
            return "embedding", (rows, width)
        case Recurrent(cell=cell, units=units, bidirectional=both):
            return "rnn", (cell, units, both)
        case Attention(width=width):
            return "attention", (width,)
        case Activation(name=name):
            return "act", (name,)
        case Pool(kind=kind):
            return "pool", (kind,)
        case Dropout():
            return "dropout", ()
        case Padding():
            return "pad", ()
        case Resize():
            return "resize", ()
        case Preprocessing():
            return "affine", ()
        case Shaping():
            return None
