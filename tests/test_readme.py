"""Each code block of the README and of docs/ runs, and what is shown as its output is its output.

`sh` and `python` blocks run in order in a checkout of their own; a `text` block behind one shows what it printed. In it
a line "…" stands for any lines; errors, seconds, hashes, widths and accuracies above 95 % may differ. `<!-- exit 1 -->`
before a block names its exit status, `<!-- not run: why -->` leaves it out, `<!-- continued -->` runs a python block
behind those before it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest

from tests.clones import ROOT, make_clone

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^(?:<!-- (?P<note>.*?) -->\n)?```(?P<language>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    language: str
    body: str
    line: int
    status: int
    shown: str | None


def blocks(text: str) -> Iterator[Block]:
    """The blocks that run, each with the output shown right behind it."""
    found = list(BLOCK.finditer(text))
    python = ""
    for block, behind in zip_longest(found, found[1:]):
        note = block["note"] or ""
        if block["language"] not in ("sh", "python") or note.startswith("not run: "):
            continue
        is_output = (
            behind is not None and behind["language"] == "text" and len(text[block.end() : behind.start()]) < 200
        )
        status = int(note.removeprefix("exit ")) if note.startswith("exit ") else 0
        line = text.count("\n", 0, block.start()) + 1
        shown = behind["body"] if is_output else None
        body = block["body"]
        if block["language"] == "python":
            body = python = f"{python}\n{body}" if note == "continued" else body
        yield Block(language=block["language"], body=body, line=line, status=status, shown=shown)


def normal(text: str) -> list[str]:
    """Lines without what differs from run to run and from machine to machine."""
    for pattern, put in (
        (r"\x1b\[[0-9;]*m", ""),
        (r"\b\d(\.\d+)?e-\d+\b", "<error>"),
        (r"\b[0-9a-f]{12,64}\b", "<hash>"),
        (r"\b\d+(\.\d+)? ?(s|ms|MB|kB)\b", "<amount>"),
        (r"\b(9[5-9]\.\d\d|100\.00)% \(\d+ of (\d+) images\)", r"<above 95 %> (\2 images)"),
        (r"[─━═]+", "─"),
        (r"[ \t]+", " "),
    ):
        text = re.sub(pattern, put, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def missing(shown: str, printed: str) -> str:
    """The first part of `shown` (between two "…") that `printed` does not have, in its place; "" if it has them all."""
    rest = normal(printed)
    for part in re.split(r"^\s*…\s*$", shown, flags=re.MULTILINE):
        lines = normal(part)
        places = (at for at in range(len(rest) - len(lines) + 1) if rest[at : at + len(lines)] == lines)
        at = next(places, None)
        if at is None:
            return "\n".join(lines)
        rest = rest[at + len(lines) :]
    return ""


RUNNABLE = [document for document in DOCUMENTS if any(blocks(document.read_text()))]


@pytest.mark.model
@pytest.mark.parametrize("document", RUNNABLE, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_code_block_runs_and_prints_what_is_shown(document: Path, tmp_path: Path) -> None:
    root = make_clone(tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "100", "TF_CPP_MIN_LOG_LEVEL": "3", "NO_COLOR": "1"}
    for block in blocks(document.read_text()):
        command = ["sh", "-eu", "-c", block.body] if block.language == "sh" else [sys.executable, "-c", block.body]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
        place = f"{document.name}, line {block.line}:\n{done.stdout}\n{done.stderr}"
        assert done.returncode == block.status, place
        if block.shown is not None:
            assert missing(block.shown, done.stdout) == "", place


def test_a_block_that_fails_or_prints_something_else_is_noticed() -> None:
    text = "```sh\nfalse\n```\n\nprints:\n\n```text\na 1.2e-07\n…\nz\n```\n<!-- exit 2 -->\n```python\nexit(2)\n```\n"
    first, second = blocks(text)
    assert (first.status, second.status) == (0, 2)
    assert missing(first.shown, "a 3.4e-06\nb\nc\nz\n") == ""
    assert missing(first.shown, "a 3.4e-06\nb\n") == "z"
    assert missing(first.shown, "b\nz\n") == "a <error>"
    assert second.shown is None
    accuracy = "test accuracy {} of 360 images) → resnet.ckpt"
    assert missing(accuracy.format("99.17% (357"), accuracy.format("95.56% (344")) == ""
    assert missing(accuracy.format("99.17% (357"), accuracy.format("94.72% (341")) != ""
    assert list(blocks("<!-- not run: needs a GPU -->\n```sh\nfalse\n```\n")) == []


def test_each_local_link_of_the_documents_leads_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
