"""A plan as the text of a Python file."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from translator.emit.source.fold import fold
from translator.emit.source.functional import functional
from translator.emit.source.render import formatted, imports
from translator.emit.source.top import header, top_of
from translator.plan.calls import Plan


def source_of(plan: Plan, *, style: str = "functional", spec: str = "", where: Path | None = None) -> str:
    """The source of a plan in one of the styles. where: the file it will be, for its project's ruff settings."""
    program = fold(plan)
    body = functional(program, top_of(plan, classes=None))
    head = header(plan, spec=spec, style=style, torch_version=version("torch"))
    return formatted(f"{head}\n{imports(body)}\n\n\n{body}", where)
