"""A right translation, and ways to make one wrong in exactly one place."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from torch import nn

from translator.claims import Claims

Config = dict[str, Any]
Layer = dict[str, Any]

ACTIVATIONS = ("ReLU", "Activation")
"""Classes of layers that are nothing but an activation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """A translation that is right. home: Keras operation → the PyTorch module it belongs to."""

    name: str
    module: nn.Module
    model: keras.Model
    claims: Claims
    inputs: tuple[Any, ...]
    home: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """A wrong model and the PyTorch layers of which any is the right answer. claims: wrong ones, for bookkeeping."""

    model: keras.Model
    layers: frozenset[str]
    where: str
    claims: Claims | None = None


Plant = Callable[[Right, np.random.Generator], Planted | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A kind of fault. plant: None where the network has no place for it. training: it changes training only."""

    name: str
    group: str
    plant: Plant
    training: bool = False


CATALOGUE: list[Fault] = []


def fault(name: str, group: str, *, training: bool = False) -> Callable[[Plant], Plant]:
    """Put a function that plants a fault into the catalogue."""

    def register(plant: Plant) -> Plant:
        CATALOGUE.append(Fault(name=name, group=group, plant=plant, training=training))
        return plant

    return register


def homes(claims: Claims, model: keras.Model) -> dict[str, str]:
    """For each Keras operation the PyTorch module whose result it makes; for others that of the next one that has."""
    home: dict[str, str] = {}
    claimed: set[str] = set()
    for claim in sorted(claims.modules, key=lambda c: -c.path.count(".") - (c.path != "")):
        for value in claim.outputs:
            if value is not None:
                home.setdefault(value.keras.operation, claim.path)
                claimed.add(value.keras.operation)
    for operation in reversed(model.operations):
        if operation.name not in home:
            readers = [n.operation.name for n in operation._outbound_nodes]
            home[operation.name] = next((home[r] for r in readers if r in home), "")
        if type(operation).__name__ in _FUNCTIONS and operation.name not in claimed:
            home[operation.name] = _container(operation, home)
    return home


_FUNCTIONS = ("Add", "Concatenate", "Multiply", "GlobalAveragePooling2D", "GlobalMaxPooling2D")
"""Operations that stand for a function in a forward, where no module claims them."""


def _container(operation: Any, home: Mapping[str, str]) -> str:
    """A function stands in the forward of the module around what it reads and what reads it."""
    inside = [home.get(t._keras_history.operation.name, "") for t in operation._inbound_nodes[0].input_tensors]
    deepest = max(inside, key=lambda path: path.count("."), default="")
    shared = zip(deepest.split("."), home.get(operation.name, "").split("."), strict=False)
    around = itertools.takewhile(lambda pair: pair[0] == pair[1], shared)
    return ".".join(part for part, _ in around)


def layers_of(config: Config, *classes: str) -> list[Layer]:
    """The layers of these classes."""
    return [layer for layer in config["layers"] if layer["class_name"] in classes]


def layer_of(config: Config, name: str) -> Layer:
    """The layer of that name."""
    return next(layer for layer in config["layers"] if layer["name"] == name)


def tensors_in(value: Any) -> Iterator[Config]:
    """Every reference to a tensor inside a layer's arguments."""
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            yield value["config"]
        else:
            for item in value.values():
                yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


def sources(layer: Layer) -> list[str]:
    """Names of the layers that a layer reads."""
    return [t["keras_history"][0] for t in tensors_in(layer["inbound_nodes"])]


def readers(config: Config, name: str) -> list[Layer]:
    """The layers that read the one of that name."""
    return [layer for layer in config["layers"] if name in sources(layer)]


def redirect(config: Config, before: str, after: str, *, only: Layer | None = None) -> None:
    """Let what reads `before` (or one layer that does) read `after`."""
    for layer in [only] if only is not None else config["layers"]:
        for tensor in tensors_in(layer["inbound_nodes"]):
            if tensor["keras_history"][0] == before:
                tensor["keras_history"][0] = after
    if only is None:
        outputs = config["output_layers"]
        flat = [outputs] if outputs and not isinstance(outputs[0], list) else outputs
        for output in flat:
            if output[0] == before:
                output[0] = after


def remove(config: Config, layer: Layer) -> None:
    """Take a layer with one input out; what read it reads what it read."""
    redirect(config, layer["name"], sources(layer)[0])
    config["layers"].remove(layer)


def insert_behind(config: Config, layer: Layer, module: str, cls: str, settings: Config) -> str:
    """Put a new layer behind one; its name."""
    name = f"{layer['name']}_extra"
    shape = None
    for reader in readers(config, layer["name"]):
        shape = next(t["shape"] for t in tensors_in(reader["inbound_nodes"]) if t["keras_history"][0] == layer["name"])
    redirect(config, layer["name"], name)
    tensor = {
        "class_name": "__keras_tensor__",
        "config": {"shape": shape or [None], "dtype": "float32", "keras_history": [layer["name"], 0, 0]},
    }
    new = {
        "module": module, "class_name": cls, "config": {"name": name, **settings}, "registered_name": None,
        "name": name, "inbound_nodes": [{"args": [tensor], "kwargs": {}}],
    }  # fmt: skip
    config["layers"].insert(config["layers"].index(layer) + 1, new)
    return name


def rebuilt(right: Right, edit: Callable[[Config], None]) -> keras.Model:
    """The model made again from an edited configuration, with the weights of the layers that are still the same."""
    config = copy.deepcopy(right.model.get_config())
    edit(config)
    _shapes_forgotten(config)
    model = type(right.model).from_config(config)
    old = {layer.name: layer for layer in right.model.layers}
    for layer in model.layers:
        if layer.name in old:
            _copy_weights(old[layer.name], layer)
    return model


def _shapes_forgotten(config: Config) -> None:
    for layer in config["layers"]:
        layer.pop("build_config", None)


def _copy_weights(old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    mine = {w.name: w for w in new.weights}
    for weight in old.weights:
        twin = mine.get(weight.name)
        if twin is not None and tuple(twin.shape) == tuple(weight.shape):
            twin.assign(weight.numpy())


def with_weights(right: Right, change: Callable[[keras.Model], None]) -> keras.Model:
    """The same model with some weights changed."""
    model = rebuilt(right, lambda _: None)
    change(model)
    return model


def pick(rng: np.random.Generator, candidates: list[Any]) -> Any | None:
    """One of them, or None."""
    return candidates[int(rng.integers(len(candidates)))] if candidates else None


def edited_layer(
    right: Right, rng: np.random.Generator, candidates: list[Layer], edit: Callable[[Config, Layer], Any], *also: str
) -> Planted | None:
    """One of the candidates, changed by `edit`; also: other layers that it is right to name."""
    chosen = pick(rng, candidates)
    if chosen is None:
        return None
    name = chosen["name"]
    model = rebuilt(right, lambda config: edit(config, layer_of(config, name)))
    return Planted(model=model, layers=frozenset({right.home[name], *also}), where=name)


def config_of(right: Right) -> Config:
    """The configuration of the right model."""
    return right.model.get_config()


def setting(**settings: Any) -> Callable[[Config, Layer], None]:
    """An edit that sets these settings."""
    return lambda _, layer: layer["config"].update(settings)


def layers_of_class(right: Right, *classes: str) -> list[Layer]:
    """The layers of these classes that stand for a module of PyTorch's."""
    return [layer for layer in layers_of(config_of(right), *classes) if right.home.get(layer["name"])]
