"""Ops that change nothing are not listed in the graph: their result is another name of their input.

Given:   Slice(x, [0], [9223372036854775807], [1])   Identity(x)   Transpose(x, perm=(0, 1, 2))   Reshape(x, Shape(x))
Result:  x
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from translator.graph.dims import SymShape
from translator.graph.evaluate import integers
from translator.graph.view import NodeView

_SAME_SHAPE_IS_SAME = frozenset(
    {"Reshape", "Flatten", "Expand", "Slice", "Squeeze", "Unsqueeze", "Tile", "Resize", "CenterCropPad"}
)
_FLOATS = ("float", "bfloat", "double")


def changes_nothing(
    node: NodeView, shapes: Mapping[str, SymShape], dtypes: Mapping[str, str], constants: Mapping[str, np.ndarray]
) -> bool:
    """Whether the first output is the first input, element for element, whatever the input is."""
    if node.domain or not node.inputs or not node.inputs[0]:
        return False
    value, out = node.inputs[0], node.outputs[0]
    if node.op in ("Identity", "Dropout"):
        return not any(node.outputs[1:])
    if node.op in ("Cast", "CastLike"):
        have, want = dtypes.get(value, ""), dtypes.get(out, "")
        return have == want or (_floating(have) and _floating(want))
    if node.op == "Transpose":
        return bool(node.attr("perm") == tuple(range(len(shapes.get(value, ())))))
    if node.op == "Pad":
        return node.inputs[1] in constants and not any(integers(constants[node.inputs[1]]))
    if node.op in ("Concat", "Max", "Min", "Sum", "Mean"):
        return len(node.inputs) == 1
    if node.op == "Resize" and not node.has(3):
        return node.has(2) and node.inputs[2] in constants and bool(np.all(constants[node.inputs[2]] == 1))
    if node.op in _SAME_SHAPE_IS_SAME:
        same = value in shapes and out in shapes and shapes[value] == shapes[out]
        return same and not (node.op == "Slice" and _backwards(node, constants))
    return False


def _floating(dtype: str) -> bool:
    return dtype.startswith(_FLOATS)


def _backwards(node: NodeView, constants: Mapping[str, np.ndarray]) -> bool:
    if not node.has(4):
        return False
    return node.inputs[4] not in constants or any(s != 1 for s in integers(constants[node.inputs[4]]))
