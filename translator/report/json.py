"""The report as JSON, version 1, and back: a stored report can be shown again in any form.

Field names are the contract of `docs/report.schema.json`. JSON has no NaN and no infinity: they are written as the
strings "NaN", "Infinity" and "-Infinity"; `null` is an error that was never measured. What follows from the rest
(`verdict`, `unexplained`, `changes_function`, each `ok` of a number) is written for the reader and checked on the way
back, so a report whose verdict was edited by hand is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from translator.errors import InternalError
from translator.verdict import Artifact, Balance, Check, Difference, Gap, LayerRow, Numerics, Report

VERSION = 1

Json = Any
"""What `json.dumps(allow_nan=False)` takes."""


def to_json(report: Report) -> dict[str, Json]:
    """The report as plain JSON values, in a fixed order."""
    return {
        "version": VERSION,
        "verdict": report.verdict.value,
        "title": report.title,
        "torch_name": report.torch_name,
        "keras_name": report.keras_name,
        "first_wrong": report.first_wrong,
        "parameters": _parameters(report.balance),
        "differences": [_difference(difference) for difference in report.differences],
        "checks": [_check(check) for check in report.checks],
        "numerics": {dtype: _numerics(numerics) for dtype, numerics in report.numerics.items()},
        "artifact": _artifact(report.artifact) if report.artifact is not None else None,
        "layers": [_layer(row) for row in report.layers],
        "lost": list(report.lost),
        "notes": list(report.notes),
        "timing": {stage: number(took) for stage, took in report.timing.items()},
        "seed": report.seed,
        "versions": dict(report.versions),
        "extra": plain(report.extra, "extra"),
    }


def dumps(report: Report) -> str:
    """The report as JSON text; one layer, gap, check and difference a line, so that two reports diff well."""
    lines = []
    for key, value in to_json(report).items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = ",\n".join(f"    {_line(row)}" for row in value)
            lines.append(f"  {_line(key)}: [\n{rows}\n  ]")
        else:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2)
            lines.append(f"  {_line(key)}: " + text.replace("\n", "\n  "))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def number(value: float | None) -> float | str | None:
    """A number as JSON has it: NaN and the infinities as strings."""
    if value is None or math.isfinite(value):
        return value if value is None or isinstance(value, int) else float(value)
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def plain(value: Any, path: str) -> Json:
    """Free values (`extra`) as JSON: tuples become lists. Raises InternalError for what JSON can't hold."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{path}[{i}]") for i, item in enumerate(value)]
    raise InternalError(f"a report can't hold a {type(value).__name__} at {path}")


def _line(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _parameters(balance: Balance) -> dict[str, Json]:
    return {
        "torch_total": balance.torch_total,
        "torch_trainable": balance.torch_trainable,
        "torch_buffers": balance.torch_buffers,
        "torch_statistics": balance.torch_statistics,
        "keras_total": balance.keras_total,
        "keras_trainable": balance.keras_trainable,
        "keras_non_trainable": balance.keras_non_trainable,
        "gaps": [_gap(gap) for gap in balance.gaps],
        "unexplained": balance.unexplained,
    }


def _gap(gap: Gap) -> dict[str, Json]:
    return {"reason": gap.reason, "count": gap.count, "layers": list(gap.layers), "note": gap.note}


def _difference(difference: Difference) -> dict[str, Json]:
    return {
        "kind": difference.kind,
        "layers": list(difference.layers),
        "torch": difference.torch,
        "keras": difference.keras,
        "changes_function": difference.changes_function,
        "effect": difference.effect.value,
        "fix": difference.fix,
        "detail": difference.detail,
        "allowed": difference.allowed,
    }


def _check(check: Check) -> dict[str, Json]:
    return {"name": check.name, "ok": check.ok, "subjects": check.subjects, "detail": check.detail}


def _numerics(numerics: Numerics) -> dict[str, Json]:
    return {
        "max_abs": number(numerics.max_abs),
        "max_rel": number(numerics.max_rel),
        "limit": number(numerics.limit),
        "ok": numerics.ok,
    }


def _artifact(artifact: Artifact) -> dict[str, Json]:
    return {
        "path": artifact.path,
        "sha256": artifact.sha256,
        "size": artifact.size,
        "reloaded": artifact.reloaded,
        "lambda_layers": artifact.lambda_layers,
        "custom_layers": artifact.custom_layers,
        "transposes": artifact.transposes,
        "max_rel": number(artifact.max_rel),
        "error": artifact.error,
    }


def _layer(row: LayerRow) -> dict[str, Json]:
    return {
        "torch": row.torch,
        "keras": row.keras,
        "type": row.type,
        "type_keras": row.type_keras,
        "shape": list(row.shape),
        "params_torch": row.params_torch,
        "params_keras": row.params_keras,
        "error_f32": number(row.error_f32),
        "error_f64": number(row.error_f64),
        "chain_f32": number(row.chain_f32),
        "chain_f64": number(row.chain_f64),
        "depth": row.depth,
        "ok": row.ok,
        "note": row.note,
    }
