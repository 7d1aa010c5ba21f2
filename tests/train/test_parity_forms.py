"""A parity report in every form: the same verdict everywhere, and neither names nor numbers can break it."""

from __future__ import annotations

import io
import json
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from rich.console import Console

from translator.errors import InputError
from translator.training.parity_forms import FORMS, write_parity
from translator.training.parity_report import ParityReport, Part, dumps, from_json
from translator.training.parity_text import render, sentence
from translator.training.trajectory_rows import ControlRow, NoiseRow, StepRow, TensorRow
from translator.verdict import Check, Difference, Effect, Verdict

HOSTILE = '</script><b>&"\x1b[31m\u202ex'


def step(number, **changed):
    row = {
        "step": number, "loss_torch": 2.3 - number / 10, "loss_keras": 2.3 - number / 10, "gradient": 1e-14,
        "weight": 3e-15, "statistic": 2e-15, "variance": 1e-4, "predicted": 1e-15, "state": 1e-14,
    }  # fmt: skip
    return StepRow(**{**row, **changed})


def noise(number):
    return NoiseRow(
        step=number, keras=1e-7 * number, noise=2e-7 * number, keras_exact=1e-7, torch_exact=1e-7,
        loss_torch=2.0, loss_keras=2.0, loss_again=2.0,
    )  # fmt: skip


EQUAL = ParityReport(
    title="net.py:Net",
    torch_name="Net",
    keras_name="net",
    backend="tensorflow",
    recipe={
        "loss": Part(torch="CrossEntropyLoss", keras="keras.losses.SparseCategoricalCrossentropy", native=True),
        "optimizer": Part(torch="Adam(lr=0.001)", keras="registered.TorchAdam", native=False, why="epsilon"),
    },
    batchnorm="native",
    batch=8,
    seed=0,
    limit=1e-8,
    checks=(Check(name="losses", ok=True, subjects=3, detail="largest relative error 1e-15"),),
    steps=(step(1), step(2), step(3)),
    tensors=(
        TensorRow(torch="conv.weight", keras="conv/kernel", kind="parameter", gradient=1e-14, weight=1e-15, steps=3),
        TensorRow(torch="bn.running_var", keras="bn/var", kind="variance", weight=1e-4, predicted=1e-15, steps=3),
    ),
    noise=(noise(1), noise(2), noise(3)),
    silenced=("drop",),
    notes=("a note",),
    timing={"training in float64": 1.5},
    versions={"torch": "2", "keras": "3"},
)
FOUND = Difference(
    kind="optimizer-epsilon", layers=("optimizer",), torch="epsilon=1e-08", keras="epsilon=1e-07",
    effect=Effect.TRAINING, fix="use TorchAdam(epsilon=1e-08)",
)  # fmt: skip
DIFFERENT = replace(EQUAL, differences=(FOUND,), first_wrong="step 2, weight of conv.weight (relative 1e-3)")
EXPLAINED = replace(EQUAL, differences=(replace(FOUND, kind="batchnorm-variance", allowed=True),))
GROWN = replace(
    EXPLAINED,
    differences=(replace(FOUND, kind="rounding-growth", effect=Effect.NOTHING, allowed=True),),
    steps=(step(1), step(2, gradient=1e-10), step(3, gradient=1e-6)),
    control=tuple(
        ControlRow(step=i + 1, loss=0.0, gradient=error, weight=1e-15, statistic=0.0, state=0.0)
        for i, error in enumerate((1e-14, 2e-10, 3e-7))
    ),
)
OUTGROWN = replace(GROWN, differences=(), checks=(Check(name="drift", ok=False, subjects=3),))
WILD = replace(
    EQUAL,
    title=HOSTILE,
    torch_name=HOSTILE,
    notes=(HOSTILE,),
    differences=(replace(FOUND, kind="function", torch=HOSTILE, fix=HOSTILE),),
    steps=(step(1), step(2, loss_keras=math.nan, weight=math.inf, gradient=math.nan), step(3, loss_keras=-math.inf)),
    tensors=(TensorRow(torch=HOSTILE, keras="", kind="parameter", gradient=math.inf, problem=HOSTILE, steps=1),),
    noise=(),
)
EMPTY = replace(EQUAL, checks=(), steps=(), tensors=(), noise=(), recipe={})
ALL = [EQUAL, EXPLAINED, DIFFERENT, GROWN, WILD, EMPTY]


PAGES = {}


def page_of(report):
    """Charts take a second: each page is made once."""
    if id(report) not in PAGES:
        PAGES[id(report)] = FORMS[".html"](report)
    return PAGES[id(report)]


def text(report, width=110):
    target = io.StringIO()
    render(report, Console(file=target, width=width, color_system=None), layers=True)
    return target.getvalue()


@pytest.mark.parametrize(
    ("report", "verdict", "status"),
    [(EQUAL, "equal", 0), (EXPLAINED, "explained", 0), (DIFFERENT, "different", 1), (EMPTY, "different", 1)],
)
def test_every_form_tells_the_same_verdict(report, verdict, status):
    assert (report.verdict, report.exit_status) == (verdict, status)
    assert f"{verdict.upper()}: {sentence(report)}" in text(report)
    assert json.loads(FORMS[".json"](report))["verdict"] == verdict
    assert f'id="verdict">{verdict.upper()}<' in page_of(report)
    assert FORMS[".md"](report).startswith(f"## {verdict.upper()}: ")
    failures = ET.fromstring(FORMS[".xml"](report)).findall(".//failure")
    assert bool(failures) == (report.verdict is Verdict.DIFFERENT)


@pytest.mark.parametrize("report", ALL)
@pytest.mark.parametrize("width", [80, 120, 200])
def test_text_fits_the_screen_and_holds_no_control_characters(report, width):
    lines = text(report, width).splitlines()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e]", "\n".join(lines))
    tables = [line for line in lines[:-1] if line.startswith("  ")]
    assert max(map(len, tables), default=0) <= width


@pytest.mark.parametrize("report", ALL)
def test_a_report_comes_back_from_json_as_it_was(report):
    if report is WILD:
        assert dumps(from_json(json.loads(dumps(report)))) == dumps(report)
    else:
        assert from_json(json.loads(dumps(report))) == report


@pytest.mark.parametrize("report", ALL)
def test_the_page_needs_nothing_else_and_shows_names_as_text(report):
    page = page_of(report)
    assert "<b>&" not in page.replace("&amp;", "")
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", page)
    assert "<script" not in page
    assert page.count("<figure>") == sum(bool(part) for part in (report.steps, report.steps, report.noise)) + bool(
        [row for row in report.tensors if row.gradient is not None and not row.noise]
    )


@pytest.mark.parametrize(
    ("report", "says"),
    [
        (GROWN, "It passes the limit by rounding that grows"),
        (OUTGROWN, "which does not account for it"),
        (EQUAL, None),
    ],
)
def test_the_page_shows_pytorchs_own_drift_where_it_was_measured(report, says):
    page = page_of(report)
    assert ("PyTorch from itself, summed in another order against step" in page) == (says is not None)
    assert says is None or says in page


def test_a_file_is_written_in_the_form_of_its_suffix(tmp_path):
    for suffix in FORMS:
        write_parity(EXPLAINED, tmp_path / f"report{suffix}")
    assert len(list(tmp_path.iterdir())) == 4
    with pytest.raises(InputError, match=r"report\.pdf"):
        write_parity(EXPLAINED, tmp_path / "report.pdf")


def test_a_damaged_report_is_refused():
    whole = json.loads(dumps(EQUAL))
    for damage in ({"steps": [{"step": 1}]}, {"checks": 3}, {"version": 9}):
        with pytest.raises(InputError, match="parity report"):
            from_json({**whole, **damage})


BROKEN = """
import sys
sys.argv = ["translator", "parity", "net.py:Net", "--layers"]
import translator.training.parity as parity
from translator.training.parity_report import from_json
import json
parity.run_parity = lambda request, on_progress=None: from_json(json.load(open(%r)))
from translator.cli import main
main()
"""


@pytest.mark.parametrize(("report", "status"), [(EXPLAINED, 0), (DIFFERENT, 1)])
def test_a_reader_that_leaves_changes_no_status(report, status, tmp_path):
    many = replace(report, tensors=report.tensors * 3000)
    (tmp_path / "report.json").write_text(dumps(many), encoding="utf-8")
    (tmp_path / "run.py").write_text(BROKEN % str(tmp_path / "report.json"))
    command = f"{sys.executable} {tmp_path}/run.py | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (status, "")
