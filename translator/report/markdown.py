"""The report as Markdown for a pull-request comment: the verdict first, then the balance, differences and worst layers.

Names of the user's model stand in code spans, where no markup, HTML or @mention works. A comment on GitHub holds
65,536 characters, so lists are cut, and say so, long before that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from translator.report import words
from translator.report.layer_table import few_of
from translator.verdict import Difference, LayerRow, Report, Verdict

FEW_LAYERS = 10
LONGEST = 200
"""Characters of one name or sentence of the user's model."""
MOST = 40
"""Rows of one table."""

LARGEST = 60_000
"""Characters of the whole comment."""

_MARKS = {Verdict.EQUAL: "✅", Verdict.EXPLAINED: "🟡", Verdict.DIFFERENT: "❌"}


def to_markdown(report: Report) -> str:
    """The report as GitHub-flavoured Markdown."""
    parts = [
        f"## {_MARKS[report.verdict]} {report.verdict.upper()}: {text(words.sentence(report))}",
        code(report.title) if report.title else "",
        _totals(report),
        _balance(report),
        *_differences(report),
        _checks(report),
        _numbers(report),
        _layers(report),
        _facts(report),
    ]
    return _fitting([part for part in parts if part])


def cell(value: str) -> str:
    """A code span of any text in a table cell; empty text gives a dash."""
    return code(value).replace("|", "\\|")


def code(value: str) -> str:
    """A code span of any text; empty text gives a dash. Not for a table cell."""
    plain = _code(value)
    if not plain:
        return "–"
    runs = max((len(run) for run in _backticks(plain)), default=0)
    fence, pad = "`" * (runs + 1), " " if plain[0] in "` " or plain[-1] in "` " else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def text(value: str) -> str:
    """A sentence in which nothing of Markdown or HTML works. Fit for a table cell."""
    plain = _cut(words.clean(value)).replace("&", "&amp;").replace("<", "&lt;").replace("@", "@\N{ZERO WIDTH JOINER}")
    return "".join(f"\\{c}" if c in "\\`*_[]|~#" else c for c in plain)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """A table; columns numbered in `right` align there. Cut after `MOST` rows."""
    found = list(rows)
    marks = ["--:" if i in set(right) else "---" for i in range(len(head))]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, marks, *found[:MOST])]
    if len(found) > MOST:
        lines.append(f"\n… and {len(found) - MOST:,} more")
    return "\n".join(lines)


def _fitting(parts: Sequence[str]) -> str:
    """The parts that fit into a comment; a part that does not is left out, and that is said."""
    kept: list[str] = []
    for part in parts:
        fits = sum(len(p) + 2 for p in kept) + len(part) <= LARGEST
        kept.append(
            part if fits else f"{part.splitlines()[0][:LONGEST]}\n\n(too long for a comment: see the full report)"
        )
    return "\n\n".join(kept) + "\n"


def _code(value: str) -> str:
    return _cut(words.clean(value)).strip()


def _cut(value: str) -> str:
    return value if len(value) <= LONGEST else value[: LONGEST - 1] + "…"


def _backticks(value: str) -> list[str]:
    return "".join(c if c == "`" else " " for c in value).split()


def _totals(report: Report) -> str:
    sides = [
        ("PyTorch", report.torch_name, words.torch_totals(report.balance)),
        ("Keras", report.keras_name, words.keras_totals(report.balance)),
    ]
    return "\n".join(f"- **{side}** {code(name)}: {' · '.join(totals)}" for side, name, totals in sides)


def _balance(report: Report) -> str:
    balance = report.balance
    rows = [["PyTorch parameters", words.count(balance.torch_total), ""]]
    for gap in balance.gaps:
        about = f"{words.amount(len(gap.layers), 'layer')}: {cell(words.shorten(gap.layers))}" if gap.layers else ""
        notes = " · ".join(filter(None, [about, text(gap.note)]))
        rows.append([text(gap.reason), f"{gap.count:+,}".replace("-", "−"), notes])
    closes = f"unexplained {balance.unexplained:,} {'✔' if not balance.unexplained else '✘'}"
    rows.append(["**= Keras parameters**", f"**{words.count(balance.keras_total)}**", closes])
    return "### Parameters\n\n" + table(["", "count", ""], rows, right=[1])


def _differences(report: Report) -> Iterable[str]:
    finder = words.Layers(report.layers)
    for effect, group in words.by_effect(report.differences):
        rows = [_difference(difference, finder) for difference in group]
        yield f"### {words.EFFECTS[effect]}\n\n" + table(["kind", "layers", "PyTorch", "Keras", "fix"], rows)


def _difference(difference: Difference, finder: words.Layers) -> list[str]:
    accepted = "(accepted)" if difference.allowed and difference.changes_function else ""
    fix = cell(difference.fix) if difference.fix else ""
    return [
        f"**{text(difference.kind)}**",
        cell(finder.subject(difference.layers)),
        cell(difference.torch),
        cell(difference.keras),
        " ".join(filter(None, [fix, text(difference.detail), accepted])),
    ]


def _checks(report: Report) -> str:
    rows = [
        ["✔" if not words.check_failure(c) else "✘", text(c.name), words.count(c.subjects), text(words.check_words(c))]
        for c in report.checks
    ]
    return "### Checks\n\n" + (
        table(["", "check", "subjects", ""], rows, right=[2]) if rows else "✘ nothing was checked"
    )


def _numbers(report: Report) -> str:
    rows = [
        [dtype, words.error(n.max_abs), words.error(n.max_rel), words.limit(n.limit) if n.limit is not None else "–"]
        for dtype, n in report.numerics.items()
    ]
    if not rows:
        return ""
    head = ["outputs", "max abs", "relative", "limit"]
    return "### Outputs of the whole model\n\n" + table(head, rows, right=[1, 2, 3])


def _layers(report: Report) -> str:
    if not report.layers:
        return ""
    shown = few_of(report.layers, FEW_LAYERS)
    wrong = sum(not row.ok for row in report.layers)
    total = f"{len(report.layers):,}"
    which = "the first" if wrong >= len(shown) else "the worst"
    heading = f"{wrong:,} of {total} wrong" if wrong else f"{total}, each one sound"
    cut = f"; {which} {len(shown)}" if len(shown) < len(report.layers) else ""
    head = ["", "PyTorch", "Keras", "float32", "float64", "in the model, float64", ""]
    body = table(head, map(_layer, shown), right=[3, 4, 5])
    return f"<details><summary>Layers, each alone: {heading}{cut}</summary>\n\n{body}\n\n</details>"


def _layer(row: LayerRow) -> list[str]:
    errors = [words.error(value) for value in (row.error_f32, row.error_f64, row.chain_f64)]
    return ["✔" if row.ok else "✘", cell(row.torch), cell(row.keras), *errors, text(row.note)]


def _facts(report: Report) -> str:
    lines = [f"- **Lost for training**: {text(line)}" for line in report.lost[:MOST]]
    lines += [f"- {text(line)}" for line in report.notes[:MOST]]
    if (artifact := report.artifact) is not None:
        facts = [
            code(artifact.path),
            *([words.size(artifact.size)] if artifact.size is not None else []),
            *([f"sha256 {code(artifact.sha256[:12])}"] if artifact.sha256 else []),
            "reloaded ✔" if artifact.reloaded else "not reloaded ✘",
            f"{artifact.lambda_layers} Lambda, {artifact.custom_layers} custom",
            words.amount(artifact.transposes, "transpose"),
            text(artifact.error),
        ]
        lines.append("- **File**: " + " · ".join(filter(None, facts)))
    made = [f"{text(name)} {text(version)}" for name, version in report.versions.items()]
    lines.append("- **Made with**: " + " · ".join([*made, f"seed {report.seed}"]))
    return "\n".join(lines)
