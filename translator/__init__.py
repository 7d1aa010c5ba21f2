"""PyTorch models to native Keras 3 models, with a proof that both are the same function.

Importing this package loads neither PyTorch nor TensorFlow; it sees to it that both can live in one process whatever
is imported first (`translator.runtime`). Everything public is loaded when it is first used; its types stand in
`__init__.pyi`, so that no module seems to import the whole package.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from translator import runtime

__all__ = [
    "CheckpointError",
    "InputError",
    "InternalError",
    "Report",
    "TranslatorError",
    "UnsupportedError",
    "Verdict",
    "__version__",
    "assert_equivalent",
    "audit",
    "convert",
    "summary",
    "transfer",
    "write_source",
]

_HOMES = {
    "CheckpointError": "translator.errors",
    "InputError": "translator.errors",
    "InternalError": "translator.errors",
    "Report": "translator.verdict",
    "TranslatorError": "translator.errors",
    "UnsupportedError": "translator.errors",
    "Verdict": "translator.verdict",
    "assert_equivalent": "translator.audit.api",
    "convert": "translator.pipeline",
    "summary": "translator.report.summary",
    "transfer": "translator.audit.api",
    "write_source": "translator.source_writer",
}

runtime.guard()


def __getattr__(name: str) -> Any:
    """Load a public name from where it lives. `audit` is both a package and, called, its function."""
    if name == "__version__":
        from importlib.metadata import version

        return version("translator")
    if name == "audit":
        return import_module("translator.audit")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'translator' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
