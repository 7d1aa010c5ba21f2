"""Keras source of a PyTorch network: translate, write, import what was written, prove it.

source ──load──▶ nn.Module ──engine──▶ plan + claims ──write──▶ FILE.py ──import──▶ keras.Model ──prove──▶ report
                                                                    └── a fresh process with Keras alone imports it, too
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from translator import runtime
from translator.config import Progress, Style, WriteSourceRequest
from translator.errors import InputError
from translator.verdict import Artifact, Report

if TYPE_CHECKING:
    import keras
    import numpy as np
    from torch import nn

    from translator.capture.source import LoadedSource
    from translator.claims import Claims
    from translator.engines.result import EngineResult
    from translator.plan.calls import Plan
    from translator.verify.keras_graph import KerasGraph

STYLES = ("functional", "subclass", "sequential")


def write_source(
    plan_or_module: Plan | nn.Module,
    example_inputs: Any = None,
    *,
    style: Style = "functional",
    name: str = "",
    source_spec: str = "",
) -> str:
    """The network as the text of a Python file that needs only Keras; layer names are the converted model's.

    plan_or_module: a plan (`Conversion.plan`), or a module with its example inputs. The text is checked against the
    plan, call by call; `write_source_file` proves the file itself.
    Raises UnsupportedError where the network can't be translated, or is no chain and the style is "sequential".
    """
    from translator.plan.calls import Plan

    if style not in STYLES:
        raise InputError(f"no style is called {style!r}", fix=", ".join(STYLES))
    runtime.prepare()
    plan = plan_or_module if isinstance(plan_or_module, Plan) else _plan_of(plan_or_module, example_inputs, name)
    from translator.emit.source.write_plan import checked_source

    return checked_source(replace(plan, name=name) if name else plan, style=style, spec=source_spec)


def write_source_file(request: WriteSourceRequest, *, on_progress: Progress | None = None) -> Report:
    """`translator source`: write `request.output` and the weights for it, whatever the proof says; the report tells.

    The caller decides where the file goes from there.
    """
    from translator.capture.source import load_source
    from translator.engines.native import translate

    runtime.prepare()
    progress = on_progress or (lambda stage: None)
    source = request.source
    progress("loading the PyTorch model")
    loaded = load_source(
        source.spec,
        weights=source.weights,
        input_shapes=source.input_shapes or None,
        input_dtypes=source.input_dtypes,
        seed=source.seed,
    )
    result = translate(
        loaded.module,
        loaded.example_inputs,
        example_kwargs=loaded.example_kwargs,
        name=loaded.name,
        on_stage=lambda stage: progress(_STAGES.get(stage, stage)),
    )
    return write_and_prove(
        result, loaded, request.output, style=request.style, seed=source.seed, weights=request.weights,
        on_progress=progress,
    )  # fmt: skip


def write_and_prove(
    result: EngineResult,
    loaded: LoadedSource,
    output: Path,
    *,
    style: Style = "functional",
    seed: int = 0,
    weights: Path | None = None,
    on_progress: Progress | None = None,
) -> Report:
    """Write the source of a translated model to `output`, and prove what the file builds against the module.

    weights: a .weights.h5 to write, too, which the model that the file builds takes by itself.
    """
    from translator.emit.source.write_plan import checked_source
    from translator.verify.proof import ProofOptions, Subject, prove

    progress = on_progress or (lambda stage: None)
    if result.plan is None:
        raise InputError("this engine makes no plan to write source from", fix="the native engine does")
    progress("writing the source")
    output.write_text(checked_source(result.plan, style=style, spec=loaded.spec, where=output), encoding="utf-8")
    progress("importing what was written")
    with _imported(output) as module:
        written = _Written.of(module.build_model(), result)
    written.take_weights()

    def on_proof(stage: str, done: int, total: int) -> None:
        progress(f"proving: {stage} {done}/{total}")

    subject = Subject(
        keras_model=written.model, claims=written.claims, load_state=written.load_state, graph=written.graph
    )
    options = ProofOptions(seed=seed, on_progress=on_proof)
    report = prove(loaded.module, loaded.example_inputs, subject, options, loaded.example_kwargs)
    progress("importing it in a fresh process")
    artifact = _judge(written, result, loaded, output, weights=weights)
    return replace(
        report,
        title=loaded.spec or loaded.name,
        artifact=artifact,
        seed=seed,
        lost=(*report.lost, *result.lost),
        notes=(*loaded.notes, *result.notes, *report.notes),
        versions=runtime.versions(),
        timing={**result.timing, **report.timing},
    )


_STAGES = {"capture": "tracing and exporting to ONNX", "plan": "planning layers", "emit": "building the Keras model"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """What a written file built. layers: its layers by the plan's names. fits: takes the converted model's files."""

    model: keras.Model
    claims: Claims
    plan: Plan
    result: EngineResult
    graph: KerasGraph
    layers: Mapping[str, keras.layers.Layer]
    fits: bool

    @staticmethod
    def of(model: keras.Model, result: EngineResult) -> _Written:
        """Find the plan's layers in a written model, and restate the claims for it."""
        import keras

        from translator.emit.nesting import is_deep
        from translator.verify.keras_graph import functional
        from translator.verify.keras_record import graph_of_any
        from translator.verify.twin import restate

        plan = result.plan
        if plan is None:
            raise InputError("this engine makes no plan to write source from", fix="the native engine does")
        names = {spec.name for spec in plan.layers}
        layers = {x.name: x for x in model._flatten_layers() if x.name in names and not isinstance(x, keras.Model)}
        graph = graph_of_any(model) if functional(model) is not None else _recorded(model, plan)
        claims = restate(result.claims, graph_of_any(result.model), graph)
        flat = functional(model) is not None and not isinstance(model, keras.Sequential)
        fits = flat or not is_deep(plan)
        return _Written(model=model, claims=claims, plan=plan, result=result, graph=graph, layers=layers, fits=fits)

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Set the weights from PyTorch tensors by state-dict name."""
        from translator.emit.keras_model import Emitted, load_state

        load_state(self.plan, Emitted(model=self.model, paths={}, layers=self.layers), state)

    def take_weights(self) -> None:
        """Set the weights from the converted model's layers of the same names."""
        import keras

        for layer in self.result.model._flatten_layers():
            if layer.name in self.layers and not isinstance(layer, keras.Model):
                self.layers[layer.name].set_weights(layer.get_weights())


def _recorded(model: keras.Model, plan: Plan) -> KerasGraph:
    """The graph of a subclassed model, which doesn't know of what types its inputs are."""
    import keras

    from translator.verify.keras_record import record

    inputs = []
    for _, value in plan.inputs:
        info = plan.values[value]
        dtype = "float32" if info.dtype.startswith(("float", "bfloat")) else info.dtype
        inputs.append(keras.Input(batch_shape=info.keras_shape, dtype=dtype, name=value))
    graph, _ = record(model, {"args": (inputs if len(inputs) > 1 else inputs[0],), "kwargs": {}})
    return graph


def judge_on(backend: str, result: EngineResult, loaded: LoadedSource, output: Path) -> Artifact:
    """Judge a file that was written, and proven, in a fresh process on another of Keras' backends."""
    with _imported(output) as module:
        written = _Written.of(module.build_model(), result)
    written.take_weights()
    return _judge(written, result, loaded, output, backend)


def _judge(
    written: _Written,
    result: EngineResult,
    loaded: LoadedSource,
    output: Path,
    backend: str = "",
    weights: Path | None = None,
) -> Artifact:
    from translator.verify.claim_index import ROOT, index_claims
    from translator.verify.compare import lay_out
    from translator.verify.torch_record import evaluating, outputs_of, tensors_in
    from translator.verify.written import judge_source

    index = index_claims(written.claims, written.graph)
    args, kwargs = loaded.example_inputs, dict(loaded.example_kwargs)
    arrange = partial(_arranged, index=index, lay_out=lay_out)
    inputs = [arrange(t, at) for t, at in zip(tensors_in((args, kwargs)), index.inputs, strict=False)]
    with evaluating(loaded.module):
        results = outputs_of(loaded.module, args, kwargs)
    want = [arrange(t, at) for t, at in zip(results, index.twins[ROOT].outputs, strict=False)]
    with tempfile.TemporaryDirectory(prefix="translator-") as folder:
        files = [Path(folder) / "own.weights.h5"]
        written.model.save_weights(files[0])
        if written.fits:
            files += [Path(folder) / "converted.keras", Path(folder) / "converted.weights.h5"]
            result.model.save(files[1])
            result.model.save_weights(files[2])
        if weights is not None:
            shutil.copyfile(files[-1], weights)
        return judge_source(output, model=written.model, weights=files, inputs=inputs, want=want, backend=backend)


def _arranged(tensor: Any, target: Any, *, index: Any, lay_out: Any) -> np.ndarray:
    if target is None:
        return tensor.detach().cpu().numpy()  # type: ignore[no-any-return]
    return lay_out(tensor, target.layout, index.graph.shapes[target.value])  # type: ignore[no-any-return]


@contextmanager
def _imported(path: Path) -> Iterator[ModuleType]:
    """The file as a module, while the block runs."""
    name = f"_translator_written_{abs(hash(str(path)))}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: not a name for a Python file", fix="end it in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.modules.pop(name, None)


def _plan_of(module: Any, example_inputs: Any, name: str) -> Plan:
    from torch import nn

    from translator.capture.trace import capture
    from translator.engines.native import plan_of

    if not isinstance(module, nn.Module):
        raise InputError(f"write_source() takes a plan or an nn.Module, not {type(module).__name__}")
    if example_inputs is None:
        raise InputError(
            "write_source() needs example inputs for an nn.Module", fix="pass a tensor, or a tuple of them"
        )
    args = tuple(example_inputs) if isinstance(example_inputs, tuple | list) else (example_inputs,)
    return plan_of(capture(module, args, name=name))
