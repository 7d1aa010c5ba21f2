"""The engine "onnx2keras": that package on the ONNX that PyTorch's exporter writes by default, as its users run it.

What it gives is judged like anything else. Its layers bear the names of ONNX values, which the exporter takes from
PyTorch's graph: that is all the claims are made of.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from translator.capture.modes import evaluating
from translator.capture.origins import first_names, origin_of
from translator.capture.trace import BringsGraph
from translator.claims import Claims, KerasValue, ModuleClaim, ParameterClaim, ValueClaim
from translator.engines.result import EngineResult
from translator.engines.state import state_of
from translator.errors import InputError, UnsupportedError, first_line
from translator.types import Layout


def translate(
    module: nn.Module,
    example_inputs: tuple[Any, ...],
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    name: str = "",
    dynamo: bool = True,
    fold: bool = False,
    dynamic_hw: bool = False,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> EngineResult:
    """Convert with onnx2keras; `fold` says that the BatchNorms it folds away were meant to go.

    Raises InputError for `dynamic_hw`, and UnsupportedError with that package's own words where it can't.
    """
    if isinstance(module, BringsGraph):
        raise InputError("the engine onnx2keras starts from a PyTorch model", fix="use --engine native")
    if example_kwargs:
        raise InputError("the engine onnx2keras takes positional inputs only", fix="use --engine native")
    if dynamic_hw:
        raise InputError("the engine onnx2keras takes images of one size only", fix="use --engine native")
    timing: dict[str, float] = {}
    on_stage("capture")
    start = time.perf_counter()
    program, model = _export(module, example_inputs, dynamo)
    timing["capture"] = time.perf_counter() - start
    on_stage("emit")
    start = time.perf_counter()
    keras_model = _convert(model)
    timing["emit"] = time.perf_counter() - start
    names = {op.name for op in keras_model.operations}
    claims = _claims(module, model, program, keras_model, names)
    if fold:
        claims = replace(claims, explained={"bn-folded": "asked for"})
    return EngineResult(
        model=keras_model,
        claims=claims,
        load_state=None,
        timing=timing,
        notes=("converted by onnx2keras from the ONNX that torch.onnx.export writes with its default options",),
    )


def _export(module: nn.Module, args: tuple[Any, ...], dynamo: bool) -> tuple[Any, Any]:
    """The exporter's program (None without dynamo) and the ONNX protobuf."""
    import onnx

    try:
        with _silence(), evaluating(module):
            if dynamo:
                program = torch.onnx.export(module, args, dynamo=True, verbose=False)
                if program is None:
                    raise UnsupportedError("the ONNX exporter gave no model", reason="export")
                return program, program.model_proto
            with tempfile.TemporaryDirectory(prefix="translator-") as folder:
                path = str(Path(folder) / "model.onnx")
                torch.onnx.export(module, args, path, dynamo=False)
                return None, onnx.load(path)
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        raise UnsupportedError(f"the ONNX exporter refuses the model: {first_line(error)}", reason="export") from error


def _convert(model: Any) -> Any:
    import keras
    from onnx2keras import onnx_to_keras

    initializers = {i.name for i in model.graph.initializer}
    inputs = [i.name for i in model.graph.input if i.name not in initializers]
    data_format = keras.config.image_data_format()
    try:
        with _silence():
            return onnx_to_keras(model, inputs, verbose=False, change_ordering=True)
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise UnsupportedError(
            f"onnx2keras {type(error).__name__}: {first_line(error)}",
            fix="use --engine native",
        ) from error
    finally:
        keras.config.set_image_data_format(data_format)  # where it fails it leaves "channels_first" behind


def _claims(module: nn.Module, model: Any, program: Any, keras_model: Any, names: set[str]) -> Claims:
    ranks = {op.name: len(op.output.shape) for op in keras_model.operations if not isinstance(op.output, list | tuple)}

    def value(name: str) -> ValueClaim | None:
        if name not in names:
            return None
        return ValueClaim(keras=KerasValue(operation=name), layout=Layout.channels_last(ranks.get(name, 2)))

    initializers = {i.name for i in model.graph.initializer}
    inputs = [v for i in model.graph.input if i.name not in initializers and (v := value(i.name)) is not None]
    outputs = [v for o in model.graph.output if (v := value(o.name)) is not None]
    return Claims(
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        modules=tuple(_modules(module, program, value)) if program is not None else (),
        parameters=tuple(_parameters(module, model, keras_model, program)),
    )


def _modules(module: nn.Module, program: Any, value: Callable[[str], ValueClaim | None]) -> Iterator[ModuleClaim]:
    """A claim for every module call whose result is still a value of the Keras model.

    A BatchNorm whose input isn't one any more was folded into the call before it: the claim covers both.
    """
    nodes = [n for n in program.exported_program.graph.nodes if n.op == "call_function"]
    norms = {name for name, m in module.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    again = first_names(program.exported_program, module)
    inside: dict[tuple[str, int], list[Any]] = {}
    for node in nodes:
        for path, call, _ in origin_of(node.name, node.meta, again).scopes:
            inside.setdefault((path, call), []).append(node)
    for (path, call), members in inside.items():
        own = set(members)
        left = [n.name for n in members if any(user not in own for user in n.users)]
        claimed = tuple(v for v in map(value, left) if v is not None)
        before = members[0].args[0] if path in norms and members[0].args else None
        if before is not None and before.op == "call_function" and value(before.name) is None:
            origin = origin_of(before.name, before.meta, again)
            inputs = tuple(value(a.name) for a in before.args[:1])
            yield ModuleClaim(
                path=path, call=call, inputs=inputs, outputs=claimed, covers=((origin.module, origin.call),)
            )
        elif claimed:
            yield ModuleClaim(path=path, call=call, inputs=(), outputs=claimed)


def _parameters(module: nn.Module, model: Any, keras_model: Any, program: Any) -> Iterator[ParameterClaim]:
    """Which tensors a layer's variables were made from: by the ONNX initializers' names, and by what was folded in."""
    state = state_of(module)
    read = {node.output[0]: [i for i in node.input if i in state] for node in model.graph.node}
    folded = _folded(program, module)
    for layer in keras_model.layers:
        names, norm = read.get(layer.name, []), folded.get(layer.name)
        for variable in layer.weights:
            got = np.asarray(variable.numpy() if hasattr(variable, "numpy") else variable)
            same = next((n for n in names if _equal(state[n], got)), None)
            if same is not None and norm is None:
                yield ParameterClaim(layer=layer.name, variable=variable.name, tensors=(same,), how="same")
                continue
            own = [n for n in names if state[n].size == got.size]
            parts = ("weight", "running_var") if len(got.shape) > 1 else ("bias", "running_mean")
            own += [f"{norm}.{part}" for part in parts if norm is not None and f"{norm}.{part}" in state]
            yield ParameterClaim(layer=layer.name, variable=variable.name, tensors=tuple(own), how="computed")


def _folded(program: Any, module: nn.Module) -> dict[str, str]:
    """The BatchNorm module whose result each ONNX value is: where a Conv gives it, the exporter folded it."""
    if program is None:
        return {}
    norms = {name for name, m in module.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    nodes = [n for n in program.exported_program.graph.nodes if n.op == "call_function"]
    again = first_names(program.exported_program, module)
    owners = {n.name: origin_of(n.name, n.meta, again).module for n in nodes}
    return {value: owner for value, owner in owners.items() if owner in norms}


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.size == b.size and bool(np.array_equal(np.sort(a, axis=None), np.sort(b, axis=None)))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Both packages talk a lot; errors still come as exceptions."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(disabled)
