"""Two models side by side: which variable is which parameter, and how inputs, outputs and targets lie in Keras."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import torch
from torch import nn

from translator.bindings import WeightBinding
from translator.claims import Claims
from translator.errors import InputError
from translator.training.torch_side import Batch, in_dtype
from translator.types import Layout
from translator.verify.compare import lay_out
from translator.verify.keras_graph import KerasGraph, functional, graph_of
from translator.verify.torch_record import tensors_in
from translator.verify.training import Link

if TYPE_CHECKING:
    from translator.audit.align import Alignment


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """An input or output of the Keras model: its number there, and how PyTorch's tensor lies in it."""

    number: int
    layout: Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """A PyTorch module, a Keras model, and what joins them.

    inputs: one for each tensor argument of the module, in order. outputs: one for each output tensor, None where Keras
    has no such output. links: one for each Keras variable that holds PyTorch tensors. alone: Keras variables that hold
    none, with the value that makes them do nothing (None: unknown).
    """

    module: nn.Module
    model: keras.Model
    links: tuple[Link, ...]
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot | None, ...]
    alone: tuple[tuple[keras.Variable, float | None], ...] = ()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all of the module's tensors, by every name."""
        tables = (
            self.module.named_parameters(remove_duplicate=False),
            self.module.named_buffers(remove_duplicate=False),
        )
        return {name: tuple(tensor.shape) for table in tables for name, tensor in table}

    def keras_inputs(self, batch: Batch, dtype: torch.dtype) -> Any:
        """The batch as the Keras model takes it: one array, or a list in its order."""
        tensors = tensors_in((batch.args, dict(batch.kwargs)))
        arrays: dict[int, np.ndarray] = {}
        for tensor, slot in zip(tensors, self.inputs, strict=True):
            arrays[slot.number] = np.ascontiguousarray(
                lay_out(in_dtype(tensor, dtype), slot.layout, self._input_shape(slot.number))
            )
        ordered = [arrays[number] for number in sorted(arrays)]
        return ordered[0] if len(ordered) == 1 else ordered

    def keras_target(self, target: torch.Tensor, output: int, dtype: torch.dtype) -> np.ndarray:
        """The target of the loss on that output, laid out as the output is."""
        slot = self._output(output)
        rank, layout = len(slot.layout.axes), slot.layout
        if layout.is_identity:
            return np.ascontiguousarray(in_dtype(target, dtype).numpy())
        if target.ndim == rank:
            return np.ascontiguousarray(lay_out(in_dtype(target, dtype), layout, (None,) * rank))
        if target.ndim == rank - 1:  # class indices: the axis of the classes is gone
            axes = [axis - (axis > 1) for axis in layout.axes if axis != 1]
            return np.ascontiguousarray(target.permute(axes).numpy())
        raise InputError(f"a target of shape {tuple(target.shape)} for an output of {rank} dimensions")

    def class_axis(self, output: int) -> int:
        """Where the classes of that output are in Keras: −1 if last."""
        layout = self._output(output).layout
        axis = layout.axes.index(1) if len(layout.axes) > 1 else 0
        return -1 if axis == len(layout.axes) - 1 else axis

    def pick(self, output: int) -> Any:
        """A function that takes that output out of what the Keras model returns."""
        number = self._output(output).number
        return lambda outputs: keras.tree.flatten(outputs)[number]

    def set_weights(self, state: Mapping[str, np.ndarray]) -> None:
        """Give every linked variable the value of PyTorch's tensors, and the others the one that does nothing."""
        from translator.bindings import to_keras

        for link in self.links:
            link.variable.assign(to_keras(link.binding, state))
        for variable, neutral in self.alone:
            if neutral is not None:
                variable.assign(keras.ops.full_like(variable, neutral))

    def _output(self, number: int) -> Slot:
        slot = self.outputs[number] if number < len(self.outputs) else None
        if slot is None:
            raise InputError(
                f"output {number} of the PyTorch model has no twin in the Keras model",
                fix="return the same outputs in training as in inference (auxiliary heads switched off)",
            )
        return slot

    def _input_shape(self, number: int) -> tuple[int | None, ...]:
        inside = functional(self.model)
        return tuple(inside.inputs[number].shape) if inside is not None else ()


def pair_by_bindings(
    module: nn.Module, model: keras.Model, bindings: Iterable[tuple[str, WeightBinding]], claims: Claims
) -> Pairing:
    """A translated model and its module: bindings by the path of the Keras layer, as the engine gives them."""
    from translator.emit.keras_model import variable_of
    from translator.emit.weights import find_layer

    links = [Link(variable=variable_of(find_layer(model, path), b.variable), binding=b) for path, b in bindings]
    held = {id(link.variable) for link in links}
    return Pairing(
        module=module,
        model=model,
        links=tuple(link for link in links if link.binding.pieces),
        alone=tuple((v, None) for v in model.variables if id(v) not in held),
        **_slots(graph_of(model), claims),
    )


def pair_by_alignment(module: nn.Module, alignment: Alignment, model: keras.Model) -> Pairing:
    """Any two models, as the aligner joined them."""
    bound = [b for b in alignment.bound if b.keras.handle is not None]
    held = {id(b.keras.handle) for b in bound}
    return Pairing(
        module=module,
        model=model,
        links=tuple(Link(variable=b.keras.handle, binding=b.binding) for b in bound if b.binding is not None),
        alone=(
            *((b.keras.handle, b.neutral) for b in bound if b.binding is None),
            *((v, None) for v in model.variables if id(v) not in held),
        ),
        **_slots(alignment.graph, alignment.claims),
    )


def _slots(graph: KerasGraph, claims: Claims) -> dict[str, Any]:
    return {
        "inputs": tuple(Slot(number=graph.inputs.index(graph.names[c.keras]), layout=c.layout) for c in claims.inputs),
        "outputs": tuple(
            Slot(number=graph.outputs.index(graph.names[c.keras]), layout=c.layout)
            if graph.names.get(c.keras) in graph.outputs
            else None
            for c in claims.outputs
        ),
    }


def group_variables(
    optimizer: torch.optim.Optimizer, module: nn.Module, links: Sequence[Link]
) -> tuple[list[list[str]], list[str]]:
    """For each parameter group the paths of its Keras variables; and the trainable variables of no group, or frozen.

    Raises InputError where one Keras variable holds parameters of several groups.
    """
    names = {id(p): name for name, p in module.named_parameters() if p.requires_grad}
    group_of = {names[id(p)]: i for i, g in enumerate(optimizer.param_groups) for p in g["params"] if id(p) in names}
    groups: list[list[str]] = [[] for _ in optimizer.param_groups]
    none: list[str] = []
    for link in links:
        if not link.variable.trainable:
            continue
        found = {group_of.get(name, -1) for name in link.tensors}
        if len(found) > 1:
            raise InputError(
                f"{link.path} holds parameters of several groups: {', '.join(link.tensors)}",
                fix="put them into one parameter group",
            )
        (index,) = found
        (none if index < 0 else groups[index]).append(link.path)
    return groups, none
