"""An ONNX model as an nn.Module: a submodule for each layer, computed by ONNX Runtime, the weights under their names.

Whatever judges or shows an nn.Module does so with this one: hooks see each layer, `state_dict` has the initializers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from translator.capture.onnx_kernels import Kernels
from translator.capture.onnx_layers import OnnxLayer, layers_of, needed_nodes, read_by
from translator.capture.onnx_model import OnnxModel
from translator.capture.trace import BringsGraph, Captured


class OnnxNetwork(BringsGraph):
    """The module of a model. What the inputs' sizes alone decide is computed between the layers, as plain code is."""

    def __init__(self, model: OnnxModel) -> None:
        super().__init__()
        self._model = model
        graph = model.proto.graph
        self._kernels = Kernels(model.proto.opset_import, model.proto.ir_version)
        given = {t.name for t in graph.initializer}
        self._inputs = {v.name: sizes_of(v) for v in graph.input if v.name not in given}
        self._outputs = tuple(v.name for v in graph.output)
        self._steps = _steps(graph, layers_of(graph, model.weights))
        self._layers: dict[str, OnnxLayerModule] = {}
        for layer in (s for s in self._steps if isinstance(s, OnnxLayer)):
            module = _class_of(layer.cls)(layer, [graph.node[i] for i in layer.nodes])
            _put_module(self, layer.path, module)
            self._layers[layer.path] = module
        for name, array in model.weights.items():
            _put_tensor(self, name, torch.from_numpy(array), buffer=name in model.buffers)
        self._constants = _constants(graph, frozenset(model.weights))
        self._last_use = _last_use(graph, self._steps)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...] | Tensor:
        """The model's outputs for its inputs, in ONNX' order."""
        values = _Values(self, inputs)
        for place, step in enumerate(self._steps):
            if isinstance(step, OnnxLayer):
                found = self._layers[step.path](*(values.tensor(v) for v in step.inputs), values=values)
                values.tensors.update(zip(step.outputs, found if isinstance(found, tuple) else (found,), strict=True))
            else:
                values.compute(step)
            for name in self._last_use.get(place, ()):
                values.forget(name)
        results = tuple(values.tensor(name) for name in self._outputs)
        return results if len(results) > 1 else results[0]

    @property
    def output_names(self) -> tuple[str, ...]:
        """What the outputs are called in ONNX."""
        return self._outputs

    def captured(self, name: str) -> Captured:
        """The graph itself, which nobody has to trace."""
        return self._model.captured(name)


class OnnxLayerModule(nn.Module):
    """One layer. Its class bears the name of its op."""

    def __init__(self, layer: OnnxLayer, nodes: Sequence[onnx.NodeProto]) -> None:
        super().__init__()
        self._layer, self._nodes = layer, tuple(nodes)

    def forward(self, *tensors: Tensor, values: _Values) -> tuple[Tensor, ...] | Tensor:
        """The layer's outputs. values: the run that this call belongs to, with the weights and sizes it reads."""
        inside = values.beside(dict(zip(self._layer.inputs, tensors, strict=True)))
        for node in self._nodes:
            inside.compute(node)
        found = tuple(inside.tensor(name) for name in self._layer.outputs)
        return found if len(found) != 1 else found[0]

    def extra_repr(self) -> str:
        """The op's attributes."""
        return ", ".join(str(onnx.helper.printable_attribute(a)) for a in self._nodes[-1].attribute)


class _Values:
    """The values of one run. tensors: what the layers put out. others: what is computed between them."""

    def __init__(self, network: OnnxNetwork, inputs: Sequence[Tensor]) -> None:
        self.network = network
        names = network._inputs
        if len(inputs) != len(names):
            raise TypeError(f"{len(inputs)} inputs for {len(names)}: {', '.join(names)}")
        self.tensors: dict[str, Any] = dict(zip(names, inputs, strict=True))
        for name, tensor in self.tensors.items():
            _check_size(name, tuple(tensor.shape), names[name])
        self.weights = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        floats = [t for t in (*inputs, *self.weights.values()) if t.is_floating_point()]
        self.double = any(t.dtype == torch.float64 for t in floats)
        self.others: dict[str, Any] = {}

    def beside(self, tensors: dict[str, Any]) -> _Values:
        """The same run with other tensors; what is computed there is seen there only."""
        made = _Values.__new__(_Values)
        made.network, made.tensors, made.weights, made.double = self.network, tensors, self.weights, self.double
        made.others = {name: value for name, value in self.others.items() if name not in tensors}
        return made

    def compute(self, node: onnx.NodeProto) -> None:
        """Compute one node."""
        names = read_by(node)
        found = self.network._kernels.run(node, names, [self.array(n) for n in names], double=self.double)
        self.others.update(zip((o for o in node.output if o), found, strict=True))

    def array(self, name: str) -> Any:
        """A value as ONNX Runtime takes it."""
        if name in self.others:
            return self.others[name]
        tensor = self.tensors.get(name)
        if tensor is None:
            tensor = self.weights.get(name)
        if tensor is None:
            return self.network._constants[name]
        return tensor.detach().numpy()

    def tensor(self, name: str) -> Tensor:
        """A value as a module puts it out."""
        if name in self.tensors:
            found: Tensor = self.tensors[name]
            return found
        array = np.asarray(self.array(name))
        own = array.flags.owndata and array.flags.writeable
        return torch.from_numpy(array if own else array.copy())

    def forget(self, name: str) -> None:
        """Let go of what nobody reads any more."""
        self.tensors.pop(name, None)
        self.others.pop(name, None)


def _check_size(name: str, shape: tuple[int, ...], declared: tuple[int | str, ...] | None) -> None:
    if declared is None:
        return
    fits = len(shape) == len(declared) and all(
        isinstance(d, str) or d == n for d, n in zip(declared, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"input {name} is declared as ({', '.join(map(str, declared))}), not {shape}")


def _steps(graph: onnx.GraphProto, layers: Sequence[OnnxLayer]) -> tuple[OnnxLayer | onnx.NodeProto, ...]:
    """Layers, and the nodes between them, in the order in which they can be computed."""
    last = {layer.nodes[-1]: layer for layer in layers}
    inside = {index for layer in layers for index in layer.nodes}
    needed = sorted(needed_nodes(graph))
    return tuple(last[i] if i in last else graph.node[i] for i in needed if i in last or i not in inside)


def _last_use(graph: onnx.GraphProto, steps: Sequence[OnnxLayer | onnx.NodeProto]) -> Mapping[int, tuple[str, ...]]:
    """The values that nobody reads after each step."""
    kept = {v.name for v in graph.output}
    last: dict[str, int] = {}
    for place, step in enumerate(steps):
        nodes = [graph.node[i] for i in step.nodes] if isinstance(step, OnnxLayer) else [step]
        last.update({v: place for n in nodes for v in (*read_by(n), *n.output)})
    found: dict[int, tuple[str, ...]] = {}
    for value, place in last.items():
        if value not in kept:
            found[place] = (*found.get(place, ()), value)
    return found


def _constants(graph: onnx.GraphProto, weights: frozenset[str]) -> Mapping[str, np.ndarray]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer if t.name not in weights}


_CLASSES: dict[str, type[OnnxLayerModule]] = {}


def _class_of(op: str) -> type[OnnxLayerModule]:
    if op not in _CLASSES:
        _CLASSES[op] = type(op, (OnnxLayerModule,), {"__doc__": f"ONNX' {op}.", "__module__": __name__})
    return _CLASSES[op]


def _holder(network: nn.Module, path: Sequence[str]) -> nn.Module:
    """The module at a path, with empty ones in between where there are none."""
    for part in path:
        if part not in network._modules:
            network._modules[part] = nn.Module()
        inner = network._modules[part]
        if inner is None:
            raise KeyError(part)
        network = inner
    return network


def _put_module(network: nn.Module, path: str, module: nn.Module) -> None:
    *before, last = path.split(".")
    holder = _holder(network, before)
    if last in holder._modules:
        module._modules.update(holder._modules[last]._modules)  # type: ignore[union-attr]
    holder._modules[last] = module


def _put_tensor(network: nn.Module, name: str, tensor: Tensor, *, buffer: bool) -> None:
    """Under its own name: the modules on the way are made, unless a part of the name is empty."""
    parts = name.split(".")
    holder, last = (_holder(network, parts[:-1]), parts[-1]) if all(parts) else (network, name)
    if buffer:
        holder._buffers[last] = tensor
    else:
        holder._parameters[last] = nn.Parameter(tensor)


def sizes_of(value: onnx.ValueInfoProto) -> tuple[int | str, ...] | None:
    """The declared size of each axis, a name or "?" where it is open; None where not even the rank is declared."""
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim)
