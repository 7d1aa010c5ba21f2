"""Find a layer of a Keras model by its path, a variable of a layer by its name, and who owns a variable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras


def layers_by_path(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Every layer under the names from the outside in, joined by "/"; the model's own name is left out.

    Layers inside layers (the cell of an LSTM, the projections of an attention) are found by their names, too.
    """
    found: dict[str, keras.layers.Layer] = {}
    for path, layer in _walk(model, ""):
        found.setdefault(path, layer)
    return found


def find_variable(layer: keras.layers.Layer, name: str) -> Any | None:
    """The variable of `layer` that `name` means: an attribute ("kernel", "cell.kernel"), or the end of its path."""
    found: Any = layer
    for part in name.replace("/", ".").split("."):
        found = getattr(found, part, None)
    if isinstance(found, keras.Variable):
        return found
    ending = "/" + name.replace(".", "/")
    matches = [v for v in layer.weights if ("/" + v.path).endswith(ending)]
    if not matches:
        matches = [v for v in layer.weights if v.name == name]
    return matches[0] if len(matches) == 1 else None


def owners(model: keras.Model) -> dict[int, tuple[str, keras.layers.Layer]]:
    """For each variable, by id, the path of the innermost layer that holds it, and that layer."""
    found: dict[int, tuple[str, keras.layers.Layer]] = {}
    for path, layer in _walk(model, ""):
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables):
            found.setdefault(id(variable), (path, layer))
    return found


def weights_of(model: keras.Model) -> list[Any]:
    """Every variable that counts as a weight, once; the state of random generators is none."""
    return list({id(v): v for v in model.weights}.values())


def _walk(layer: keras.layers.Layer, path: str) -> Iterator[tuple[str, keras.layers.Layer]]:
    stack = [(path, layer)]
    seen: set[int] = set()
    while stack:
        path, layer = stack.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        if path:
            yield path, layer
        children = layer._flatten_layers(include_self=False, recursive=False)
        prefix = f"{path}/" if path else ""
        stack.extend((prefix + child.name, child) for child in reversed(list(children)))
