"""The written file, judged: a fresh process without PyTorch and without us loads it and computes the same."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import keras
import numpy as np
import torch
from torch import nn

from translator import runtime
from translator.claims import Claims
from translator.verdict import Artifact
from translator.verify import fresh_process
from translator.verify.claim_index import ROOT, ClaimIndex, Target, index_claims
from translator.verify.compare import distance, lay_out
from translator.verify.inputs import with_rows
from translator.verify.keras_graph import graph_of
from translator.verify.keras_replay import to_numpy
from translator.verify.probes import outputs_if_taken
from translator.verify.torch_record import evaluating, outputs_of, tensors_in

LIMIT_SAME = 1e-5
"""Relative error that passes between the model in this process and the reloaded one, in float32 on one backend."""

LIMIT_OTHER = 1e-4
"""The same where the file is loaded on another backend, whose kernels sum in another order."""


BATCHES = (1, 7)
"""Numbers of rows that the file is given beside those of the example; on JAX, where it isn't the proof's own backend,
only the example's, since it compiles anew for every shape."""


_SPREAD = 10.0
"""How many times as far from PyTorch as at the example float32 may be at another number of the same rows."""


class ArtifactWorker:
    """A process that imports Keras while the proof runs here, then judges files. Use as a context manager."""

    def __init__(self, backend: str | None = None) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        self.backend = backend or runtime.keras_backend()
        environment |= {"KERAS_BACKEND": self.backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        program = Path(fresh_process.__file__)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 it lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-W", "ignore", str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
            text=True,
        )
        self._ready = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._process.terminate()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._stderr.close()

    @property
    def ended(self) -> int | None:
        """The exit status of a process that has ended, by itself or from outside, such as -9 for lack of memory."""
        return self._process.poll()

    def ask(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """One job, one answer; {"error": …} where the process died."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            return {"error": "the process has no pipes"}
        try:
            if not self._ready:
                self._ready = stdout.readline() == "ready\n"
            stdin.write(json.dumps(job) + "\n")
            stdin.flush()
            line = stdout.readline()
        except OSError:
            line = ""
        return json.loads(line) if line else {"error": self._last_words()}

    def _last_words(self) -> str:
        status = self._process.wait(timeout=30)
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f"the process ended with status {status}: {lines[-1] if lines else 'no message'}"


def judge_file(
    path: Path,
    *,
    module: nn.Module,
    model: keras.Model,
    claims: Claims,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    worker: ArtifactWorker | None = None,
    batches: Sequence[int] | None = None,
    shown_as: str = "",
) -> Artifact:
    """Judge the file at `path`, which was saved from `model`, against both models.

    `reloaded` holds only if the file loads with safe mode on, every weight is there bit for bit, and its outputs are
    those of `model`; `max_rel` is their distance from PyTorch's, in float32. batches: numbers of rows that the file is
    given beside the example's; if None, BATCHES, but none on another backend's JAX. shown_as: the path in the report.
    """
    with contextlib.ExitStack() as stack:
        worker = worker or stack.enter_context(ArtifactWorker())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="translator-")))
        names = [c.keras.operation for c in claims.inputs]
        index = index_claims(claims, graph_of(model))
        own = worker.backend == runtime.keras_backend()
        if batches is None:
            batches = BATCHES if own or worker.backend != "jax" else ()
        runs = _batches(module, index, args, dict(kwargs or {}), batches)
        order = _order(model, names)
        job: dict[str, Any] = {
            "model": str(path), "names": order, "classes": _registered(model),
            "runs": [{k: str(folder / f"{k}{n}.npz") for k in ("inputs", "outputs")} for n in range(len(runs))],
        }  # fmt: skip
        for files, run in zip(job["runs"], runs, strict=True):
            given: dict[str, Any] = dict(zip(names, run.inputs, strict=False))
            np.savez(files["inputs"], **given)
        answer = worker.ask(job)
        error = str(answer.get("error", ""))
        distances: list[float] = []
        limit = LIMIT_SAME if own else LIMIT_OTHER
        for files, run in zip(job["runs"], runs, strict=True):
            if error:
                break
            with np.load(files["outputs"]) as stored:
                got = [stored[f"arr_{i}"] for i in range(len(stored.files))]
            by_name = dict(zip(names, run.inputs, strict=False))
            found = _same_model(model, answer, got, [by_name[n] for n in order], limit)
            here = max(_against_torch(index, run.outputs, got), default=None)
            if here is not None:
                distances.append(here)
                if not found and here > max(LIMIT_OTHER, _SPREAD * distances[0]):
                    first = f"{distances[0]:.1e} at the example"
                    found = f"computes something else than PyTorch (relative {here:.1e}, {first})"
            error = f"{run.label}{found}" if found else ""
        max_rel = max(distances, default=None)
    counts = (
        {k: int(answer[k]) for k in ("lambda_layers", "custom_layers", "transposes")}
        if "weights" in answer
        else fresh_process.count(model)
    )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Artifact(
        path=shown_as or str(path),
        sha256=digest,
        size=path.stat().st_size,
        reloaded=not error,
        max_rel=max_rel,
        error=error,
        **counts,
    )


def _registered(model: keras.Model) -> list[str]:
    """The files of the registered classes that the model has on request; each needs Keras alone.

    Any other class stays unknown to the fresh process, and the file is found not to load.
    """
    kinds = {type(operation) for operation in fresh_process.every_operation(model)}
    return sorted({inspect.getfile(kind) for kind in kinds if kind.__module__.startswith(_REGISTERED)})


_REGISTERED = "translator.training.registered."


def _order(model: keras.Model, names: Sequence[str]) -> list[str]:
    """The names of the model's inputs in the model's own order."""
    own = [t._keras_history.operation.name for t in model.inputs]
    return own if set(own) == set(names) else list(names)


def _same_model(
    model: keras.Model, answer: Mapping[str, Any], got: list[np.ndarray], inputs: list[np.ndarray], limit: float
) -> str:
    """What differs between the reloaded model and the one in this process; "" for nothing."""
    mine = [fresh_process.digest(w, keras) for w in model.weights]
    wrong = sum(a != b for a, b in zip(mine, answer["weights"], strict=False)) + abs(len(mine) - len(answer["weights"]))
    if wrong:
        return f"{wrong} of {len(mine)} weights are others after loading"
    want = computed(model, inputs)
    if [a.shape for a in got] != [b.shape for b in want]:
        return f"outputs of shapes {[a.shape for a in got]}, not {[b.shape for b in want]}"
    worst = max((distance(a, b) for a, b in zip(got, want, strict=True)), default=np.inf)
    return "" if worst <= limit else f"computes something else after loading (relative {worst:.1e})"


def computed(model: keras.Model, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a model in this process, in inference."""
    with torch.no_grad():  # Keras' torch backend would keep every activation
        results = model(list(inputs) if len(inputs) > 1 else inputs[0], training=False)
    return [to_numpy(y) for y in keras.tree.flatten(results)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """What both sides are given in one run, Keras' inputs laid out for it, and what PyTorch makes of it."""

    label: str
    inputs: list[np.ndarray]
    outputs: list[torch.Tensor]


def _batches(
    module: nn.Module, index: ClaimIndex, args: tuple[Any, ...], kwargs: dict[str, Any], more: Sequence[int]
) -> list[_Batch]:
    """The example, and `more` numbers of rows of it, where Keras leaves the batch open and PyTorch takes them.

    A batch of one that PyTorch squeezes away is named by the proof.
    """
    with evaluating(module):
        made = [("", (args, kwargs), outputs_of(module, args, kwargs))]
    for rows in more:
        given = with_rows(args, kwargs, index, rows)
        outputs = outputs_if_taken(module, *given) if given is not None else None
        if given is not None and outputs is not None and _ranks(outputs) == _ranks(made[0][2]):
            made.append((f"at batch {rows}: ", given, outputs))
    return [
        _Batch(
            label=label,
            inputs=[_laid_out(t, target, index) for t, target in zip(tensors_in(given), index.inputs, strict=False)],
            outputs=outputs,
        )
        for label, given, outputs in made
    ]


def _ranks(tensors: Sequence[torch.Tensor]) -> list[int]:
    return [tensor.ndim for tensor in tensors]


def _against_torch(index: ClaimIndex, results: list[torch.Tensor], got: list[np.ndarray]) -> list[float]:
    """The relative errors of the reloaded outputs; infinite where one has another shape."""
    distances = []
    for tensor, target in zip(results, index.twins[ROOT].outputs, strict=False):
        if target is not None and target.value in index.graph.outputs:
            want, have = _laid_out(tensor, target, index), got[index.graph.outputs.index(target.value)]
            distances.append(distance(have, want) if have.shape == want.shape else float("inf"))
    return distances


def _laid_out(tensor: torch.Tensor, target: Target | None, index: ClaimIndex) -> np.ndarray:
    if target is None:
        return tensor.detach().cpu().numpy()
    return lay_out(tensor, target.layout, index.graph.shapes[target.value])
