"""The audit and the transfer of models named on the command line: load both sides, do it, write what comes out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch

from translator.audit.api import AuditOptions, Transfer, audit, subject_of_transfer, transfer
from translator.audit.values import choose
from translator.capture.source import LoadedSource, load, needs_pytorch
from translator.config import AuditRequest, SourceRequest, TransferRequest
from translator.errors import InputError
from translator.keras_source import LoadedKeras, load_keras
from translator.types import Shape
from translator.verdict import Artifact, Report
from translator.verify.artifact import judge_file
from translator.verify.proof import ProofOptions

Progress = Callable[[str], None]


def audit_files(request: AuditRequest, *, on_progress: Progress | None = None) -> Report:
    """`translator audit`: load both models and compare them. Raises InputError for what can't be loaded or compared."""
    say = on_progress or _silent
    started = time.perf_counter()
    loaded, port = load_both(request.source, request.keras, say)
    loading = time.perf_counter() - started
    say("aligning the two models")
    report = audit(
        loaded.module,
        port.model,
        loaded.example_inputs,
        example_kwargs=loaded.example_kwargs,
        baseline=request.baseline,
        options=AuditOptions(proof=_options(request.source.seed, say)),
    )
    return _titled(report, loaded, port, loading)


def transfer_files(request: TransferRequest, *, on_progress: Progress | None = None) -> Report:
    """`translator transfer`: move the weights, prove the result, write it to `request.output`.

    The output is written whatever the proof says; whether it is kept is the caller's to decide.
    """
    say = on_progress or _silent
    started = time.perf_counter()
    loaded, port = load_both(request.source, request.keras, say)
    loading = time.perf_counter() - started
    say("moving the weights")
    done = transfer(
        loaded.module if request.to_keras else port.model,
        port.model if request.to_keras else loaded.module,
        loaded.example_inputs,
        example_kwargs=loaded.example_kwargs,
        partial=request.partial,
        fold_epsilon=request.fold_epsilon,
        proof=_options(request.source.seed, say),
    )
    report = _titled(done.report, loaded, port, loading)
    say("writing the output")
    if not request.to_keras:
        write_state(done.state or {}, request.output, loaded.module.state_dict())
        return report
    port.model.save(request.output)
    say("loading it in a fresh process")
    return replace(report, **_judged_file(request, loaded, port, done, report))


def load_both(source: SourceRequest, spec: str, say: Progress) -> tuple[LoadedSource, LoadedKeras]:
    """Both models. Where the example's shape isn't given and PyTorch's own does not fit, Keras' input says it."""
    needs_pytorch(source, "an ONNX file has no PyTorch layers to align with a Keras model's")
    say("loading the Keras model")
    port = load_keras(spec, seed=source.seed)
    derived = _shapes_of(port.model) if not source.input_shapes else ()
    say("loading the PyTorch model")
    try:
        loaded = load(source)
    except InputError:
        if not derived:
            raise
        try:
            return load(replace(source, input_shapes=derived)), port
        except InputError:
            pass  # the first error says what the user can mend
        raise
    if derived and not _fits(loaded, port.model):
        # A model that doesn't take Keras' sizes is another model: the audit says so, on PyTorch's own.
        with suppress(InputError):
            loaded = load(replace(source, input_shapes=derived))
    return loaded, port


def _shapes_of(model: keras.Model) -> tuple[tuple[int, ...], ...]:
    """PyTorch's shapes of the Keras model's inputs, images with their channels in front; () where a size is open."""
    found = []
    for tensor in model.inputs or ():
        batch, *rest = tensor.shape
        if any(n is None for n in rest) or batch not in (None, 1, 2):
            return ()
        channels_first = [rest[-1], *rest[:-1]] if len(rest) > 2 else rest
        found.append((batch or 2, *channels_first))
    return tuple(found)


def _fits(loaded: LoadedSource, model: keras.Model) -> bool:
    given = [tuple(t.shape) for t in torch.utils._pytree.tree_leaves(loaded.example_inputs) if hasattr(t, "shape")]
    wanted: Sequence[Shape] = [tuple(t.shape) for t in model.inputs or ()]
    if len(given) != len(wanted):
        return True  # not a matter of sizes
    return all(_takes(before, after) for before, after in zip(given, wanted, strict=True))


def _takes(before: Shape, after: Shape) -> bool:
    layout = choose(before, after, None, None)
    if layout is None or layout.view is not None:
        return False
    return all(b is None or a == b for a, b in zip(layout.keras_shape(before), after, strict=True))


def _options(seed: int, say: Progress) -> ProofOptions:
    return ProofOptions(seed=seed, on_progress=lambda stage, done, total: say(f"comparing: {stage} {done}/{total}"))


def _titled(report: Report, loaded: LoadedSource, port: LoadedKeras, loading: float) -> Report:
    from translator.runtime import versions

    return replace(
        report,
        title=f"{loaded.spec} · {port.spec}",
        torch_name=loaded.name,
        keras_name=port.name,
        notes=(*loaded.notes, *port.notes, *report.notes),
        timing={"load": loading, **report.timing},
        versions=versions(),
    )


def _judged_file(
    request: TransferRequest, loaded: LoadedSource, port: LoadedKeras, done: Transfer, report: Report
) -> Mapping[str, Any]:
    """The artifact for the report; a file that needs code of somebody's to load is not asked to load without it."""
    foreign = sorted({c for c in map(_home, _layers(port.model)) if c not in ("keras", "tf_keras")})
    if foreign:
        return {"notes": (*report.notes, f"the file needs {', '.join(foreign)} to load: it was not loaded again")}
    module, claims = subject_of_transfer(loaded.module, port.model, loaded.example_inputs, loaded.example_kwargs)
    artifact: Artifact = judge_file(
        request.output,
        module=module,
        model=port.model,
        claims=claims,
        args=loaded.example_inputs,
        kwargs=loaded.example_kwargs,
        shown_as=str(request.output),
    )
    return {"artifact": artifact}


def _layers(model: keras.Model) -> list[Any]:
    return list(model._flatten_layers(include_self=True, recursive=True))


def _home(layer: Any) -> str:
    return str(type(layer).__module__).split(".")[0]


def write_state(state: Mapping[str, np.ndarray], path: Path, like: Mapping[str, torch.Tensor]) -> None:
    """Write a state dict as .safetensors, or with torch.save; each tensor of the dtype it has in `like`."""
    tensors = {name: torch.from_numpy(np.array(value)).to(like[name].dtype) for name, value in state.items()}
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({name: t.contiguous() for name, t in tensors.items()}, str(path))
    else:
        torch.save(tensors, path)


def _silent(_: str) -> None:
    """Progress that nobody watches."""
