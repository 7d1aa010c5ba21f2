"""The report as one HTML page that needs nothing else: no network, no other file, and no script to be read.

The page's own script only filters, sorts and points at layers. A content security policy lets no other script run and
nothing be fetched, whatever a layer is called; the template escapes all text besides.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from translator.report import charts, words
from translator.verdict import Artifact, Difference, LayerRow, Report, Verdict

if TYPE_CHECKING:
    from jinja2 import Environment

MARKS = {Verdict.EQUAL: "=", Verdict.EXPLAINED: "≈", Verdict.DIFFERENT: "≠"}


def to_html(report: Report) -> str:
    """The whole page."""
    environment = _environment()
    script = environment.get_template("page.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rows = sorted(report.layers, key=lambda row: row.depth)
    limit = report.numerics["float64"].limit if "float64" in report.numerics else None
    finder = words.Layers(report.layers)
    return environment.get_template("page.html.j2").render(
        report=report,
        words=words,
        page_title=f"{report.verdict.upper()}: {report.torch_name or 'PyTorch'} and {report.keras_name or 'Keras'}",
        mark=MARKS[report.verdict],
        sentence=words.sentence(report),
        script=script,
        digest=digest,
        style=environment.get_template("page.css").render(),
        waterfalls=_waterfalls(report),
        axis_start=charts.axis_start(report.balance),
        errors=[charts.errors(rows, limit, width) for width in (charts.WIDE, charts.NARROW)],
        series=charts.SERIES,
        groups=[
            (words.EFFECTS[effect], effect.value, [Card.of(d, finder) for d in group])
            for effect, group in words.by_effect(report.differences)
        ],
        rows=[Line.of(i, row) for i, row in enumerate(rows)],
        wrong=sum(not row.ok for row in rows),
        bare=sum(not (row.torch and row.keras) for row in rows),
        weighted=sum(bool(row.params_torch or row.params_keras) for row in rows),
        file=artifact_facts(report.artifact) if report.artifact is not None else [],
        timing=words.timing(report) if report.timing else [],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One difference as the page shows it."""

    difference: Difference
    subject: str
    layers: tuple[str, ...]

    @staticmethod
    def of(difference: Difference, finder: words.Layers) -> Card:
        """The difference with its layers in words."""
        subject = words.clean(finder.subject(difference.layers))
        return Card(difference=difference, subject=subject, layers=tuple(map(words.clean, difference.layers)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One layer as the page shows it: its place, its row, and its four errors as words."""

    index: int
    row: LayerRow
    errors: tuple[str, str, str, str]
    tags: str

    @staticmethod
    def of(index: int, row: LayerRow) -> Line:
        """The row with its errors in words and what the page's filters look for."""
        values = (row.error_f32, row.error_f64, row.chain_f32, row.chain_f64)
        tags = {
            "wrong": not row.ok,
            "weighted": bool(row.params_torch or row.params_keras),
            "bare": not (row.torch and row.keras),
        }
        return Line(
            index=index,
            row=row,
            errors=(words.error(values[0]), words.error(values[1]), words.error(values[2]), words.error(values[3])),
            tags=" ".join(name for name, holds in tags.items() if holds),
        )


def artifact_facts(artifact: Artifact) -> list[tuple[str, str, bool | None]]:
    """(label, value, whether it is good; None: neither) for the file that was written."""
    facts: list[tuple[str, str, bool | None]] = [
        ("path", words.clean(artifact.path), None),
        ("size", words.size(artifact.size) if artifact.size is not None else "", None),
        ("sha256", artifact.sha256, None),
        ("reloaded in a fresh process", "yes" if artifact.reloaded else "no", artifact.reloaded),
        ("outputs after reloading", f"relative error {words.error(artifact.max_rel)}", None),
        ("Lambda layers", words.count(artifact.lambda_layers), artifact.lambda_layers == 0),
        ("custom layers", words.count(artifact.custom_layers), artifact.custom_layers == 0),
        ("transposes", words.count(artifact.transposes), None),
        ("error", words.clean(artifact.error), False),
    ]
    if artifact.max_rel is None:
        facts = [fact for fact in facts if fact[0] != "outputs after reloading"]
    return [fact for fact in facts if fact[1]]


def _waterfalls(report: Report) -> list[str]:
    """The balance for a wide and a narrow screen; nothing where there is no gap to be seen."""
    if not report.balance.gaps and not report.balance.unexplained:
        return []
    return [charts.waterfall(report.balance, width) for width in (charts.WIDE, charts.NARROW)]


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("translator.report", "page"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: words.clean(value) if type(value) is str else value,
    )
