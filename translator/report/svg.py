"""A matplotlib figure as part of an HTML page: its font and colours are the page's, so that dark mode works."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, TORCH, KERAS, GAP, BAD, F32, F64 = (f"#00010{i}" for i in range(9))
_VARIABLES = dict(
    zip(
        (INK, MUTED, GRID, TORCH, KERAS, GAP, BAD, F32, F64),
        ("ink", "muted", "grid", "torch", "keras", "gap", "bad", "f32", "f64"),
        strict=True,
    )
)
"""Colours that stand for the variables of the page's style sheet: `#000100` becomes `var(--ink)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A figure of `width` × `height` CSS pixels."""

    figure: Figure
    width: int
    height: int
    salt: str

    def axes(self, box: Sequence[float], *, bottom: float) -> Axes:
        """Axes at (left, top, width, height) pixels, `bottom` pixels above the lower edge."""
        left, _, width, height = box
        shape = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(shape)
        axes.set_axisbelow(True)
        axes.patch.set_visible(False)
        axes.tick_params(length=0, labelsize=12, labelcolor=MUTED)
        return axes

    def frame(self, axes: Axes, *, first: float, last: float) -> dict[str, str]:
        """Where the first and the last x stand, in pixels, for the page's script."""
        (x0, y0), (x1, _) = axes.transData.transform([(first, axes.get_ylim()[0]), (last, axes.get_ylim()[0])])
        top = axes.transAxes.transform((0, 1))[1]
        return {
            "x0": f"{x0:.1f}",
            "x1": f"{x1:.1f}",
            "top": f"{self.height - top:.1f}",
            "bottom": f"{self.height - y0:.1f}",
        }

    def text(self, description: str, data: Mapping[str, str] | None = None) -> str:
        """The figure as an `<svg>` element that says in words what it shows."""
        target = io.StringIO()
        with warnings.catch_warnings():
            # Letters that matplotlib's own font lacks: the reader's browser draws them.
            warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
            self.figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
        attributes = "".join(f' data-{name}="{escape(value)}"' for name, value in (data or {}).items())
        head = (
            f'<svg class="chart" viewBox="0 0 {self.width} {self.height}" role="img"'
            f' aria-label="{escape(description)}" xmlns="http://www.w3.org/2000/svg"'
            f' xmlns:xlink="http://www.w3.org/1999/xlink"{attributes}>'
        )
        return head + _inline(target.getvalue(), self.salt)


@contextmanager
def canvas(width: int, height: int, *, salt: str) -> Iterator[Drawing]:
    """A drawing under settings of its own: nothing of matplotlib's global state is changed or trusted."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": salt, "path.simplify": False})
        yield Drawing(figure=Figure(figsize=(width / 72, height / 72), dpi=72), width=width, height=height, salt=salt)


def bare(axes: Axes, *, keep: Sequence[str]) -> None:
    """Take the frame away but for these sides."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in keep)
        spine.set_color(GRID)


def _inline(text: str, salt: str) -> str:
    """matplotlib's file without its head and style sheet; ids made the figure's own, numbers to a tenth of a pixel."""
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{salt}-', body)
    body = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{salt}-", body)
    body = re.sub(r"font-family: [^;\"]+;?|font: (\d+px) [^;\"]+", "", body)
    body = re.sub(r"(\d\.\d)\d+", r"\1", body)
    body = re.sub(r" transform=\"rotate\(-0 [^)]*\)\"", "", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    return re.sub(r"\s*\n\s*", " ", body).strip()
