"""The nodes of our own in a trace: operations of the domain "translator", in place of what the exporter would lose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.onnx import ops as onnx_ops

DOMAIN = "translator"

Attributes = dict[str, int | float | str | bool | Sequence[int] | Sequence[float] | Sequence[str] | Sequence[bool]]


def one_node(op: str, *inputs: Tensor, shape: Any = None, **attributes: str) -> Tensor:
    """A node whose result has the dtype of its first input, and its shape unless another is given."""
    like, settings = inputs[0], dict[str, Any](attributes)
    shape = like.shape if shape is None else shape
    return onnx_ops.symbolic(f"{DOMAIN}::{op}", inputs, settings, dtype=like.dtype, shape=shape, version=1)
