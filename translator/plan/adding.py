"""`keras.ops.add` on TensorFlow takes a second operand that looks like a bias for one, whatever axis it lies on.

It asks for one axis longer than 1 (axes of size 1 are squeezed away) as long as the first operand's last axis or
its axis 1, and adds it there: (N, 4, 4) + (1, 4, 1) comes out as (N, 4, 4) + (4,). Measured with Keras 3.15. A dynamic
axis can have any size, so what might be misread is written another way.
"""

from __future__ import annotations

from translator.graph.view import NodeView
from translator.plan.calls import Arg, Ref
from translator.plan.context import PlanContext
from translator.types import Shape


def add(node: NodeView, ctx: PlanContext, a: tuple[Arg, Shape], b: tuple[Arg, Shape], role: str = "") -> Ref:
    """a + b, each with its Keras shape: as it is, the other way round, or as a − (−b)."""
    (x, own), (y, other) = a, b
    if not misread(other, own):
        return ctx.op(node, "add", x, y, role=role, main=False)
    if not misread(own, other):
        return ctx.op(node, "add", y, x, role=role, main=False)
    minus = ctx.op(node, "negative", y, role="negative") if isinstance(y, Ref) else -y
    return ctx.op(node, "subtract", x, minus, role=role or "add", main=False)


def misread(bias: Shape, x: Shape) -> bool:
    """Whether TensorFlow's `add(x, bias)` may take `bias` for a bias on another axis than its own."""
    fixed = [i for i, d in enumerate(bias) if d is not None and d > 1]
    open_ended = [i for i, d in enumerate(bias) if d is None]
    if len(fixed) > 1 or len(x) < 2 or not (fixed or open_ended):
        return False
    return any(_misread_along(bias, x, axis) for axis in fixed or open_ended)


def _misread_along(bias: Shape, x: Shape, axis: int) -> bool:
    size, place = bias[axis], axis - len(bias) + len(x)
    if size is not None and all(d is not None and d != size for d in (x[1], x[-1])):
        return False
    if size is None or place < 0 or len(bias) > len(x):
        return True
    if place == len(x) - 1:
        return x[-1] != size
    return not (place == 1 and x[1] == size and x[-1] is not None and x[-1] != size)
