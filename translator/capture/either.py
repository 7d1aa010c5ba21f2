"""The graph of any source: its own where it is an ONNX model, else what PyTorch's exporter traces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from translator.capture.onnx_network import OnnxNetwork
from translator.capture.trace import Captured, capture
from translator.errors import InputError


def captured(
    module: nn.Module,
    example_inputs: tuple[Any, ...],
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    name: str = "",
    dynamic_hw: bool = False,
) -> Captured:
    """What the stages after the capture take. Raises UnsupportedError where PyTorch can't export the module."""
    if not isinstance(module, OnnxNetwork):
        return capture(module, example_inputs, example_kwargs=example_kwargs, name=name, dynamic_hw=dynamic_hw)
    if dynamic_hw:
        raise InputError(
            "an ONNX file itself says which sizes are open, and these stay open",
            fix="leave --dynamic-hw away, or export the file with dynamic heights and widths",
        )
    return module.captured(name)
