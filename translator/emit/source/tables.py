"""Arrays of many numbers stand once, at the top of the file, in lines as long as others are."""

from __future__ import annotations

import re
import textwrap

from translator.emit.source.names import free
from translator.emit.source.render import INDENT

_MANY = 32
"""Numbers from which on an array isn't written where it is used: ruff would give each a line of its own."""
_ARRAY = re.compile(r'np\.array\((\[[^()"]*\]), dtype="(\w+)"\)')
_WIDTH = 88


def lifted(body: str) -> tuple[tuple[str, ...], str]:
    """The definitions of a text's long arrays, and the text with their names in it."""
    taken = set(re.findall(r"\w+", body))
    names: dict[str, str] = {}

    def name(found: re.Match[str]) -> str:
        text = found[0]
        if text.count(",") < _MANY:
            return text
        if text not in names:
            names[text] = free("TABLE", taken)
            taken.add(names[text])
        return names[text]

    changed = _ARRAY.sub(name, body)
    if not names:
        return (), body
    lines = ["# Constants of the PyTorch model.", "# fmt: off"]
    lines += [line for text, constant in names.items() for line in _definition(constant, text)]
    return (*lines, "# fmt: on"), changed


def _definition(name: str, text: str) -> list[str]:
    found = _ARRAY.fullmatch(text)
    values, dtype = (found[1], found[2]) if found else ("", "")
    rows = values[1:-1].replace("], [", "],\n[").split("\n")
    width = _WIDTH - len(INDENT)
    wrapped = [INDENT + line for row in rows for line in textwrap.wrap(row, width, break_on_hyphens=False)]
    return [f"{name} = np.array([", *wrapped, f'], dtype="{dtype}")']
