"""Plan → Functional `keras.Model`: only native layers and `keras.ops`, so the file loads without us or PyTorch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from translator.bindings import WeightBinding, to_keras
from translator.emit.nesting import Block, nest
from translator.errors import InternalError, UnsupportedError, Where, first_line
from translator.plan.calls import Call, LayerCall, LayerSpec, OpCall, Plan, Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitted:
    """A built model. paths: the operation's path in the model ("layer1/layer1_0_conv1") by the plan's call name.

    layers: the Keras layer of every `LayerSpec`, by name.
    """

    model: keras.Model
    paths: Mapping[str, str]
    layers: Mapping[str, keras.layers.Layer]


def emit(plan: Plan, state: Mapping[str, np.ndarray] | None = None, *, floats: str = "float32") -> Emitted:
    """Build the Keras model of a plan; with `state` (PyTorch tensors by name) its weights are set.

    floats: the one width of float that the model computes in.
    """
    builder = _Builder(plan, state or {}, floats)
    with _computing_in(floats):
        model = builder.build()
    emitted = Emitted(model=model, paths=builder.paths, layers=builder.layers)
    for layer, binding in bound(plan):
        if (layer, binding.variable) not in builder.filled and (binding.constant is not None or state is not None):
            _set(emitted.layers[layer], binding, state or {})
    return emitted


def load_state(plan: Plan, emitted: Emitted, state: Mapping[str, np.ndarray]) -> None:
    """Set every bound variable from PyTorch tensors by state-dict name."""
    for layer, binding in bound(plan):
        if binding.constant is None:
            _set(emitted.layers[layer], binding, state)


def _set(layer: keras.layers.Layer, binding: WeightBinding, state: Mapping[str, np.ndarray]) -> None:
    variable_of(layer, binding.variable).assign(np.ascontiguousarray(to_keras(binding, state)))


def bound(plan: Plan) -> Iterable[tuple[str, WeightBinding]]:
    """Every binding of a plan with the name of its layer."""
    return ((spec.name, binding) for spec in plan.layers for binding in spec.bindings)


def variable_of(layer: keras.layers.Layer, name: str) -> keras.Variable:
    """The variable of a layer by attribute path ("kernel", "forward_layer.cell.kernel")."""
    found: Any = layer
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, keras.Variable):
        raise InternalError(f"layer {layer.name} ({type(layer).__name__}) has no variable {name}")
    return found


@contextlib.contextmanager
def _computing_in(floats: str) -> Iterator[None]:
    """Layers made while the block runs hold and compute floats of this width, channels last, however Keras is set."""
    before, data_format = keras.config.dtype_policy(), keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    if floats != "float32":
        keras.config.set_dtype_policy(floats)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
        keras.config.set_image_data_format(data_format)


class _Builder:
    def __init__(self, plan: Plan, state: Mapping[str, np.ndarray], floats: str) -> None:
        self.plan, self.state, self.floats = plan, state, floats
        self.filled: set[tuple[str, str]] = set()
        self.specs = {spec.name: spec for spec in plan.layers}
        self.layers: dict[str, keras.layers.Layer] = {}
        self.paths: dict[str, str] = {}

    def build(self) -> keras.Model:
        tensors: dict[str, Any] = {}
        inputs = []
        for _, value in self.plan.inputs:
            info = self.plan.values[value]
            shape = info.keras_shape
            tensor = keras.Input(batch_shape=shape, dtype=self._input_dtype(info.dtype), name=value)
            tensors[value] = tensor
            inputs.append(tensor)
            self.paths[value] = value
        blocks = nest(self.plan)
        self._run(blocks, tensors, prefix="")
        outputs = [tensors[value] for _, value in self.plan.outputs]
        name = self.plan.name
        return keras.Model(_one(inputs), _one(outputs), name=name)

    def _run(self, blocks: Iterable[Block | Call], tensors: dict[str, Any], prefix: str) -> None:
        for block in blocks:
            if isinstance(block, Block):
                self._block(block, tensors, prefix)
            else:
                self._call(block, tensors, prefix)

    def _block(self, block: Block, tensors: dict[str, Any], prefix: str) -> None:
        """A nested model for one stage of a very deep network: Keras' graph walk recurses once per layer."""
        inner: dict[str, Any] = {}
        inputs = []
        for number, value in enumerate(block.inputs):
            outer = tensors[value]
            name = f"{block.name}_input{number}"
            while name in self.specs:
                name += "_"
            inner[value] = keras.Input(batch_shape=outer.shape, dtype=outer.dtype, name=name)
            inputs.append(inner[value])
        self._run(block.items, inner, f"{prefix}{block.name}/")
        model = keras.Model(_one(inputs), _one([inner[v] for v in block.outputs]), name=block.name)
        results = model(_one([tensors[v] for v in block.inputs]))
        tensors.update(zip(block.outputs, results if isinstance(results, list | tuple) else [results], strict=True))

    def _call(self, call: Call, tensors: dict[str, Any], prefix: str) -> None:
        args = [_argument(a, tensors) for a in call.args]
        kwargs = {k: _argument(v, tensors) for k, v in call.kwargs.items()}
        if not any(isinstance(a, keras.KerasTensor) for a in keras.tree.flatten((args, kwargs))):
            raise UnsupportedError(
                f"{_named(call)} doesn't depend on the model's input", reason="constant", where=_where(call),
                fix="compute it once, and keep it as a buffer",
            )  # fmt: skip
        try:
            self._made(call, args, kwargs, tensors, prefix)
        except (ValueError, TypeError) as error:
            raise _refused(call, error) from error
        for name in call.outputs:
            self._agree(call, name, tuple(tensors[name].shape))

    def _agree(self, call: Call, name: str, inferred: tuple[int | None, ...]) -> None:
        """What Keras infers of a shape is what the plan says, as far as both know it: else layers after it go wrong."""
        planned = self.plan.values[name].keras_shape if name in self.plan.values else inferred
        fits = (a is None or b is None or a == b for a, b in zip(inferred, planned, strict=False))
        if len(inferred) != len(planned) or not all(fits):
            raise _refused(call, ValueError(f"its output would be {inferred}, and the plan says {tuple(planned)}"))

    def _made(self, call: Call, args: list[Any], kwargs: dict[str, Any], tensors: dict[str, Any], prefix: str) -> None:
        if isinstance(call, LayerCall):
            layer = self.layers.get(call.layer)
            if layer is None:
                layer = self.layers[call.layer] = make_layer(self.specs[call.layer])
                self.paths[call.layer] = prefix + call.layer
                with self._filling(layer, self.specs[call.layer].bindings):
                    results = layer(*args, **kwargs)
            else:
                results = layer(*args, **kwargs)
        else:
            results = self._operation(call, args, kwargs)
            self.paths[call.name] = prefix + call.name
        several = list(results) if isinstance(results, list | tuple) else [results]
        tensors.update(zip(call.outputs, several, strict=True))

    def _input_dtype(self, dtype: str) -> str:
        return self.floats if dtype.startswith(("float", "bfloat")) else dtype

    @contextlib.contextmanager
    def _filling(self, layer: keras.layers.Layer, bindings: Iterable[WeightBinding]) -> Iterator[None]:
        """Have a layer build its variables with their values; random ones would be made only to be replaced."""
        replaced: dict[str, Any] = {}
        for binding in bindings:
            name = _initializer_of(layer, binding.variable)
            if name and (binding.constant is not None or all(t in self.state for t in binding.tensors)):
                replaced[name] = getattr(layer, name)
                setattr(layer, name, _Value(to_keras(binding, self.state)))
                self.filled.add((layer.name, binding.variable))
        try:
            yield
        finally:
            for name, initializer in replaced.items():
                setattr(layer, name, initializer)

    def _operation(self, call: OpCall, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if call.op == "get_item":
            results = args[0][args[1]]
        else:
            if call.op == "cast" and args[1] == "float32":
                args[1] = self.floats
            results = _function(call.op)(*args, **kwargs)
        first = results[0] if isinstance(results, list | tuple) else results
        if not isinstance(first, keras.KerasTensor):
            raise InternalError(f"keras.ops.{call.op} ({call.name}) gives no value of the graph", where=_where(call))
        first._keras_history.operation.name = call.name
        return results


def _refused(call: Call, error: Exception) -> InternalError:
    """What Keras says of a call that the plan should not have, with its place in the user's model."""
    fix = "this is a fault of the translator: please report it with these lines"
    return InternalError(f"Keras refuses {_named(call)}: {first_line(error)}", where=_where(call), fix=fix)


def _named(call: Call) -> str:
    return call.layer if isinstance(call, LayerCall) else f"{call.name} (keras.ops.{call.op})"


def _where(call: Call) -> Where:
    return Where(module=call.origin.module or "(root)", source=call.origin.source, node=call.origin.node)


class _Value:
    """An initializer that gives one array, copied: no backend may share memory with the PyTorch model."""

    def __init__(self, value: np.ndarray) -> None:
        self._value = value

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        if tuple(shape) != self._value.shape:
            raise InternalError(f"a variable of shape {tuple(shape)} gets a value of shape {self._value.shape}")
        return keras.ops.convert_to_tensor(np.array(self._value, order="C"), dtype=dtype)


def _initializer_of(layer: keras.layers.Layer, variable: str) -> str:
    """The attribute with the initializer of a variable; "" where the layer has none of its own."""
    depthwise = variable == "kernel" and hasattr(layer, "depthwise_initializer")
    name = "depthwise_initializer" if depthwise else f"{variable}_initializer"
    return name if hasattr(layer, name) else ""


def make_layer(spec: LayerSpec) -> keras.layers.Layer:
    """The Keras layer of a spec."""
    cls = getattr(keras.layers, spec.cls)
    config = {key: make_layer(v) if isinstance(v, LayerSpec) else v for key, v in spec.config.items()}
    return cls(**config, name=spec.name)


def _function(name: str) -> Any:
    found: Any = keras.ops
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _argument(arg: Any, tensors: Mapping[str, Any]) -> Any:
    if isinstance(arg, Ref):
        return tensors[arg.value]
    if isinstance(arg, tuple):
        return tuple(_argument(a, tensors) for a in arg)
    if isinstance(arg, list):
        return [_argument(a, tensors) for a in arg]
    if isinstance(arg, dict):
        return {k: _argument(a, tensors) for k, a in arg.items()}
    return arg


def _one(items: list[Any]) -> Any:
    return items[0] if len(items) == 1 else items
