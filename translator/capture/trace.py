"""`nn.Module` → `torch.export` → ONNX as onnx_ir, with PyTorch's names, scopes and exact numbers kept."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import traceback
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
import torch
from torch import nn
from torch.onnx._internal.exporter._errors import DispatchError

from translator.capture.batches import shared_batches
from translator.capture.marked_modules import modules_marked
from translator.capture.marks import attention_marked, functions_marked
from translator.capture.modes import traceable, without_cache
from translator.capture.origins import annotate, origin_of
from translator.capture.ports import ports_marked
from translator.capture.retrace import OPSET, one_registry, sparing, values_computed_with
from translator.errors import InputError, UnsupportedError, Where, first_line
from translator.types import PutOut
from translator.user_code import user_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """A traced model. Weights are initializers of `model` by state-dict name; nothing is folded.

    tensors: every parameter and buffer (shape, trainable) by its first name, non-persistent buffers included.
    aliases: other names of tied tensors → the first name. inputs, outputs: public names in PyTorch's order. batches:
    symbols for the rows of inputs that may be one batch with an earlier input, with that input's symbol. put_out: the
    shapes of the tensors that each module call put out, as far as they are known.
    """

    model: ir.Model
    name: str
    tensors: Mapping[str, tuple[tuple[int, ...], bool]]
    aliases: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    batches: Mapping[str, str] = field(default_factory=dict)
    put_out: PutOut = field(default_factory=dict)


class BringsGraph(nn.Module, ABC):
    """A module that has its graph already, and is not traced."""

    @abstractmethod
    def captured(self, name: str) -> Captured:
        """What the stages after the capture take."""


def capture(
    module: nn.Module,
    example_inputs: tuple[Any, ...],
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    name: str = "",
    dynamic_hw: bool = False,
) -> Captured:
    """Trace `module` with a dynamic batch (axis 0 of every tensor input) and translate it to ONNX.

    dynamic_hw: the axes from 2 on of inputs with four and more are dynamic, too, unless the model fixes them.
    Raises: UnsupportedError (reason "export") where torch.export or the ONNX exporter refuses the model.
    """
    if isinstance(module, BringsGraph):
        if dynamic_hw:
            raise InputError(
                "an ONNX file itself says which sizes are open, and these stay open",
                fix="leave --dynamic-hw away, or export the file with dynamic heights and widths",
            )
        return module.captured(name)
    with traceable(module), without_cache(module) as cached:
        program, put_out = _export(module, example_inputs, dict(example_kwargs or {}), dynamic_hw)
        onnx_program = _to_onnx(program)
    exported = onnx_program.exported_program
    model: ir.Model = onnx_program.model
    annotate(model, exported, program, module)
    notes = ["the cache for generation (config.use_cache) is no output of the Keras model"] if cached else []
    if changed := sorted(set(exported.graph_signature.user_inputs_to_mutate.values())):
        notes.append(f"PyTorch's model changes {', '.join(changed)} in place; the Keras model leaves its inputs alone")
    if dynamic_hw and (fixed := _fixed_sizes(model)):
        notes.append(f"the model itself fixes the height or width of {', '.join(fixed)}: no other size was possible")
    tensors, aliases = _tensors(module)
    _rename_to_first(model, aliases)
    return Captured(
        model=model,
        name=name or type(module).__name__,
        tensors=tensors,
        aliases=aliases,
        inputs=tuple(v.name or "" for v in model.graph.inputs),
        outputs=tuple(v.name or "" for v in model.graph.outputs),
        notes=tuple(notes),
        batches=shared_batches(program),
        put_out=put_out,
    )


def _export(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_hw: bool) -> Any:
    def dims(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.ndim == 0:
            return None
        spatial = range(2, value.ndim) if dynamic_hw and value.ndim >= 4 else ()
        return dict.fromkeys((0, *spatial), torch.export.Dim.AUTO)

    args, kwargs = _distinct((args, kwargs))
    shapes = _bound(module, [torch.utils._pytree.tree_map(dims, a) for a in args])
    shapes |= {k: torch.utils._pytree.tree_map(dims, v) for k, v in kwargs.items()}
    try:
        with (
            torch.no_grad(),
            _quiet(),
            modules_marked(module),
            ports_marked(module) as put_out,
            attention_marked(),
            functions_marked(),
        ):
            return torch.export.export(module, args, kwargs or None, dynamic_shapes=shapes, strict=False), put_out
    except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError) as error:
        by_data = "data-dependent" in str(error)
        raise UnsupportedError(
            f"torch.export can't trace {type(module).__name__}: {first_line(error)[:300]}",
            reason="data-dependent-shape" if by_data else "export",
            where=Where(module=_innermost(module, error) or "(root)", source=user_line(error)),
            fix=_BY_DATA if by_data else _TRACEABLE,
        ) from error


_BY_DATA = (
    "what depends on the numbers (how many boxes are kept) is in no graph: translate the modules before it "
    "(models/detection_parts.py does so for torchvision's detectors)"
)
_TRACEABLE = "make torch.export.export(model, inputs) work, or judge a port of your own with `translator audit`"


def _innermost(module: nn.Module, error: BaseException) -> str:
    """The path of the innermost module that was running when the error came."""
    names = {id(part): name for name, part in module.named_modules()}
    running = (frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__))
    found = [names[id(part)] for part in running if id(part) in names]
    return found[-1] if found else ""


def _fixed_sizes(model: ir.Model) -> list[str]:
    """The image inputs of which a size stayed a number."""
    shapes = {v.name or "": v.shape for v in model.graph.inputs if v.shape is not None and len(v.shape) >= 4}
    return [name for name, shape in shapes.items() if any(str(d).isdecimal() for d in list(shape)[2:])]


def _distinct(value: Any) -> Any:
    """The same with every tensor an object of its own: one given twice would be traced as one input."""
    leaves, spec = torch.utils._pytree.tree_flatten(value)
    seen: set[int] = set()
    for place, leaf in enumerate(leaves):
        if isinstance(leaf, torch.Tensor):
            leaves[place] = leaf.clone() if id(leaf) in seen else leaf
            seen.add(id(leaf))
    return torch.utils._pytree.tree_unflatten(leaves, spec)


def _to_onnx(program: Any) -> Any:
    try:
        with torch.no_grad(), _quiet(), one_registry(), values_computed_with():
            return torch.onnx.export(sparing(program), dynamo=True, optimize=False, opset_version=OPSET, verbose=False)
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        raise _refused(error) from error


def _refused(error: BaseException) -> UnsupportedError:
    """The exporter's refusal, with the operation, module and line that its traceback knows."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    known = (frame.f_locals.get("node") for e in reversed(chain) for frame, _ in traceback.walk_tb(e.__traceback__))
    node = next((value for value in known if isinstance(value, torch.fx.Node)), None)
    if node is None:
        return UnsupportedError(f"the ONNX exporter refuses the model: {_cause(error)}", reason="export")
    origin = origin_of(node.name, node.meta)
    name = node.target.__name__ if inspect.isfunction(node.target) else str(node.target)
    where = Where(module=origin.module or "(root)", source=origin.source, node=node.name)
    if any(isinstance(e, DispatchError) for e in chain):
        what, fix = f"{name}: PyTorch's ONNX exporter has no translation for it", _OTHER_OPERATIONS
        return UnsupportedError(what, reason="op", where=where, fix=fix)
    what = f"{name}: the ONNX exporter refuses it: {first_line(chain[-1])}"
    return UnsupportedError(what, reason="export", where=where, fix=_OTHER_OPERATIONS)


_OTHER_OPERATIONS = "write this line with other operations, or leave it to code after the Keras model"


def _cause(error: BaseException) -> str:
    text = str(error)
    marker = "## Exception summary"
    summary = text.split(marker)[1].strip() if marker in text else text
    return first_line(summary)


def _bound(module: nn.Module, items: list[Any]) -> dict[str, Any]:
    """The items by the name of the forward's parameter that takes each; those of `*args` as one tuple."""
    parameters = inspect.signature(module.forward).parameters.values()
    bound: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            bound[parameter.name], items = tuple(items), []
        elif items and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            bound[parameter.name], items = items[0], items[1:]
    return bound


def _tensors(module: nn.Module) -> tuple[dict[str, tuple[tuple[int, ...], bool]], dict[str, str]]:
    tensors: dict[str, tuple[tuple[int, ...], bool]] = {}
    aliases: dict[str, str] = {}
    first: dict[int, str] = {}
    for table in (module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)):
        for name, tensor in table:
            if id(tensor) in first:
                aliases[name] = first[id(tensor)]
                continue
            first[id(tensor)] = name
            tensors[name] = (tuple(tensor.shape), bool(tensor.requires_grad))
    return tensors, aliases


def _rename_to_first(model: ir.Model, aliases: Mapping[str, str]) -> None:
    """The exporter names a tied tensor by its last name; every later stage uses the first."""
    initializers = model.graph.initializers
    for name in [n for n in initializers if n in aliases]:
        value, first = initializers[name], aliases[name]
        if first in initializers:
            value.replace_all_uses_with(initializers[first])
        else:
            value.name = first


@contextlib.contextmanager
def _quiet() -> Any:
    """Silence the exporter's progress lines, dumps, warnings and log records; errors still come as exceptions."""
    loggers = [logging.getLogger(n) for n in ("torch.onnx", "torch.export", "onnxscript", "torch.fx")]
    levels = [logger.level for logger in loggers]
    silent = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
