"""Which tensors go into and come out of modules that have several, by position: nodes that do nothing but say so.

A trace only knows which values cross a module's border. Where more than one does on a side, each is marked while
PyTorch runs, by a node translator::Port with the module, its call and the side: the name of each position, and which of
the node's values stands there. So is what comes out of a module that changes its input in place: the changed input may
be read outside, too, and is no output. And so is what a forward gets and gives where hooks of the user's stand around
it: what they compute lies between the module and its border. What such a hook, or an attribute (`self.weights = w`),
hands to others crosses the border, too, and is no output: the outputs of modules with one inside are marked.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.onnx import ops as onnx_ops

from translator.capture.aliases import writes
from translator.capture.nodes import DOMAIN, Attributes
from translator.types import PutOut, Shape


@contextlib.contextmanager
def ports_marked(module: nn.Module) -> Iterator[PutOut]:
    """While active, modules with several tensors on a side mark them; gives the shapes that each call put out."""
    calls: Counter[str] = Counter()
    shapes: dict[tuple[str, int], tuple[Shape, ...]] = {}
    handles = []
    parts = dict(module.named_modules())
    hooked = {path for path, child in parts.items() if child._forward_hooks or child._forward_pre_hooks}
    giving = hooked | {path for path, child in parts.items() if _keeps_tensors(child)}
    for path, child in parts.items():
        if path and not isinstance(child, torch.jit.ScriptModule):
            gives = any(f"{inner}.".startswith(f"{path}.") for inner in giving)
            port = _Port(path, calls, shapes, least=1 if path in hooked else 2, gives=gives)
            handles.append(child.register_forward_pre_hook(port.before, with_kwargs=True))
            handles.append(child.register_forward_hook(port.after, prepend=True))
    try:
        yield shapes
    finally:
        for handle in handles:
            handle.remove()


def _keeps_tensors(module: nn.Module) -> bool:
    """Whether plain attributes hold tensors: a forward may have put them there, for others to read."""
    own = {k: v for k, v in vars(module).items() if k not in ("_parameters", "_buffers", "_modules")}
    return any(isinstance(leaf, Tensor) for leaf in torch.utils._pytree.tree_leaves(own))


class _Port:
    """The hooks of one module. A tensor given twice is one value of the node, so that it stays one tensor.

    least: how many tensors must go in, or come out, to be marked. gives: all are, and the mark of what goes in says so,
    since that of an output that nobody reads is gone from the trace.
    """

    def __init__(
        self,
        path: str,
        calls: Counter[str],
        shapes: dict[tuple[str, int], tuple[Shape, ...]],
        *,
        least: int,
        gives: bool,
    ) -> None:
        self._shapes = shapes
        self._path, self._calls, self._gives = path, calls, gives
        self._least = 1 if gives else least
        self._open: list[tuple[int, list[tuple[Tensor, int]]]] = []

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        call = self._calls[self._path]
        self._calls[self._path] += 1
        found = self._marked("in", call, (args, kwargs), least=self._least)
        given = (args, kwargs) if found is None else found
        self._open.append((call, [(t, writes(t)) for t in _tensors(given)]))
        return found

    def after(self, module: nn.Module, args: Any, output: Any) -> Any:
        call, given = self._open.pop()
        self._shapes[self._path, call] = tuple(_shape(tensor) for tensor in _tensors(output))
        changed = any(writes(tensor) != version for tensor, version in given)
        return self._marked("out", call, output, least=1 if changed else self._least)

    def _marked(self, side: str, call: int, value: Any, *, least: int) -> Any:
        """The value with its tensors marked, or None where there are fewer than `least`: the trace tells.

        Complex ones stay as they are: ONNX has none, and the exporter's pairs of numbers go through no node of ours.
        """
        leaves, spec = torch.utils._pytree.tree_flatten_with_path(value)
        tensors = [(_argument(path), leaf) for path, leaf in leaves if isinstance(leaf, Tensor)]
        if len(tensors) < least:
            return None
        marks = [(place, name, t) for place, (name, t) in enumerate(tensors) if not t.is_complex()]
        distinct = list({id(tensor): tensor for _, _, tensor in marks}.values())
        index = {id(tensor): number for number, tensor in enumerate(distinct)}
        if not distinct:
            return None
        attributes: Attributes = {
            "path": self._path, "call": call, "side": side, "gives": int(self._gives),
            "places": [place for place, _, _ in marks],
            "names": [name for _, name, _ in marks], "values": [index[id(tensor)] for _, _, tensor in marks],
        }  # fmt: skip
        dtypes, shapes = [t.dtype for t in distinct], [t.shape for t in distinct]
        marked = onnx_ops.symbolic_multi_out(
            f"{DOMAIN}::Port", distinct, attributes, dtypes=dtypes, shapes=shapes, version=1
        )
        replaced = [marked[index[id(leaf)]] if id(leaf) in index else leaf for _, leaf in leaves]
        return torch.utils._pytree.tree_unflatten(replaced, spec)


def _shape(tensor: Tensor) -> Shape:
    sizes: tuple[Any, ...] = tuple(tensor.shape)
    return tuple(size if isinstance(size, int) else None for size in sizes)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def _argument(path: Any) -> str:
    """The argument that a leaf of (args, kwargs) is: its number or its keyword, and the way on into what it holds."""
    keys = (getattr(k, "idx", getattr(k, "key", getattr(k, "name", ""))) for k in path[1:])
    return ".".join(str(key) for key in keys)
