"""A parity report as one HTML page that needs nothing else, with its curves: loss, error by step and layer, float32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from translator.report import charts, svg, words
from translator.report.html import MARKS
from translator.training.parity_report import ParityReport
from translator.training.parity_text import sentence

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.axes import Axes

Curve = tuple[str, str, str, Sequence[float | None]]
"""Label, colour, line style, value at each step."""


def to_html(report: ParityReport) -> str:
    """The whole page."""
    environment = _environment()
    return environment.get_template("parity.html.j2").render(
        report=report,
        words=words,
        mark=MARKS[report.verdict],
        sentence=sentence(report),
        style=_page_style(),
        figures=[figure for figure in (_losses(report), _errors(report), _layers(report), _noise(report)) if figure],
        groups=[(words.EFFECTS[effect], effect.value, group) for effect, group in words.by_effect(report.differences)],
    )


def _losses(report: ParityReport) -> tuple[str, str, str, list[str]] | None:
    if not report.steps:
        return None
    curves: list[Curve] = [
        ("PyTorch", svg.TORCH, "-", [row.loss_torch for row in report.steps]),
        ("Keras", svg.KERAS, "--", [row.loss_keras for row in report.steps]),
    ]
    lead = "The loss of each batch, before its step, in float64. Where one curve is seen, the other lies under it."
    return "loss", "Loss", lead, _charts("loss", curves, log=False, label="step")


def _errors(report: ParityReport) -> tuple[str, str, str, list[str]] | None:
    if not report.steps:
        return None
    rows = report.steps
    curves: list[Curve] = [
        ("gradients", svg.TORCH, "-", [row.gradient for row in rows]),
        ("weights", svg.F64, "-", [row.weight for row in rows]),
        ("BatchNorm means", svg.KERAS, "-", [row.statistic for row in rows]),
        ("BatchNorm variances", svg.GAP, "-", [row.variance for row in rows]),
        ("variances against the prediction", svg.MUTED, ":", [row.predicted for row in rows]),
        ("optimizer's state", svg.F32, "--", [row.state for row in rows]),
    ]
    own = [max(row.gradient, row.weight, row.statistic) for row in report.control]
    curves.append(("PyTorch from itself, summed in another order", svg.INK, "--", own or [None]))
    kept = [c for c in curves if any(v is not None for v in c[3])]
    lead = "The largest relative error of any tensor after each step, in float64."
    if report.control:
        lead += (
            " It passes the limit by rounding that grows: PyTorch drifts from itself likewise, and each step agrees"
            " to the limit where it begins with PyTorch's weights."
            if report.exit_status == 0
            else " Beside it how far PyTorch drifts from itself, which does not account for it."
        )
    return "errors", "Error by step", lead, _charts("errors", kept, log=True, label="step", limit=report.limit)


def _layers(report: ParityReport) -> tuple[str, str, str, list[str]] | None:
    rows = [row for row in report.tensors if row.gradient is not None and not row.noise]
    if not rows:
        return None
    curves: list[Curve] = [
        ("gradient", svg.TORCH, "o", [row.gradient for row in rows]),
        ("weight", svg.F64, "o", [row.weight for row in rows]),
    ]
    lead = "Each parameter in the module's order: the largest relative error over all steps, in float64."
    label = "parameter, in the module's order"
    return (
        "gradients",
        "Error by parameter",
        lead,
        _charts("tensors", curves, log=True, label=label, limit=report.limit),
    )


def _noise(report: ParityReport) -> tuple[str, str, str, list[str]] | None:
    if not report.noise:
        return None
    rows = report.noise
    curves: list[Curve] = [
        ("Keras from PyTorch", svg.KERAS, "-", [row.keras for row in rows]),
        ("PyTorch from itself, summed in another order", svg.TORCH, "--", [row.noise for row in rows]),
        ("Keras from float64", svg.F64, ":", [row.keras_exact for row in rows]),
        ("PyTorch from float64", svg.F32, ":", [row.torch_exact for row in rows]),
    ]
    lead = (
        "How far runs in float32 drift apart: ‖difference‖ / ‖weights‖ over all weights. Rounding grows with training "
        "and jumps where an activation falls on the other side of a ReLU; it is shown, not judged."
    )
    return "noise", "Float32", lead, _charts("noise", curves, log=True, label="step")


def _charts(name: str, curves: Sequence[Curve], *, log: bool, label: str, limit: float | None = None) -> list[str]:
    """The chart for a wide and for a narrow screen."""
    return [_chart(name, curves, width, log=log, label=label, limit=limit) for width in (charts.WIDE, charts.NARROW)]


def _chart(name: str, curves: Sequence[Curve], width: int, *, log: bool, label: str, limit: float | None = None) -> str:
    values = [v for _, _, _, series in curves for v in series if v is not None]
    scale = charts.Scale.of([*values, *([limit] if limit else [])]) if log else None
    height, legend = 300, 20 * len(curves) if width <= charts.NARROW else 22
    with svg.canvas(width, height + legend, salt=f"{name}{width}") as drawing:
        axes = drawing.axes((58, 10, width - 70, height - 56), bottom=42 + legend)
        for text, colour, line, series in curves:
            points = [math.nan if v is None else scale.at(v) if scale else v for v in series]
            steps = range(1, len(points) + 1)
            if line == "o":
                axes.plot(steps, points, color=colour, lw=0, marker="o", ms=4, label=text)
            else:
                axes.plot(steps, points, color=colour, lw=2, ls=line, label=text)
        if scale:
            _log_axis(axes, scale, limit)
        else:
            axes.yaxis.set_major_formatter(lambda value, _: _label(value))
        axes.set_xlabel(label, color=svg.MUTED, fontsize=12)
        svg.bare(axes, keep=("bottom",))
        axes.grid(axis="y", color=svg.GRID, lw=1)
        columns = 1 if width <= charts.NARROW else len(curves)
        drawing.figure.legend(
            loc="lower left", ncols=columns, frameon=False, fontsize=11, labelcolor=svg.INK, bbox_to_anchor=(0.02, 0.0)
        )
        return drawing.text(f"{name}: {', '.join(text for text, *_ in curves)} against {label}.")


def _label(value: float) -> str:
    """A number with all its digits: the page's SVG cuts what looks like a coordinate to one decimal place."""
    whole, dot, decimals = f"{value:.4g}".partition(".")
    return whole + dot + "\u2060".join(decimals)


def _log_axis(axes: Axes, scale: charts.Scale, limit: float | None) -> None:
    ticks = list(scale.ticks(7))
    axes.set_yticks([at for at, _ in ticks], [label for _, label in ticks])
    axes.set_ylim(scale.low - 0.3 - scale.gap * scale.zero, scale.high + 0.3 + scale.gap * scale.wild)
    if limit:
        axes.axhline(scale.at(limit), color=svg.BAD, lw=1.2, dashes=(5, 3))
        axes.annotate(
            f"limit {words.limit(limit)}",
            (1, scale.at(limit)),
            (0, 3),
            color=svg.BAD,
            fontsize=11,
            ha="right",
            va="bottom",
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
        )


def _page_style() -> str:
    """The style sheet of the proof's page: both are one family."""
    from importlib.resources import files

    return (files("translator.report") / "page" / "page.css").read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("translator.training", "page"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: words.clean(value) if type(value) is str else value,
    )
