"""The two charts of the report page as SVG text: the balance as a waterfall, and error against depth.

Drawn by matplotlib, once for a wide and once for a narrow screen; `svg.inline` makes them part of the page.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from translator.report import svg, words
from translator.verdict import Balance, LayerRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE, NARROW = 1140, 340
"""Widths in CSS pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One kind of error: its name in the page, its label, which number it is, and how it is drawn."""

    name: str
    label: str
    value: Callable[[LayerRow], float | None]
    colour: str
    line: bool


SERIES = (
    Series(
        name="chain-f32", label="float32, in the whole model", value=lambda r: r.chain_f32, colour=svg.F32, line=True
    ),
    Series(
        name="chain-f64", label="float64, in the whole model", value=lambda r: r.chain_f64, colour=svg.F64, line=True
    ),
    Series(name="alone-f32", label="float32, layer alone", value=lambda r: r.error_f32, colour=svg.F32, line=False),
    Series(name="alone-f64", label="float64, layer alone", value=lambda r: r.error_f64, colour=svg.F64, line=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One bar of the waterfall, from `start` to `stop`; `change` is its number where it is not a total."""

    label: str
    start: int
    stop: int
    change: int | None
    colour: str

    @property
    def amount(self) -> str:
        """The number beside it: `195,738`, or a change with its sign."""
        if self.change is None:
            return words.count(self.stop)
        return f"{self.change:+,}".replace("-", "−")


def steps(balance: Balance) -> list[Step]:
    """The bars: PyTorch's total, each gap, what is unexplained (if anything), Keras' total."""
    at = balance.torch_total
    found = [Step(label="PyTorch parameters", start=0, stop=at, change=None, colour=svg.TORCH)]
    named = [(gap.reason, gap.count, svg.GAP) for gap in balance.gaps]
    if balance.unexplained:
        named.append(("unexplained", balance.unexplained, svg.BAD))
    for reason, change, colour in named:
        found.append(Step(label=words.clean(reason), start=at, stop=at + change, change=change, colour=colour))
        at += change
    return [*found, Step(label="Keras parameters", start=0, stop=at, change=None, colour=svg.KERAS)]


def axis_start(balance: Balance) -> int:
    """Where the waterfall's axis starts: a quarter of the whole change below the least total, never below 0."""
    totals = [bar.stop for bar in steps(balance)]
    least, most = min(totals), max(totals)
    return max(0, least - max(1, (most - least) // 4))


def waterfall(balance: Balance, width: int) -> str:
    """The balance from PyTorch's total down to Keras'. The axis starts near the totals, or no gap could be seen."""
    bars = steps(balance)
    left = axis_start(balance)
    most = max(left + 1, *(bar.stop for bar in bars))
    columns = (width - 24) // 8
    labels = [textwrap.shorten(bar.label, columns - len(bar.amount) - 2, placeholder=" …") for bar in bars]
    row, bottom = 44, 34

    with svg.canvas(width, row * len(bars) + bottom, salt=f"waterfall{width}") as drawing:
        axes = drawing.axes((8, 0, width - 16, row * len(bars)), bottom=bottom)
        right = most + (most - left) * (9 * max(len(bar.amount) for bar in bars) + 12) / width
        axes.set_xlim(left, right)
        axes.set_ylim(len(bars), 0)
        for i, (bar, label) in enumerate(zip(bars, labels, strict=True)):
            start = left if bar.change is None else bar.start
            axes.barh(i + 0.68, bar.stop - start, left=start, height=0.36, color=bar.colour, edgecolor=bar.colour, lw=1)
            bold = "bold" if bar.change is None else "normal"
            axes.text(left, i + 0.38, label, color=svg.INK, fontsize=13, weight=bold, parse_math=False)
            axes.text(right, i + 0.38, bar.amount, color=svg.INK, fontsize=13, weight=bold, ha="right")
            if i + 1 < len(bars):
                axes.plot([bar.stop, bar.stop], [i + 0.86, i + 1.5], color=svg.MUTED, lw=1, dashes=(2, 2))
        _count_axis(axes, width)
        return drawing.text(
            f"Waterfall chart: {bars[0].amount} PyTorch parameters; "
            + "".join(f"{bar.amount} {bar.label}; " for bar in bars[1:-1])
            + f"{bars[-1].amount} Keras parameters. The axis starts at {left:,.0f}."
        )


def _count_axis(axes: Axes, width: int) -> None:
    """Round numbers under the bars, only those whose label fits between the edges."""
    from matplotlib.ticker import MaxNLocator

    left, right = axes.get_xlim()
    ticks = MaxNLocator(3 if width <= NARROW else 6, integer=True).tick_values(left, right)
    labels = {float(tick): f"{tick:,.0f}" for tick in ticks}
    half = {tick: 3.6 * len(label) * (right - left) / width for tick, label in labels.items()}
    shown = [tick for tick in labels if left + half[tick] <= tick <= right - half[tick]]
    axes.set_xticks(shown, [labels[tick] for tick in shown])
    axes.yaxis.set_visible(False)
    svg.bare(axes, keep=("bottom",))
    axes.grid(axis="x", color=svg.GRID, lw=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Where an error stands on the log axis: decades, a place below them for 0 and one above for what isn't finite."""

    low: int
    high: int
    zero: bool
    wild: bool

    @staticmethod
    def of(values: Sequence[float]) -> Scale:
        """The scale that holds all these values."""
        logs = [math.log10(v) for v in values if math.isfinite(v) and v > 0] or [-16.0]
        return Scale(
            low=math.floor(min(logs)),
            high=max(math.ceil(max(logs)), math.floor(min(logs)) + 1),
            zero=any(v == 0 for v in values),
            wild=any(not math.isfinite(v) for v in values),
        )

    @property
    def gap(self) -> float:
        """How far 0 and NaN stand from the decades."""
        return 0.12 * (self.high - self.low) + 0.2

    def at(self, value: float | None) -> float:
        """Its height; NaN, which is not drawn, for None."""
        if value is None:
            return math.nan
        if not math.isfinite(value):
            return self.high + self.gap
        return math.log10(value) if value > 0 else self.low - self.gap

    def ticks(self, most: int) -> Iterator[tuple[float, str]]:
        """Heights and their labels, at most so many decades."""
        if self.zero:
            yield self.at(0.0), "0"
        step = max(1, math.ceil((self.high - self.low) / most))
        for decade in range(self.low, self.high + 1, step):
            yield float(decade), f"1e{decade:+03d}" if decade else "1"
        if self.wild:
            yield self.at(math.nan), "NaN"


def errors(rows: Sequence[LayerRow], limit: float | None, width: int) -> str:
    """Relative error of each layer, in order of execution: alone as dots, along the chain as lines; wrong ones ringed.

    Empty where nothing was compared.
    """
    found = [value for series in SERIES for row in rows if (value := series.value(row)) is not None]
    if not found:
        return ""
    scale = Scale.of([*found, *([limit] if limit else [])])
    height = 340 if width > NARROW else 280
    with svg.canvas(width, height, salt=f"errors{width}") as drawing:
        axes = drawing.axes((52, 10, width - 64, height - 52), bottom=42)
        wrong = [(i, worst) for i, row in enumerate(rows) if not row.ok and (worst := words.worst(row)) is not None]
        _dots(axes, [(i, scale.at(value)) for i, value in wrong], svg.BAD, 9, "wrong", alpha=0.45)
        for series in SERIES:
            points = [(i, scale.at(series.value(row))) for i, row in enumerate(rows)]
            if series.line:
                axes.plot(*zip(*points, strict=True), color=series.colour, lw=1.6, gid=series.name, alpha=0.75)
            else:
                _dots(axes, points, series.colour, 4.5 if len(rows) <= 300 else 3, series.name)
        if limit:
            axes.axhline(scale.at(limit), color=svg.BAD, lw=1.2, dashes=(5, 3))
            label = f"limit {words.limit(limit)} (float64)"
            axes.annotate(label, (1, scale.at(limit)), (0, 3), color=svg.BAD, fontsize=11, ha="right", va="bottom",
                          xycoords=("axes fraction", "data"), textcoords="offset points")  # fmt: skip
        _error_axis(axes, scale, len(rows), narrow=width <= NARROW)
        frame = drawing.frame(axes, first=0, last=max(1, len(rows) - 1))
        return drawing.text(
            f"Relative error of {len(rows):,} layers in order of execution, on a logarithmic axis; "
            f"{len(wrong):,} wrong. The same numbers stand in the table of layers.",
            data=frame,
        )


def _dots(
    axes: Axes, points: Sequence[tuple[int, float]], colour: str, size: float, name: str, alpha: float = 1
) -> None:
    """Dots as one path: each a stroke of no length with a round end, a fraction of the size of a marker each."""
    drawn = [(x, y) for x, y in points if not math.isnan(y)]
    path = [point for x, y in drawn for point in ((x, y), (x, y), (math.nan, math.nan))]
    xs, ys = [x for x, _ in path], [y for _, y in path]
    axes.plot(xs, ys, color=colour, lw=size, solid_capstyle="round", gid=name, alpha=alpha)


def _error_axis(axes: Axes, scale: Scale, layers: int, *, narrow: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    ticks = list(scale.ticks(5 if narrow else 8))
    axes.set_yticks([at for at, _ in ticks], [label for _, label in ticks])
    axes.set_ylim(scale.low - 0.3 - scale.gap * scale.zero, scale.high + 0.3 + scale.gap * scale.wild)
    axes.set_xlim(-0.5 - layers * 0.01, layers - 0.5 + layers * 0.01)
    axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 8, integer=True))
    axes.set_xlabel("layer, in order of execution", color=svg.MUTED, fontsize=12)
    svg.bare(axes, keep=("bottom",))
    axes.grid(axis="y", color=svg.GRID, lw=1)
