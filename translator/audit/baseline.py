"""A file of accepted differences: exactly these, no more, no fewer, none changed.

A port that is knowingly not the same (a softmax in the head, a BatchNorm folded) passes in CI as long as nothing else
happens. What was accepted and is gone is a failure, too: the file must be brought up to date by a person. The JSON
report of an audit (`--report gaps.json`) is such a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import Any

from translator.errors import InputError
from translator.verdict import Check, Difference, Effect, Gap, Report

VERSION = 1


def baseline_of(report: Report) -> dict[str, Any]:
    """What the report found, as JSON data: the file that accepts it."""
    return {
        "version": VERSION,
        "differences": [_entry(d) for d in report.differences],
        "gaps": [{"reason": g.reason, "count": g.count, "layers": list(g.layers)} for g in report.balance.gaps],
    }


def write_baseline(report: Report, path: Path) -> None:
    """Write the file that accepts what the report found."""
    path.write_text(json.dumps(baseline_of(report), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_baseline(path: Path) -> dict[str, Any]:
    """Read such a file. Raises InputError."""
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file", fix="write one with: translator audit … --report gaps.json") from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a baseline: {error}", fix="write one with: translator audit … --report gaps.json"
        ) from error
    fits = isinstance(found, dict) and found.get("version") == VERSION
    if fits and isinstance(found.get("parameters"), dict):
        found = {**found, "gaps": found["parameters"].get("gaps")}
    if not fits or not all(isinstance(found.get(key), list) for key in ("differences", "gaps")):
        raise InputError(
            f"{path}: not a baseline of version {VERSION}", fix="write one with: translator audit … --report gaps.json"
        )
    for entry in (*found["differences"], *found["gaps"]):
        if not isinstance(entry, dict):
            raise InputError(
                f"{path}: not a baseline: an entry is no object",
                fix="write one with: translator audit … --report gaps.json",
            )
    return dict(found)


def apply_baseline(report: Report, path: Path) -> Report:
    """The report with what the file accepts allowed, and a failed check for what is new, gone or changed."""
    accepted = read_baseline(path)
    known = {row.torch for row in report.layers}
    wanted = {_key(e, known): e for e in accepted["differences"]}
    got = {_key(_entry(d), known): d for d in report.differences}
    problems = [f"new: {_text(d)}" for key, d in got.items() if key not in wanted]
    gone = [e for key, e in wanted.items() if key not in got]
    problems += [f"gone: {e.get('kind')} in {', '.join(e.get('layers', []))}" for e in gone]
    problems += _gap_problems(accepted["gaps"], report.balance.gaps, known)
    numbers = [d for d in report.differences if d.kind in ("numbers", "numbers along the chain")]
    if problems or numbers:
        return replace(report, checks=(*report.checks, _check(problems or ["numbers differ"], len(wanted))))
    return _accepted(report, wanted)


def _accepted(report: Report, wanted: Mapping[str, Any]) -> Report:
    """Everything found is in the file: what differs is allowed, and so are the numbers that differ because of it."""
    differences = tuple(replace(d, allowed=True) for d in report.differences)
    caused = any(d.effect is Effect.INFERENCE for d in report.differences)
    checks = tuple(_excused(c) if caused and not c.ok else c for c in report.checks)
    rows = tuple(replace(r, ok=True, note=r.note or "accepted") if caused and not r.ok else r for r in report.layers)
    numerics = {k: replace(n, limit=None) if caused else n for k, n in report.numerics.items()}
    return replace(
        report, differences=differences, layers=rows, numerics=numerics, checks=(*checks, _check([], len(wanted)))
    )


_NUMERIC = ("each layer alone", "along the chain", "own weights", "configuration", "structure", "weights", "ledger")


def _excused(check: Check) -> Check:
    if not check.name.startswith(_NUMERIC):
        return check
    return replace(check, ok=True, detail=f"accepted: {check.detail}")


def _check(problems: Sequence[str], accepted: int) -> Check:
    detail = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
    return Check(name="baseline", ok=not problems, subjects=max(accepted, 1), detail=detail)


def _gap_problems(accepted: Sequence[Mapping[str, Any]], found: Sequence[Gap], known: AbstractSet[str]) -> list[str]:
    wanted = {str(g.get("reason")): g for g in accepted}
    got = {g.reason: g for g in found}
    problems = [f"new gap: {reason} {g.count:+,}" for reason, g in got.items() if reason not in wanted]
    for reason, gap in wanted.items():
        if reason not in got:
            problems.append(f"gap gone: {reason}")
        elif got[reason].count != gap.get("count"):
            problems.append(f"gap changed: {reason} {gap.get('count')} → {got[reason].count}")
        elif _stable(got[reason].layers, known) != _stable(gap.get("layers") or (), known):
            problems.append(f"gap changed: {reason} is in other layers")
    return problems


def _entry(difference: Difference) -> dict[str, Any]:
    return {
        "kind": difference.kind,
        "layers": list(difference.layers),
        "torch": difference.torch,
        "keras": difference.keras,
        "effect": difference.effect.value,
    }


_COUNTER = re.compile(r"_\d+\b")


def _stable(layers: Sequence[Any], known: AbstractSet[str]) -> list[str]:
    """Layer names without the counters that Keras puts behind names it makes up: they depend on what ran before."""
    return [str(name) if name in known else _COUNTER.sub("", str(name)) for name in layers]


def _key(entry: Mapping[str, Any], known: AbstractSet[str]) -> str:
    layers = _stable(entry.get("layers") or (), known)
    return json.dumps([entry.get("kind"), layers, entry.get("torch"), _COUNTER.sub("", str(entry.get("keras")))])


def _text(difference: Difference) -> str:
    return f"{difference.kind} in {', '.join(difference.layers[:3])}: {difference.torch} | {difference.keras}"
