"""Users' files for the tests of SOURCE and KERAS arguments."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.unit.sources import NETWORK


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "net.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write


@pytest.fixture
def network(write) -> str:
    return write(NETWORK)
