"""docs/adding-an-op.md is true: its code runs as it stands, and a package's entry point is loaded."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import translator
from translator.errors import InternalError
from translator.graph.view import NodeView
from translator.layout.kinds import KINDS
from translator.plan import registry
from translator.plan.calls import Ref
from translator.plan.context import PlanContext

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "adding-an-op.md"
OP = "mylib::Snake"


@pytest.fixture
def forgotten():
    """Take the example's rule and layout out again."""
    yield
    registry._RULES.pop(OP, None)
    registry._RULES.pop("mylib::Other", None)
    KINDS.pop(OP, None)


def test_the_worked_example_runs_and_is_proven(forgotten: None, tmp_path: Path, monkeypatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    path = tmp_path / "worked_example.py"
    path.write_text("\n".join(blocks), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("worked_example")
    assert OP in registry.load_rules()


def test_an_installed_package_brings_rules(forgotten: None, tmp_path: Path, monkeypatch) -> None:
    info = tmp_path / "mylib-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mylib\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[translator.rules]\nmylib = mylib_rules\n")
    (tmp_path / "mylib_rules.py").write_text(
        "from translator.plan.registry import rule\n\n@rule('mylib::Other')\ndef other(node, ctx):\n    'Plan.'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "mylib::Other" in registry.load_rules()
    sys.modules.pop("mylib_rules", None)


def test_a_rule_whose_call_gives_no_tensor_is_told(monkeypatch) -> None:
    def lengths(node: NodeView, context: PlanContext) -> Ref:
        return context.op(node, "shape", context.arg(node))

    known = registry.load_rules()["HardSwish"]
    monkeypatch.setitem(registry._RULES, "HardSwish", replace(known, function=lengths))
    with pytest.raises(InternalError, match="gives no value of the graph"):
        translator.convert(torch.nn.Hardswish().eval(), torch.randn(2, 3))
