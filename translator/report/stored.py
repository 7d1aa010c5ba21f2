"""Reading a stored JSON report back into a `Report`, checked as it is read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from translator.errors import InputError
from translator.report.json import VERSION, to_json
from translator.verdict import Artifact, Balance, Check, Difference, Effect, Gap, LayerRow, Numerics, Report

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_FIX = "give the file that --report FILE.json wrote, unchanged"


def read_report(path: str | Path) -> Report:
    """The report in a JSON file. Raises InputError where there is none, or where it isn't a report."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as reason:
        raise InputError(f"{path}: can't be read as a report: {reason}", fix=_FIX) from reason
    try:
        return from_json(json.loads(text))
    except (ValueError, RecursionError) as reason:
        raise InputError(f"{path}: not JSON: {reason}", fix=_FIX) from reason


def from_json(found: Any) -> Report:
    """The report that `to_json` made these values from.

    Raises InputError: a field missing or of another kind, another version, or a verdict (or another value that
    follows from the rest) that is not what the findings say.
    """
    root = _Fields(value=found, path="the report")
    if root.integer("version") != VERSION:
        raise InputError(f"the report has version {root.integer('version')}; this is version {VERSION}", fix=_FIX)
    artifact = root.get("artifact")
    report = Report(
        title=root.text("title"),
        torch_name=root.text("torch_name"),
        keras_name=root.text("keras_name"),
        balance=_balance(root.fields("parameters")),
        checks=tuple(map(_check, root.rows("checks"))),
        differences=tuple(map(_difference, root.rows("differences"))),
        layers=tuple(map(_layer, root.rows("layers"))),
        numerics={dtype: _numerics(fields) for dtype, fields in root.fields("numerics").each()},
        artifact=_artifact(root.fields("artifact")) if artifact is not None else None,
        timing={stage: root.fields("timing").number(stage) for stage in root.fields("timing").mapping},
        first_wrong=root.text("first_wrong"),
        seed=root.integer("seed"),
        lost=root.texts("lost"),
        notes=root.texts("notes"),
        versions={name: root.fields("versions").text(name) for name in root.fields("versions").mapping},
        extra=root.fields("extra").mapping,
    )
    _must_follow(found, to_json(report), "the report")
    return report


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fields:
    """A JSON object that is read field by field, each with the kind it must have."""

    value: Any
    path: str

    @property
    def mapping(self) -> Mapping[str, Any]:
        if not isinstance(self.value, dict):
            raise InputError(f"{self.path} is not a JSON object", fix=_FIX)
        return self.value

    def get(self, key: str) -> Any:
        if key not in self.mapping:
            raise InputError(f"{self.path} has no {key!r}", fix=_FIX)
        return self.mapping[key]

    def _wrong(self, key: str, want: str) -> InputError:
        return InputError(f"{self.path}: {key!r} is not {want}: {str(self.mapping[key])[:60]!r}", fix=_FIX)

    def text(self, key: str) -> str:
        if not isinstance(found := self.get(key), str):
            raise self._wrong(key, "text")
        return found

    def texts(self, key: str) -> tuple[str, ...]:
        found = self.get(key)
        if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
            raise self._wrong(key, "a list of texts")
        return tuple(found)

    def flag(self, key: str) -> bool:
        if not isinstance(found := self.get(key), bool):
            raise self._wrong(key, "true or false")
        return found

    def integer(self, key: str) -> int:
        found = self.get(key)
        if not isinstance(found, int) or isinstance(found, bool):
            raise self._wrong(key, "a whole number")
        return found

    def maybe_integer(self, key: str) -> int | None:
        return None if self.get(key) is None else self.integer(key)

    def number(self, key: str) -> float:
        found = self.get(key)
        if isinstance(found, str) and found in _NOT_FINITE:
            return _NOT_FINITE[found]
        if not isinstance(found, (int, float)) or isinstance(found, bool):
            raise self._wrong(key, "a number")
        return float(found)

    def maybe_number(self, key: str) -> float | None:
        return None if self.get(key) is None else self.number(key)

    def dims(self, key: str) -> tuple[int | None, ...]:
        found = self.get(key)
        if not isinstance(found, list) or not all(item is None or type(item) is int for item in found):
            raise self._wrong(key, "a shape")
        return tuple(found)

    def fields(self, key: str) -> _Fields:
        return _Fields(value=self.get(key), path=f"{self.path}, {key}")

    def rows(self, key: str) -> Iterator[_Fields]:
        found = self.get(key)
        if not isinstance(found, list):
            raise self._wrong(key, "a list")
        for i, item in enumerate(found):
            yield _Fields(value=item, path=f"{self.path}, {key}[{i}]")

    def each(self) -> Iterator[tuple[str, _Fields]]:
        for key in self.mapping:
            yield key, self.fields(key)


def _balance(fields: _Fields) -> Balance:
    return Balance(
        torch_total=fields.integer("torch_total"),
        torch_trainable=fields.integer("torch_trainable"),
        torch_buffers=fields.integer("torch_buffers"),
        torch_statistics=fields.maybe_integer("torch_statistics"),
        keras_total=fields.integer("keras_total"),
        keras_trainable=fields.integer("keras_trainable"),
        keras_non_trainable=fields.integer("keras_non_trainable"),
        gaps=tuple(
            Gap(reason=g.text("reason"), count=g.integer("count"), layers=g.texts("layers"), note=g.text("note"))
            for g in fields.rows("gaps")
        ),
    )


def _check(fields: _Fields) -> Check:
    return Check(
        name=fields.text("name"),
        ok=fields.flag("ok"),
        subjects=fields.integer("subjects"),
        detail=fields.text("detail"),
    )


def _difference(fields: _Fields) -> Difference:
    effect = fields.text("effect")
    if effect not in set(Effect):
        raise InputError(f"{fields.path}: no such effect: {effect!r}", fix=_FIX)
    return Difference(
        kind=fields.text("kind"),
        layers=fields.texts("layers"),
        torch=fields.text("torch"),
        keras=fields.text("keras"),
        effect=Effect(effect),
        fix=fields.text("fix"),
        detail=fields.text("detail"),
        allowed=fields.flag("allowed"),
    )


def _numerics(fields: _Fields) -> Numerics:
    return Numerics(
        max_abs=fields.number("max_abs"), max_rel=fields.number("max_rel"), limit=fields.maybe_number("limit")
    )


def _artifact(fields: _Fields) -> Artifact:
    return Artifact(
        path=fields.text("path"),
        sha256=fields.text("sha256"),
        size=fields.maybe_integer("size"),
        reloaded=fields.flag("reloaded"),
        lambda_layers=fields.integer("lambda_layers"),
        custom_layers=fields.integer("custom_layers"),
        transposes=fields.integer("transposes"),
        max_rel=fields.maybe_number("max_rel"),
        error=fields.text("error"),
    )


def _layer(fields: _Fields) -> LayerRow:
    return LayerRow(
        torch=fields.text("torch"),
        keras=fields.text("keras"),
        type=fields.text("type"),
        type_keras=fields.text("type_keras"),
        shape=fields.dims("shape"),
        params_torch=fields.integer("params_torch"),
        params_keras=fields.integer("params_keras"),
        error_f32=fields.maybe_number("error_f32"),
        error_f64=fields.maybe_number("error_f64"),
        chain_f32=fields.maybe_number("chain_f32"),
        chain_f64=fields.maybe_number("chain_f64"),
        depth=fields.integer("depth"),
        ok=fields.flag("ok"),
        note=fields.text("note"),
    )


def _must_follow(found: Any, want: Any, path: str) -> None:
    """What the report derives from its findings must be what the file says, and no field may be unknown."""
    if isinstance(want, dict) and isinstance(found, dict):
        for key in found.keys() - want.keys():
            raise InputError(f"{path} has a field that version {VERSION} does not know: {key!r}", fix=_FIX)
        for key, value in want.items():
            _must_follow(found.get(key), value, f"{path}, {key}")
    elif isinstance(want, list) and isinstance(found, list) and len(want) == len(found):
        for i, (one, other) in enumerate(zip(found, want, strict=True)):
            _must_follow(one, other, f"{path}[{i}]")
    elif found != want:
        raise InputError(f"{path} says {found!r}, but its own findings give {want!r}", fix=_FIX)
