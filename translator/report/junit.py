"""The report as JUnit XML, which CI servers show: one test case for each check, number, difference and layer.

A server goes red exactly where the verdict is `different`: every reason for that is a failure of one case.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass

from translator.report import words
from translator.verdict import Check, Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test case; `failure` in words where it failed, `output` for the reader of a case that passed."""

    name: str
    failure: words.Failure | None = None
    output: str = ""


def to_junit(report: Report) -> str:
    """The report as an XML document that declares its encoding."""
    suites = [(name, list(cases)) for name, cases in _suites(report)]
    root = ET.Element("testsuites", _attributes("translator", [case for _, cases in suites for case in cases]))
    root.set("time", f"{dict(words.timing(report))['total']:.3f}")
    for name, cases in suites:
        if not cases:
            continue
        suite = ET.SubElement(root, "testsuite", _attributes(name, cases))
        if name == "checks":
            _properties(suite, report)
        for case in cases:
            _add(suite, name, case)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suites(report: Report) -> Iterable[tuple[str, Iterable[Case]]]:
    finder = words.Layers(report.layers)
    nothing = words.Failure(part="checks", name="checks", words="nothing was checked")
    yield (
        "checks",
        [
            Case(
                name=check.name,
                failure=words.check_failure(check),
                output=f"{check.subjects:,} checked; {check.detail}",
            )
            for check in report.checks
        ]
        or [Case(name="checks", failure=nothing)],
    )
    yield "parameters", [_balance(report)]
    yield (
        "differences",
        [
            Case(
                name=f"{difference.kind}: {finder.subject(difference.layers)}",
                failure=words.difference_failure(difference, finder),
                output="\n".join(filter(None, [*words.difference_words(difference), ", ".join(difference.layers)])),
            )
            for difference in report.differences
        ],
    )
    yield (
        "numerics",
        [
            Case(
                name=dtype,
                failure=words.numerics_failure(dtype, n),
                output=f"max abs {words.error(n.max_abs)}, relative {words.error(n.max_rel)}",
            )
            for dtype, n in report.numerics.items()
        ],
    )
    if report.artifact is not None:
        output = f"{report.artifact.path}, sha256 {report.artifact.sha256}"
        yield "artifact", [Case(name="reloads", failure=words.artifact_failure(report.artifact), output=output)]
    yield "layers", _layers(report)


def _looked(check: Check) -> str:
    subjects = f"{check.subjects:,} checked"
    return "; ".join(filter(None, [subjects, check.detail if check.ok else ""]))


def _balance(report: Report) -> Case:
    balance = report.balance
    lines = [f"{words.count(balance.torch_total)} PyTorch parameters"]
    lines += [f"{gap.count:+,} {gap.reason} ({words.amount(len(gap.layers), 'layer')})" for gap in balance.gaps]
    lines += [f"{words.count(balance.keras_total)} Keras parameters", f"{balance.unexplained:,} unexplained"]
    return Case(name="balance", failure=words.balance_failure(balance), output="\n".join(lines))


def _layers(report: Report) -> Iterable[Case]:
    calls: dict[str, int] = {}
    for row in sorted(report.layers, key=lambda r: r.depth):
        name = words.pair(row.torch, row.keras)
        calls[name] = calls.get(name, 0) + 1
        output = (
            f"alone: float32 {words.error(row.error_f32)}, float64 {words.error(row.error_f64)}; "
            f"in the model: float32 {words.error(row.chain_f32)}, float64 {words.error(row.chain_f64)}"
        )
        label = name if calls[name] == 1 else f"{name} (call {calls[name]})"
        yield Case(name=label, failure=words.row_failure(row), output=output)


def _attributes(name: str, cases: list[Case]) -> dict[str, str]:
    failures = sum(case.failure is not None for case in cases)
    return {"name": name, "tests": str(len(cases)), "failures": str(failures), "errors": "0", "skipped": "0"}


def _properties(suite: ET.Element, report: Report) -> None:
    facts = {
        "title": report.title,
        "torch_name": report.torch_name,
        "keras_name": report.keras_name,
        "verdict": report.verdict.value,
        "first_wrong": report.first_wrong,
        "seed": str(report.seed),
        **{f"version of {name}": version for name, version in report.versions.items()},
    }
    properties = ET.SubElement(suite, "properties")
    for name, value in facts.items():
        if value:
            ET.SubElement(properties, "property", {"name": words.clean(name), "value": words.clean(value)})


def _add(suite: ET.Element, part: str, case: Case) -> None:
    attributes = {"classname": f"translator.{part}", "name": words.clean(case.name), "time": "0"}
    found = ET.SubElement(suite, "testcase", attributes)
    if case.failure is not None:
        message = words.clean(case.failure.words)
        failure = ET.SubElement(found, "failure", {"type": part, "message": message})
        failure.text = "\n".join([message, *_lines(case.output)])
    elif case.output:
        ET.SubElement(found, "system-out").text = "\n".join(_lines(case.output))


def _lines(text: str) -> list[str]:
    return [words.clean(line) for line in text.splitlines()]
