"""What a run side by side found, as plain data; and the same as JSON, there and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from translator.errors import InputError
from translator.training.trajectory_rows import ControlRow, NoiseRow, StepRow, TensorRow
from translator.verdict import Check, Difference, Effect, Verdict

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the recipe in both worlds. native, why, notes: as in `translator.training.mapped.Mapped`."""

    torch: str
    keras: str
    native: bool
    why: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """Two models trained side by side. `verdict` follows from the findings and is never set.

    recipe: the parts, by name ("loss", "optimizer"). batchnorm: "exact", "native", or "" where there is none. limit:
    the relative error that passes in float64. steps, tensors: of the float64 run; where that drifted by rounding alone,
    tensors are of the run whose every step began with PyTorch's weights. control: PyTorch against itself in float64,
    only where Keras drifted beyond the limit. noise: of the float32 runs, for the reader: not judged. silenced: what
    was switched off because it is random.
    """

    title: str
    torch_name: str
    keras_name: str
    backend: str
    recipe: Mapping[str, Part]
    batchnorm: str
    batch: int
    seed: int
    limit: float
    checks: tuple[Check, ...]
    differences: tuple[Difference, ...] = ()
    steps: tuple[StepRow, ...] = ()
    tensors: tuple[TensorRow, ...] = ()
    control: tuple[ControlRow, ...] = ()
    noise: tuple[NoiseRow, ...] = ()
    first_wrong: str = ""
    silenced: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    timing: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """equal: same training to rounding. explained: every difference is named, and forced or asked for."""
        sound = bool(self.checks) and all(c.ok and c.subjects > 0 for c in self.checks)
        forbidden = any(d.effect is not Effect.NOTHING and not d.allowed for d in self.differences)
        if not sound or forbidden:
            return Verdict.DIFFERENT
        return Verdict.EXPLAINED if self.differences else Verdict.EQUAL

    @property
    def exit_status(self) -> int:
        """0 proven, 1 a check failed."""
        return 1 if self.verdict is Verdict.DIFFERENT else 0


def to_json(report: ParityReport) -> dict[str, Any]:
    """Plain JSON values: NaN and the infinities are strings."""
    return {"version": VERSION, "kind": "parity", "verdict": report.verdict.value, **_plain(asdict(report))}


def dumps(report: ParityReport) -> str:
    """JSON text, one step, tensor or difference a line."""
    lines = []
    for key, value in to_json(report).items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = ",\n".join(f"    {json.dumps(row, ensure_ascii=False, allow_nan=False)}" for row in value)
            lines.append(f'  "{key}": [\n{rows}\n  ]')
        else:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2).replace("\n", "\n  ")
            lines.append(f'  "{key}": {text}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def from_json(found: Mapping[str, Any]) -> ParityReport:
    """The report that `to_json` made these values from. Raises InputError where they are none, or were edited."""
    if found.get("kind") != "parity" or found.get("version") != VERSION:
        raise InputError("not a parity report of this version", fix="give the file that --report FILE.json wrote")
    try:
        values = {f.name: found[f.name] for f in fields(ParityReport)}
        report = ParityReport(
            **{
                **values,
                "recipe": {k: Part(**{**v, "notes": tuple(v["notes"])}) for k, v in found["recipe"].items()},
                "checks": tuple(Check(**c) for c in found["checks"]),
                "differences": tuple(
                    Difference(**{**d, "layers": tuple(d["layers"]), "effect": Effect(d["effect"])})
                    for d in found["differences"]
                ),
                "steps": tuple(StepRow(**_numbers(s)) for s in found["steps"]),
                "tensors": tuple(TensorRow(**_numbers(t)) for t in found["tensors"]),
                "control": tuple(ControlRow(**_numbers(c)) for c in found["control"]),
                "noise": tuple(NoiseRow(**_numbers(n)) for n in found["noise"]),
                **{name: tuple(found[name]) for name in ("silenced", "notes")},
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"a damaged parity report: {error!r}") from error
    if report.verdict.value != found["verdict"]:
        raise InputError(f"a parity report that was edited: it says {found['verdict']}, its findings {report.verdict}")
    return report


_SPELLED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """Text that stands for a number that JSON can't spell becomes that number; names stay text."""
    names = ("torch", "keras", "kind", "problem")
    return {k: _SPELLED.get(v, v) if isinstance(v, str) and k not in names else v for k, v in row.items()}
