"""The measuring of written source: what counts as a fault, and the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scripts import bench_source as bench


def row(style: str, status: str = "proven", **more: Any) -> dict[str, Any]:
    found = {"spec": "torchvision:resnet50@2,3,64,64", "style": style, "status": status, "lines": 60}
    return {**found, "ruff": [], "needs": [], "verdict": "explained", "parameters": 25_557_032, **more}


def test_a_good_file_has_no_fault_and_each_bad_one_has_its_own() -> None:
    assert bench.faults(row("functional", backends={"jax": ""})) == []
    assert bench.faults(row("functional", lines=121)) == ["121 lines, not 120"]
    assert bench.faults(row("subclass", ruff=["F401"])) == ["ruff"]
    assert bench.faults(row("subclass", needs=["torch"])) == ["needs torch"]
    assert bench.faults(row("subclass", backends={"jax": "computes something else"})) == [
        "jax: computes something else"
    ]
    assert bench.faults(row("functional", "wrong")) == ["wrong"]


def test_only_the_sequential_style_may_be_refused() -> None:
    assert bench.faults(row("sequential", "refused")) == []
    assert bench.faults(row("functional", "refused")) == ["refused"]


def test_the_table_has_a_line_for_each_network() -> None:
    ok = {"tensorflow": "", "jax": "", "torch": ""}
    rows = [
        row("functional", error_f64=3e-15, backends=ok),
        row("subclass", "judged", lines=97, backends=ok),
        row("sequential", "refused"),
    ]
    del rows[1]["verdict"], rows[2]["lines"]
    last = bench.markdown(rows).splitlines()[-1]
    assert last == (
        "| `torchvision:resnet50@2,3,64,64` | 60 | 97 | – | 25,557,032 | explained | 3e-15 | tensorflow, jax, torch |"
    )


def test_the_form_of_a_file_is_what_ruff_and_its_imports_say(tmp_path: Path) -> None:
    path = tmp_path / "written.py"
    path.write_text('"""A header."""\n\nimport keras\nimport torch\n\nx = [keras, torch]\n')
    assert bench.form(path) == {"lines": 4, "ruff": [], "needs": ["torch"]}
    path.write_text('"""A header."""\n\nimport keras\n')
    assert "F401" in bench.form(path)["ruff"][0]
