"""`build_model`: its parameters, its inputs, and the header of the file."""

from __future__ import annotations

import importlib.metadata
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from translator.emit.nesting import is_deep
from translator.emit.source.names import camel, identifier
from translator.emit.source.syntax import literal
from translator.plan.calls import Plan
from translator.types import Shape, elements

_NESTED_BY_NAME = """
The converted model has the same layers in models of its own; its weights are copied by name:

    def parts(model):
        for layer in model.layers:
            yield from parts(layer) if isinstance(layer, keras.Model) else (layer,)

    converted = keras.models.load_model("{name}.keras")
    assert converted.count_params() == model.count_params(), "another network"
    own = {{layer.name: layer for layer in model._flatten_layers()}}
    for layer in parts(converted):
        if layer.weights:
            own[layer.name].set_weights(layer.get_weights())"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Top:
    """What stands around the network. shapes: (parameter, shape, name, dtype) of each input. classes: number of
    classes, None where the network's last layer doesn't tell."""

    plan: Plan
    shapes: tuple[tuple[str, Shape, str, str], ...]
    classes: int | None = None
    title: str = ""

    @property
    def name(self) -> str:
        """The model's name, as code."""
        return literal(self.plan.name)

    @property
    def class_name(self) -> str:
        """The name of the model's class: that of the PyTorch class, where it is one of the user's."""
        cls = next((s[2] for c in self.plan.calls for s in c.origin.scopes if not s[0]), "")
        simple = "" if cls.startswith("torch.nn.") else cls.rpartition(".")[2]
        return camel(simple or self.plan.name)

    @property
    def doc(self) -> str:
        """The docstring of `build_model`."""
        return f"Build `{self.plan.name}` with untrained weights."

    @property
    def parameters(self) -> list[str]:
        """Parameters of `build_model`."""
        found = [f"{parameter}={literal(shape)}" for parameter, shape, _, _ in self.shapes]
        return [*found, *([f"num_classes={self.classes}"] if self.classes is not None else [])]

    def inputs(self, variables: Sequence[str]) -> list[str]:
        """The statements that make the inputs."""
        return [f"{variable} = {self.input_call(k)}" for k, variable in enumerate(variables)]

    def input_call(self, index: int = 0) -> str:
        """`keras.Input(…)` of one input."""
        parameter, _, name, dtype = self.shapes[index]
        kind = "" if dtype == "float32" else f', dtype="{dtype}"'
        return f"keras.Input({parameter}{kind}, name={literal(name)})"

    def one(self, variables: Sequence[str]) -> str:
        """The inputs as an argument of keras.Model."""
        return variables[0] if len(variables) == 1 else f"[{', '.join(variables)}]"

    def outputs(self, returns: Sequence[str]) -> str:
        """The outputs as an argument of keras.Model."""
        return returns[0] if len(returns) == 1 else f"[{', '.join(returns)}]"


def top_of(plan: Plan, *, classes: int | None) -> Top:
    """What stands around the network of a plan."""
    shapes = []
    for name, value in plan.inputs:
        info = plan.values[value]
        parameter = "input_shape" if len(plan.inputs) == 1 else identifier(f"{name}_shape")
        dtype = "float32" if info.dtype.startswith(("float", "bfloat")) else info.dtype
        shapes.append((parameter, info.keras_shape[1:], value, dtype))
    return Top(plan=plan, shapes=tuple(shapes), classes=classes)


def header(plan: Plan, *, spec: str, style: str, torch_version: str) -> str:
    """The docstring of the file: what it is, where it came from, and what it holds."""
    trainable = sum(elements(b.shape) for s in plan.layers for b in s.bindings if b.trainable)
    fixed = sum(elements(b.shape) for s in plan.layers for b in s.bindings if not b.trainable)
    versions = f"PyTorch {torch_version}, Keras {importlib.metadata.version('keras')}"
    writer = f"translator {importlib.metadata.version('translator')}"
    lines = [
        f"{plan.name}, a Keras model in the {style} style.",
        "",
        f"Written by {writer} from {spec or plan.name} ({versions}).",
        f"Parameters: {trainable + fixed:,} ({trainable:,} trainable, {fixed:,} not).",
    ]
    if any(len(shape) > 1 for _, shape, _, _ in top_of(plan, classes=None).shapes):
        lines.append("Tensors are channels last: (N, H, W, C) where PyTorch has (N, C, H, W).")
    lines += [f"Lost for training: {text.rstrip('.')}." for text in plan.lost]
    nested = style != "functional" and is_deep(plan)
    lines.append(
        "`load_weights` takes the .weights.h5 that `translator source --save-weights` writes with this file."
        if nested
        else "`load_weights` takes the converted model's .weights.h5 or .keras: layers, names and order are the same."
    )
    wrapped = [w for line in lines for w in (textwrap.wrap(line, 86) or [""])]
    if nested:
        wrapped += _NESTED_BY_NAME.format(name=plan.name).splitlines()
    return '"""' + "\n".join(wrapped).replace("\\", "/").replace('"""', "'''") + '\n"""\n'
