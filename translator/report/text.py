"""The report on a terminal: totals, the balance that closes, the differences by effect, the checks, the verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from translator.report import words
from translator.report.grid import Column, Fit, Grid
from translator.report.layer_table import layer_lines
from translator.verdict import Difference, Gap, Report, Verdict

FEW = 5
"""How many layers are shown without `--layers`."""

_VERDICT_STYLE = {Verdict.EQUAL: "bold green", Verdict.EXPLAINED: "bold yellow", Verdict.DIFFERENT: "bold red"}
_ASCII = str.maketrans({"…": "~", "↔": "=", "·": "|", "–": "-", "−": "-", "→": ">", "≤": "<", "×": "x", "√": "v"})


def render(report: Report, console: Console, *, layers: bool = False) -> None:
    """Print the report to fit the console's width; `layers` shows every layer, else only the worst few."""
    page = _Page(report=report, console=console, all_layers=layers)
    for i, section in enumerate(filter(None, (part() for part in page.sections()))):
        if i:
            console.print()
        for line in section:
            console.print(page.encodable(line), soft_wrap=True, highlight=False, markup=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """One report on its way to one console."""

    report: Report
    console: Console
    all_layers: bool

    @property
    def width(self) -> int:
        return max(40, self.console.width)

    @property
    def ascii(self) -> bool:
        return self.console.options.ascii_only

    def sections(self) -> list[Callable[[], list[Text]]]:
        """Everything on the page, in order; a section without lines is left out."""
        return [
            self.title,
            self.balance,
            self.differences,
            self.lost,
            self.checks,
            self.numbers,
            self.layers,
            self.facts,
            self.verdict,
        ]

    def mark(self, ok: bool) -> Text:
        """A tick or a cross."""
        good, bad = ("ok", "NO") if self.ascii else ("✔", "✘")
        return Text(good, style="green") if ok else Text(bad, style="bold red")

    def encodable(self, line: Text) -> Text:
        """The line in characters that the console's encoding has."""
        if not self.ascii:
            return line
        plain = line.copy()
        plain.plain = line.plain.translate(_ASCII).encode("ascii", "replace").decode("ascii")
        return plain

    def title(self) -> list[Text]:
        report, balance = self.report, self.report.balance
        sides = [
            ("PyTorch", report.torch_name, " · ".join(words.torch_totals(balance))),
            ("Keras", report.keras_name, " · ".join(words.keras_totals(balance))),
        ]
        cells = [(_bold(side), _name(name), Text(totals)) for side, name, totals in sides]
        heading = [*self.wrapped(_bold(words.clean(report.title))), Text()] if report.title else []
        one = Text("      ").join(Text("  ").join(part for part in row if part.plain) for row in cells)
        if one.cell_len <= self.width:
            return [*heading, one]
        columns = (Column(), Column(fit=Fit.MIDDLE, least=8), Column(fit=Fit.WRAP, least=24))
        return [*heading, *self.grid(columns, cells, indent=0)]

    def balance(self) -> list[Text]:
        balance = self.report.balance
        closes = balance.unexplained == 0
        unexplained = Text.assemble(f"unexplained {balance.unexplained:+,} " if not closes else "unexplained 0 ")
        unexplained.append_text(self.mark(closes))
        rows = [
            (Text("PyTorch parameters"), Text(), Text(words.count(balance.torch_total)), Text()),
            *map(self._gap, balance.gaps),
            (_bold("= Keras parameters"), Text(), _bold(words.count(balance.keras_total)), unexplained),
        ]
        columns = (
            Column(fit=Fit.WRAP, least=22),
            Column(fit=Fit.WRAP, least=10),
            Column(right=True),
            Column(fit=Fit.BELOW),
        )
        return self.grid(columns, rows, under=6)

    def _gap(self, gap: Gap) -> tuple[Text, Text, Text, Text]:
        sign = "+" if gap.count >= 0 else "−"
        notes = [words.clean(words.shorten(gap.layers)) if gap.layers else "", words.clean(gap.note)]
        about = words.amount(len(gap.layers), "layer") if gap.layers else ""
        reason = Text(f"{sign} {words.clean(gap.reason)}")
        return reason, Text(about), Text(words.count(abs(gap.count))), _dim(" · ".join(filter(None, notes)))

    def differences(self) -> list[Text]:
        finder = words.Layers(self.report.layers)
        lines: list[Text] = []
        groups = words.by_effect(self.report.differences)
        rows = {effect: [self._difference(d, finder) for d in group] for effect, group in groups}
        every = [row for group in rows.values() for row in group]
        columns = (
            Column(fit=Fit.MIDDLE, least=10),
            Column(fit=Fit.WRAP, least=16),
            Column(fit=Fit.WRAP, least=20),
            Column(fit=Fit.ALL_BELOW),
        )
        laid = iter(Grid(columns=columns, width=self.width, hang=2).blocks(every, self.console))
        for effect, group in groups:
            lines.append(_bold(words.EFFECTS[effect]))
            lines += [line for _ in group for line in next(laid)]
        return lines

    def _difference(self, difference: Difference, finder: words.Layers) -> tuple[Text, Text, Text, Text]:
        values = " | ".join(words.clean(v) or "–" for v in (difference.torch, difference.keras))
        notes = [
            f"→ {words.clean(difference.fix)}" if difference.fix else "",
            f"({words.clean(difference.detail)})" if difference.detail else "",
            "(accepted)" if difference.allowed and difference.changes_function else "",
        ]
        about = words.clean(finder.subject(difference.layers))
        kind = Text(words.clean(difference.kind), style="bold")
        return kind, Text(about), Text(values), Text(" ".join(filter(None, notes)), style="cyan")

    def lost(self) -> list[Text]:
        found = [("Lost for training", line) for line in self.report.lost]
        found += [("Note", line) for line in self.report.notes]
        rows = [
            (_bold(label) if i == 0 or found[i - 1][0] != label else Text(), Text("·"), Text(words.clean(line)))
            for i, (label, line) in enumerate(found)
        ]
        return self.grid((Column(), Column(), Column(fit=Fit.WRAP, least=20)), rows, indent=0)

    def checks(self) -> list[Text]:
        """Each check in one line; of many findings those that fit: the other forms have them all."""
        names = [words.clean(check.name) for check in self.report.checks]
        subjects = [words.count(check.subjects) for check in self.report.checks]
        taken = max(map(cell_len, names), default=0) + max(map(len, subjects), default=0)
        rows = [
            (
                self.mark(words.check_failure(check) is None),
                Text(name),
                Text(number),
                _dim(fitting(words.clean(words.check_words(check)), self.width - taken - 10)),
            )
            for check, name, number in zip(self.report.checks, names, subjects, strict=True)
        ]
        columns = (Column(), Column(fit=Fit.WRAP, least=12), Column(right=True), Column(fit=Fit.WRAP, least=20))
        none = Text.assemble("  ", self.mark(ok=False), "  nothing was checked, which proves nothing")
        return [_bold("Checks"), *(self.grid(columns, rows) or [none])]

    def numbers(self) -> list[Text]:
        rows = [
            (
                self.mark(n.ok) if n.limit is not None or not n.ok else _dim("·"),
                Text(dtype),
                Text(f"max abs {words.error(n.max_abs)}"),
                Text(f"relative {words.error(n.max_rel)}"),
                Text(f"limit {words.limit(n.limit)}" if n.limit is not None else "not judged: rounding"),
            )
            for dtype, n in self.report.numerics.items()
        ]
        columns = (Column(), Column(), Column(), Column(), Column(fit=Fit.WRAP))
        return [_bold("Outputs of the whole model"), *self.grid(columns, rows)] if rows else []

    def layers(self) -> list[Text]:
        few = None if self.all_layers else FEW
        return list(layer_lines(self.report.layers, self.console, width=self.width, mark=self.mark, few=few))

    def facts(self) -> list[Text]:
        rows = [(_bold(label), " · ".join(facts)) for label, facts in self._facts() if facts]
        label_width = max((label.cell_len for label, _ in rows), default=0)
        lines: list[Text] = []
        for label, facts in rows:
            room = self.width - label_width - 2
            parts = [line for part in flow(facts.split(" · "), room) for line in Text(part).wrap(self.console, room)]
            for i, part in enumerate(parts):
                lead = label if i == 0 else Text()
                lines.append(lead + Text(" " * (label_width + 2 - lead.cell_len)) + _stripped(part))
        return lines

    def _facts(self) -> Iterator[tuple[str, list[str]]]:
        report = self.report
        if (artifact := report.artifact) is not None:
            good = "reloaded " + self.mark(artifact.reloaded).plain
            yield (
                "File",
                [
                    words.clean(artifact.path),
                    *([words.size(artifact.size)] if artifact.size is not None else []),
                    *([f"sha256 {artifact.sha256[:12]}"] if artifact.sha256 else []),
                    good if artifact.reloaded else f"not {good}",
                    *([f"relative {words.error(artifact.max_rel)}"] if artifact.max_rel is not None else []),
                    f"{artifact.lambda_layers} Lambda",
                    f"{artifact.custom_layers} custom",
                    words.amount(artifact.transposes, "transpose"),
                    *([words.clean(artifact.error)] if artifact.error else []),
                ],
            )
        if report.timing:
            yield "Time", [f"{words.clean(stage)} {words.seconds(took)}" for stage, took in words.timing(report)]
        versions = [f"{words.clean(name)} {words.clean(version)}" for name, version in report.versions.items()]
        yield "Made with", [*versions, f"seed {report.seed}"]

    def verdict(self) -> list[Text]:
        report = self.report
        style = _VERDICT_STYLE[report.verdict]
        line = Text.assemble((report.verdict.upper(), style), ": ", words.clean(words.sentence(report)))
        return self.wrapped(line)

    def wrapped(self, line: Text) -> list[Text]:
        return [_stripped(part) for part in line.wrap(self.console, self.width)]

    def grid(
        self, columns: tuple[Column, ...], rows: Sequence[Sequence[Text]], *, indent: int = 2, under: int | None = None
    ) -> list[Text]:
        grid = Grid(columns=columns, width=self.width, indent=indent, under=under)
        return [line for block in grid.blocks(rows, self.console) for line in block]


def fitting(text: str, width: int) -> str:
    """As many of the parts between "; " as fit into `width`, at least one; "…" stands for the others."""
    if cell_len(text) <= width:
        return text
    parts = text.split("; ")
    kept = len(parts) - 1
    while kept > 1 and cell_len("; ".join(parts[:kept])) + 3 > width:
        kept -= 1
    return "; ".join(parts[: max(1, kept)]) + ("; …" if len(parts) > 1 else "")


def flow(parts: Iterable[str], width: int, *, joint: str = " · ") -> list[str]:
    """The parts in lines of at most `width` characters, none of them broken; a part that is longer stands alone."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(joint) + len(part) <= width:
            lines[-1] += joint + part
        else:
            lines.append(part)
    return lines


def _stripped(text: Text) -> Text:
    line = text.copy()
    line.rstrip()
    return line


def _bold(text: str) -> Text:
    return Text(text, style="bold")


def _dim(text: str) -> Text:
    return Text(text, style="dim")


def _name(text: str) -> Text:
    return Text(words.clean(text))
