"""The plan: a Keras model as frozen data, made without Keras.

From one plan come the Keras model (emit), the Keras source (emit/source), the parameter ledger, the way back
(Keras → state_dict) and a second checkpoint of the same architecture without tracing again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from translator.bindings import WeightBinding
from translator.types import Layout, Origin, Shape


@dataclass(frozen=True, slots=True)
class Ref:
    """A value of the plan, by name, as an argument of a call."""

    value: str


Arg = Any
"""An argument: a `Ref`, a number, string, bool, None, a small `np.ndarray`, or a tuple/list/dict of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueInfo:
    """A value that flows: its PyTorch shape (None: dynamic), its dtype ("float32", "int64" …), and its Keras layout."""

    shape: Shape
    dtype: str
    layout: Layout

    @property
    def keras_shape(self) -> Shape:
        """Its shape on the Keras side."""
        return self.layout.keras_shape(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSpec:
    """One Keras layer, made once, called once or more.

    name: unique in the plan, free of "." and "/". cls: of `keras.layers`. config: constructor arguments, without the
    name; plain JSON values, or the `LayerSpec` of a layer that this one wraps (Bidirectional). bindings: one for every
    variable of the layer. origin: the module it stands for.
    """

    name: str
    cls: str
    config: Mapping[str, Any] = field(default_factory=dict)
    bindings: tuple[WeightBinding, ...] = ()
    origin: Origin = Origin()


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCall:
    """A call of the layer named `layer` on `args`; `outputs` name the values it gives."""

    layer: str
    args: tuple[Arg, ...]
    outputs: tuple[str, ...]
    kwargs: Mapping[str, Arg] = field(default_factory=dict)
    origin: Origin = Origin()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpCall:
    """A call of the function `op` of `keras.ops` ("add", "image.resize", "nn.softmax"); `name` is the operation's."""

    name: str
    op: str
    args: tuple[Arg, ...]
    outputs: tuple[str, ...]
    kwargs: Mapping[str, Arg] = field(default_factory=dict)
    origin: Origin = Origin()


Call = LayerCall | OpCall


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleCall:
    """One call of one PyTorch module and the plan's values that are its outputs (and tensor inputs), in order; "" where
    one doesn't depend on the model's input or was never made.

    input_layouts, output_layouts: how PyTorch's tensor lies in each. One value can be several tensors of PyTorch: a
    transpose that moves nothing gives the same value another layout. covers: calls of modules before it that are
    computed in one with it (a convolution whose BatchNorm is folded in). arguments: which argument of the call each
    input is, () where there is one only.
    """

    path: str
    call: int
    cls: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_layouts: tuple[Layout, ...] = ()
    output_layouts: tuple[Layout, ...] = ()
    covers: tuple[tuple[str, int], ...] = ()
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole model. `inputs` and `outputs` are (public name, value); `calls` stand in the order of computation.

    values: every value by name, inputs included. output_layouts: how each output lies. module_calls: what the exporter
    said about the PyTorch modules.
    lost: what training loses, one sentence each. notes: what a reader should know (an op rewritten, a constant kept).
    """

    name: str
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]
    layers: tuple[LayerSpec, ...]
    calls: tuple[Call, ...]
    values: Mapping[str, ValueInfo]
    module_calls: tuple[ModuleCall, ...] = ()
    tensor_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    output_layouts: tuple[Layout, ...] = ()
    lost: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def layer(self, name: str) -> LayerSpec:
        """The layer of that name. Raises KeyError."""
        for spec in self.layers:
            if spec.name == name:
                return spec
        raise KeyError(name)


def refs(arg: Arg) -> Iterator[str]:
    """The names of all values inside an argument."""
    if isinstance(arg, Ref):
        yield arg.value
    elif isinstance(arg, (tuple, list)):
        for item in arg:
            yield from refs(item)
    elif isinstance(arg, dict):
        for item in arg.values():
            yield from refs(item)


def constants(arg: Arg) -> Iterator[np.ndarray]:
    """The arrays inside an argument."""
    if isinstance(arg, np.ndarray):
        yield arg
    elif isinstance(arg, (tuple, list)):
        for item in arg:
            yield from constants(item)
    elif isinstance(arg, dict):
        for item in arg.values():
            yield from constants(item)
