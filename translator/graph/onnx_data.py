"""What ONNX nodes hold as plain data: attributes, constants, and the names of data types."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from translator.errors import UnsupportedError

_DIGITS = 8
"""As many as a float32 needs when it is no number that somebody wrote."""


def plain_attribute(attribute: ir.Attr) -> Any:
    """A plain value; floats are what the user wrote, as far as the stored float32 tells."""
    match attribute.type:
        case ir.AttributeType.FLOAT:
            return _written(attribute.as_float())
        case ir.AttributeType.FLOATS:
            return tuple(_written(v) for v in attribute.as_floats())
        case ir.AttributeType.INTS:
            return tuple(attribute.as_ints())
        case ir.AttributeType.STRINGS:
            return tuple(attribute.as_strings())
        case ir.AttributeType.TENSOR:
            return attribute.as_tensor().numpy()
        case ir.AttributeType.INT if attribute.name == "to":
            return dtype_name(ir.DataType(attribute.as_int()))
        case _:
            return attribute.value


def _written(value: float) -> float:
    """The shortest decimal that rounds to a float32; that number itself where it has too many digits (2 ** -23)."""
    text = str(np.float32(value))
    digits = text.partition("e")[0].replace(".", "").strip("-0")
    return float(text) if len(digits) < _DIGITS else float(np.float32(value))


def constant_of(node: ir.Node) -> np.ndarray:
    """The array of a Constant node; floats as float64, exact where the origin tells."""
    if "exact" in node.meta:
        return np.array(node.meta["exact"], dtype=np.float64)
    attribute = next(iter(node.attributes.values()), None)
    if attribute is None:
        raise UnsupportedError(f"constant {node.name or node.outputs[0].name} has no value", reason="attribute")
    value = plain_attribute(attribute)
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind == "f" or array.dtype.name == "bfloat16" else array


def dtype_name(dtype: ir.DataType) -> str:
    """numpy's name of an ONNX type."""
    return {"FLOAT": "float32", "DOUBLE": "float64"}.get(dtype.name, dtype.name.lower())


def numpy_name(array: np.ndarray) -> str:
    """The name of the type that an array of constants stands for: floats are kept in float64."""
    return "float32" if array.dtype.kind == "f" else array.dtype.name
