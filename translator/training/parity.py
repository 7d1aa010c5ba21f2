"""Parity: a PyTorch model and its Keras twin trained side by side, and every way in which they differ named.

`run_parity` is `translator parity`, in a process of its own. `parity` works on objects in this process; it and what
it takes load PyTorch and Keras when they are first asked for.
"""

from __future__ import annotations

from typing import Any

from translator.config import ParityRequest, Progress
from translator.training.isolated import in_own_process
from translator.training.parity_report import ParityReport

_LAZY = {
    "parity": "side_by_side",
    "ParityOptions": "side_by_side",
    "compiled_recipe": "user_recipe",
    "TorchRecipe": "torch_side",
    "Batch": "torch_side",
    "KerasRecipe": "user_recipe",
}


def run_parity(request: ParityRequest, *, on_progress: Progress | None = None) -> ParityReport:
    """What `translator parity` does. A crash of a framework's kernels becomes an InputError that says so."""
    return in_own_process(request, on_progress or (lambda stage: None))


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"translator.training.{_LAZY[name]}"), name)
