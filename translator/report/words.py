"""The words and numbers that every report shares, so that no two of them say it differently."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from translator.verdict import Artifact, Balance, Check, Difference, Effect, LayerRow, Numerics, Report, Verdict

EFFECTS: Mapping[Effect, str] = {
    Effect.INFERENCE: "Changes the function",
    Effect.TRAINING: "Changes training only",
    Effect.NOTHING: "Nothing to do",
}
"""The heading of each group of differences, in the order in which they are shown."""


def count(number: int) -> str:
    """A number of things: `1,120`."""
    return f"{number:,}"


def amount(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: `1 layer`, `15 layers`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def error(value: float | None) -> str:
    """A relative or absolute error: `4.9e-04`, `0.37`, `0`, `NaN`, `inf`; `–` where nothing was compared."""
    if value is None:
        return "–"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value == 0:
        return "0"
    return f"{value:.3g}" if 0.01 <= abs(value) < 1000 else f"{value:.1e}"


def limit(value: float) -> str:
    """A limit, short: `1e-09`."""
    return f"{value:g}"


def size(number: int) -> str:
    """A file's size: `812 B`, `1.2 MB` (powers of 1,000)."""
    value, units = float(number), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{number} B" if units[0] == "B" else f"{value:.3g} {units[0]}"


def seconds(value: float) -> str:
    """A duration: `0.42 s`, `12.3 s`, `4 min 02 s`."""
    if value >= 120:
        return f"{round(value) // 60} min {round(value) % 60:02d} s"
    return f"{value:.1f} s" if value >= 10 else f"{value:.2f} s"


def timing(report: Report) -> list[tuple[str, float]]:
    """Each stage and its seconds, and their sum where the report has no total of its own."""
    stages = list(report.timing.items())
    return stages if "total" in report.timing else [*stages, ("total", sum(report.timing.values()))]


def shape(dims: Sequence[int | None]) -> str:
    """A shape with its dynamic sizes: `(N, 32, 32, 16)`; N is the batch, ? any other dynamic size."""
    words = ["N" if d is None and i == 0 else "?" if d is None else str(d) for i, d in enumerate(dims)]
    return f"({', '.join(words)}{',' if len(words) == 1 else ''})"


def shorten(names: Sequence[str]) -> str:
    """Names in one breath: up to two in full, more as first and last: `conv2d … conv2d_14`."""
    return ", ".join(names) if len(names) <= 2 else f"{names[0]} … {names[-1]}"


def clean(text: str) -> str:
    """Text on one line, without anything that steers a terminal or that XML forbids: `\\x1b` is spelled out."""
    return "".join(" " if c in "\t\n\r" else c if _is_plain(ord(c)) else repr(c)[1:-1] for c in text)


def _is_plain(code: int) -> bool:
    controls = code < 0x20 or 0x7F <= code < 0xA0
    steering = code in range(0x200E, 0x2010) or code in range(0x2028, 0x202F) or code in range(0x2066, 0x206A)
    return not (controls or steering or 0xD800 <= code < 0xE000 or code in (0xFFFE, 0xFFFF))


def torch_totals(balance: Balance) -> list[str]:
    """The PyTorch side in words: parameters, then its buffers, told apart where that is known."""
    words = [amount(balance.torch_total, "parameter")]
    if balance.torch_trainable != balance.torch_total:
        words.append(f"{count(balance.torch_trainable)} trainable")
    if balance.torch_statistics is None:
        buffers = [(balance.torch_buffers, "buffer element", "")]
    else:
        others = balance.torch_buffers - balance.torch_statistics
        buffers = [(balance.torch_statistics, "BN statistic", ""), (others, "other buffer", "")]
    return [*words, *(amount(*found) for found in buffers if found[0])]


def keras_totals(balance: Balance) -> list[str]:
    """The Keras side in words: total and trainable."""
    return [amount(balance.keras_total, "parameter"), f"{count(balance.keras_trainable)} trainable"]


class Layers:
    """Finds what a difference or gap is about: its layers' classes, by PyTorch's or by Keras' names."""

    def __init__(self, rows: Iterable[LayerRow]) -> None:
        self._types: dict[str, str] = {}
        for row in rows:
            self._types.setdefault(row.torch, row.type or row.type_keras)
        for row in rows:
            self._types.setdefault(row.keras, row.type_keras or row.type)

    def subject(self, names: Sequence[str]) -> str:
        """`15 BatchNorm2d`, `15 Conv2d, 1 Linear`, or `15 layers`; one layer by its own name."""
        if len(names) <= 1:
            return names[0] if names else "the model"
        kinds = Counter(self._types.get(name, "") for name in names)
        if "" in kinds or len(kinds) > 2:
            return amount(len(names), "layer")
        return ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common())


def by_effect(differences: Iterable[Difference]) -> list[tuple[Effect, list[Difference]]]:
    """The differences in groups, the worst first; a group that is empty is left out."""
    found = list(differences)
    groups = [(effect, [d for d in found if d.effect is effect]) for effect in EFFECTS]
    return [(effect, group) for effect, group in groups if group]


def worst(row: LayerRow) -> float | None:
    """The error that says most of a layer: alone before along the chain, float64 before float32."""
    return next((e for e in (row.error_f64, row.error_f32, row.chain_f64, row.chain_f32) if e is not None), None)


def severity(row: LayerRow) -> tuple[bool, float]:
    """A key that sorts the worst layer last: failed ones after sound ones, NaN above everything."""
    value = worst(row)
    return (not row.ok, -1.0 if value is None else math.inf if math.isnan(value) else value)


def pair(torch: str, keras: str) -> str:
    """Two twins: `bn ↔ batch_normalization`; one without a twin is said to have none."""
    if torch and keras:
        return f"{torch} ↔ {keras}"
    return f"{torch or keras} (only in {'PyTorch' if torch else 'Keras'})"


def check_words(check: Check) -> str:
    """What is wrong with a check, or its own words."""
    if check.ok and check.subjects <= 0:
        return "; ".join(filter(None, ["looked at nothing, which proves nothing", check.detail]))
    return check.detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One reason why a report is `different`: what of, its name there, and the words."""

    part: str
    name: str
    words: str

    def __str__(self) -> str:
        return f"{self.name}: {self.words}"


def check_failure(check: Check) -> Failure | None:
    """The failure of one check; None where it holds."""
    if check.ok and check.subjects > 0:
        return None
    return Failure(part="checks", name=check.name, words=check_words(check) or "does not hold")


def row_failure(row: LayerRow) -> Failure | None:
    """The failure of one layer; None where it is sound."""
    if row.ok:
        return None
    value = worst(row)
    words = [f"relative error {error(value)}" if value is not None else "", row.note]
    return Failure(
        part="layers", name=pair(row.torch, row.keras), words="; ".join(filter(None, words)) or "not the same"
    )


def numerics_failure(dtype: str, numerics: Numerics) -> Failure | None:
    """The failure of the whole model in one dtype; None where it agrees."""
    if numerics.ok:
        return None
    allowed = f" beyond {limit(numerics.limit)}" if numerics.limit is not None else ""
    return Failure(part="numerics", name=dtype, words=f"relative error {error(numerics.max_rel)}{allowed}")


def balance_failure(balance: Balance) -> Failure | None:
    """The failure of a balance that does not close; None for one that does."""
    if not balance.unexplained:
        return None
    off = abs(balance.unexplained)
    side = "more in Keras" if balance.unexplained > 0 else "fewer in Keras"
    return Failure(part="parameters", name="balance", words=f"{amount(off, 'parameter')} {side}, unexplained")


def artifact_failure(artifact: Artifact) -> Failure | None:
    """The failure of a file that a fresh process did not load; None for one that it did."""
    if artifact.reloaded:
        return None
    return Failure(part="artifact", name=artifact.path, words=artifact.error or "did not load in a fresh process")


def difference_words(difference: Difference) -> list[str]:
    """A difference in lines: what it changes, both values, the fix, what else is known."""
    return [
        EFFECTS[difference.effect] + (" (accepted)" if difference.allowed and difference.changes_function else ""),
        f"PyTorch: {difference.torch}" if difference.torch else "",
        f"Keras: {difference.keras}" if difference.keras else "",
        f"fix: {difference.fix}" if difference.fix else "",
        difference.detail,
    ]


def difference_failure(difference: Difference, layers: Layers) -> Failure | None:
    """A difference that fails the proof; None where it does not."""
    if not difference.changes_function or difference.allowed:
        return None
    words = f"{layers.subject(difference.layers)}: {difference.torch} | {difference.keras}"
    return Failure(part="differences", name=difference.kind, words=words)


def failures(report: Report) -> list[Failure]:
    """Every reason why the verdict is `different`; empty exactly where it is not."""
    found: list[Failure | None] = [check_failure(check) for check in report.checks]
    if not report.checks:
        found.append(Failure(part="checks", name="checks", words="nothing was checked"))
    found.append(balance_failure(report.balance))
    found += [numerics_failure(dtype, n) for dtype, n in report.numerics.items()]
    found += [row_failure(row) for row in report.layers]
    found.append(artifact_failure(report.artifact) if report.artifact is not None else None)
    layers = Layers(report.layers)
    found += [difference_failure(d, layers) for d in report.differences]
    return [failure for failure in found if failure is not None]


def sentence(report: Report) -> str:
    """The verdict in a sentence, without the word itself: where it goes wrong first and how far, or what was proven."""
    match report.verdict:
        case Verdict.DIFFERENT:
            return _first(report)
        case Verdict.EXPLAINED:
            named = [
                amount(len(report.balance.gaps), "parameter gap") if report.balance.gaps else "",
                amount(len(report.differences), "difference") if report.differences else "",
            ]
            return f"the same function in inference; {' and '.join(filter(None, named))} named, 0 unexplained"
        case Verdict.EQUAL:
            return "the same function with the same parameters"


def _first(report: Report) -> str:
    wrong = [row for row in sorted(report.layers, key=lambda r: r.depth) if not row.ok]
    named = [r for r in report.layers if report.first_wrong in (r.torch, r.keras, pair(r.torch, r.keras))]
    row = (named if report.first_wrong else wrong)[:1]
    if row:
        value = worst(row[0])
        return f"first at {pair(row[0].torch, row[0].keras)}" + (f" (relative {error(value)})" if value else "")
    if report.first_wrong:
        return f"first at {report.first_wrong}"
    found = failures(report)
    return f"{found[0]}" + (f" (and {len(found) - 1:,} more)" if len(found) > 1 else "")
