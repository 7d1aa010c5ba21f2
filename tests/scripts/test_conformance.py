"""The ONNX backend tests: a part of them in every run, and that none of it is wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

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
        row(name="d", kind="node", op="Unique", status=conformance.REFUSED, reason="op"),
        row(name="e", kind="node", op="DFT", status=conformance.DOUBLE),
    ]
    text = conformance.table(results)
    assert "| node | 5 | 1 | 1 | 1 | 2 | 0 | 0 | 4 | 75.0 % |" in text
    assert "| `op` | 1 | Unique |" in text


def test_rounding_is_told_from_a_fault() -> None:
    """In float32 a transform of numbers up to 100 is off by 1e-5 where the test allows 1e-7: not so in float64."""
    (case,) = conformance.cases(["node"], "^test_dft$")
    assert conformance.judge(case).status == conformance.DOUBLE
    ((inputs, (want,)),) = case.data
    faulty = replace(case, data=[(inputs, [want + np.float32(1e-3)])])
    assert conformance.judge(faulty).status == conformance.WRONG
