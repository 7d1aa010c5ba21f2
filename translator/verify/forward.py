"""Errors that a module's own forward raises while it is judged, told from faults of the judge's."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from translator.errors import InputError, TranslatorError, Where
from translator.user_code import describe, user_line

_CALLS = str(Path("torch", "nn", "modules", "module.py"))
"""PyTorch's file that calls a forward and the hooks around it."""

_WITHIN_CALLS = str(Path(__file__).with_name("precision.py"))
"""Stands between the forward and PyTorch's functions, which raise through it."""

_JUDGE = str(Path(__file__).parent)


class ForwardError(RuntimeError):
    """The forward raised an error of any kind: where a module may refuse an input, this is a refusal."""


@contextmanager
def forward_called() -> Iterator[None]:
    """What a module's forward raises becomes a ForwardError; what a hook of the judge's raises stays."""
    try:
        yield
    except TranslatorError:
        raise
    except Exception as error:
        if _by_hook(error):
            raise
        raise ForwardError(describe(error)) from error


def _by_hook(error: Exception) -> bool:
    """Whether code of the judge's stands behind the module's call in the traceback."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    called = next((place for place, file in enumerate(files) if file.endswith(_CALLS)), len(files))
    return any(file.startswith(_JUDGE) and file != _WITHIN_CALLS for file in files[called:])


@contextmanager
def raised_in_the_proof(module: nn.Module) -> Iterator[None]:
    """A forward that runs on its example and fails in the proof is the user's to mend: what, where, and what to do."""
    try:
        yield
    except ForwardError as error:
        cause = error.__cause__ or error
        raise InputError(
            f"{type(module).__name__} runs on its example, but raised in the proof: {describe(cause)}",
            where=Where(source=user_line(cause)),
            fix="the proof runs it in float64, on other batches and on other numbers: let the forward take these",
        ) from error
