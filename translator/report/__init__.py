"""Reports as text, JSON, HTML, Markdown and JUnit, all made from the same `Report`.

`write_report` writes one, `stored.read_report` reads a JSON one back. Forms are loaded when they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike, fspath
from pathlib import Path

from translator.errors import InputError
from translator.verdict import Report


def _json(report: Report) -> str:
    from translator.report.json import dumps

    return dumps(report)


def _html(report: Report) -> str:
    from translator.report.html import to_html

    return to_html(report)


def _markdown(report: Report) -> str:
    from translator.report.markdown import to_markdown

    return to_markdown(report)


def _junit(report: Report) -> str:
    from translator.report.junit import to_junit

    return to_junit(report)


FORMS: Mapping[str, Callable[[Report], str]] = {".json": _json, ".html": _html, ".md": _markdown, ".xml": _junit}
"""What each suffix of a report file means."""


def form_of(path: str | PathLike[str]) -> str:
    """The suffix, which says what form a report file has; to be asked before the work. Raises InputError for others."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMS:
        raise InputError(
            f"{fspath(path)}: no report has the suffix {suffix or '(none)'!r}",
            fix="end the name in .json, .html, .md (Markdown) or .xml (JUnit)",
        )
    return suffix


def formatted(report: Report, form: str) -> str:
    """The report as text of one form: a key of `FORMS`."""
    return FORMS[form](report)


def write_report(report: Report, path: str | PathLike[str]) -> None:
    """Write the report in the form that the suffix names; the file appears whole or not at all.

    Raises InputError: a suffix that names no form, a folder that can't be written to.
    """
    from translator.files import atomic

    text = formatted(report, form_of(path))
    with atomic(path) as temporary:
        # A path that is no valid text (a surrogate) is spelled `\udc80`: in JSON that is the character itself.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
