"""PyTorch, triton, TensorFlow, JAX and Keras live in one process with us, whichever was imported first.

Every order runs in a process of its own; all are started at once, a few at a time.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

USE = """
import torchvision, torch
net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()).eval()
torch.export.export(net, (torch.ones(2, 3, 8, 8),))
torch.optim.Adam(net.parameters())
print("alive", keras.backend.backend(), float(keras.ops.sum(keras.ops.ones(3))))
"""
CONVERT = """
import torchvision, torch
net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()
model = translator.convert(net, torch.ones(2, 3, 8, 8), proof=False).model
print("alive", keras.backend.backend(), float(model.count_params() == 112) * 3)
"""
ORDERS = {
    "keras, translator, torchvision, convert": ("import keras", "import translator", CONVERT),
    "torch, keras, translator": ("import torch", "import keras", "import translator", USE),
    "translator, torch, tensorflow": ("import translator", "import torch", "import tensorflow, keras", USE),
    "torchvision, keras, translator": ("import torchvision", "import keras", "import translator", USE),
    "jax, translator, tensorflow": ("backend = jax", "import keras", "import translator", "import tensorflow", USE),
    "torch backend, translator, tensorflow": ("backend = torch", "import translator, keras", "import tensorflow", USE),
    "quiet translator, keras": ("import translator.runtime as r", "r.prepare(quiet=True)", "import keras", USE),
}
TRAP = ("import keras", USE)
PARALLEL = 2


def run(steps: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL")}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    lines = []
    for step in steps:
        if step.startswith("backend = "):
            environment["KERAS_BACKEND"] = step.removeprefix("backend = ")
        else:
            lines.append(step)
    code = "\n".join(lines)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=600)


@pytest.fixture(scope="module")
def runs():
    with ThreadPoolExecutor(PARALLEL) as pool:
        started = {name: pool.submit(run, steps) for name, steps in {**ORDERS, "trap": TRAP}.items()}
        yield started
        for future in started.values():
            future.cancel()


@pytest.mark.parametrize("order", ORDERS)
def test_an_order_works(runs: dict[str, Future], order: str) -> None:
    done = runs[order].result()
    assert done.returncode == 0, done.stderr[-2000:]
    backend = next((s.split()[-1] for s in ORDERS[order] if s.startswith("backend")), "tensorflow")
    assert done.stdout.split() == ["alive", backend, "3.0"]


def test_the_quiet_order_prints_nothing_else(runs: dict[str, Future]) -> None:
    assert runs["quiet translator, keras"].result().stderr == ""


def test_without_us_the_process_aborts(runs: dict[str, Future]) -> None:
    """If this fails, the frameworks get along by themselves, and translator.runtime can go."""
    done = runs["trap"].result()
    assert done.returncode == -6
    assert "CommandLine" in done.stderr


def test_importing_us_loads_no_framework() -> None:
    code = """
import sys, translator, translator.cli, translator.errors
assert not {"torch", "tensorflow", "keras", "jax", "numpy", "rich", "triton", "onnx"} & set(sys.modules), sys.modules
assert set(translator.__all__) <= set(dir(translator))
print(translator.__version__, translator.Verdict.EQUAL, translator.InputError.exit_status)
try:
    translator.nonsense
except AttributeError as error:
    print(error)
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["0.1.0 equal 2", "module 'translator' has no attribute 'nonsense'"]


def test_every_public_name_has_its_types() -> None:
    import translator

    stub = Path(translator.__file__).with_suffix(".pyi").read_text()
    typed = set(re.findall(r" as (\w+)$", stub, re.MULTILINE)) | set(re.findall(r"^(\w+): ", stub, re.MULTILINE))
    assert typed == set(translator.__all__)
    for name in set(translator.__all__) - {"write_source"}:
        assert getattr(translator, name) is not None
    assert callable(translator.audit)
