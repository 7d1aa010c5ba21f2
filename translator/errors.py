"""Errors that a user meets, each with what, where and what to do.

Three kinds of failure exist, and only two of them are exceptions:

* the input can't be used or isn't supported: `InputError` and its children (exit status 2);
* a bug of ours: `InternalError` (exit status 3);
* a failed check: *data* in the report (exit status 1), never an exception.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """A place in the user's model: the module, the line of source that made the node, and the node."""

    module: str = ""
    source: str = ""
    node: str = ""

    def lines(self) -> list[str]:
        """The printable lines of this place, `label: value`, empty ones left out."""
        rows = (("module", self.module), ("source", self.source), ("node", self.node))
        return [f"  {label + ':':<8} {value}" for label, value in rows if value]


def first_line(error: object) -> str:
    """The first line of an error's text that says anything; its class where none does."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class TranslatorError(Exception):
    """Base of all errors of this package; `str()` is the whole message a user reads."""

    exit_status = 3

    def __init__(self, what: str, *, where: Where | None = None, fix: str = "") -> None:
        self.what, self.where, self.fix = what, where or Where(), fix
        super().__init__("\n".join([what, *self.where.lines(), *([f"  {'fix:':<8} {fix}"] if fix else [])]))


class InputError(TranslatorError):
    """The user can mend it: a file, a flag, a checkpoint, a model that raises."""

    exit_status = 2


class CheckpointError(InputError):
    """A checkpoint can't be read, needs code to load, or doesn't fit the model."""


class UnsupportedError(InputError):
    """The translator refuses a model by name: `reason` is a stable code for tables and tests.

    Codes: op, dtype, attribute, control-flow, sequence-type, training-op, data-dependent-shape, rank, layout, export,
    style, constant.
    """

    def __init__(self, what: str, *, reason: str = "op", where: Where | None = None, fix: str = "") -> None:
        self.reason = reason
        super().__init__(what, where=where, fix=fix)


class InternalError(TranslatorError):
    """A state that our own code should have made impossible: a bug of ours."""
