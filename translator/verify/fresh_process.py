"""Run as a program: load Keras files in a process where neither PyTorch nor this package can be imported.

One job per line of standard input, one answer per line of standard output, both JSON. It imports nothing of ours, so
that a file which needs us can't hide it.
"""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from typing import Any, TextIO

BLOCKED = ("torch", "torchvision", "translator", "timm", "onnx", "onnx2keras")
TORCH_NEEDS = ("torch", "onnx")
"""What Keras' torch backend imports itself."""


class Blocker(MetaPathFinder):
    """Refuses the packages that a translated file must not need."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Raise for a blocked package, leave every other to the next finder."""
        if name.partition(".")[0] in self._names:
            raise ImportError(f"{name} is blocked here: a translated file must load without it")


def main() -> None:
    """Answer jobs until standard input ends."""
    answers, keras = prepare()
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        try:
            answer = judge(json.loads(line), keras)
        except Exception as error:  # noqa: BLE001 whatever goes wrong here is the finding, and is told
            first = innermost(error)
            answer = {"error": f"{type(first).__name__}: {' '.join(str(first).split())[:300]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        gc.collect()  # layers and nodes hold each other: without it, the next file's weights lie beside this one's


def prepare() -> tuple[TextIO, Any]:
    """Block what a file must not need; the stream of answers, and Keras.

    Keras' torch backend keeps no activations: a call of a model is no inference to it by itself.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    blocked = tuple(name for name in BLOCKED if backend != "torch" or name not in TORCH_NEEDS)
    sys.meta_path.insert(0, Blocker(blocked))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the frameworks print must not look like an answer
    import keras

    if backend == "torch":
        import torch

        torch.set_grad_enabled(False)
    return answers, keras


def judge(job: dict[str, Any], keras: Any) -> dict[str, Any]:
    """Load job["model"] with safe mode on; for each of job["runs"] feed it "inputs" (.npz by input name) and save
    "outputs" (.npz).

    job["classes"]: Python files run before, which register classes that the model was asked to have.
    """
    import numpy as np

    for number, path in enumerate(job.get("classes", ())):
        spec = importlib.util.spec_from_file_location(f"classes_{number}", path)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
    model = keras.saving.load_model(job["model"], compile=False, safe_mode=True)
    for run in job["runs"]:
        with np.load(run["inputs"]) as stored:
            inputs = [stored[name] for name in job["names"]]
        results = model(inputs if len(inputs) > 1 else inputs[0], training=False)
        arrays = [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(results)]
        np.savez(run["outputs"], *arrays)
    return {"weights": [digest(w, keras) for w in model.weights], **count(model)}


def innermost(error: BaseException) -> BaseException:
    """The error that started it: Keras wraps what a layer's own loading said."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return error


def digest(variable: Any, keras: Any) -> str:
    """A hash of one variable's bits."""
    return hashlib.sha256(keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(variable)).tobytes()).hexdigest()


def count(model: Any) -> dict[str, int]:
    """Lambda layers, custom layers (any class that isn't Keras' own) and transposes, nested models included."""
    found = {"lambda_layers": 0, "custom_layers": 0, "transposes": 0}
    for operation in every_operation(model):
        kind = type(operation)
        found["lambda_layers"] += kind.__name__ == "Lambda"
        found["custom_layers"] += kind.__module__.partition(".")[0] != "keras"
        found["transposes"] += kind.__name__ in ("Permute", "Transpose")
    return found


def every_operation(model: Any) -> Iterator[Any]:
    """Every layer and operation, depth first, each once."""
    seen: set[int] = set()
    stack = [model]
    while stack:
        here = stack.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        if here is not model:
            yield here
        stack += getattr(here, "operations", None) or getattr(here, "layers", None) or []


if __name__ == "__main__":
    main()
