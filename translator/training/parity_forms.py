"""A parity report in a file: JSON, HTML, Markdown or JUnit XML, by the suffix."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from pathlib import Path

from translator.report import form_of, words
from translator.training.parity_report import ParityReport, dumps
from translator.training.parity_text import render, sentence


def write_parity(report: ParityReport, path: str | Path) -> None:
    """Write the report in the form that the suffix names; the file appears whole or not at all."""
    from translator.files import atomic

    text = FORMS[form_of(path)](report)
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def _html(report: ParityReport) -> str:
    from translator.training.parity_html import to_html

    return to_html(report)


def to_markdown(report: ParityReport) -> str:
    """The terminal's text in a fenced block under a heading: for a pull request."""
    from rich.console import Console

    target = io.StringIO()
    render(report, Console(file=target, width=110, color_system=None), layers=False)
    return f"## {report.verdict.upper()}: {sentence(report)}\n\n```text\n{target.getvalue().rstrip()}\n```\n"


def to_junit(report: ParityReport) -> str:
    """One test case for each check, difference and tensor; a server goes red exactly where the verdict is different."""
    cases: list[tuple[str, str, str]] = []
    for check in report.checks:
        failure = words.check_failure(check)
        cases.append(("checks", check.name, "" if failure is None else failure.words))
    for d in report.differences:
        wrong = "" if d.allowed or d.effect == "nothing" else f"{d.torch} | {d.keras}; {d.fix}"
        cases.append(("differences", f"{d.kind}: {words.shorten(d.layers)}", wrong))
    for row in report.tensors:
        wrong = (
            "" if row.ok(report.limit) else f"gradient {words.error(row.gradient)}, weight {words.error(row.weight)}"
        )
        cases.append(("tensors", f"{row.torch} ↔ {row.keras or 'nothing'}", row.problem or wrong))
    if not report.checks:
        cases.append(("checks", "checks", "nothing was checked"))
    root = ET.Element("testsuites", name="parity", tests=str(len(cases)))
    for suite in dict.fromkeys(suite for suite, _, _ in cases):
        own = [(name, wrong) for kind, name, wrong in cases if kind == suite]
        failed = sum(bool(wrong) for _, wrong in own)
        element = ET.SubElement(root, "testsuite", name=suite, tests=str(len(own)), failures=str(failed))
        for name, wrong in own:
            case = ET.SubElement(element, "testcase", classname=f"parity.{suite}", name=words.clean(name))
            if wrong:
                ET.SubElement(case, "failure", message=words.clean(wrong))
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


FORMS: Mapping[str, Callable[[ParityReport], str]] = {
    ".json": dumps,
    ".html": _html,
    ".md": to_markdown,
    ".xml": to_junit,
}
"""What each suffix of a report file means."""
