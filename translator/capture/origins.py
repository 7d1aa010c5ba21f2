"""Say of every ONNX node which module call, class and line of source it came from, and give back exact numbers."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
from torch import nn

from translator.types import Origin

_FX_NAME = re.compile(r"^%(\w+)")
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)')
_FLOAT = ir.AttributeType.FLOAT
_LIBRARY = ("/torch/nn/", "/torch/_", "/torch/fx/", "/torch/export/", "/torch/onnx/", "/torch/utils/")


def annotate(model: ir.Model, program: Any, traced: Any, module: nn.Module) -> None:
    """Set `node.meta["origin"]` of every node, and give rounded numbers back as they were.

    `node.meta["exact"]` is a float of a scalar constant, `node.meta["exact_attributes"]` floats of settings by name.
    program: the decomposed ExportedProgram that the ONNX model was translated from. traced: the one it was made of,
    from `module`.
    """
    nodes = {node.name: node for node in program.graph.nodes}
    stacks = view_stacks(traced, program)
    names = first_names(traced, module)
    origins: dict[str, Origin] = {}
    for node in model.graph:
        match = _FX_NAME.match(node.metadata_props.get("pkg.torch.onnx.fx_node", ""))
        name = match.group(1) if match else ""
        fx = nodes.get(name)
        if name not in origins:
            meta = fx.meta if fx is not None else {}
            moved = {**meta, "nn_module_stack": stacks[name]} if name in stacks else meta
            origins[name] = origin_of(name, moved, names)
        node.meta["origin"] = origins[name]
        if fx is None:
            continue
        floats = list(_floats((fx.args, fx.kwargs)))
        floats += [1 / f for f in floats if f]
        if node.op_type == "Constant":
            exact = _exact(node, floats)
            if exact is not None:
                node.meta["exact"] = exact
        settings = {a.name: _double(a.as_float(), floats) for a in node.attributes.values() if a.type == _FLOAT}
        node.meta["exact_attributes"] = {name: double for name, double in settings.items() if double is not None}


def view_stacks(traced: Any, program: Any) -> dict[str, Mapping[str, Any]]:
    """The modules that views really stand in, by node name, where decomposing has moved them into their reader.

    A view (a part of a split) is made anew where it is first read. Whatever reads it has the same name, target,
    modules and line in both programs, and there reads the view where it was written.
    """
    before = {node.name: node for node in traced.graph.nodes}
    found: dict[str, Mapping[str, Any]] = {}
    for node in program.graph.nodes:
        twin = before.get(node.name)
        if twin is None or any(of(twin) != of(node) for of in (_target, _stack, _trace)):
            continue
        for view, written in zip(node.all_input_nodes, twin.all_input_nodes, strict=False):
            part = written.target is operator.getitem
            if not _is_view(written.args[0] if part else written):
                continue
            while view.op == "call_function" and _stack(view) == _stack(node) != _stack(written) and _is_view(view):
                found[view.name] = written.meta.get("nn_module_stack", {})
                view = view.all_input_nodes[0]
    return found


def _stack(node: Any) -> tuple[str, ...]:
    return tuple(path for path, _ in node.meta.get("nn_module_stack", {}).values())


def _target(node: Any) -> Any:
    return node.target


def _trace(node: Any) -> Any:
    return node.meta.get("stack_trace")


def _is_view(node: Any) -> bool:
    return bool(getattr(node.target, "is_view", False)) and len(node.all_input_nodes) > 0


def first_names(traced: Any, module: nn.Module) -> dict[tuple[str, int], tuple[str, int]]:
    """(path, call) as the trace has it → the path that `named_modules` has, and which call of the module it is.

    A module that is held at several places is named by the place that it was reached through, and its calls are
    counted for each place. Calls are in the order of their first nodes.
    """
    first = {id(part): path for path, part in module.named_modules()}
    place = {path: first[id(part)] for path, part in module.named_modules(remove_duplicate=False)}
    calls: dict[str, dict[tuple[str, int], None]] = {}
    for node in traced.graph.nodes:
        for path, call, _ in _scopes(node.meta.get("nn_module_stack", {})):
            calls.setdefault(place.get(path, path), {})[path, call] = None
    names = {}
    for name, several in calls.items():
        places = {path for path, _ in several}
        if places != {name}:
            for number, (path, call) in enumerate(several):
                names[path, call] = (name, call if len(places) == 1 else number)
    return names


def origin_of(
    name: str, meta: Mapping[str, Any], names: Mapping[tuple[str, int], tuple[str, int]] = MappingProxyType({})
) -> Origin:
    """The origin of a node of an ExportedProgram, from its metadata. names: from `first_names`."""
    stack = _scopes(meta.get("nn_module_stack", {}))
    scopes = tuple((*names.get((path, call), (path, call)), cls) for path, call, cls in stack)
    path, call, cls = scopes[-1] if scopes else ("", 0, "")
    source = _source(meta.get("stack_trace") or "")
    return Origin(module=path, call=call, cls=cls, source=source, node=name, scopes=scopes)


def _scopes(stack: Mapping[str, Any]) -> Iterator[tuple[str, int, str]]:
    """Path, number of the call and class of each module of a stack, the outermost first."""
    for key, (path, cls) in stack.items():
        if not key.startswith("_empty"):
            call = int(key.rsplit("@", 1)[1]) if "@" in key else 0
            yield path, call, cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__qualname__}"


def _source(stack_trace: str) -> str:
    """The innermost frame that isn't PyTorch's own, as "resnet.py, line 41, in forward"."""
    frames = [m.groupdict() for m in _FRAME.finditer(stack_trace)]
    own = [f for f in frames if not any(part in f["file"] for part in _LIBRARY)]
    if not own:
        return ""
    frame = own[-1]
    return f"{PurePath(frame['file']).name}, line {frame['line']}, in {frame['function']}"


def _floats(value: Any) -> Iterable[float]:
    if isinstance(value, int | float):
        yield float(value)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _floats(item)
    elif isinstance(value, Mapping):
        yield from _floats(list(value.values()))


def _exact(node: ir.Node, candidates: Iterable[float]) -> float | None:
    """The double that a scalar float32 constant was rounded from, where an argument of the call rounds to it.

    Or its reciprocal: of a norm of order 3 the exporter writes the third root with an exponent of its own.
    """
    attribute = node.attributes.get("value")
    if attribute is None or attribute.value is None:
        return None
    tensor = attribute.as_tensor()
    if tensor.dtype != ir.DataType.FLOAT or tensor.size != 1:
        return None
    return _double(float(tensor.numpy().reshape(())), candidates)


def _double(rounded: float, candidates: Iterable[float]) -> float | None:
    return next((c for c in candidates if np.float32(c) == np.float32(rounded)), None)
