"""A layer that does two things, seen as two steps: so that the value in between has a name and can be judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from translator.claims import KerasValue
from translator.types import Shape
from translator.verify.facts import Recurrent
from translator.verify.facts_keras import inner_activation, keras_facts
from translator.verify.keras_graph import INPUT, KerasGraph, Step
from translator.verify.keras_kinds import keras_classes

if TYPE_CHECKING:
    from collections.abc import Iterator

LINEAR, DEPTHWISE, SEQUENCE = " (linear)", " (depthwise)", " (sequence)"
"""Behind a layer's path: without its activation; its first convolution; with every step of the sequence."""


def layer_path(path: str) -> str:
    """The layer's own path, of a step that is a part of it."""
    for suffix in (LINEAR, DEPTHWISE, SEQUENCE):
        path = path.removesuffix(suffix)
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Half(Step):
    """A part of what a layer does."""

    def shape(self, shapes: Sequence[Shape]) -> Shape:
        """The shape of what it gives, from those of all values before: the same as it reads."""
        return shapes[self.inputs[0]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearHalf(Step):
    """The layer's own work, its activation left out."""

    def run(self, values: Mapping[int, Any]) -> list[Any]:
        """Compute the step with the layer's activation taken away, and give it back."""
        with _changed(self.operation, "activation", value=None):
            return Step.run(self, values)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationHalf(Half):
    """The activation alone."""

    def run(self, values: Mapping[int, Any]) -> list[Any]:
        """Compute the layer's activation of its one input."""
        layer: Any = self.operation
        return [layer.activation(values[self.inputs[0]])]


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthwiseHalf(Half):
    """The first convolution of a separable one."""

    def run(self, values: Mapping[int, Any]) -> list[Any]:
        """Convolve each channel by itself."""
        layer: Any = self.operation
        settings = {name: getattr(layer, name) for name in ("padding", "data_format", "dilation_rate")}
        strides = layer.strides[0] if len(set(layer.strides)) == 1 else layer.strides

        def depthwise(x: Any) -> Any:
            return ops.depthwise_conv(x, layer.depthwise_kernel, strides=strides, **settings)

        return [_called(layer, depthwise, values[self.inputs[0]])]

    def shape(self, shapes: Sequence[Shape]) -> Shape:
        """The images of the layer's result, with the channels in between."""
        layer: Any = self.operation
        spec = layer.compute_output_spec(keras.KerasTensor(shapes[self.inputs[0]]))
        return _with_channels(layer, tuple(spec.shape), _between(layer))


@dataclass(frozen=True, slots=True, kw_only=True)
class PointwiseHalf(Half):
    """The second convolution of a separable one, with its bias."""

    def run(self, values: Mapping[int, Any]) -> list[Any]:
        """Mix the channels of each pixel."""
        layer: Any = self.operation

        def pointwise(x: Any) -> Any:
            result = ops.conv(x, layer.pointwise_kernel, data_format=layer.data_format)
            if layer.bias is None:
                return result
            return ops.add(result, ops.reshape(layer.bias, _with_channels(layer, (1,) * len(result.shape), -1)))

        return [_called(layer, pointwise, values[self.inputs[0]])]

    def shape(self, shapes: Sequence[Shape]) -> Shape:
        """The same image with the layer's filters."""
        return _with_channels(self.operation, shapes[self.inputs[0]], int(self.operation.filters))


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceHalf(Half):
    """A recurrent layer with every step of its sequence, where it gives the last alone."""

    def run(self, values: Mapping[int, Any]) -> list[Any]:
        """Compute the step with `return_sequences`."""
        layer: Any = self.operation
        cells = [layer, *(getattr(layer, side) for side in _SIDES if hasattr(layer, side))]
        with ExitStack() as stack:
            for cell in cells:
                stack.enter_context(_changed(cell, "return_sequences", value=True))
            return Step.run(self, values)

    def shape(self, shapes: Sequence[Shape]) -> Shape:
        """(N, steps, width)."""
        batch, steps, _ = shapes[self.inputs[0]]
        facts: Any = keras_facts(self.operation)
        return (batch, steps, facts.units * (2 if facts.bidirectional else 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class LastHalf(Half):
    """The last step of a sequence: of the way back the first."""

    def run(self, values: Mapping[int, Any]) -> list[Any]:
        """Pick it."""
        sequence: Any = values[self.inputs[0]]
        if not hasattr(self.operation, _SIDES[1]):
            return [sequence[:, -1]]
        half = sequence.shape[-1] // 2
        return [ops.concatenate([sequence[:, -1, :half], sequence[:, 0, half:]], axis=-1)]

    def shape(self, shapes: Sequence[Shape]) -> Shape:
        """(N, width)."""
        batch, _, width = shapes[self.inputs[0]]
        return (batch, width)


_SIDES = ("forward_layer", "backward_layer")


def split_layers(graph: KerasGraph) -> KerasGraph:
    """The same graph, with two steps for each layer that has an activation inside, convolves twice, or gives only the
    last step of a sequence.

    The value in between is output 0 of the layer's path with ` (linear)`, ` (depthwise)` or ` (sequence)` behind it.
    Numbers of the values that were there before stay the same.
    """
    found = KerasGraph(
        shapes=list(graph.shapes), dtypes=list(graph.dtypes), producer=[INPUT] * len(graph.producer),
        names=dict(graph.names), entered=dict(graph.entered), inputs=list(graph.inputs), outputs=list(graph.outputs),
    )  # fmt: skip
    for step in graph.steps:
        for part in _parts(found, step):
            found.steps.append(part)
            for number in part.outputs:
                found.producer[number] = len(found.steps) - 1
    return found


def _parts(graph: KerasGraph, step: Step) -> list[Step]:
    if len(step.outputs) != 1 or len(step.inputs) != 1:
        return _with_activation(graph, step, LinearHalf) if len(step.outputs) == 1 else [step]
    if "BaseSeparableConv" in keras_classes(step.operation):
        first = _half(DepthwiseHalf, graph, step, DEPTHWISE)
        rest = _following(PointwiseHalf, step, first)
        return [first, *_with_activation(graph, rest, PointwiseHalf)]
    if _gives_last(step.operation):
        first = _half(SequenceHalf, graph, step, SEQUENCE)
        return [first, _following(LastHalf, step, first)]
    return _with_activation(graph, step, LinearHalf)


def _with_activation(graph: KerasGraph, step: Step, linear: Callable[..., Step]) -> list[Step]:
    """The step and, where its layer has an activation inside, that as a step of its own."""
    if inner_activation(step.operation) is None:
        return [step]
    first = _half(linear, graph, step, LINEAR)
    return [first, _following(ActivationHalf, step, first)]


def _half(kind: Callable[..., Step], graph: KerasGraph, step: Step, suffix: str) -> Step:
    """The first part of a step; its result is a new value of the graph."""
    middle = len(graph.shapes)
    path = step.path + suffix
    found = kind(
        path=path, call=step.call, operation=step.operation, node=step.node, bound=step.bound, inputs=step.inputs,
        outputs=(middle,),
    )  # fmt: skip
    own = found.shape(graph.shapes) if isinstance(found, Half) else graph.shapes[step.outputs[0]]
    graph.shapes.append(own)
    graph.dtypes.append(graph.dtypes[step.outputs[0]])
    graph.producer.append(INPUT)
    graph.names[KerasValue(operation=path, call=step.call)] = middle
    return found


def _following(kind: Callable[..., Step], step: Step, first: Step) -> Step:
    """The other part: it reads the first one's result, and gives what the step does."""
    return kind(
        path=step.path, call=step.call, operation=step.operation, node=step.node, bound={}, inputs=first.outputs,
        outputs=step.outputs,
    )  # fmt: skip


def _gives_last(operation: keras.Operation) -> bool:
    """Whether it is a recurrent layer of Keras' own that gives the last step of its sequence, and nothing else."""
    layer: Any = operation
    if not isinstance(keras_facts(operation), Recurrent):
        return False
    sides = [getattr(layer, side) for side in _SIDES if hasattr(layer, side)]
    joined = not sides or layer.merge_mode == "concat"
    forward = sides[0] if sides else layer
    return joined and not (layer.return_sequences or layer.return_state or forward.go_backwards)


def _between(layer: Any) -> int:
    """Channels between the two convolutions of a separable one."""
    *_, channels, multiplier = layer.depthwise_kernel.shape
    return int(channels) * int(multiplier)


def _with_channels(layer: Any, shape: Shape, channels: int) -> Shape:
    if layer.data_format == "channels_first":
        return (shape[0], channels, *shape[2:])
    return (*shape[:-1], channels)


def _called(layer: Any, function: Callable[[Any], Any], x: Any) -> Any:
    """What the layer gives with another `call`: its weights are read as it reads them, in its own precision."""
    with _changed(layer, "input_spec", value=None), _changed(layer, "call", value=function):
        return layer(x)


@contextmanager
def _changed(owner: Any, name: str, *, value: object) -> Iterator[None]:
    """The attribute of a layer as it should be meanwhile."""
    own = name in vars(owner) or isinstance(getattr(type(owner), name, None), property)
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)
