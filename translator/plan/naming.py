"""Names of layers and operations: the PyTorch module's path with "_" for ".", made unique."""

from __future__ import annotations

import re
from collections.abc import Iterable

from translator.graph.view import Graph
from translator.types import Origin


class Namer:
    """Hands out names that are unique in the model and free of what some Keras backend refuses ("." and "/")."""

    def __init__(self, graph: Graph, reserved: Iterable[str] = ()) -> None:
        self._taken = set(reserved)
        self._containers = {path for node in graph.nodes for path, _, _ in node.origin.scopes[:-1]}

    def name(self, origin: Origin, role: str, *, main: bool) -> str:
        """A new name. main: this call stands for the leaf module itself, so it bears the module's own name."""
        leaf = bool(origin.module) and origin.module not in self._containers
        parts = [clean(origin.module)] if origin.module else []
        if not (leaf and main):
            parts.append(snake(role))
        return self.unique("_".join(parts) or snake(role))

    def unique(self, base: str) -> str:
        """`base`, or `base_1` … where it is taken already."""
        name, count = base, 0
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name)
        return name


def clean(path: str) -> str:
    """`layer1.0.conv1` → `layer1_0_conv1`; anything that isn't an ASCII letter, a digit or "_" becomes "_".

    TensorFlow refuses other letters in the names of its scopes.
    """
    name = re.sub(r"\W", "_", path, flags=re.ASCII)
    return f"m_{name}" if name[:1] in ("_", "") else name


def snake(name: str) -> str:
    """`GlobalAveragePooling2D` → `global_average_pooling2d`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", name.replace(".", "_"))
    return re.sub(r"\W", "_", spaced).lower()
