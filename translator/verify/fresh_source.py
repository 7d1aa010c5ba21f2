"""Run as a program: import one written Python file where neither PyTorch nor this package can be imported.

The job is a JSON object on standard input, the answer one on standard output. Like `fresh_process`, whose blocking and
counting it uses, it imports nothing of ours as a package.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


def main() -> None:
    """Answer one job."""
    fresh = load(Path(__file__).with_name("fresh_process.py"), "fresh_process")
    answers, keras = fresh.prepare()
    try:
        answer = judge(json.load(sys.stdin), keras, fresh)
    except Exception as error:  # noqa: BLE001 whatever goes wrong here is the finding, and is told
        first = fresh.innermost(error)
        answer = {"error": f"{type(first).__name__}: {' '.join(str(first).split())[:300]}"}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def judge(job: dict[str, Any], keras: Any, fresh: ModuleType) -> dict[str, Any]:
    """Build the model of job["source"] for each file of job["weights"], load that, feed the last job["inputs"] (.npz),
    and save job["outputs"]."""
    import numpy as np

    module = load(Path(job["source"]), "written")
    loaded = {}
    for path in job["weights"]:
        model = module.build_model()
        model.load_weights(path)
        loaded[path] = [fresh.digest(w, keras) for w in model.weights]
    with np.load(job["inputs"]) as stored:
        inputs = [stored[f"arr_{k}"] for k in range(len(stored.files))]
    results = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    np.savez(job["outputs"], *(keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(results)))
    return {"weights": loaded, **fresh.count(model)}


def load(path: Path, name: str) -> ModuleType:
    """Import a file as a module of this name."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
