"""A written Python file, judged: a fresh process without PyTorch and without us imports it, and computes the same."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from translator import runtime
from translator.verdict import Artifact
from translator.verify import fresh_process, fresh_source
from translator.verify.artifact import LIMIT_OTHER, LIMIT_SAME, computed
from translator.verify.compare import distance


def judge_source(
    path: Path,
    *,
    model: keras.Model,
    weights: Sequence[Path],
    inputs: Sequence[np.ndarray],
    want: Sequence[np.ndarray],
    backend: str = "",
    shown_as: str = "",
) -> Artifact:
    """Judge the file at `path`, whose `build_model()` gave `model` here, by what it computes of `inputs`.

    weights: .weights.h5 or .keras files, each of which a new model of the file's shall load by itself. want: PyTorch's
    outputs, as they lie in Keras. backend: of the fresh process, "" for this one's. `reloaded` holds only if the file
    can be imported with Keras alone, takes every weight from each file bit for bit, and computes what `model` does;
    `max_rel` is its distance from `want`.
    """
    backend = backend or runtime.keras_backend()
    with tempfile.TemporaryDirectory(prefix="translator-") as folder:
        files = {"inputs": f"{folder}/in.npz", "outputs": f"{folder}/out.npz"}
        np.savez(files["inputs"], *inputs)
        answer = _ask({"source": str(path), "weights": [str(w) for w in weights], **files}, backend)
        error, max_rel = str(answer.get("error", "")), None
        if not error:
            with np.load(files["outputs"]) as stored:
                got = [stored[f"arr_{i}"] for i in range(len(stored.files))]
            limit = LIMIT_SAME if backend == runtime.keras_backend() else LIMIT_OTHER
            error = _misloaded(model, answer, weights) or _same(model, got, inputs, limit)
            if [a.shape for a in got] == [b.shape for b in want]:
                max_rel = max((distance(a, b) for a, b in zip(got, want, strict=True)), default=None)
            else:
                error = error or f"outputs of shapes {[a.shape for a in got]}, PyTorch's {[b.shape for b in want]}"
    counts = fresh_process.count(model)
    return Artifact(
        path=shown_as or str(path),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        size=path.stat().st_size,
        reloaded=not error,
        max_rel=max_rel,
        error=error,
        **{key: int(answer.get(key, counts[key])) for key in counts},
    )


def _ask(job: dict[str, Any], backend: str) -> dict[str, Any]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment |= {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", str(Path(fresh_source.__file__))],
        input=json.dumps(job), capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    if done.stdout.strip():
        return json.loads(done.stdout)  # type: ignore[no-any-return]
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return {"error": f"the process ended with status {done.returncode}: {last[:300]}"}


def _misloaded(model: keras.Model, answer: dict[str, Any], weights: Sequence[Path]) -> str:
    """How the weights that the file's model took from each file differ from those of `model`; "" for nothing."""
    mine = [fresh_process.digest(w, keras) for w in model.weights]
    for path in weights:
        loaded = answer["weights"].get(str(path))
        if loaded is None:
            return f"nothing was loaded from {path.name}"
        wrong = abs(len(mine) - len(loaded)) + sum(a != b for a, b in zip(mine, loaded, strict=False))
        if wrong:
            return f"{wrong} of {len(mine)} weights are others after loading {path.name}"
    return ""


def _same(model: keras.Model, got: list[np.ndarray], inputs: Sequence[np.ndarray], limit: float) -> str:
    """What differs between the outputs of the imported model and of the one in this process; "" for nothing."""
    here = computed(model, inputs)
    if [a.shape for a in got] != [b.shape for b in here]:
        return f"outputs of shapes {[a.shape for a in got]}, not {[b.shape for b in here]}"
    worst = max((distance(a, b) for a, b in zip(got, here, strict=True)), default=float("inf"))
    return "" if worst <= limit else f"computes something else when imported (relative {worst:.1e})"
