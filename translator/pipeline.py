"""The whole way, every stage in order: load, translate, prove, write, judge the file. Read this first.

source ──load──▶ nn.Module ──engine──▶ keras.Model + claims ──prove──▶ report ──write──▶ .keras + weight map
                                                                                │
                                                   a fresh process loads the file and is judged again
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from translator import runtime
from translator.config import ConvertRequest, EngineName, Progress
from translator.errors import InputError
from translator.files import Outputs
from translator.runtime import versions
from translator.verdict import Report, Verdict

if TYPE_CHECKING:
    import keras
    import numpy as np
    from torch import nn

    from translator.claims import Claims
    from translator.engines.result import EngineResult
    from translator.plan.calls import Plan
    from translator.plan.weightmap import Weightmap
    from translator.verify.artifact import ArtifactWorker

    Remake = Callable[[EngineResult, nn.Module], EngineResult]


def _silent(stage: str) -> None:
    """The default progress: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A translated model. report: of the proof; its artifact is there once `save` has written the file.

    plan and weightmap: the native engine's; None for another engine.
    """

    model: keras.Model
    report: Report
    claims: Claims
    plan: Plan | None = None
    weightmap: Weightmap | None = None
    module: nn.Module
    example_inputs: tuple[Any, ...] = ()
    example_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path, *, force: bool = False) -> Report:
        """Write the model and its weight map, judged in a fresh process; gives the report with the artifact.

        Nothing is written unless the proof holds. Raises InputError where the path can't become an output.
        """
        from translator.plan import weightmap

        path = Path(path)
        outputs = [path] + ([weightmap.beside(path)] if self.weightmap else [])
        with Outputs(outputs, force=force) as files:
            report = _write(self, path, files, None, _silent)
            if report.verdict is not Verdict.DIFFERENT:
                files.commit()
        return report

    def state_dict(self) -> dict[str, np.ndarray]:
        """The Keras model's weights as PyTorch tensors by state-dict name, through the bindings."""
        from translator.emit.weights import state_dict

        table = self._bindings()
        return state_dict(self.model, table.bindings, table.tensor_shapes)

    def load_checkpoint(self, weights: str | Path | nn.Module | Mapping[str, Any]) -> None:
        """Set the Keras model's weights from another checkpoint of the same architecture, without tracing again."""
        from translator.capture.checkpoint import read_checkpoint
        from translator.emit.weights import set_weights
        from translator.engines.state import as_numpy, state_of

        if isinstance(weights, str | Path):
            weights = read_checkpoint(Path(weights)).tensors
        state = {k: as_numpy(v) for k, v in weights.items()} if isinstance(weights, Mapping) else state_of(weights)
        set_weights(self.model, self._bindings().bindings, state)

    def _bindings(self) -> Weightmap:
        if self.weightmap is None:
            raise InputError("this engine gives no weight bindings", fix="convert with engine='native'")
        return self.weightmap


def convert(
    source: nn.Module | str,
    example_inputs: Any = None,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    engine: EngineName = "native",
    fold: bool = False,
    dynamic_hw: bool = False,
    proof: bool = True,
    seed: int = 0,
    weights: str | Path | None = None,
    name: str | None = None,
    on_progress: Progress | None = None,
) -> Conversion:
    """Translate a PyTorch model into a native Keras model and prove it.

    source: an nn.Module, or a SOURCE as on the command line ("torchvision:resnet50", "file.py:factory").
    example_inputs: a tensor, or a tuple of the model's positional inputs, with the batch; a SOURCE may bring its own.
    fold: BatchNorms folded into convolutions. dynamic_hw: images of any height and width; where the module
    fixes them they stay the example's, and a note says so. proof: False gives a report without checks (its verdict is
    `different`).
    Raises: InputError or UnsupportedError; a failed check is in the report, not an exception.
    """
    runtime.prepare()
    progress = on_progress or _silent
    loaded = _loaded(source, example_inputs, example_kwargs, weights, seed, name)
    return _convert(loaded, engine, seed, progress, fold=fold, dynamic_hw=dynamic_hw, proof=proof)


def convert_file(
    request: ConvertRequest, *, on_progress: Progress | None = None, remake: Remake | None = None
) -> Report:
    """`translator convert`: the model, its weight map and its report in files that appear whole or not at all.

    remake: changes what the engine gave before it is proven.
    """
    from translator.capture.source import load_source
    from translator.plan import weightmap
    from translator.verify.artifact import ArtifactWorker

    runtime.prepare()
    progress = on_progress or _silent
    outputs = [request.output]
    if request.engine == "native":
        outputs.append(weightmap.beside(request.output))
    with Outputs([*outputs, *request.reports], force=request.force) as files:
        with ArtifactWorker() as worker:
            source = request.source
            progress("loading the PyTorch model")
            start = time.perf_counter()
            if source.spec.endswith(weightmap.SUFFIX):
                conversion = _from_weightmap(Path(source.spec), source.weights, source.seed, progress)
            else:
                loaded = load_source(
                    source.spec,
                    weights=source.weights,
                    input_shapes=source.input_shapes or None,
                    input_dtypes=source.input_dtypes,
                    seed=source.seed,
                )
                seconds = time.perf_counter() - start
                conversion = _convert(
                    loaded,
                    request.engine,
                    source.seed,
                    progress,
                    fold=request.fold,
                    dynamic_hw=request.dynamic_hw,
                    loading=seconds,
                    remake=remake,
                )
            report = _write(conversion, request.output, files, worker, progress)
        if report.verdict is not Verdict.DIFFERENT or request.keep_failed:
            files.commit(*[p for p in outputs if files.path(p).exists()])
        for path in request.reports:
            from translator.report import write_report

            write_report(report, files.path(path))
            files.commit(path)
    return report


def _loaded(
    source: Any, inputs: Any, kwargs: Mapping[str, Any] | None, weights: str | Path | None, seed: int, name: str | None
) -> Any:
    from translator.capture.source import from_module, load_source

    if isinstance(source, str):
        loaded = load_source(source, weights=weights, seed=seed)
        args = _tuple(inputs) if inputs is not None else loaded.example_inputs
        return replace(loaded, example_inputs=args, name=name or loaded.name)
    from torch import nn

    if not isinstance(source, nn.Module):
        raise InputError(f"convert() takes an nn.Module or a SOURCE text, not {type(source).__name__}")
    if inputs is None and not kwargs:
        raise InputError("convert() needs example inputs for an nn.Module", fix="pass a tensor, or a tuple of them")
    return from_module(source, _tuple(inputs) if inputs is not None else (), kwargs or {}, name=name, weights=weights)


def _tuple(inputs: Any) -> tuple[Any, ...]:
    return tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)


def _convert(
    loaded: Any,
    engine: EngineName,
    seed: int,
    progress: Progress,
    *,
    fold: bool = False,
    dynamic_hw: bool = False,
    proof: bool = True,
    loading: float = 0.0,
    remake: Remake | None = None,
) -> Conversion:
    result = _engine(engine)(
        loaded.module,
        loaded.example_inputs,
        example_kwargs=loaded.example_kwargs,
        name=loaded.name,
        on_stage=lambda stage: progress(_STAGES[stage]),
        fold=fold,
        dynamic_hw=dynamic_hw,
    )
    if remake is not None:
        result = remake(result, loaded.module)
    start = time.perf_counter()
    report = _prove(loaded, result, seed, progress) if proof else _unproven(loaded, result)
    timing = {"load": loading, **result.timing, "prove": time.perf_counter() - start}
    report = replace(
        report,
        title=loaded.spec or loaded.name,
        timing={stage: seconds for stage, seconds in timing.items() if seconds},
        seed=seed,
        lost=(*report.lost, *result.lost),
        notes=(*loaded.notes, *result.notes, *report.notes),
        versions=versions(),
    )
    return Conversion(
        model=result.model,
        report=report,
        claims=result.claims,
        plan=result.plan,
        weightmap=_weightmap(loaded, result),
        module=loaded.module,
        example_inputs=loaded.example_inputs,
        example_kwargs=loaded.example_kwargs,
    )


_STAGES = {"capture": "tracing and exporting to ONNX", "plan": "planning layers", "emit": "building the Keras model"}


def _engine(name: EngineName) -> Callable[..., EngineResult]:
    if name == "native":
        from translator.engines import native

        return native.translate
    if name == "onnx2keras":
        from translator.engines import onnx2keras

        return onnx2keras.translate
    raise InputError(f"no engine is called {name!r}", fix="native or onnx2keras")


def _prove(loaded: Any, result: EngineResult, seed: int, progress: Progress) -> Report:
    from translator.verify.proof import ProofOptions, Subject, prove

    def on_progress(stage: str, done: int, total: int) -> None:
        progress(f"proving: {stage} {done}/{total}")

    subject = Subject(keras_model=result.model, claims=result.claims, load_state=result.load_state)
    options = ProofOptions(seed=seed, on_progress=on_progress)
    return prove(loaded.module, loaded.example_inputs, subject, options, loaded.example_kwargs)


def _unproven(loaded: Any, result: EngineResult) -> Report:
    """A report that says nothing was checked: its verdict can't be anything but `different`."""
    from translator.verdict import Balance

    parameters = list(loaded.module.parameters())
    total = sum(p.numel() for p in parameters)
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    keras_total = result.model.count_params()
    return Report(
        title=loaded.name,
        torch_name=loaded.name,
        keras_name=result.model.name,
        balance=Balance(
            torch_total=total,
            torch_trainable=trainable,
            torch_buffers=sum(b.numel() for b in loaded.module.buffers()),
            keras_total=keras_total,
            keras_trainable=sum(_size(w) for w in result.model.trainable_weights),
            keras_non_trainable=sum(_size(w) for w in result.model.non_trainable_weights),
        ),
        checks=(),
        notes=("nothing was proven: proof=False",),
    )


def _size(variable: Any) -> int:
    size = 1
    for dim in variable.shape:
        size *= dim
    return size


def _weightmap(loaded: Any, result: EngineResult) -> Weightmap | None:
    if result.plan is None:
        return None
    import torch

    from translator.plan.weightmap import Weightmap

    tensors = [
        t
        for t in torch.utils._pytree.tree_leaves((loaded.example_inputs, dict(loaded.example_kwargs)))
        if isinstance(t, torch.Tensor)
    ]
    return Weightmap(
        name=loaded.name,
        source=loaded.spec,
        example=tuple((tuple(t.shape), str(t.dtype).removeprefix("torch.")) for t in tensors),
        bindings=result.bindings,
        tensor_shapes=result.plan.tensor_shapes,
        claims=result.claims,
        versions=versions(),
    )


def _from_weightmap(path: Path, weights: Path | None, seed: int, progress: Progress) -> Conversion:
    """A second checkpoint of an architecture that was converted before: its model file, its map, no tracing."""
    from functools import partial

    from translator.capture.source import load_source
    from translator.emit.weights import set_weights
    from translator.engines.result import EngineResult
    from translator.engines.state import state_of
    from translator.keras_source import load_keras
    from translator.plan.weightmap import SUFFIX, load, located

    table = load(path)
    table = replace(table, source=located(table.source, path.parent))
    if weights is None:
        raise InputError(f"{path}: no checkpoint to convert", fix="--weights FILE")
    if not table.source:
        raise InputError(f"{path}: made from an nn.Module in Python", fix="Conversion.load_checkpoint() in Python")
    loaded = load_source(
        table.source,
        weights=weights,
        input_shapes=[shape for shape, _ in table.example],
        input_dtypes=[dtype for _, dtype in table.example],
        seed=seed,
    )
    progress("loading the Keras model")
    model = load_keras(str(path.with_name(path.name.removesuffix(SUFFIX) + ".keras"))).model
    set_weights(model, table.bindings, state_of(loaded.module))
    result = EngineResult(model=model, claims=table.claims, load_state=partial(set_weights, model, table.bindings))
    report = replace(_prove(loaded, result, seed, progress), title=table.source, seed=seed, versions=versions())
    return Conversion(
        model=model, report=report, claims=table.claims, weightmap=table, module=loaded.module,
        example_inputs=loaded.example_inputs, example_kwargs=loaded.example_kwargs,
    )  # fmt: skip


def _write(
    conversion: Conversion, path: Path, files: Outputs, worker: ArtifactWorker | None, progress: Progress
) -> Report:
    """Write the files to their temporary places and have a fresh process judge the model file."""
    from translator.plan import weightmap
    from translator.verify.artifact import judge_file

    if path.suffix != ".keras":
        raise InputError(f"{path}: not a kind of output", fix="end it in .keras")
    progress("writing the Keras file")
    start = time.perf_counter()
    temporary = files.path(path)
    conversion.model.save(temporary)
    if conversion.weightmap is not None:
        beside = weightmap.beside(path)
        table = replace(conversion.weightmap, source=weightmap.portable(conversion.weightmap.source, beside.parent))
        files.path(beside).write_text(weightmap.dump(table), encoding="utf-8")
    written = time.perf_counter()
    progress("loading it in a fresh process")
    artifact = judge_file(
        temporary,
        module=conversion.module,
        model=conversion.model,
        claims=conversion.claims,
        args=conversion.example_inputs,
        kwargs=conversion.example_kwargs,
        worker=worker,
        shown_as=str(path),
    )
    timing = {**conversion.report.timing, "write": written - start, "reload": time.perf_counter() - written}
    return replace(conversion.report, artifact=artifact, timing=timing)
