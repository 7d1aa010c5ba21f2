"""Golden files: compared to the letter, written anew with UPDATE_GOLDEN=1."""

from __future__ import annotations

import os
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden"


def must_equal_golden(name: str, got: str) -> None:
    """The text must be what stands in tests/golden/; UPDATE_GOLDEN=1 writes it there instead."""
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(got, encoding="utf-8", newline="\n")
    want = path.read_text(encoding="utf-8")
    assert got == want, f"{name} changed: look at the difference, then UPDATE_GOLDEN=1 if it is right"
