"""A parity report on a terminal: the recipe in both worlds, what differs, the checks, the worst tensors, float32."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from translator.report import words
from translator.report.grid import Column, Fit, Grid
from translator.training.parity_report import ParityReport
from translator.training.trajectory_rows import TensorRow
from translator.verdict import Verdict

FEW = 5
"""How many tensors are shown without `--layers`."""

_STYLE = {Verdict.EQUAL: "bold green", Verdict.EXPLAINED: "bold yellow", Verdict.DIFFERENT: "bold red"}


def render(report: ParityReport, console: Console, *, layers: bool = False) -> None:
    """Print the report to fit the console's width; `layers` shows every tensor, else the worst few."""
    width = max(40, console.width)
    sections = (
        _title(report),
        _recipe(report, width, console),
        _differences(report, width, console),
        _checks(report, width, console),
        _tensors(report, width, console, None if layers else FEW),
        _noise(report, width, console),
        _notes(report, width, console),
        [Text.assemble((report.verdict.upper(), _STYLE[report.verdict]), ": ", sentence(report))],
    )
    for i, section in enumerate(filter(None, sections)):
        if i:
            console.print()
        for line in section:
            console.print(line, soft_wrap=True, highlight=False, markup=False)


def sentence(report: ParityReport) -> str:
    """What the verdict says, in words."""
    steps = words.amount(len(report.steps), "step")
    if report.verdict is Verdict.EQUAL:
        return f"the Keras model trains like the original, {steps} in float64 to a relative {worst(report):.1e}"
    if report.verdict is Verdict.EXPLAINED:
        kinds = ", ".join(dict.fromkeys(d.kind for d in report.differences))
        return f"the same training for {steps} in float64, but for what is named: {kinds}"
    found = list(dict.fromkeys(d.kind for d in report.differences if not d.allowed))
    named = f"; named: {', '.join(found)}" if found else "; no cause was recognised"
    return (f"first at {report.first_wrong}" if report.first_wrong else "a check failed") + named


def worst(report: ParityReport) -> float:
    """The largest relative error of any weight after any step."""
    return max((row.weight for row in report.steps), default=0.0)


def _title(report: ParityReport) -> list[Text]:
    heading = [Text(words.clean(report.title), style="bold"), Text()] if report.title else []
    norm = {"exact": " · PyTorch's BatchNorm", "native": " · Keras' own BatchNorm", "": ""}[report.batchnorm]
    line = f"{report.torch_name}  ↔  {report.keras_name} on {report.backend}{norm}"
    return [
        *heading,
        Text(f"{words.clean(line)} · {len(report.steps)} steps of {report.batch} examples · seed {report.seed}"),
    ]


def _recipe(report: ParityReport, width: int, console: Console) -> list[Text]:
    rows = [
        (
            Text(words.clean(name), style="bold"),
            Text(words.clean(part.torch)),
            Text(words.clean(part.keras)),
            Text(f"({words.clean(part.why)})" if part.why else "", "dim"),
        )
        for name, part in report.recipe.items()
    ]
    wrap = Column(fit=Fit.WRAP, least=16)
    return [Text("Recipe", style="bold"), *_grid((Column(), wrap, wrap, Column(fit=Fit.BELOW)), rows, width, console)]


def _differences(report: ParityReport, width: int, console: Console) -> list[Text]:
    lines = []
    for effect, group in words.by_effect(report.differences):
        lines.append(Text(words.EFFECTS[effect], style="bold"))
        rows = []
        for d in group:
            about = d.layers[0] if len(d.layers) == 1 else words.amount(len(d.layers), "place")
            fix, detail = words.clean(d.fix), words.clean(d.detail)
            notes = [f"→ {fix}" if fix else "", f"({detail})" if detail else "", "(named)" if d.allowed else ""]
            rows.append(
                (
                    Text(d.kind, style="bold"),
                    Text(words.clean(about)),
                    Text(f"{words.clean(d.torch)} | {words.clean(d.keras)}"),
                    Text(" ".join(filter(None, notes)), style="cyan"),
                )
            )
        columns = (
            Column(fit=Fit.MIDDLE, least=10),
            Column(fit=Fit.MIDDLE, least=8),
            Column(fit=Fit.WRAP, least=20),
            Column(fit=Fit.ALL_BELOW),
        )
        lines += _grid(columns, rows, width, console)
    return lines


def _checks(report: ParityReport, width: int, console: Console) -> list[Text]:
    rows = [
        (
            mark(words.check_failure(c) is None),
            Text(c.name),
            Text(words.count(c.subjects)),
            Text(words.clean(words.check_words(c)), style="dim"),
        )
        for c in report.checks
    ]
    columns = (Column(), Column(fit=Fit.WRAP, least=12), Column(right=True), Column(fit=Fit.WRAP, least=20))
    return [Text(f"Checks (float64, limit {report.limit:g})", style="bold"), *_grid(columns, rows, width, console)]


def _tensors(report: ParityReport, width: int, console: Console, few: int | None) -> list[Text]:
    ordered = sorted(report.tensors, key=lambda r: (r.ok(report.limit), -(max(r.weight, r.gradient or 0.0))))
    shown = ordered if few is None else ordered[:few]
    if not shown:
        return []
    head = [Text(t, style="dim") for t in ("", "PyTorch", "Keras", "gradient", "weight", "")]
    rows = [head, *(_tensor(row, report.limit) for row in shown)]
    name = Column(fit=Fit.MIDDLE, least=12)
    columns = (Column(), name, name, Column(right=True), Column(right=True), Column(fit=Fit.WRAP, least=10))
    title = f"Tensors, the worst {len(shown)} of {len(ordered)} (--layers: all)" if few else f"Tensors, {len(ordered)}"
    return [Text(title, style="bold"), *_grid(columns, rows, width, console)]


def _tensor(row: TensorRow, limit: float) -> Sequence[Text]:
    note = words.clean(row.problem) or ("zero but for rounding" if row.noise else "")
    if row.predicted is not None and row.weight > limit:
        note = note or f"as predicted to {words.error(row.predicted)}"
    return (
        mark(row.ok(limit)),
        Text(words.clean(row.torch)),
        Text(words.clean(row.keras or "nothing")),
        Text(words.error(row.gradient)),
        Text(words.error(row.weight)),
        Text(note, style="dim"),
    )


def _noise(report: ParityReport, width: int, console: Console) -> list[Text]:
    if not report.noise:
        return []
    picked = sorted({0, len(report.noise) // 4, len(report.noise) // 2, len(report.noise) - 1})
    heads = ("step", "Keras – PyTorch", "PyTorch – itself", "Keras – float64", "PyTorch – float64")
    rows: list[Sequence[Text]] = [[Text(h, style="dim") for h in heads]]
    for i in picked:
        n = report.noise[i]
        cells = (str(n.step), *(words.error(v) for v in (n.keras, n.noise, n.keras_exact, n.torch_exact)))
        rows.append([Text(cell) for cell in cells])
    title = "Float32: relative distance of all weights (rounding, not judged)"
    return [Text(title, style="bold"), *_grid(tuple(Column(right=True) for _ in heads), rows, width, console)]


def _notes(report: ParityReport, width: int, console: Console) -> list[Text]:
    lines = [*report.notes]
    if report.silenced:
        lines.append(f"switched off on both sides: {', '.join(words.clean(s) for s in report.silenced[:8])}")
    if report.timing:
        lines.append(" · ".join(f"{stage} {words.seconds(took)}" for stage, took in report.timing.items()))
    rows = [(Text("Note" if i == 0 else "", style="bold"), Text(words.clean(line))) for i, line in enumerate(lines)]
    return _grid((Column(), Column(fit=Fit.WRAP, least=20)), rows, width, console, indent=0)


def mark(ok: bool) -> Text:
    """A tick or a cross."""
    return Text("✔", style="green") if ok else Text("✘", style="bold red")


def _grid(
    columns: tuple[Column, ...], rows: Sequence[Sequence[Text]], width: int, console: Console, *, indent: int = 2
) -> list[Text]:
    grid = Grid(columns=columns, width=width, indent=indent, hang=2)
    return [line for block in grid.blocks(rows, console) for line in block]
