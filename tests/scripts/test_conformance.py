"""The ONNX backend tests: a part of them in every run, and that none of it is wrong."""

from __future__ import annotations

from collections import Counter

from scripts import conformance


def test_exported_models_pass_or_are_refused_by_code() -> None:
    results = [conformance.judge(c) for c in conformance.cases(["pytorch-operator", "simple"])]
    bad = [r for r in results if r.status in (conformance.WRONG, conformance.CRASHED)]
    assert not bad
    assert all(r.reason for r in results if r.status == conformance.REFUSED)
    operator = Counter(r.status for r in results if r.kind == "pytorch-operator")
    assert operator[conformance.PASSED] >= 32, operator


def test_the_table_counts_what_lies_within() -> None:
    row = conformance.Result
    results = [
        row(name="a", kind="node", op="Abs", status=conformance.PASSED),
        row(name="b", kind="node", op="Conv", status=conformance.FIXED),
        row(name="c", kind="node", op="Loop", status=conformance.REFUSED, reason="control-flow"),
        row(name="d", kind="node", op="DFT", status=conformance.REFUSED, reason="op"),
    ]
    text = conformance.table(results)
    assert "| node | 4 | 1 | 1 | 2 | 0 | 0 | 3 | 66.7 % |" in text
    assert "| `op` | 1 | DFT |" in text
